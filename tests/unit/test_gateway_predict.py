"""`:predict` and its raw twins against an engine: many instances, streams as lines, errors in Google's shape."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateway_serving import BASE, CHAT, KEY, deployed, gateway_before, pieces_of

from standin import Script, StandIn

DOCUMENTED: dict[str, Any] = {  # the instance of Google's page on custom weights
    "prompt": "How to tell the time by looking at the sky?",
    "temperature": 0,
    "top_p": 1,
    "max_tokens": 154,
    "ignore_eos": True,
}


def test_predictions_in_order(tmp_path: Path) -> None:
    """Every instance is answered, several at a time, in the order in which they came."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), predict_parallel=3) as served,
        ):
            engine.script = Script(gated=True)
            chat = {"messages": CHAT["messages"], "standin": {"chunks": 1}}
            prompts = [{"prompt": f"p{n}", "standin": {"chunks": n + 1}} for n in range(4)]
            asking = asyncio.create_task(served.client.post(f"{BASE}:predict", json={"instances": [*prompts, chat]}))
            await engine.until(began=3)
            assert engine.seen.began == 3  # the bound
            for _ in range(5):
                engine.gate.release()
            answer = (await asking).json()
            assert answer["predictions"][:4] == [f"Prompt:\np{n}\nOutput:\n{'tok ' * (n + 1)}" for n in range(4)]
            assert answer["predictions"][4]["object"] == "chat.completion"
            assert answer["deployedModelId"] == "d1"
            assert answer["metadata"]["usage"]["completion_tokens"] == 11

    asyncio.run(main())


def test_one_bad_instance_fails_the_request(tmp_path: Path) -> None:
    """The engine's own sentence comes back in Google's shape, and the other instances are cancelled."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(hang=True)
            bad = {"prompt": "x", "standin": {"hang": False, "refuse": 400}}
            answer = await served.client.post(f"{BASE}:predict", json={"instances": ["a", "b", bad]})
            error = answer.json()["error"]
            assert (answer.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
            assert error["message"] == "The prompt is too long."
            assert error["details"][0]["reason"] == "ENGINE_REFUSED"
            assert await served.gateway.drain(10) == 0

    asyncio.run(main())


def test_hang_up_with_many_instances(tmp_path: Path) -> None:
    """As many instances as are allowed take a few tasks, not one each; a client that leaves leaves nothing behind."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(hang=True)
            body = {"instances": ["a"] * 1024}
            tasks = len(asyncio.all_tasks())
            asking = asyncio.create_task(served.client.post(f"{BASE}:predict", json=body))
            await engine.until(began=16)
            assert len(asyncio.all_tasks()) - tasks < 100
            asking.cancel()
            await engine.until(cancelled=16)
            assert await served.gateway.drain(10) == 0
            assert engine.seen.began == 16

    asyncio.run(main())


