"""`:generateContent` and its like against an engine: Gemini's wire outside, the engine's chat inside."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import (
    BASE,
    CHAT,
    CONTENTS,
    OTHER_KEY,
    SCOPE,
    VIEWER_KEY,
    Served,
    deployed,
    gateway_before,
    pieces_of,
)
from test_gateway_zero import until

from headrace.contracts.openai.events import event_data
from standin import Script, StandIn

UNARY, STREAM, COUNT = f"{BASE}:generateContent", f"{BASE}:streamGenerateContent", f"{BASE}:countTokens"
SSE = f"{STREAM}?alt=sse"
STRICT = "?%24alt=json%3Benum-encoding%3Dint"
USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}


def reason(answer: httpx.Response) -> str:
    """The stable code of an error in Google's shape."""
    code: str = answer.json()["error"]["details"][0]["reason"]
    return code


def text_of(responses: list[dict[str, Any]]) -> str:
    """What the first candidate says in all of them."""
    return "".join(response["candidates"][0]["content"]["parts"][0]["text"] for response in responses)


def test_a_request_is_a_chat_at_the_engine(tmp_path: Path) -> None:
    """The engine is asked in OpenAI's words under its own name, and its answer comes back in Gemini's."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            body = CONTENTS | {"generationConfig": {"maxOutputTokens": 5, "temperature": 0}, "safetySettings": []}
            for version in ("v1", "v1beta1"):
                answer = await served.client.post(UNARY.replace("/v1/", f"/{version}/") + STRICT, json=body)
                assert answer.json() == {
                    "candidates": [
                        {
                            "index": 0,
                            "content": {"role": "model", "parts": [{"text": "tok tok tok "}]},
                            "finishReason": "STOP",
                        }
                    ],
                    "usageMetadata": USAGE,
                    "modelVersion": "m-d1@1",
                    "responseId": "standin",
                }
                assert answer.headers["x-vertex-ai-deployed-model-id"] == "d1"
            asked = {"messages": CHAT["messages"], "max_tokens": 5, "temperature": 0.0, "model": "served"}
            assert engine.seen.bodies == [asked] * 2

    asyncio.run(main())


@pytest.mark.parametrize("target", [SSE, STREAM, STREAM + STRICT])
def test_a_stream_in_either_form(tmp_path: Path, target: str) -> None:
    """Events with `alt=sse`, else one JSON array; each piece comes before the engine makes the next one."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=3, gated=True)
            engine.gate.release()
            async with served.client.stream("POST", target, json=CONTENTS) as answer:
                kind = "text/event-stream" if target == SSE else "application/json"
                assert answer.headers["content-type"].startswith(kind)
                pieces = answer.aiter_raw()
                first = await anext(pieces)
                assert (first.count(b"tok "), engine.seen.chunks_sent) == (1, 1)
                engine.gate.release()
                engine.gate.release()
                whole = first + b"".join([piece async for piece in pieces])
            responses = [json.loads(data) for data in event_data(whole)] if target == SSE else json.loads(whole)
            assert text_of(responses) == "tok tok tok "
            assert [response["candidates"][0].get("finishReason") for response in responses] == [None] * 3 + ["STOP"]
            assert [response.get("usageMetadata") for response in responses] == [None] * 3 + [USAGE]
            assert b"[DONE]" not in whole

    asyncio.run(main())


@pytest.mark.parametrize("target", [SSE, STREAM])
def test_a_stream_that_breaks_off(tmp_path: Path, target: str) -> None:
    """When the engine dies, the last response is Google's error, and the connection breaks."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=3, die_after=2)
            async with served.client.stream("POST", target, json=CONTENTS) as answer:
                pieces, whole = await pieces_of(answer)
            sent = b"".join(pieces)
            responses = [json.loads(data) for data in event_data(sent)] if target == SSE else json.loads(sent)
            assert not whole
            assert text_of(responses[:-1]) == "tok tok "
            assert responses[-1]["error"]["details"][0]["reason"] == "ENGINE_BROKE_OFF"

    asyncio.run(main())


@pytest.mark.parametrize("target", [UNARY, SSE, STREAM])
def test_refusals_are_googles(tmp_path: Path, target: str) -> None:
    """A bad field never reaches the engine; what the engine refuses comes back in its own sentence."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            unknown = await served.client.post(target, json=CONTENTS | {"temprature": 1})
            assert (unknown.status_code, reason(unknown)) == (400, "BAD_FIELD")
            assert "Unknown name" in unknown.json()["error"]["message"]
            broken = await served.client.post(target, content=b'{"contents":[{"parts":[{"text":"\xff"}]}]}')
            assert (broken.status_code, reason(broken)) == (400, "BAD_JSON")
            assert engine.seen.began == 0
            engine.script = Script(refuse=400)
            refused = await served.client.post(target, json=CONTENTS)
            assert (refused.status_code, reason(refused)) == (400, "ENGINE_REFUSED")
            assert refused.json()["error"]["message"] == "The prompt is too long."
            engine.script = Script(refuse=500)
            failed = await served.client.post(target, json=CONTENTS)
            assert (failed.status_code, reason(failed)) == (503, "ENGINE_FAILED")

    asyncio.run(main())


