"""The server of a quickstart: the one that runs already, or a child of ours that ends with us."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from headrace.cli.client import Client
from headrace.cli.contexts import Login, local_login
from headrace.resources.errors import HeadraceError, ServerStartFailed
from headrace.resources.layout import Layout

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 60.0
"""The server's own limits for draining and stopping come first."""
_POLL_S = 0.05
_WHOAMI_TIMEOUT_S = 2.0
DRAIN_TIMEOUT_S = 5
"""Who ends a quickstart wants it to end; `headrace serve` alone gives running requests more."""


def answering_server(data_dir: Path) -> Login | None:
    """The server that answers for this data directory now, if there is one."""
    try:
        login = local_login(data_dir)
        with Client(login, timeout_s=_WHOAMI_TIMEOUT_S) as client:
            client.get("/headrace/v1/whoami")
    except HeadraceError:
        return None
    return login


class ServerChild:
    """``headrace serve`` as our child.

    It gets a session of its own, so that Ctrl-C at the terminal reaches us alone and everything stops in order.

    Args:
        data_dir: Its data directory.
        port: The port to begin the search for a free one at.
    """

    def __init__(self, data_dir: Path, port: int) -> None:
        self._layout = Layout(data_dir)
        self._layout.logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log = self._layout.logs_dir / "serve.log"
        command = [sys.executable, "-m", "headrace.cli", "serve", "--data-dir", str(self._layout.data_dir)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(port), "--port-search", "--drain-timeout", str(DRAIN_TIMEOUT_S)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started_at = time.time()

    def lives(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def wait_ready(self) -> Login:
        """Return once it answers.

        Raises:
            ServerStartFailed: It ended, or took too long.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            status = self._process.poll()
            if status is not None:
                raise self._failed(f"It ended with status {status}.")
            login = answering_server(self._layout.data_dir) if self._is_fresh() else None
            if login is not None:
                return login
            time.sleep(_POLL_S)
        raise self._failed(f"It did not answer within {_START_TIMEOUT_S:.0f} s.")

    def stop(self) -> list[int]:
        """End it and all that it runs: asked first, killed if need be. Returns the ids of what is left: none.

        A second Ctrl-C meanwhile cuts the asking short.
        """
        kin = self._kin()
        try:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_STOP_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        _gone, alive = psutil.wait_procs(kin, timeout=1.0)
        for ask in (psutil.Process.terminate, psutil.Process.kill):
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    ask(process)
            _gone, alive = psutil.wait_procs(alive, timeout=10.0)
        return [int(process.pid) for process in alive]

    def _kin(self) -> list[psutil.Process]:
        """All processes below the child, and those of ours that work in its data directory."""
        try:
            family: list[psutil.Process] = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        known = {process.pid for process in family}
        return family + [
            process
            for process in psutil.process_iter(["cmdline"])
            if process.pid not in known and self._works_here(process.info["cmdline"] or [])
        ]

    def _works_here(self, arguments: list[str]) -> bool:
        ours = any(each.startswith(("headrace.compute", "headrace.server", "headrace_engines")) for each in arguments)
        folders = (f"{self._layout.data_dir}/", f"{self._layout.run_dir}/")
        return ours and any(f"{each}/".startswith(folders) for each in arguments)

    def _is_fresh(self) -> bool:
        try:
            return self._layout.local_login.stat().st_mtime >= self._started_at - 1
        except FileNotFoundError:
            return False

    def _failed(self, what: str) -> ServerStartFailed:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return ServerStartFailed(
            "The server did not start.",
            evidence="\n".join([what, *lines[-5:]]),
            fix=f"Start it alone and read what it says: `headrace serve --data-dir {self._layout.data_dir}`.",
        )