def test_too_many_instances(tmp_path: Path) -> None:
    """More instances than are allowed are refused with both numbers, before an engine hears of one."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            for method in (":predict", ":rawPredict"):
                answer = await served.client.post(f"{BASE}{method}", json={"instances": ["a"] * 1025})
                detail, _page = answer.json()["error"]["details"]
                assert (answer.status_code, detail["reason"]) == (400, "BAD_FIELD")
                assert detail["metadata"]["evidence"] == "It has 1025; the limit is 1024."
            assert engine.seen.began == 0

    asyncio.run(main())


@pytest.mark.parametrize("method", [":predict", ":rawPredict", ":streamRawPredict"])
def test_instances_that_are_not_utf_8(tmp_path: Path, method: str) -> None:
    """Text that is not UTF-8 is the request's fault, not ours."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed()) as served:
            answer = await served.client.post(f"{BASE}{method}", content=b'{"instances":["\xff"]}')
            assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (400, "BAD_JSON")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "vertex", "openai_shape"),
    [
        (400, (400, "ENGINE_REFUSED"), (400, "context_length_exceeded")),
        (401, (503, "ENGINE_FAILED"), (503, "ENGINE_FAILED")),
        (429, (429, "QUEUE_FULL"), (429, "QUEUE_FULL")),
        (500, (503, "ENGINE_FAILED"), (503, "ENGINE_FAILED")),
    ],
)
def test_engines_refusals(tmp_path: Path, status: int, vertex: tuple[int, str], openai_shape: tuple[int, str]) -> None:
    """A refusal is translated on Vertex's paths and passed on on OpenAI's; an engine's faults are told apart."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(refuse=status)
            for path in (f"{BASE}/chat/completions", f"{BASE}:rawPredict"):
                answer = await served.client.post(path, json=CHAT)
                assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == vertex
            answer = await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})
            assert (answer.status_code, answer.json()["error"]["code"]) == openai_shape

    asyncio.run(main())


def test_raw_predict(tmp_path: Path) -> None:
    """Instances get predictions alone; a body in OpenAI's shape gets the engine's answer; headers say who answered."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            answer = await served.client.post(f"{BASE}:rawPredict", json={"instances": [{"prompt": "x"}]})
            assert answer.json() == {"predictions": ["Prompt:\nx\nOutput:\ntok tok tok "]}
            assert answer.headers["x-vertex-ai-model-id"] == "m-d1"
            chat = await served.client.post(f"{BASE}:rawPredict", json=CHAT)
            assert chat.json()["object"] == "chat.completion"
            completion = await served.client.post(f"{BASE}:rawPredict", json={"prompt": "x"})
            assert completion.json()["object"] == "text_completion"
            for body in ({}, {"messages": [], "prompt": ""}):
                neither = await served.client.post(f"{BASE}:rawPredict", json=body)
                assert neither.json()["error"]["details"][0]["reason"] == "BAD_FIELD"
            unary = await served.client.post(f"{BASE}:streamRawPredict", json={"instances": [{"prompt": "x"}]})
            assert unary.json() == answer.json()

    asyncio.run(main())


def test_stream_raw_predict(tmp_path: Path) -> None:
    """The documented request gets a line per piece of text, each before the engine makes the next one."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=3, gated=True)
            engine.gate.release()
            body = {"instances": [DOCUMENTED | {"stream": True}]}
            async with served.client.stream("POST", f"{BASE}:streamRawPredict", json=body) as answer:
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["transfer-encoding"] == "chunked"
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b'{"predictions":["tok "]}\n'
                assert engine.seen.chunks_sent == 1
                engine.gate.release()
                engine.gate.release()
                lines = b"".join([piece async for piece in pieces]).splitlines()
            assert [json.loads(line) for line in lines] == [{"predictions": ["tok "]}] * 2
            assert engine.seen.bodies[0]["ignore_eos"] is True
            two = await served.client.post(f"{BASE}:streamRawPredict", json={"instances": ["a", "b"], "stream": True})
            assert two.json()["error"]["details"][0]["reason"] == "BAD_FIELD"
            engine.script = Script()
            async with served.client.stream("POST", f"{BASE}:streamRawPredict", json=CHAT | {"stream": True}) as sse:
                assert b"".join((await pieces_of(sse))[0]).endswith(b"data: [DONE]\n\n")

    asyncio.run(main())


def test_stream_of_lines_that_breaks_off(tmp_path: Path) -> None:
    """When the engine dies, the last line is an error in Google's shape, and the connection breaks."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=3, die_after=2)
            body = {"instances": [{"prompt": "x", "stream": True}]}
            async with served.client.stream("POST", f"{BASE}:streamRawPredict", json=body) as answer:
                pieces, whole = await pieces_of(answer)
            lines = b"".join(pieces).splitlines()
            assert not whole
            assert len(lines) == 3
            assert json.loads(lines[-1])["error"]["details"][0]["reason"] == "ENGINE_BROKE_OFF"
            engine.script = Script(refuse=400)
            refused = await served.client.post(f"{BASE}:streamRawPredict", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, 400)

    asyncio.run(main())


