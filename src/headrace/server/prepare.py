"""A data directory made ready: schema and first admin key. A process of its own, so that it costs no memory later."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from headrace.control.commands import create_key
from headrace.resources.access import EVERY_PROJECT, Role, secret_hash
from headrace.resources.layout import Layout
from headrace.resources.operations import ApiKey
from headrace.server.files import write_private
from headrace.store import Store, migrate


def prepare(layout: Layout, url: str) -> None:
    """Bring the schema up to date and see that ``login.json`` holds a good admin key and this server's address."""
    database = f"sqlite:///{layout.database}"
    migrate(database)
    store = Store(database)
    try:
        secret = _known_secret(store, layout) or _new_secret(store)
    finally:
        store.close()
    write_private(layout.local_login, msgspec.json.encode({"url": url, "key": secret}))


def _known_secret(store: Store, layout: Layout) -> str | None:
    """The key of an earlier start, unless it was revoked since."""
    try:
        secret = str(msgspec.json.decode(layout.local_login.read_bytes())["key"])
    except (FileNotFoundError, msgspec.DecodeError, KeyError, TypeError):
        return None
    with store.transaction() as tx:
        keys = tx.list(ApiKey, secret_hash=secret_hash(secret))
    return secret if keys and keys[0].revoked_at is None else None


def _new_secret(store: Store) -> str:
    with store.transaction() as tx:
        _, secret = create_key(tx, name="local admin", project=EVERY_PROJECT, role=Role.ADMIN, now=time.time())
    return secret


if __name__ == "__main__":
    prepare(Layout(Path(sys.argv[1])), sys.argv[2])
