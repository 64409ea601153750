"""The file of a service account as ``headrace keys create`` leaves it: for its owner's eyes, never over another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from headrace.cli.deployments import ROOT
from headrace.cli.exits import WrongUsage
from headrace.cli.invocation import Invocation
from headrace.resources.access import KeyFormat


def create_service_account(invocation: Invocation, body: dict[str, Any], path: Path | None) -> None:
    """Have a key made whose holder signs tokens.

    Args:
        invocation: Of the command.
        body: What the server is told of the key.
        path: Where its file goes; None: to stdout, alone.

    Raises:
        WrongUsage: There can be no new file.
    """
    output = invocation.output
    with invocation.client() as client, _new_file(path) as keep:
        asked = body | {"project": client.login.project, "format": KeyFormat.SERVICE_ACCOUNT.value}
        made = client.post(f"{ROOT}/keys", asked)
        content = msgspec.json.format(msgspec.json.encode(made["service_account"]), indent=2) + b"\n"
        keep(content)
    if path is None:
        output.document(made)
        output.piece(content.decode())
        return
    token_uri = made.pop("service_account")["token_uri"]
    output.document(made | {"file": str(path)})
    output.line(f"Key {made['id']} for {made['name']!r}: {made['role']} in project {made['project']!r}.")
    output.line(f"{path} has its private key, which is stored nowhere else. It asks for tokens at {token_uri}.")
    output.line(f"For Google's libraries: export GOOGLE_APPLICATION_CREDENTIALS={path}")


@contextmanager
def _new_file(path: Path | None) -> Iterator[Callable[[bytes], None]]:
    """A way to write a new file of mode 0600; without a path it writes nothing.

    It is opened at once: the server shows a private key only once, and then there must be a place for it. If nothing
    was written when the block ends, the file is gone.

    Raises:
        WrongUsage: It cannot be made, or is there already.
    """
    if path is None:
        yield lambda _content: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise WrongUsage(
            f"{path} cannot be written.",
            evidence=f"{error.strerror or error}.",
            fix="Name another file with --out; a file that is there is never written over.",
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        try:
            yield lambda content: _written(file, content)
            file.flush()
            os.fsync(file.fileno())
        finally:
            if not file.tell():
                path.unlink(missing_ok=True)


def _written(file: BinaryIO, content: bytes) -> None:
    file.write(content)
