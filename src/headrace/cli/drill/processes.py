"""The processes of a server on this machine: found by its lock, which names the supervisor, and by their commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.contexts import local_context
from headrace.resources.layout import Layout

if TYPE_CHECKING:
    import psutil

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Processes:
    """Those of one data directory.

    Args:
        layout: The data directory of a server that runs.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def newest(self, kind: str) -> dict[str, int]:
        """Process ids of ``gateway``, ``control`` or ``node``, by number: there may be several gateways.

        Of two gateways in one place the older one is finishing its requests, and is left out.
        """
        import psutil  # noqa: PLC0415  # only a drill needs it

        found: dict[str, tuple[float, int]] = {}
        try:
            for each in psutil.Process(self._supervisor()).children():
                command = _command(each)
                if f"headrace.server.{kind}" in command:
                    number = _number(command)
                    found[number] = max(found.get(number, (0.0, 0)), (each.create_time(), each.pid))
        except (psutil.Error, OSError, ValueError):
            return {}
        return {number: pid for number, (_, pid) in sorted(found.items())}

    def is_engine(self, pid: int) -> bool:
        """Whether this process is an engine of this data directory, and so ours to kill."""
        import psutil  # noqa: PLC0415  # see above

        try:
            process = psutil.Process(pid)
            told = [*process.cmdline(), *process.parent().cmdline()]
        except (psutil.Error, AttributeError):  # it has no parent any more
            return False
        return any(str(self._layout.data_dir) in argument for argument in told)

    def _supervisor(self) -> int:
        return int(self._layout.lock.read_text().strip())


def _command(process: psutil.Process) -> list[str]:
    import psutil  # noqa: PLC0415  # see above

    try:
        return list(process.cmdline())
    except psutil.Error:  # it has just ended
        return []


def _number(command: list[str]) -> str:
    """Which of several gateways this is; that of others is 0."""
    return command[command.index("--number") + 1] if "--number" in command[:-1] else "0"


def find(url: str, layout: Layout) -> tuple[Processes | None, str]:
    """The processes of the server at an address, if it is that of a data directory on this machine; else why not."""
    local = local_context(layout.data_dir)
    if local is None:
        return None, f"no server of this user runs on {layout.data_dir} on this machine; --data-dir names another one"
    if _place(local.url) != _place(url):
        return None, f"the server of {layout.data_dir} is {local.url}, not {url}; --data-dir names another one"
    return Processes(layout), ""


def _place(url: str) -> tuple[str, int | None]:
    from urllib.parse import urlsplit  # noqa: PLC0415  # see above

    parts = urlsplit(url)
    host = parts.hostname or ""
    return ("127.0.0.1" if host in _LOOPBACK else host), parts.port
