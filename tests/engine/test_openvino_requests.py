"""What requests get of the OpenVINO engine beyond the promises of every engine."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engine_process import EngineProcess, chat_body

pytestmark = pytest.mark.engines("openvino")

END = "<|im_end|>"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def json_schema(schema: Any) -> dict[str, Any]:
    """OpenAI's way to ask for it."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


PLAIN = ("The", -0.345)
"""The likeliest first token of `first_logprob` and its log probability, without any sampling parameter."""


def first_logprob(engine: EngineProcess, **sampling: float) -> tuple[str, float]:
    """The first token of an answer, and its log probability."""
    answer = engine.chat("What is the capital of Japan?", max_tokens=1, logprobs=True, **sampling)
    [token] = answer["choices"][0]["logprobs"]["content"]
    return token["token"], token["logprob"]


def test_greedy_is_the_same_every_time(engine: EngineProcess) -> None:
    """The same request in the same company gives the same tokens: alone, and with its prompt in the cache."""
    request = ("Name three rivers and say where they flow.", 40)
    engine.text(request[0], max_tokens=request[1])
    assert len({engine.text(request[0], max_tokens=request[1]) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 2.0, "top_k": 1},
        {"temperature": 0.2, "top_p": 0.01},
        {"temperature": 1.0, "min_p": 1.0},
        {"temperature": 0, "repetition_penalty": 1.05},
    ],
)
def test_log_probabilities_are_the_models_own(engine: EngineProcess, sampling: dict[str, float]) -> None:
    """No temperature, filter or penalty changes what is reported, but for the last digits of bfloat16."""
    token, logprob = first_logprob(engine, **sampling)
    assert (token, logprob) == (PLAIN[0], pytest.approx(PLAIN[1], abs=0.03))


def test_a_text_follows_its_schema(engine: EngineProcess) -> None:
    """From the first character to the end, which comes by itself."""
    answer = engine.chat("Describe Tokyo.", response_format=json_schema(CITY), max_tokens=200)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    said = json.loads(choice["message"]["content"])
    assert said.keys() == {"city", "people"}
    assert isinstance(said["people"], int)


def test_a_stop_token_within_a_grammar_may_be_a_part_of_it(engine: EngineProcess) -> None:
    """It ends the text where it comes, and is not kept out of it."""
    [colon] = engine.tokens(":")
    text = engine.text("Go.", structured_outputs={"regex": "[a-z]{3}:[0-9]{3}"}, stop_token_ids=[colon], max_tokens=30)
    assert re.fullmatch("[a-z]{3}|[a-z]{3}:[0-9]{3}", text)


BAD_FORMATS = {
    "no type": {"type": "banana"},
    "nothing fits": {"type": "integer", "minimum": 5, "maximum": 1},
    "dangling reference": {"$ref": "#/definitions/nobody"},
    "bad pattern": {"type": "string", "pattern": "(["},
    "endless alternatives": {"type": "string", "pattern": "(" * 4000 + "a" + "){1,9}" * 4000},
}


@pytest.mark.parametrize("name", BAD_FORMATS)
def test_a_bad_schema_costs_its_own_request_only(engine: EngineProcess, name: str) -> None:
    """It is refused before any token, while another answer goes on."""
    with ThreadPoolExecutor(1) as other:
        running = other.submit(engine.complete, "Once", max_tokens=40, ignore_eos=True)
        body = chat_body("Hello", response_format=json_schema(BAD_FORMATS[name]))
        response = engine.client.post("/v1/chat/completions", json=body)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == "response_format"
        assert running.result()["usage"]["completion_tokens"] == 40
    assert engine.health() == (200, "ready")


@pytest.mark.parametrize("parameter", [{"ignore_eos": True}, {"min_tokens": 5}])
def test_no_text_goes_on_behind_its_grammar(engine: EngineProcess, parameter: dict[str, Any]) -> None:
    """GenAI would let any token in there; so the two together are refused."""
    body = chat_body("Hello", response_format=json_schema(CITY), max_tokens=50, **parameter)
    response = engine.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("more", [{}, {"ignore_eos": True}])
def test_a_stop_token_ends_the_text_and_is_not_shown(engine: EngineProcess, more: dict[str, Any]) -> None:
    """Counted, as an end-of-sequence token is; whether ends are ignored or not."""
    whole = engine.text("Count from one to nine in words.", max_tokens=24)
    ids = engine.tokens(whole)
    stop = next(index for index in range(3, len(ids)) if ids[index] not in ids[:index])
    answer = engine.chat("Count from one to nine in words.", max_tokens=24, stop_token_ids=[ids[stop]], **more)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert whole.startswith(choice["message"]["content"])
    assert answer["usage"]["completion_tokens"] == stop + 1


def test_min_tokens_holds_for_stop_tokens_and_ends(engine: EngineProcess) -> None:
    """None of them comes before, and the first that comes after ends the text."""
    [end] = engine.tokens(END)
    first = engine.tokens(engine.text("Say yes.", max_tokens=8))[0]
    for stops in ([], [first], [first, end]):
        answer = engine.chat("Say yes.", max_tokens=12, min_tokens=12, stop_token_ids=stops)
        assert answer["usage"]["completion_tokens"] == 12
        assert answer["choices"][0]["finish_reason"] in {"length", "stop"}


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_a_penalty_that_would_reward_is_refused(engine: EngineProcess, penalty: str) -> None:
    """By name, with the engines that have it; zero asks for nothing."""
    refused = engine.client.post("/v1/chat/completions", json=chat_body("Hi", **{penalty: 1.0}))
    assert refused.status_code == 400
    assert "transformers" in refused.json()["error"]["message"]
    assert engine.text("Hi", max_tokens=2, **{penalty: 0.0}) == engine.text("Hi", max_tokens=2)
