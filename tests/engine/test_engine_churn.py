"""A thousand requests that come, go, break off and overflow at random leave nothing behind."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from engine_launch import ENGINES, MAX_MODEL_LEN, OURS, folder_for, in_the_form_of
from engine_process import ONE_EACH, EngineProcess, completion_body, start_engine
from model_folders import shallow

REQUESTS = 1000
AT_ONCE = 24
LAYERS = 2
KV_CACHE_BYTES = 9000 * LAYERS * 768
"""A little more than one context: 3 key-value heads of 64 in two bytes, twice, are 768 bytes a token and layer. Those
who come at once would fill 13,000 tokens if they stayed."""
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class Crowd:
    """Clients of one engine that behave as real ones do, and worse.

    Args:
        engine: Who is asked.
        client: Connections shared by those who behave.
        rng: Decides everything that is left to chance.
    """

    def __init__(self, engine: EngineProcess, client: httpx.AsyncClient, rng: random.Random) -> None:
        self._engine = engine
        self._client = client
        self._rng = rng
        self._places = asyncio.Semaphore(AT_ONCE)
        self.done: Counter[str] = Counter()
        self._kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.whole, 6),
            (self.stream, 4),
            (self.leave, 4),
            (self.vanish, 2),
            (self.overflow, 2),
            (self.nonsense, 2),
        ]

    async def come(self) -> None:
        """One of them."""
        actions, weights = zip(*self._kinds, strict=True)
        [act] = self._rng.choices(actions, weights)
        async with self._places:
            await act()
        self.done[act.__name__] += 1

    def _request(self, max_tokens: int) -> dict[str, Any]:
        prompt = [self._rng.randrange(1000, 40_000) for _ in range(self._rng.randint(1, 60))]
        return completion_body(prompt, max_tokens=max_tokens, ignore_eos=True)

    async def whole(self) -> None:
        """Waits for its answer, which has exactly the tokens asked for."""
        wanted = self._rng.randint(1, 4)
        body = self._request(wanted)
        response = await self._client.post(COMPLETIONS, json=body)
        assert response.status_code == 200, response.text
        usage = response.json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(body["prompt"]), wanted)

    async def stream(self) -> None:
        """Reads to the end."""
        body = self._request(self._rng.randint(1, 6)) | {"stream": True}
        async with self._client.stream("POST", COMPLETIONS, json=body) as response:
            assert response.status_code == 200
            lines = [line async for line in response.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"

    async def leave(self) -> None:
        """Hangs up on a long answer after a few of its chunks."""
        body = self._request(500) | {"stream": True}
        patience = self._rng.randint(1, 4)
        async with self._client.stream("POST", COMPLETIONS, json=body) as response:
            assert response.status_code == 200
            async for _ in response.aiter_lines():
                patience -= 1
                if not patience:
                    return

    async def vanish(self) -> None:
        """Sends a request, or the beginning of one, and is gone before anything can come back."""
        body = json.dumps(self._request(500)).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {self._engine.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        _, writer = await asyncio.open_unix_connection(str(self._engine.uds))
        writer.write(head.encode() + body[: self._rng.choice([len(body), len(body), len(body) // 2])])
        await writer.drain()
        writer.close()

    async def overflow(self) -> None:
        """Asks for more than the context holds."""
        body = self._request(MAX_MODEL_LEN)
        assert (await self._client.post(COMPLETIONS, json=body)).status_code == 400

    async def nonsense(self) -> None:
        """Asks for what there is not."""
        body = self._request(2) | {"temperature": self._rng.choice([-1, "hot"])}
        assert (await self._client.post(COMPLETIONS, json=body)).status_code == 400


async def come_and_go(engine: EngineProcess, requests: int, seed: int) -> Counter[str]:
    """Send the crowd; returns how many there were of each kind."""
    async with httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(engine.uds), limits=ONE_EACH),
        base_url="http://engine",
        headers={"Authorization": f"Bearer {engine.token}"},
        timeout=120,
    ) as client:
        crowd = Crowd(engine, client, random.Random(seed))
        await asyncio.gather(*(crowd.come() for _ in range(requests)))
        return crowd.done


def open_files(engine: EngineProcess) -> int:
    """Sockets and files that the engine's front holds."""
    return psutil.Process(engine.process.pid).num_fds()


def leaves_nothing_behind(engine: EngineProcess) -> None:
    """Afterwards nothing runs, waits, holds memory of the cache or a connection, and answers are what they were."""
    before = engine.text("Tell me a story.", max_tokens=24)
    asyncio.run(come_and_go(engine, 20, seed=1))  # what is made on first use is there
    engine.wait_idle()
    files = open_files(engine)
    done = asyncio.run(come_and_go(engine, REQUESTS, seed=2026))
    assert done.total() == REQUESTS
    assert min(done.values()) > REQUESTS // 20, done
    engine.wait_idle(timeout_s=60)
    engine.wait_until(lambda: engine.metric("vllm:kv_cache_usage_perc") == 0, "the cache is empty", timeout_s=30)
    engine.wait_until(lambda: open_files(engine) <= files, f"{files} files or fewer are open", timeout_s=30)
    assert engine.text("Tell me a story.", max_tokens=24) == before


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ENGINES)
def test_a_thousand_that_come_and_go_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    """Nothing is left of them; in an engine of ours the cache holds half of what they would fill.

    Two layers of the model are enough: what is asked here is of the shell, the batches and the cache.
    """
    folder = in_the_form_of(name, shallow(folder_for("transformers"), tmp_path / "model", LAYERS))
    small = ("--kv-cache-bytes", str(KV_CACHE_BYTES)) if name in OURS else ()
    with start_engine(folder, *small, engine=name) as engine:
        engine.wait_ready()
        leaves_nothing_behind(engine)
