"""Short-lived processes of the supervisor: each does one thing, and its failure is the supervisor's to raise."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import msgspec

from headrace.resources.errors import DataDirUnusable, Failure, HeadraceError, InternalError, error_from


def ended(work: Callable[[], object], data_dir: str) -> int:
    """Do the work of such a process; a failure goes to standard output as JSON. Returns its exit status."""
    try:
        work()
    except HeadraceError as error:
        sys.stdout.write(msgspec.json.encode(error.failure).decode())
        return 1
    except OSError as error:
        unusable = DataDirUnusable(f"The data directory {data_dir} cannot be used.", evidence=str(error))
        sys.stdout.write(msgspec.json.encode(unusable.failure).decode())
        return 1
    return 0


async def send(module: str, *arguments: str) -> None:
    """Run such a process to its end.

    Args:
        module: Its entry, below ``headrace.server``.
        arguments: The data directory, and what else it takes.

    Raises:
        HeadraceError: It failed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"headrace.server.{module}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if not process.returncode:
        return
    try:
        failure = msgspec.json.decode(output, type=Failure)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InternalError(
            f"The data directory {arguments[0]} could not be made ready.",
            evidence=output.decode(errors="replace")[-2000:],
        ) from None
    raise error_from(failure)
