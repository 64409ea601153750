"""Serving endpoints asked as Databricks' clients do: by their name, in each way, with errors in their shape."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateway_serving import CHAT, OTHER_KEY, VIEWER_KEY, deployed, gateway_before

from headrace.resources.errors import Failure
from standin import Script, StandIn

INVOKE = "/serving-endpoints/my-endpoint/invocations"


def ask(tmp_path: Path, path: str, body: Any, *, key: str | None = None) -> tuple[int, Any, StandIn]:
    """The answer of one request, and the engine that saw it."""

    async def main() -> tuple[int, Any, StandIn]:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=2)
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = await served.client.post(path, json=body, headers=headers)
            streamed = answer.headers["content-type"].startswith("text/event-stream")
            return answer.status_code, answer.text if streamed else answer.json(), engine

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "kind"),
    [({"messages": CHAT["messages"]}, "chat.completion"), ({"prompt": "hi"}, "text_completion")],
)
def test_openais_shapes(tmp_path: Path, body: dict[str, Any], kind: str) -> None:
    """A chat and a completion are answered as OpenAI's are, whatever the endpoint's model is called."""
    status, answer, _ = ask(tmp_path, INVOKE, body | {"client_request_id": "x"})
    assert (status, answer["object"]) == (200, kind)


@pytest.mark.parametrize(
    "table",
    [
        {"dataframe_split": {"columns": ["prompt"], "data": [["a"], ["b"]]}},
        {"dataframe_records": [{"prompt": "a"}, {"prompt": "b"}]},
        {"inputs": ["a", "b"]},
        {"instances": ["a", "b"]},
    ],
)
def test_tables(tmp_path: Path, table: dict[str, Any]) -> None:
    """Each row is a request; the answer is the texts that the model wrote, and nothing else."""
    assert ask(tmp_path, INVOKE, table)[:2] == (200, {"predictions": ["tok tok ", "tok tok "]})


def test_what_stands_beside_a_table_reaches_the_engine(tmp_path: Path) -> None:
    """As Databricks' SDK sends it; a stream is refused by name."""
    sent = {"inputs": ["a"], "max_tokens": 3, "temperature": 0, "stop": ["x"]}
    status, _, engine = ask(tmp_path, INVOKE, sent)
    assert status == 200
    assert {name: engine.seen.bodies[-1][name] for name in ("max_tokens", "temperature", "stop")} == {
        "max_tokens": 3,
        "temperature": 0,
        "stop": ["x"],
    }
    status, answer, _ = ask(tmp_path, INVOKE, sent | {"stream": True})
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "not streamed" in answer["message"]


def test_what_failed_for_good_is_not_asked_again(tmp_path: Path) -> None:
    """It gets no status that Databricks' SDK repeats for five minutes, whatever else the answer says (429, 503)."""

    async def main() -> None:
        failure = Failure(code="DOES_NOT_FIT", message="It needs 9 GB.")
        async with gateway_before(tmp_path, deployed(failure=failure)) as served:
            answer = await served.client.post(INVOKE, json=CHAT)
            assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_STATE")
            assert "NOT_READY" in answer.json()["message"]

    asyncio.run(main())


def test_a_stream(tmp_path: Path) -> None:
    """Server-sent events, to the last one."""
    status, answer, _ = ask(tmp_path, INVOKE, {"messages": CHAT["messages"], "stream": True})
    assert status == 200
    assert answer.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize(
    ("path", "body", "key", "told"),
    [
        (INVOKE, {}, None, (400, "INVALID_PARAMETER_VALUE")),
        (INVOKE, {"prompt": "a", "inputs": ["a"]}, None, (400, "INVALID_PARAMETER_VALUE")),
        (INVOKE, {"dataframe_split": {"columns": ["prompt"], "data": [[]]}}, None, (400, "INVALID_PARAMETER_VALUE")),
        (INVOKE, {"inputs": [{"q": "a"}]}, None, (400, "INVALID_PARAMETER_VALUE")),
        (INVOKE, {"messages": [], "standin": {"refuse": 400}}, None, (400, "INVALID_PARAMETER_VALUE")),
        ("/serving-endpoints/nothing/invocations", {"prompt": "a"}, None, (404, "RESOURCE_DOES_NOT_EXIST")),
        (INVOKE, {"prompt": "a"}, "hr-stranger", (401, "UNAUTHENTICATED")),
        (INVOKE, {"prompt": "a"}, VIEWER_KEY, (403, "PERMISSION_DENIED")),
        (INVOKE, {"prompt": "a"}, OTHER_KEY, (404, "RESOURCE_DOES_NOT_EXIST")),
    ],
)
def test_errors(tmp_path: Path, path: str, body: dict[str, Any], key: str | None, told: tuple[int, str]) -> None:
    """In Databricks' shape, an engine's own refusals too; nobody learns of endpoints that his key does not reach."""
    status, answer, _ = ask(tmp_path, path, body, key=key)
    assert (status, answer["error_code"]) == told
    assert set(answer) == {"error_code", "message", "details"}


def test_openais_clients(tmp_path: Path) -> None:
    """Below the base URL that the SDK gives them `model` is the endpoint's name, and errors are OpenAI's."""
    path = "/serving-endpoints/chat/completions"
    assert ask(tmp_path, path, CHAT | {"model": "my-endpoint"})[0] == 200
    status, answer, _ = ask(tmp_path, path, CHAT | {"model": "nothing"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_another_method_is_told_which_it_takes(tmp_path: Path) -> None:
    """405 with `Allow`."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            answer = await served.client.get(INVOKE)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    asyncio.run(main())
