"""google-genai, the client of Gemini, unmodified, before an endpoint with a model of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vendor_client import run_client

from server_process import PROJECT, ServerProcess

SCRIPT = Path(__file__).with_name("sdk_genai.py")
TOOL_TEMPLATE = Path(__file__).parents[1] / "engine" / "tool_template.jinja"
"""The demo model's own, and a way to write calls of functions, which it has not."""

TOKENS = 16


@pytest.fixture(scope="module")
def told(shared_server: ServerProcess, demo_model: Path) -> Any:
    """What the client saw."""
    body = {
        "artifact_uri": str(demo_model),
        "project": PROJECT,
        "endpoint_id": "river",
        "chat_template": TOOL_TEMPLATE.read_text(),
    }
    with shared_server.client() as client:
        answer = client.post("/headrace/v1/deployments", json=body)
        assert answer.status_code < 300, answer.text
        done = shared_server.await_operation(answer.json()["name"])
        assert "response" in done, done
        [endpoint] = client.get(f"/v1/projects/{PROJECT}/locations/us-central1/endpoints").json()["endpoints"]
    return run_client("HEADRACE_TEST_GENAI_PYTHON", SCRIPT, shared_server.url, shared_server.key, endpoint["name"])


def test_generate_content(told: Any) -> None:
    """The answer, why it ended, and counts that the engine made; by either version of the API the same."""
    whole = told["generated"]["whole"]
    assert "Tokyo" in whole["text"]
    assert whole["reason"] in ("STOP", "MAX_TOKENS")
    prompt, output, total = whole["usage"]
    assert (total, 0 < output <= TOKENS) == (prompt + output, True)
    assert "@1" in whole["version"]
    assert whole["id"]
    assert told["generated"]["v1"] | {"id": ""} == whole | {"id": ""}


def test_a_stream(told: Any) -> None:
    """Many chunks that say together what the whole answer says; the reason and the counts come with the last one."""
    whole, stream = told["generated"]["whole"], told["generated"]["stream"]
    assert "".join(chunk["text"] or "" for chunk in stream) == whole["text"]
    assert len(stream) > 5
    assert [chunk["usage"] for chunk in stream] == [None] * (len(stream) - 1) + [whole["usage"]]
    assert [chunk["reason"] for chunk in stream] == [None] * (len(stream) - 1) + [whole["reason"]]
    assert len({chunk["id"] for chunk in stream}) == 1


def test_count_tokens(told: Any) -> None:
    """What is counted is what the engine reads for an answer, its chat template's words included."""
    assert told["generated"]["counted"] == told["generated"]["whole"]["usage"][0]
    assert told["generated"]["instructed"]["usage"][0] != told["generated"]["counted"]
    assert told["chat"]["counted"] == told["chat"]["prompts"][-1]


def test_short_names(told: Any) -> None:
    """An endpoint's id, with `endpoints/` before it or not, stands for its full name."""
    whole = told["generated"]["whole"]
    assert [answer["text"] for answer in told["generated"]["short"]] == [whole["text"]] * 2


def test_parameters(told: Any) -> None:
    """Limits, stops, several candidates and log probabilities are the engine's; safety settings change nothing."""
    config = told["config"]
    assert (config["cut"]["reason"], config["cut"]["usage"][1]) == ("MAX_TOKENS", 3)
    assert (config["stopped"]["reason"], "Tokyo" in (config["stopped"]["text"] or "")) == ("STOP", False)
    assert config["several"]["candidates"] == 2
    assert config["safe"]["text"] == told["generated"]["whole"]["text"]
    assert told["generated"]["whole"]["text"].startswith("".join(config["logprobs"]))
    assert len(config["logprobs"]) == 2
    assert config["average"] < 0


def test_forms_of_answers(told: Any) -> None:
    """A class of the caller's, a JSON Schema, and a choice of texts are what the answer looks like."""
    config = told["config"]
    assert set(config["parsed"]) == {"name", "large"}
    assert isinstance(config["json"]["so"], bool)
    assert config["enum"] in ("certainly", "never")


def test_a_chat(told: Any) -> None:
    """A streamed turn is as good a part of the history as a whole one."""
    chat = told["chat"]
    assert all(chat["answers"])
    assert "Tokyo" in chat["answers"][0]
    assert chat["turns"][0] == "user"
    assert chat["turns"].count("user") == 3
    assert chat["prompts"] == sorted(chat["prompts"])


def test_function_calls(told: Any) -> None:
    """A call that the client wants is made, with arguments that follow the declaration, also in a stream."""
    calls = told["calls"]
    assert calls["name"] == "weather"
    assert set(calls["args"]) == {"city"}
    assert calls["streamed"] == [[calls["name"], calls["args"]]]
    assert calls["after"][0] > calls["before"][0]  # the engine has read the call and its response


def test_async(told: Any) -> None:
    """The asynchronous client gets the same answers."""
    whole = told["generated"]["whole"]["text"]
    assert told["async"]["whole"] == [whole] * 3
    assert told["async"]["streamed"] == whole
    assert told["async"]["chunks"] > 5


@pytest.mark.parametrize(
    ("mistake", "code", "says"),
    [
        ("parameter", 400, "temperature"),
        ("engine", 400, "top_logprobs"),
        ("picture", 400, ""),
        ("file", 400, "fileData"),
        ("search", 400, "googleSearch"),
        ("endpoint", 404, "12345"),
        ("stream", 404, "12345"),
        ("name", 404, "Endpoints there: "),
        ("key", 401, ""),
    ],
)
def test_mistakes(told: Any, mistake: str, code: int, says: str) -> None:
    """They raise the client's own error with our sentence."""
    refused = told["refused"][mistake]
    assert (refused["type"], refused["code"]) == ("ClientError", code)
    assert says in refused["message"]
