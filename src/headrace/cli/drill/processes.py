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

    def newest(self, kind: str) -> int:
        """The process id of the newest ``gateway``, ``control`` or ``node``; 0 while there is none.

        Of two gateways the older one is finishing its requests.
        """
        import psutil  # noqa: PLC0415  # only a drill needs it

        try:
            children = psutil.Process(self._supervisor()).children()
            running = [each for each in children if _runs(each, f"headrace.server.{kind}")]
            found = [(each.create_time(), each.pid) for each in running]
        except (psutil.Error, OSError, ValueError):
            return 0
        return max(found, default=(0.0, 0))[1]

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


def _runs(process: psutil.Process, module: str) -> bool:
    import psutil  # noqa: PLC0415  # see above

    try:
        return module in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


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
