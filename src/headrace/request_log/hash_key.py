"""The key of the hashes that stand for what was redacted: one for all gateways of an installation."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from headrace.resources.files import write_private

KEY_NAME = "request-log.key"
_KEY_BYTES = 32


def hash_key(folder: Path) -> bytes:
    """The key, made if there is none.

    Args:
        folder: Where it lies: not with the log, which may be given to people who are not to have it.

    Raises:
        OSError: It can be neither read nor made.
    """
    path = folder / KEY_NAME
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = folder / f"{KEY_NAME}.{secrets.token_hex(4)}"
    write_private(fresh, secrets.token_bytes(_KEY_BYTES))
    try:
        with contextlib.suppress(FileExistsError):  # another writer was faster: its key is everybody's
            os.link(fresh, path)
    finally:
        fresh.unlink()
    return path.read_bytes()
