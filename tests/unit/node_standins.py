"""Stand-ins for the node's tests: an engine whose behaviour its name scripts, its runtime, and a control."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.types import ASGIApp

from headrace.resources.assignments import NodeOrders, NodeReport, ReplicaReport, RuntimeReport
from headrace.resources.errors import Failure
from headrace.resources.layout import Layout
from headrace.resources.models import Dtype
from headrace.runtimes import EngineCommand, EngineEnd, Environment, Launch, Runtime, SleepMode, ending

TOKEN = "internal"

ENGINE = r"""
import json, os, socketserver, sys, threading, time
from http.server import BaseHTTPRequestHandler
socket, name, token = sys.argv[1:]
print("engine", name, flush=True)
if name.startswith("pinned"):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
if name == "crash":
    print('HEADRACE_FATAL {"code": "ENGINE_BAD_TENSOR", "message": "bad", "evidence": "lm_head"}', flush=True)
    sys.exit(3)
asleep = False
def turn(path):
    "As vLLM does: answered when it is done. A FIFO beside the socket holds it back until somebody writes."
    global asleep
    if os.path.exists(socket + ".gate"):
        print("waiting before", path, flush=True)
        open(socket + ".gate").read()
    if path == "/wake_up" and name == "sleeper-dies": os._exit(4)
    if path == "/wake_up" and name == "sleeper-refuses": return 500
    if name != "sleeper-lies": asleep = path == "/sleep?deep"
    return 200
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self): return ""
    def log_message(self, *_): pass
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/metrics" and name == "busy":
            threading.Thread(target=lambda: sum(range(10**7)), daemon=True).start()
            body = b'vllm:num_requests_waiting{model_name="busy"} 3.0\nvllm:kv_cache_usage_perc 0.25\n'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if self.path == "/is_sleeping":
            self.answer(200, {"is_sleeping": asleep})
            return
        task = {"task": "embed"} if name.startswith("embed") else {}
        cards = {"data": [{"id": name, **task}]} if self.path == "/v1/models" else {}
        self.answer(503 if name == "never-healthy" else 200, cards)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path in ("/sleep?deep", "/wake_up"):
            assert self.headers["Authorization"] == "Bearer " + token
            self.answer(turn(self.path), {})
            return
        assert not asleep
        asked = json.loads(body)
        assert self.headers["Authorization"] == "Bearer " + token and asked["model"] == name
        if name.startswith("embed"):
            assert self.path == "/v1/embeddings" and asked["input"]
            vector = [] if name == "embeds-nothing" else [0.6, 0.8]
            self.answer(200, {"data": [{"embedding": vector}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
            return
        assert self.path == "/v1/completions" and asked["stream"]
        if name == "dies-warming": os._exit(4)
        if "measured" in name and asked["max_tokens"] == 3:
            if name == "dies-measured": os._exit(4)
            self.answer(400, {"error": {"message": "three is too many"}})
            return
        count = 0 if name == "mute" else asked["max_tokens"]
        words = len(asked["prompt"].split())
        if name == "short-of-breath" and words > 3:
            self.answer(400, {"error": {"message": "too long"}})
            return
        usage = {"completion_tokens": count, "prompt_tokens": words}
        events = [{"choices": [{"text": "x"}]}] * count + [{"choices": [], "usage": usage}]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 2048
Server(socket, Handler).serve_forever()
"""


class ScriptedRuntime:
    """A runtime whose engine does what its served name says."""

    name = "scripted"
    requirements = ""
    disk_bytes = 0
    model_types = frozenset({"scripted"})

    def __init__(self, *, sleeps: bool = False) -> None:
        self.launches: list[Launch] = []
        self.sleep_mode = SleepMode("/sleep?deep", "/wake_up", "/is_sleeping") if sleeps else None

    def conversion(self, model_dir: Path, dtype: Dtype) -> None:
        """None: there is nothing to load."""

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """The engine above."""
        self.launches.append(launch)
        argv = (sys.executable, "-c", ENGINE, str(launch.socket), launch.served_name, launch.nonce)
        return EngineCommand(argv, {"PATH": os.defpath})

    def classify(self, end: EngineEnd) -> Failure:
        """As the real ones do."""
        return ending.classify(end)


class NothingToInstall:
    """An installer for runtimes that need no environment."""

    def install(self, runtime: Runtime, progress: Callable[[str], None], cancelled: Callable[[], bool]) -> Environment:
        """This interpreter's."""
        return Environment(Path(sys.prefix), Path(sys.prefix))

    def inspect(self, runtime: Runtime) -> RuntimeReport:
        """Always there."""
        return RuntimeReport(name=runtime.name, installed=True)


class ControlStandIn:
    """Gives the orders that a test sets and keeps every report."""

    def __init__(self) -> None:
        self.reports: list[NodeReport] = []
        self._orders = NodeOrders(generation=0)
        self._news = asyncio.Condition()

    async def order(self, **changes: Any) -> None:
        """Change the orders."""
        async with self._news:
            self._orders = msgspec.structs.replace(self._orders, generation=self._orders.generation + 1, **changes)
            self._news.notify_all()

    async def until(self, condition: Callable[[NodeReport], bool]) -> NodeReport:
        """Wait for a report, from the newest on."""
        async with self._news:
            await self._news.wait_for(lambda: bool(self.reports) and condition(self.reports[-1]))
            return self.reports[-1]

    async def replica(self, replica_id: str, *states: str) -> ReplicaReport:
        """Wait until a replica is in one of these states."""
        report = await self.until(
            lambda report: any(one.id == replica_id and one.state in states for one in report.replicas)
        )
        return next(one for one in report.replicas if one.id == replica_id)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The two internal routes, as an ASGI application."""
        assert (b"authorization", f"Bearer {TOKEN}".encode()) in scope["headers"]
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = b""
        async with self._news:
            if scope["path"].endswith("/report"):
                self.reports.append(msgspec.json.decode(body, type=NodeReport))
                self._news.notify_all()
            else:
                seen = int(dict(pair.split("=") for pair in scope["query_string"].decode().split("&"))["seen"])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait_for(lambda: self._orders.generation != seen), 5)
                answer = msgspec.json.encode(self._orders)
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are pytest's."""
        yield


@contextlib.asynccontextmanager
async def listening(control: ASGIApp, layout: Layout) -> AsyncIterator[None]:
    """Control, reachable for as long as this lasts."""
    layout.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = uvicorn.Config(
        control, uds=str(layout.control_socket), lifespan="off", log_level="error", timeout_graceful_shutdown=0
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task
