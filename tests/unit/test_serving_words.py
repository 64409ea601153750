"""A refusal says in plain words what is wrong, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from serving_fake import MODEL, Saying, refused, serving
from test_serving_wire import Lengths

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "param", "sentence"),
    [
        ({"temperature": 5}, "temperature", "`temperature` is 5; at most 2.0 is possible."),
        ({"temperature": "hot"}, "temperature", "`temperature` must be a number, not a string."),
        ({"top_p": 0}, "top_p", "`top_p` is 0; more than 0.0 is possible."),
        ({"messages": "Hi"}, "messages", "`messages` must be an array, not a string."),
        ({"messages": [5]}, "messages[0]", "`messages[0]` must be an object, not a whole number."),
        ({"messages": []}, "messages", "`messages` must have at least 1 item."),
        ({"n": 2.5}, "n", "`n` must be a whole number, not a number with a fraction."),
        ({"stop": ""}, "stop", "`stop` must have at least 1 character."),
        ({"stop": ["a", 5]}, "stop[1]", "`stop[1]` must be a string, not a whole number."),
        ({"logit_bias": {"a": 1}}, "logit_bias", "A key of `logit_bias` must be a whole number, not a string."),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "`stream_options` has no field `x`."),
        ({"top_logprobs": 3}, "top_logprobs", "`top_logprobs` needs `logprobs` to be true."),
        ({"guided_choice": []}, "guided_choice", "`guided_choice` must have at least 1 item."),
        ({"response_format": {"type": "xml"}}, "response_format", "`response_format.type` cannot be 'xml'."),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format",
            "`response_format` lacks `json_schema`.",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0]", "`tools[0]` lacks `function`."),
        ({"max_token": 5}, "max_token", "Unknown parameter: 'max_token'. Did you mean `max_tokens`?"),
        ({"no_such_thing": 5}, "no_such_thing", "Unknown parameter: 'no_such_thing'."),
        ({"prompt": "Hi"}, "prompt", "`prompt` belongs to /v1/completions."),
    ],
)
async def test_what_is_wrong_is_said_in_plain_words(said: dict[str, Any], param: str, sentence: str) -> None:
    """With the parameter's name, what it must be, and what it is."""
    async with serving(Saying("a")) as client:
        error = await refused(client, CHAT, {"messages": HI} | said)
    assert (error["message"], error["param"]) == (sentence, param)


@pytest.mark.anyio
async def test_what_is_missing_or_belongs_elsewhere_is_said() -> None:
    """By the names that a client knows."""
    async with serving(Saying("a")) as client:
        assert (await refused(client, COMPLETIONS, {}))["message"] == "`prompt` is missing."
        said = await refused(client, COMPLETIONS, {"messages": HI})
        assert said["message"] == "`messages` belongs to /v1/chat/completions."


@pytest.mark.anyio
async def test_a_chat_with_an_embedding_model_is_told_what_it_is() -> None:
    """At once, not by way of a chat template that it has not; an empty text is refused as at OpenAI."""
    async with serving(None, embedder=Lengths(), template=None) as client:
        error = await refused(client, CHAT, {"messages": HI})
        assert (error["code"], error["param"]) == ("unsupported_task", "model")
        assert "is an embedding model" in error["message"]
        for value in ("", ["a", ""]):
            error = await refused(client, "/v1/embeddings", {"input": value})
            assert (error["code"], error["param"]) == ("invalid_value", "input")
        assert (await client.post("/v1/embeddings", json={"model": MODEL, "input": "a"})).status_code == 200
