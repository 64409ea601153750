"""The table of capabilities, cell by cell: a parameter has the effect it promises, or is refused by name.

Every row of `CAPABILITIES` has a request here that asks for it and a check of what it does to the answer; where an
engine is not in the row, the same request has to be refused with the names of the engines that would take it.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from engine_launch import MODEL_NAME
from engine_process import EngineProcess, chat_body, completion_body

from headrace_engines.serving.capabilities import CAPABILITIES, engines_that_honour

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
STORY = "Tell me a story."
OPENING = "Once upon a time"
REPEATS = "a a a a a a a a"
COLOURS = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}, "warm": {"type": "boolean"}},
    "required": ["colour", "warm"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # a whole PNG
)
IMAGE = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    {"type": "text", "text": "What is this?"},
]


EACH_USAGE = {"include_usage": True, "continuous_usage_stats": True}


class Row(NamedTuple):
    """How one row of the table is tried.

    Attributes:
        check: Asks an engine that honours it, and looks at the answer.
        body: A request that another engine has to refuse.
        param: What the refusal names; empty for the row's own name.
        path: Where the request goes.
    """

    check: Callable[[EngineProcess], None]
    body: dict[str, Any]
    param: str = ""
    path: str = CHAT


def greedy(engine: EngineProcess) -> str:
    """What the engine says when it takes the likeliest token each time."""
    return engine.text(STORY, max_tokens=16)


def check_temperature(engine: EngineProcess) -> None:
    """The hotter, the more varied; zero not at all."""
    assert greedy(engine) == greedy(engine)
    assert len({engine.text(STORY, max_tokens=16, temperature=1.8, seed=seed) for seed in range(3)}) > 1


def narrowest(**sampling: float) -> Callable[[EngineProcess], None]:
    """A check that sampling which leaves the likeliest token alone is greedy, at any temperature."""

    def check(engine: EngineProcess) -> None:
        expected = greedy(engine)
        for seed in (1, 2):
            assert engine.text(STORY, max_tokens=16, temperature=1.5, seed=seed, **sampling) == expected

    return check


def check_seed(engine: EngineProcess) -> None:
    """Same seed, same text; another seed, another text."""
    texts = [engine.text(STORY, max_tokens=24, temperature=1.2, seed=seed) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def penalty(**penalties: float) -> Callable[[EngineProcess], None]:
    """A check that a text which repeats itself does so less."""

    def check(engine: EngineProcess) -> None:
        plain, penalised = (
            engine.complete(REPEATS, max_tokens=16, ignore_eos=True, **each)["choices"][0]["text"].split()
            for each in ({}, penalties)
        )
        assert len(set(penalised)) > len(set(plain))

    return check


def check_min_tokens(engine: EngineProcess) -> None:
    """An answer that would end sooner goes on to the number asked for."""
    short = engine.chat("What is 2 + 2?", max_tokens=60)["usage"]["completion_tokens"]
    assert short < 40
    assert engine.chat("What is 2 + 2?", max_tokens=60, min_tokens=40)["usage"]["completion_tokens"] >= 40


def check_ignore_eos(engine: EngineProcess) -> None:
    """Benchmarks need answers of a known length."""
    answer = engine.chat("What is 2 + 2?", max_tokens=70, ignore_eos=True)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (70, "length")


def check_stop(engine: EngineProcess) -> None:
    """The text ends before the stop string, streamed or not, and only tokens up to its end are counted."""
    question = "Count from one to ten."
    full = engine.chat(question, max_tokens=60)
    text = full["choices"][0]["message"]["content"]
    stop = text[11:17]  # cuts through tokens
    expected = text[: text.index(stop)]
    for given in (stop, ["never said", stop]):
        stopped = engine.chat(question, max_tokens=60, stop=given)
        assert stopped["choices"][0]["message"]["content"] == expected
        assert stopped["choices"][0]["finish_reason"] == "stop"
        assert stopped["usage"]["completion_tokens"] < full["usage"]["completion_tokens"]
    chunks = list(engine.stream(CHAT, chat_body(question, max_tokens=60, stop=stop)))
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == expected
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def check_stop_token_ids(engine: EngineProcess) -> None:
    """The first of these tokens ends the answer and is counted."""
    ids = engine.tokens(engine.complete(OPENING, max_tokens=24, ignore_eos=True)["choices"][0]["text"])
    place, stop_id = next((place, each) for place, each in enumerate(ids) if place > 2 and each not in ids[:place])
    answer = engine.complete(OPENING, max_tokens=24, ignore_eos=True, stop_token_ids=[stop_id])
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (place + 1, "stop")


def check_n(engine: EngineProcess) -> None:
    """So many choices, each of its own, all counted."""
    answer = engine.chat(STORY, n=3, max_tokens=12, ignore_eos=True, temperature=1.2)
    assert sorted(choice["index"] for choice in answer["choices"]) == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) > 1
    assert answer["usage"]["completion_tokens"] == 36


def check_echo(engine: EngineProcess) -> None:
    """The prompt comes before its continuation."""
    plain = engine.complete("The sea is", max_tokens=4)["choices"][0]["text"]
    assert engine.complete("The sea is", max_tokens=4, echo=True)["choices"][0]["text"] == "The sea is" + plain


def check_logprobs(engine: EngineProcess) -> None:
    """One for each token, in order, whose texts make the answer; the same on the older route."""
    answer = engine.chat(STORY, max_tokens=12, ignore_eos=True, logprobs=True)
    choice = answer["choices"][0]
    entries = choice["logprobs"]["content"]
    assert len(entries) == answer["usage"]["completion_tokens"] == 12
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(-20 < entry["logprob"] <= 0 for entry in entries)
    older = engine.complete(OPENING, max_tokens=12, ignore_eos=True, logprobs=0)["choices"][0]
    assert "".join(older["logprobs"]["tokens"]) == older["text"]
    assert len(older["logprobs"]["token_logprobs"]) == len(older["logprobs"]["text_offset"]) == 12


def check_top_logprobs(engine: EngineProcess) -> None:
    """The likeliest first, the picked one among them, and no more probability than there is."""
    answer = engine.chat(STORY, max_tokens=6, ignore_eos=True, logprobs=True, top_logprobs=4)
    for entry in answer["choices"][0]["logprobs"]["content"]:
        tops = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(tops) == 4
        assert tops == sorted(tops, reverse=True)
        assert sum(map(math.exp, tops)) <= 1.001
        assert entry["token"] == entry["top_logprobs"][0]["token"]  # greedy
        assert math.isclose(entry["logprob"], tops[0], abs_tol=1e-3)


def check_logit_bias(engine: EngineProcess) -> None:
    """A hundred makes a token certain, minus a hundred impossible."""
    [sea] = engine.tokens(" sea")
    forced = engine.complete(OPENING, max_tokens=4, ignore_eos=True, logit_bias={str(sea): 100})
    assert forced["choices"][0]["text"] == " sea" * 4
    first = engine.tokens(engine.complete(OPENING, max_tokens=1)["choices"][0]["text"])[0]
    without = engine.complete(OPENING, max_tokens=1, logit_bias={str(first): -100})["choices"][0]["text"]
    assert engine.tokens(without)[0] != first


def check_response_format(engine: EngineProcess) -> None:
    """The answer is JSON of the schema, sampled or not, and ends by itself."""
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOURS}}
    for seed in range(2):
        answer = engine.chat("A colour?", response_format=form, max_tokens=200, temperature=0.5 * seed, seed=seed)
        choice = answer["choices"][0]
        value = json.loads(choice["message"]["content"])
        assert value.keys() == {"colour", "warm"}
        assert value["colour"] in ("red", "green", "blue")
        assert isinstance(value["warm"], bool)
        assert choice["finish_reason"] == "stop"


def check_tools(engine: EngineProcess) -> None:
    """The template shows the tools to the model, and a call that it writes is read back, streamed or not."""
    messages = {"model": MODEL_NAME, "messages": chat_body(STORY)["messages"]}
    without, told = (engine.post("/tokenize", messages | tools)["count"] for tools in ({}, {"tools": [WEATHER]}))
    assert told > without
    body = calling_chat()
    choice = engine.post(CHAT, body)["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["type"], call["function"]["name"]) == (
        "tool_calls",
        "function",
        "get_weather",
    )
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    chunks = list(engine.stream(CHAT, body))
    pieces = [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls") or []]
    assert pieces[0]["function"]["name"] == "get_weather"
    arguments = "".join(piece["function"].get("arguments") or "" for piece in pieces)
    assert json.loads(arguments) == {"city": "Rome"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def calling_chat() -> dict[str, Any]:
    """A conversation that goes on as it began: the model is too small to call a tool without examples."""
    messages: list[dict[str, Any]] = []
    for city in ("Paris", "Oslo", "Paris", "Oslo"):
        call = {"id": "call_123456", "type": "function", "function": {"name": "get_weather"}}
        call["function"] = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        messages += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_123456", "content": "sunny"},
            {"role": "assistant", "content": f"It is sunny in {city}."},
        ]
    messages.append({"role": "user", "content": "What is the weather in Rome?"})
    return chat_body("") | {"messages": messages, "tools": [WEATHER], "max_tokens": 60}


def check_tool_choice(engine: EngineProcess) -> None:
    """A tool that is named, or required, is called with arguments of its schema, whatever the question."""
    for choice in (NAMED, "required"):
        answer = engine.chat(STORY, tools=[WEATHER], tool_choice=choice, max_tokens=100)["choices"][0]
        call = answer["message"]["tool_calls"][0]["function"]
        assert call["name"] == "get_weather"
        assert json.loads(call["arguments"])["city"] in ("Paris", "Oslo", "Rome")
    free = engine.chat(STORY, tools=[WEATHER], tool_choice="none", max_tokens=10)["choices"][0]["message"]
    assert not free.get("tool_calls")


def check_prompt_logprobs(engine: EngineProcess) -> None:
    """One entry for each token of the prompt; nothing is known before the first."""
    answer = engine.complete("The sea is deep", max_tokens=1, prompt_logprobs=1)
    entries = answer["choices"][0]["prompt_logprobs"]
    assert len(entries) == answer["usage"]["prompt_tokens"]
    assert entries[0] is None
    assert all(entry for entry in entries[1:])


def check_images(engine: EngineProcess) -> None:
    """The engine could; this model, which knows only text, is named as what cannot."""
    response = engine.client.post(CHAT, json=chat_body("") | {"messages": [{"role": "user", "content": IMAGE}]})
    assert response.status_code == 400, response.text
    assert "multimodal" in response.json()["error"]["message"]


def check_continuous_usage(engine: EngineProcess) -> None:
    """Every chunk says what was used so far."""
    chunks = list(engine.stream(CHAT, chat_body(STORY, max_tokens=4, stream_options=EACH_USAGE)))
    told = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert told == sorted(told)
    assert told[-1] == 4


ROWS: Mapping[str, Row] = {
    "temperature": Row(check_temperature, chat_body(STORY, temperature=0.5)),
    "top_p": Row(narrowest(top_p=1e-6), chat_body(STORY, top_p=0.5)),
    "top_k": Row(narrowest(top_k=1), chat_body(STORY, top_k=5)),
    "min_p": Row(narrowest(min_p=1.0), chat_body(STORY, min_p=0.5)),
    "seed": Row(check_seed, chat_body(STORY, seed=5)),
    "repetition_penalty": Row(penalty(repetition_penalty=2.0), chat_body(STORY, repetition_penalty=1.5)),
    "presence_penalty": Row(penalty(presence_penalty=2.0), chat_body(STORY, presence_penalty=1.0)),
    "frequency_penalty": Row(penalty(frequency_penalty=2.0), chat_body(STORY, frequency_penalty=1.0)),
    "min_tokens": Row(check_min_tokens, chat_body(STORY, min_tokens=2)),
    "ignore_eos": Row(check_ignore_eos, chat_body(STORY, ignore_eos=True)),
    "stop": Row(check_stop, chat_body(STORY, stop="sea")),
    "stop_token_ids": Row(check_stop_token_ids, chat_body(STORY, stop_token_ids=[5])),
    "n": Row(check_n, chat_body(STORY, n=2)),
    "echo": Row(check_echo, completion_body(STORY, echo=True), path=COMPLETIONS),
    "logprobs": Row(check_logprobs, chat_body(STORY, logprobs=True)),
    "top_logprobs": Row(check_top_logprobs, chat_body(STORY, logprobs=True, top_logprobs=3)),
    "logit_bias": Row(check_logit_bias, chat_body(STORY, logit_bias={"5": 10})),
    "response_format": Row(check_response_format, chat_body(STORY, response_format={"type": "json_object"})),
    "tools": Row(check_tools, chat_body(STORY, tools=[WEATHER])),
    "tool_choice": Row(check_tool_choice, chat_body(STORY, tools=[WEATHER], tool_choice="required")),
    "prompt_logprobs": Row(check_prompt_logprobs, completion_body(STORY, prompt_logprobs=1), path=COMPLETIONS),
    "continuous_usage_stats": Row(
        check_continuous_usage, chat_body(STORY, stream=True, stream_options=EACH_USAGE), "stream_options"
    ),
    "images": Row(
        check_images, chat_body("") | {"messages": [{"role": "user", "content": IMAGE}]}, "messages[0].content[0]"
    ),
}
"""By row of the table."""


@pytest.mark.parametrize("parameter", CAPABILITIES)
def test_a_parameter_is_honoured_or_refused_by_name(engine: EngineProcess, parameter: str) -> None:
    """What the table says of this engine is so; a refusal names the engines that can."""
    row = ROWS[parameter]
    able = engines_that_honour(parameter)
    if engine.name in able:
        row.check(engine)
        return
    response = engine.client.post(row.path, json=row.body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (row.param or parameter, "unsupported_parameter")
    assert all(name in error["message"] for name in (*able, engine.name))


def test_every_row_is_tried() -> None:
    """The table has no row without a check."""
    assert ROWS.keys() == CAPABILITIES.keys()