@pytest.mark.parametrize("target", [UNARY, STREAM, COUNT, f"{BASE}:explain"])
def test_who_may_ask(tmp_path: Path, target: str) -> None:
    """A viewer, and a key of another project, are refused; nothing reaches the engine."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            for key in (VIEWER_KEY, OTHER_KEY):
                headers = {"authorization": f"Bearer {key}"}
                answer = await served.client.post(target, json=CONTENTS, headers=headers)
                assert answer.status_code == 403
            unknown = await served.client.post(target.replace("/e1:", "/e2:"), json=CONTENTS)
            assert unknown.status_code == (501 if target.endswith("explain") else 404)
            assert engine.seen.began == 0

    asyncio.run(main())


@pytest.mark.parametrize("place", ["google/models/my-endpoint", "endpoints/models/e1", "meta/models/my-model"])
def test_a_short_name_leads_to_the_endpoint(tmp_path: Path, place: str) -> None:
    """What google-genai makes of a `model` that is no full name is the endpoint that is called so, or serves it."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            for method in (":generateContent", ":streamGenerateContent?alt=sse", ":countTokens"):
                answer = await served.client.post(f"/v1/{SCOPE}/publishers/{place}{method}", json=CONTENTS)
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-vertex-ai-endpoint-id"] == "e1"

    asyncio.run(main())


def test_a_short_name_that_nothing_has(tmp_path: Path) -> None:
    """The answer says which endpoints there are; a key of another project learns nothing of them."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            target = f"/v1/{SCOPE}/publishers/google/models/gemini-2.5-pro:generateContent"
            answer = await served.client.post(target, json=CONTENTS)
            assert (answer.status_code, reason(answer)) == (404, "MODEL_NOT_FOUND")
            assert "Endpoints there: my-endpoint." in answer.text
            stranger = {"authorization": f"Bearer {OTHER_KEY}"}
            answer = await served.client.post(target, json=CONTENTS, headers=stranger)
            assert (answer.status_code, "my-endpoint" in answer.text) == (403, False)

    asyncio.run(main())


def test_counting_tokens(tmp_path: Path) -> None:
    """The engine counts, of a conversation or of each instance; nothing is metered, for no model computes."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            body = CONTENTS | {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "model": "m"}
            answer = await served.client.post(COUNT, json=body)
            assert answer.json() == {"totalTokens": 7}
            system = {"role": "system", "content": "Be brief."}
            assert engine.seen.bodies == [{"messages": [system, *CHAT["messages"]], "model": "served"}]
            answer = await served.client.post(COUNT, json={"instances": ["a", "b", "c"]})
            assert answer.json() == {"totalTokens": 21}
            assert sorted(body["prompt"] for body in engine.seen.bodies[1:]) == ["a", "b", "c"]
            assert not list((tmp_path / "usage").glob("*.usage"))

    asyncio.run(main())


def test_a_flexible_request_waits_behind_others(tmp_path: Path) -> None:
    """`serviceTier` says the class of a request, as `service_tier` does on OpenAI's paths."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address, max_running=1)) as served,
        ):
            engine.script = Script(gated=True)
            asking = [asyncio.create_task(ask_for(served, "running"))]
            await engine.until(began=1)
            for name, more in (("later", {"serviceTier": "flex"}), ("first", {})):
                asking.append(asyncio.create_task(ask_for(served, name, **more)))
                waiting = len(asking) - 1
                await until(served, lambda told, waiting=waiting: sum(told["waiting"].values()) == waiting)
            for _ in asking:
                engine.gate.release()
            await asyncio.gather(*asking)
            said = [body["messages"][0]["content"] for body in engine.seen.bodies]
            assert said == ["running", "first", "later"]

    asyncio.run(main())


async def ask_for(served: Served, text: str, **more: Any) -> None:
    """Ask, and see that it is answered."""
    body = {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}
    answer = await served.client.post(UNARY, json=body)
    assert answer.status_code == 200, answer.text


def test_explanations_are_refused_with_the_reason(tmp_path: Path) -> None:
    """It is the vendor's method, and says why there is no such thing here and what is."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed()) as served:
            answer = await served.client.post(f"{BASE}:explain{STRICT}", json={"instances": [{"a": 1.0}]})
            assert (answer.status_code, reason(answer)) == (501, "NOT_SUPPORTED")
            assert "logprobs" in answer.json()["error"]["message"]

    asyncio.run(main())
