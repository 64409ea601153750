"""A data directory made ready: schema and first admin key. A process of its own, so that it costs no memory later."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
from sqlalchemy.exc import DatabaseError

from headrace.control.commands import create_key
from headrace.resources.access import EVERY_PROJECT, Role, secret_hash
from headrace.resources.errors import DatabaseCorrupt, DataDirUnusable, HeadraceError
from headrace.resources.files import write_private
from headrace.resources.layout import Layout
from headrace.resources.operations import ApiKey
from headrace.store import Store, migrate


def prepare(layout: Layout, url: str) -> None:
    """Bring the schema up to date and see that ``login.json`` holds a good admin key and this server's address."""
    database = f"sqlite:///{layout.database}"
    try:
        migrate(database)
        store = Store(database)
        try:
            secret = _known_secret(store, layout) or _new_secret(store)
        finally:
            store.close()
    except DatabaseError as error:
        raise DatabaseCorrupt(
            f"{layout.database} cannot be used.",
            evidence=str(error.orig or error),
            fix="Put a backup in its place, or move it aside to start anew.",
        ) from error
    write_private(layout.local_login, msgspec.json.encode({"url": url, "key": secret}))


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
    """Entry of the process: a failure goes to standard output as JSON, for the supervisor to raise."""
    try:
        prepare(Layout(Path(sys.argv[1])), sys.argv[2])
    except HeadraceError as error:
        sys.stdout.write(msgspec.json.encode(error.failure).decode())
        return 1
    except OSError as error:
        unusable = DataDirUnusable(f"The data directory {sys.argv[1]} cannot be used.", evidence=str(error))
        sys.stdout.write(msgspec.json.encode(unusable.failure).decode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
