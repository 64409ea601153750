"""Run by the environment of the vendor's SDK: asks one engine in several ways, in turns, and times each.

Its standard input is JSON (`vertex.asked`), and so is what it prints.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import requests
from google.cloud import aiplatform_v1
from google.oauth2.credentials import Credentials
from google.protobuf import json_format, struct_pb2
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

WARM = 5
PROMPT = "Why does a river bend?"
MESSAGES = [{"role": "user", "content": PROMPT}]

Ask = Callable[[], object]


class SocketAdapter(HTTPAdapter):
    """Has requests talk HTTP over a unix socket, as the gateway does with an engine."""

    def __init__(self, path: str) -> None:
        class Connection(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                made.connect(path)
                return made

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        self._pool = Pool("engine")
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        """The only one that there is."""
        return self._pool


def posting(session: requests.Session, url: str, body: dict[str, Any]) -> Ask:
    """A request by the library that the SDK's REST transport is built on; its answer is read."""

    def ask() -> object:
        answer = session.post(url, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def cases(settings: dict[str, Any]) -> dict[str, dict[str, Ask]]:
    """What is asked for, and in which ways; the first one asks the engine itself."""
    engine, gateway = requests.Session(), requests.Session()
    engine.mount("http://engine", SocketAdapter(settings["socket"]))
    engine.headers["Authorization"] = f"Bearer {settings['nonce']}"
    gateway.headers["Authorization"] = f"Bearer {settings['key']}"
    endpoint, model = settings["endpoint"], {"model": settings["served_name"]}
    below = f"{settings['url']}/v1/{endpoint}"
    parameters = {"max_tokens": settings["output_tokens"], "temperature": 0, "ignore_eos": True}
    sdk = aiplatform_v1.PredictionServiceClient(
        transport="rest",
        client_options={"api_endpoint": settings["url"]},
        credentials=Credentials(token=settings["key"]),
    )

    def predicting(instance: dict[str, Any]) -> Ask:
        value = json_format.ParseDict(instance, struct_pb2.Value())
        return lambda: list(sdk.predict(endpoint=endpoint, instances=[value]).predictions)

    prompt, chat = {"prompt": PROMPT, **parameters}, {"messages": MESSAGES, **parameters}
    contents = [{"role": "user", "parts": [{"text": PROMPT}]}]
    generation = {"max_output_tokens": settings["output_tokens"], "temperature": 0}
    return {
        "completion": {
            "engine": posting(engine, "http://engine/v1/completions", model | prompt),
            "gateway, /completions": posting(gateway, f"{below}/completions", model | prompt),
            "gateway, :predict": posting(gateway, f"{below}:predict", {"instances": [prompt]}),
            "SDK, predict": predicting(prompt),
        },
        "chat": {
            "engine": posting(engine, "http://engine/v1/chat/completions", model | chat),
            "gateway, /chat/completions": posting(gateway, f"{below}/chat/completions", model | chat),
            "gateway, :predict": posting(gateway, f"{below}:predict", {"instances": [chat]}),
            "SDK, predict": predicting(chat),
            "SDK, generate_content": lambda: (
                sdk.generate_content(
                    aiplatform_v1.GenerateContentRequest(
                        model=endpoint, contents=contents, generation_config=generation
                    )
                ).candidates
            ),
        },
    }


def timed(ways: dict[str, Ask], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each request; the ways take turns, and each goes first as often as the others."""
    taken_ms: dict[str, list[float]] = {how: [] for how in ways}
    for ask in ways.values():
        for _ in range(WARM):
            ask()
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for how in names[first:] + names[:first]:
            began = time.perf_counter()
            ways[how]()
            taken_ms[how].append((time.perf_counter() - began) * 1000)
    return taken_ms


def _main() -> None:
    """Ask, and print what it took."""
    settings = json.load(sys.stdin)
    json.dump({what: timed(ways, settings["rounds"]) for what, ways in cases(settings).items()}, sys.stdout)


if __name__ == "__main__":
    _main()