def test_a_chat_alone_is_the_prediction(tmp_path: Path) -> None:
    """With `@requestFormat: chatCompletions`, as Model Garden's container: one chat is told of whole, not in a list.

    A client that reads protocol buffers gets a list all the same: it can read nothing else.
    """

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            chat = {"@requestFormat": "chatCompletions", "messages": CHAT["messages"], "max_tokens": 3.0}
            for method in (":predict", ":rawPredict"):
                answer = (await served.client.post(f"{BASE}{method}", json={"instances": [chat]})).json()
                assert answer["predictions"]["choices"][0]["message"]["content"] == "tok tok tok "
            for query, instances in (("", [chat, chat]), ("?%24alt=json%3Benum-encoding%3Dint", [chat])):
                answer = (await served.client.post(f"{BASE}:predict{query}", json={"instances": instances})).json()
                assert [each["object"] for each in answer["predictions"]] == ["chat.completion"] * len(instances)
            asked = {"messages": CHAT["messages"], "max_tokens": 3, "model": "served"}
            assert engine.seen.bodies == [asked] * 5

    asyncio.run(main())


def test_embeddings(tmp_path: Path) -> None:
    """An instance with `content` is embedded, in the shape of Vertex AI's own API for that."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            instances = [{"content": "a", "task_type": "RETRIEVAL_QUERY"}, {"content": "b"}]
            body = {"instances": instances, "parameters": {"outputDimensionality": 2.0, "autoTruncate": True}}
            answer = (await served.client.post(f"{BASE}:predict", json=body)).json()
            statistics = {"truncated": False, "token_count": 4}
            told = {"embeddings": {"values": [0.6, 0.8], "statistics": statistics}}
            assert answer["predictions"] == [told, told]
            assert answer["metadata"]["usage"]["prompt_tokens"] == 8
            assert sorted(engine.seen.bodies, key=lambda body: str(body["input"])) == [
                {"model": "served", "input": text, "dimensions": 2} for text in ("a", "b")
            ]
            streamed = {"instances": [instances[0] | {"stream": True}]}
            refused = await served.client.post(f"{BASE}:streamRawPredict", json=streamed)
            assert refused.json()["error"]["details"][0]["reason"] == "BAD_FIELD"

    asyncio.run(main())


@pytest.mark.parametrize("method", ["chat/completions", "v1/chat/completions"])
def test_a_request_aimed_at_one_deployed_model(tmp_path: Path, method: str) -> None:
    """It goes there whatever the traffic split says, also to one without traffic; an unknown one is not found."""

    async def main() -> None:
        async with StandIn(tmp_path / "a") as first, StandIn(tmp_path / "b") as second:
            models = (deployed(first.address), deployed(second.address, name="d2", traffic=0))
            async with gateway_before(tmp_path, *models) as served:
                for name, engine in (("d1", first), ("d2", second)):
                    url = f"{BASE}/deployedModels/{name}/invoke/{method}"
                    answers = [await served.client.post(url, json=CHAT) for _ in range(3)]
                    assert {answer.headers["x-vertex-ai-deployed-model-id"] for answer in answers} == {name}
                    assert engine.seen.began == 3
                unknown = await served.client.post(f"{BASE}/deployedModels/d3/invoke/{method}", json=CHAT)
                assert unknown.status_code == 404

    asyncio.run(main())


DOCUMENTED_CURLS = {
    "/chat/completions": """{
    "model": "my-model",
    "temperature": 0,
    "top_p": 1,
    "max_tokens": 154,
    "ignore_eos": true,
    "messages": [
      {
        "role": "user",
        "content": "How to tell the time by looking at the sky?"
      }
    ]
  }""",
    ":predict": """{
    "instances": [
      {
        "prompt": "How to tell the time by looking at the sky?",
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 154,
        "ignore_eos": true
      }
    ]
  }""",
}


@pytest.mark.parametrize("method", DOCUMENTED_CURLS)
def test_documented_curls(tmp_path: Path, method: str) -> None:
    """curl itself, with the bodies of Google's page on custom weights byte for byte, is answered."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            url = f"{served.url}{BASE.replace('/v1/', '/v1beta1/')}{method}"
            curl = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "--fail-with-body", "--noproxy", "*", "-X", "POST", url),
                *("-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"),
                *("-d", DOCUMENTED_CURLS[method]),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await asyncio.wait_for(curl.communicate(), 20)
            assert curl.returncode == 0, output
            assert b"tok tok tok" in output

    asyncio.run(main())
