"""However a request or its connection ends, nothing of it has to be searched for: what holds itself would stay."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from event_loops import Loop, on_both_loops, run
from gateway_serving import BASE, CHAT, KEY, Served, deployed, gateway_before

from standin import Script, StandIn

CHAT_PATH = f"{BASE}/chat/completions"
PROMPT = CHAT | {"messages": [{"role": "user", "content": "x" * 2000}]}
HUNG = PROMPT | {"standin": {"hang": True}}
CUT = PROMPT | {"standin": {"die_after": 1}}
LONG = PROMPT | {"stream": True, "standin": {"chunks": 200, "delay_ms": 5}}


def request(body: bytes, *, length: int | None = None, key: str = KEY, path: str = CHAT_PATH) -> bytes:
    """A request as bytes; `length` is what it says of its body, if that is not what there is."""
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + body


async def hang_up_after(served: Served, sent: bytes, *, until: bytes = b"") -> None:
    """Send this, read until that has come, and leave."""
    url = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(sent)
    if until:
        async with asyncio.timeout(20):
            await reader.readuntil(until)
    else:
        await asyncio.sleep(0.02)  # until it is with the gateway, of which nobody tells
    writer.close()


async def refused(served: Served, body: dict[str, Any], path: str = CHAT_PATH) -> None:
    """Ask for what is not to be had."""
    try:
        answer = await served.client.post(path, json=body)
    except httpx.HTTPError:
        return  # it broke off
    assert answer.status_code >= 400 or b"error" in answer.content, answer.text


async def queued_too_long(served: Served) -> None:
    """Wait for a turn that does not come."""
    first = asyncio.create_task(refused(served, HUNG))
    async with asyncio.timeout(20):
        while not served.gateway._routing.fleet.pools["dep-d1"].room.running:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0)
    await refused(served, PROMPT)
    await first


ENDS: dict[str, Callable[[Served], Awaitable[None]]] = {
    "no key": lambda served: hang_up_after(served, request(b"{}", key="no"), until=b"401"),
    "no such model": lambda served: refused(served, PROMPT | {"model": "no"}, "/v1/chat/completions"),
    "no JSON": lambda served: hang_up_after(served, request(b"{"), until=b"BAD_JSON"),
    "a body that is too large": lambda served: hang_up_after(served, request(b"{}", length=10**9), until=b"413"),
    "gone within its body": lambda served: hang_up_after(served, request(b"{" + b" " * 50_000, length=10**6)),
    "gone, with the engine at work": lambda served: hang_up_after(served, request(json.dumps(HUNG).encode())),
    "gone within the answer": lambda served: hang_up_after(
        served,
        request(json.dumps(PROMPT | {"stream": True, "standin": {"chunks": 200, "delay_ms": 5}}).encode()),
        until=b"tok",
    ),
    "its turn did not come": queued_too_long,
    "the engine was silent": lambda served: refused(served, HUNG),
    "the engine was silent, to a stream": lambda served: refused(served, HUNG | {"stream": True}),
    "the engine broke off": lambda served: refused(served, CUT),
    "the engine broke off in a stream": lambda served: refused(
        served, PROMPT | {"stream": True, "standin": {"die_after": 1}}
    ),
    "the engine refused": lambda served: refused(served, PROMPT | {"standin": {"refuse": 400}}),
    "the engine failed": lambda served: refused(served, PROMPT | {"standin": {"refuse": 500}}),
    "control is away": lambda served: refused(served, {}, "/v1/nothing"),
    "the body for control breaks off": lambda served: hang_up_after(
        served, request(b"x" * 1000, length=10**6, path="/v1/nothing")
    ),
}


def ours(thing: object) -> bool:
    """Whether it is of the gateway: an object, a frame or a coroutine."""
    if isinstance(thing, FrameType):
        return "/headrace/" in thing.f_code.co_filename
    if isinstance(thing, CoroutineType):
        return "/headrace/" in thing.cr_code.co_filename
    return type(thing).__module__.startswith("headrace.")


async def left_by(served: Served, end: Callable[[Served], Awaitable[None]]) -> list[str]:
    """What of the gateway can only be found by a search, after several such ends."""
    for attempt in range(4):
        if attempt == 1:  # the first one made what stays: connections to engines, compiled expressions
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
        await end(served)
        async with asyncio.timeout(20):
            while served.gateway._active:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)  # for connections to be closed, of which nobody tells either
    gc.collect()
    return [f"{type(thing).__name__}: {thing!r:.200}" for thing in gc.garbage if ours(thing)]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@on_both_loops
def test_nothing_is_left_to_search_for(tmp_path: Path, loop: Loop, end: Callable[[Served], Awaitable[None]]) -> None:
    """Neither by requests that are refused, time out or break off, nor by clients that leave."""

    async def main() -> list[str]:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(chunks=3)
            model = deployed(engine.address, max_running=1, max_waiting=2, max_wait_s=0.1)
            times = {"first_byte_timeout_s": 0.2, "answer_timeout_s": 0.2, "stall_timeout_s": 0.2}
            async with gateway_before(tmp_path, model, **times) as served:
                return await left_by(served, end)

    found: list[str] = []

    async def keep() -> None:
        found.extend(await main())

    gc.disable()
    try:
        run(keep(), loop)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found
