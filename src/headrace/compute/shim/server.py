"""What a shim does while its engine runs: answer on its socket, mind the clock, note the end.

A request is one line of JSON, ``{"nonce": …, "op": …}``; whoever has the nonce wrong is hung up on. `OPERATIONS` are
all there are. A connection that asked to ``watch`` is the node's claim on the replica: the end comes as one more line.
A ``stop`` with ``at_once`` set leaves the engine no time.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from _operator import _compare_digest  # what hmac.compare_digest is; importing hmac would load OpenSSL

from headrace.compute.shim import record
from headrace.compute.shim.engine import Engine, bound_log

TYPE_CHECKING = False  # importing typing would cost each shim most of a megabyte
if TYPE_CHECKING:
    from typing import Any

OPERATIONS = ("status", "stop", "watch")
"""Every operation; all of them need the nonce."""

_TICK_S = 5.0
_LINGER_S = 2.0
_LINE_MAX_BYTES = 4096


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.watches = False


class Shim:
    """The loop of one shim.

    Args:
        spec: `record.SPEC`, as the node wrote it.
        replica_dir: The replica's folder.
        listener: The listening socket.
        engine: The engine.
    """

    def __init__(self, spec: dict[str, Any], replica_dir: str, listener: socket.socket, engine: Engine) -> None:
        self._spec = spec
        self._dir = replica_dir
        self._engine = engine
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._clients: set[Client] = set()
        self._why_stopped = ""
        self._kill_at: float | None = None
        self._unclaimed_at: float | None = time.monotonic() + spec["unclaimed_timeout_s"]
        self._tick_at = time.monotonic() + _TICK_S
        self._exit: dict[str, Any] | None = None

    def run(self) -> None:
        """Until the engine has ended and everybody who watches knows."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._listen_to_signals()
        if self._engine.pidfd is not None:
            self._selector.register(self._engine.pidfd, selectors.EVENT_READ, self._engine.collect)
        self._engine.collect()  # it may have ended before the signals were listened to
        while not self._engine.ended:
            self._wait(self._next_deadline())
            self._mind_the_clock()
        if self._engine.pidfd is not None:
            self._selector.unregister(self._engine.pidfd)
        self._finish()

    def _listen_to_signals(self) -> None:
        inbox, outbox = socket.socketpair()
        inbox.setblocking(False)
        outbox.setblocking(False)
        self._selector.register(inbox, selectors.EVENT_READ, lambda: self._on_signals(inbox.recv(64)))
        signal.set_wakeup_fd(outbox.detach(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the number arrives through the socket

    def _on_signals(self, numbers: bytes) -> None:
        self._engine.collect()
        if signal.SIGTERM in numbers:
            self._stop("signal")

    def _wait(self, deadline: float) -> None:
        for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
            key.data()

    def _next_deadline(self) -> float:
        return min(at for at in (self._tick_at, self._kill_at, self._unclaimed_at) if at is not None)

    def _mind_the_clock(self) -> None:
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_S
            bound_log(self._dir, self._spec["log_max_bytes"])
            self._engine.observe()
        if self._unclaimed_at is not None and now >= self._unclaimed_at:
            self._unclaimed_at = None
            self._stop("unclaimed")
        if self._kill_at is not None and now >= self._kill_at and not self._engine.ended:
            self._kill_at = now + _TICK_S
            self._engine.kin.end(engine_lives=True)

    def _stop(self, why: str, *, at_once: bool = False) -> None:
        if self._engine.ended:
            return
        if at_once:
            self._kill_at = time.monotonic()
        elif not self._why_stopped:
            self._kill_at = time.monotonic() + self._spec["stop_grace_s"]
            self._engine.terminate()
        self._why_stopped = self._why_stopped or why

    def _finish(self) -> None:
        self._engine.kin.end(engine_lives=False)
        self._exit = write_exit(self._dir, self._engine, self._why_stopped)
        remove_socket(self._spec["engine_socket"])
        remove_socket(self._spec["shim_socket"])
        for client in list(self._clients):
            if client.watches:
                self._send(client, self._exit)
        deadline = time.monotonic() + _LINGER_S  # for whoever connected just now, or has not read yet
        while self._clients and time.monotonic() < deadline:
            self._wait(deadline)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        client = Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(client))

    def _receive(self, client: Client) -> None:
        try:
            data = client.connection.recv(_LINE_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        *lines, client.received = client.received.split(b"\n")
        if not data or len(client.received) > _LINE_MAX_BYTES:
            self._hang_up(client)
        for line in lines:
            if client in self._clients:
                self._answer(client, line)

    def _answer(self, client: Client, line: bytes) -> None:
        try:
            request = json.loads(line)
            nonce, operation, at_once = str(request["nonce"]), request["op"], request.get("at_once") is True
        except (ValueError, KeyError, TypeError):
            return self._hang_up(client)
        if not _compare_digest(nonce.encode(), self._spec["nonce"].encode()) or operation not in OPERATIONS:
            return self._hang_up(client)
        if operation == "stop":
            self._stop("request", at_once=at_once)
        elif operation == "watch":
            client.watches = True
            self._unclaimed_at = None
        return self._send(client, self._exit or self._status())

    def _status(self) -> dict[str, Any]:
        return {
            "event": "status",
            "id": self._spec["id"],
            "epoch": self._spec["epoch"],
            "shim_pid": os.getpid(),
            "engine_pid": self._engine.pid,
            "adopted": self._engine.pidfd is not None,
            "stopping": bool(self._why_stopped),
        }

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        try:
            client.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # gone, or so far behind that some hundred bytes find no room
            self._hang_up(client)

    def _hang_up(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()
        if client.watches and not any(other.watches for other in self._clients):
            self._unclaimed_at = time.monotonic() + self._spec["unclaimed_timeout_s"]


def write_exit(replica_dir: str, engine: Engine | None, why_stopped: str) -> dict[str, Any]:
    """Write `record.EXIT` and return it. Without an engine: it ended while no shim looked."""
    state = record.read_json(f"{replica_dir}/{record.STATE}") or {}
    end = {
        "event": "exited",
        "exit_status": None if engine is None else engine.exit_status,
        "at": time.time(),
        "peak_resident_bytes": 0 if engine is None else engine.peak_resident_bytes,
        "why_stopped": why_stopped,
        "oom_kills": max(0, record.oom_kills() - state.get("oom_kills_at_start", record.oom_kills())),
    }
    with contextlib.suppress(OSError):  # a full disk: whoever watches is told, and the next adoption writes it
        record.write_json(f"{replica_dir}/{record.EXIT}", end)
    return end


def listen(path: str) -> socket.socket:
    """A listening unix socket that only this user can open; a dead one in its place is removed."""
    remove_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)  # mode 0600, by the umask of `__main__`
    listener.listen(16)
    listener.setblocking(False)
    return listener


def remove_socket(path: str) -> None:
    """Remove a socket's file, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
