"""Predictions through the vendor's unmodified SDK, its newest and the last of the generation before, by REST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vendor_client import run_client

from server_process import ServerProcess

SCRIPT = Path(__file__).with_name("sdk_prediction.py")


@pytest.fixture(scope="module", params=["HEADRACE_TEST_VERTEX_SDK_2_PYTHON", "HEADRACE_TEST_VERTEX_SDK_1_PYTHON"])
def told(request: pytest.FixtureRequest, shared_server: ServerProcess, endpoint: str) -> Any:
    """What the SDK saw."""
    return run_client(request.param, SCRIPT, shared_server.url, shared_server.key, endpoint)


def text_of(response: Any) -> str:
    """What the only candidate of a response says; an empty text is not written by the SDK."""
    [candidate] = response["candidates"]
    return "".join(part.get("text", "") for part in candidate["content"]["parts"])


def test_predict(told: Any) -> None:
    """Several instances of all kinds, parameters of all and of one, and which deployed model it was."""
    completion, text, chat = told["predictions"]
    assert completion.startswith("Prompt:\nThe capital of Japan is\nOutput:\n")
    assert text.startswith(completion)
    assert len(text) > len(completion)
    assert "Tokyo" in chat["choices"][0]["message"]["content"]
    assert told["deployed_model"]
    assert told["usage"]["completion_tokens"] <= 4 + 8 + 16


def test_a_chat_alone(told: Any) -> None:
    """The SDK reads a list of predictions only, so it gets one, also where others get the chat itself."""
    [chat] = told["alone"]
    assert chat["choices"][0]["message"]["content"] == told["predictions"][2]["choices"][0]["message"]["content"]


def test_generate_content(told: Any) -> None:
    """Gemini's method in both versions of the API, whole and as a stream; the same text, the same counts."""
    usage = told["generated"]["usageMetadata"]
    assert "Tokyo" in text_of(told["generated"])
    assert text_of(told["beta"]) == text_of(told["generated"])
    assert "".join(map(text_of, told["streamed"])) == text_of(told["generated"])
    assert len(told["streamed"]) > 5
    assert told["streamed"][-1]["usageMetadata"] == usage
    assert told["counted"] == usage["promptTokenCount"]


def test_a_schema(told: Any) -> None:
    """The vendor's form of a schema, its types as numbers, is what the answer looks like."""
    assert list(told["typed"]) == ["city"]


def test_mistakes(told: Any) -> None:
    """They raise the SDK's own errors, with our code as the reason."""
    assert (told["instance"]["type"], told["instance"]["reason"]) == ("BadRequest", "BAD_FIELD")
    assert (told["explain"]["type"], told["explain"]["reason"]) == ("MethodNotImplemented", "NOT_SUPPORTED")
    assert (told["parameter"]["type"], told["parameter"]["reason"]) == ("BadRequest", "ENGINE_REFUSED")
    assert "temperature" in told["parameter"]["message"]
