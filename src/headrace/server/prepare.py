"""A data directory made ready: schema and first admin key. A process of its own, so that it costs no memory later."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
from sqlalchemy.exc import DatabaseError

from headrace.control.commands import create_key
from headrace.resources.access import EVERY_PROJECT, Role, secret_hash
from headrace.resources.errors import DatabaseAway, DatabaseCorrupt
from headrace.resources.files import write_private
from headrace.resources.layout import Layout
from headrace.resources.operations import ApiKey
from headrace.server.database import url_of
from headrace.server.errand import ended
from headrace.store import Store, migrate


def prepare(layout: Layout, url: str, tls_url: str = "") -> None:
    """Bring the schema up to date and see that ``login.json`` holds a good admin key and this server's addresses."""
    database = url_of(layout)
    try:
        migrate(database)
        store = Store(database)
        try:
            secret = _known_secret(store, layout) or _new_secret(store)
        finally:
            store.close()
    except DatabaseError as error:
        if not database.startswith("sqlite"):
            raise DatabaseAway(
                "The database cannot be used.",
                evidence=str(error.orig or error).strip(),
                fix="Look at the address, the user's rights (CREATE on the schema) and PostgreSQL's log.",
            ) from error
        raise DatabaseCorrupt(
            f"{layout.database} cannot be used.",
            evidence=str(error.orig or error),
            fix="Put a backup in its place, or move it aside to start anew.",
        ) from error
    addresses = {"url": url, "tls_url": tls_url} if tls_url else {"url": url}
    write_private(layout.local_login, msgspec.json.encode(addresses | {"key": secret}))


def _known_secret(store: Store, layout: Layout) -> str | None:
    """The key of an earlier start, unless it was revoked since."""
    try:
        secret = str(msgspec.json.decode(layout.local_login.read_bytes())["key"])
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None
    with store.transaction() as tx:
        keys = tx.list(ApiKey, secret_hash=secret_hash(secret))
    return secret if keys and keys[0].revoked_at is None else None


def _new_secret(store: Store) -> str:
    with store.transaction() as tx:
        _, secret = create_key(tx, name="local admin", project=EVERY_PROJECT, role=Role.ADMIN, now=time.time())
    return secret


def main() -> int:
    """Entry of the process."""
    data_dir, url, *tls_url = sys.argv[1:]
    return ended(lambda: prepare(Layout(Path(data_dir)), url, *tls_url), data_dir)


if __name__ == "__main__":
    sys.exit(main())
