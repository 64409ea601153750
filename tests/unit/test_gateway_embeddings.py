"""The gateway's ways to embeddings and tokens: the same keys, names and limits as generation has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import openai
import pytest
from gateway_serving import BASE, KEY, OTHER_KEY, VIEWER_KEY, deployed, gateway_before

from standin import Script, StandIn

EMBEDDING_PATHS = ("/v1/embeddings", f"{BASE}/embeddings", f"{BASE}/invoke/v1/embeddings")


@pytest.mark.parametrize("path", [*EMBEDDING_PATHS, "/tokenize", "/detokenize"])
def test_a_request_reaches_the_engine_under_the_engines_own_name(tmp_path: Path, path: str) -> None:
    """The endpoint's name becomes the engine's, every other field stays, and the answer is the engine's."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e", token="nonce") as engine,
            gateway_before(tmp_path, deployed(engine.address)) as served,
        ):
            body = {"model": "my-endpoint", "input": ["a", "b"], "dimensions": 2}
            answer = await served.client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            assert engine.seen.bodies == [body | {"model": "served"}]
            assert answer.headers["x-vertex-ai-endpoint-id"] == "e1"

    asyncio.run(main())


def test_openais_client_gets_embeddings_and_they_are_metered(tmp_path: Path) -> None:
    """The unmodified client reads the vectors; the prompt's tokens are counted, with none generated."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e", token="nonce") as engine,
            gateway_before(tmp_path, deployed(engine.address)) as served,
            openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY) as client,
        ):
            answer = await client.embeddings.create(model="my-endpoint", input="hi", encoding_format="float")
            assert answer.data[0].embedding == [0.6, 0.8]
            metrics = (await served.admin_get("/metrics")).text
            assert 'headrace_gateway_tokens_total{endpoint="e1",kind="prompt"} 4.0' in metrics

    asyncio.run(main())


@pytest.mark.parametrize("path", [*EMBEDDING_PATHS, "/tokenize", "/detokenize"])
def test_they_are_refused_as_generation_is(tmp_path: Path, path: str) -> None:
    """No key, another project's, a viewer's: nothing reaches an engine."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            body = {"model": "e1", "input": "hi"}
            statuses = {
                key: (await served.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})).status_code
                for key in ("hr-wrong", OTHER_KEY, VIEWER_KEY)
            }
            elsewhere = 403 if path.startswith(BASE) else 404  # by name, what a key does not reach does not exist
            assert statuses == {"hr-wrong": 401, OTHER_KEY: elsewhere, VIEWER_KEY: 403}
            assert engine.seen.began == 0

    asyncio.run(main())


def test_embeddings_wait_in_the_same_line_as_everything_else(tmp_path: Path) -> None:
    """They are admitted by the deployment's own limits: behind a full line they get the same 429."""

    async def main() -> None:
        async with StandIn(tmp_path / "e", token="nonce") as engine:
            engine.script = Script(gated=True)
            model = deployed(engine.address, max_running=1, max_waiting=0)
            async with gateway_before(tmp_path, model) as served:
                chat = {"model": "e1", "messages": []}
                running = asyncio.create_task(served.client.post("/v1/chat/completions", json=chat))
                await engine.until(began=1)
                refused = await served.client.post("/v1/embeddings", json={"model": "e1", "input": "hi"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "QUEUE_FULL")
                engine.gate.release()
                assert (await running).status_code == 200

    asyncio.run(main())


def test_a_replica_gets_as_many_requests_as_an_engine_takes(tmp_path: Path) -> None:
    """128 requests at once all reach the one engine; none of them waits in the gateway."""

    async def main() -> None:
        async with StandIn(tmp_path / "e", token="nonce") as engine:
            engine.script = Script(gated=True)
            many = httpx.Limits(max_connections=None)
            async with (
                gateway_before(tmp_path, deployed(engine.address)) as served,
                httpx.AsyncClient(base_url=served.url, timeout=20, trust_env=False, limits=many) as client,
            ):
                ask = {"json": {"model": "e1", "messages": []}, "headers": {"authorization": f"Bearer {KEY}"}}
                asked = [asyncio.create_task(client.post("/v1/chat/completions", **ask)) for _ in range(128)]
                await engine.until(began=128)
                for _ in asked:
                    engine.gate.release()
                assert {(await one).status_code for one in asked} == {200}

    asyncio.run(main())
