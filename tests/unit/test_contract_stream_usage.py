"""Usage that is asked for on a client's behalf: the client's stream is as if nobody had asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.openai.events import ends_stream, text_pieces
from headrace.contracts.openai.requests import read_object
from headrace.contracts.openai.stream_usage import ask_for_usage, without_usage
from headrace.resources.errors import BadField
from headrace_engines.serving.answers import AnswerShape, ChatShape, CompletionShape
from headrace_engines.serving.choices import Piece

_TRICKS = [
    "[DONE]",
    "data: [DONE]",
    "\n\ndata: [DONE]\n\n",
    ',"usage":null',
    '"content":"x"',
    '{"choices":[],"usage":{}}',
]
_TEXTS = st.lists(st.text(max_size=10) | st.sampled_from(_TRICKS), max_size=4)


def _stream(kind: type[AnswerShape], texts: list[str], *, include_usage: bool) -> list[bytes]:
    shape = kind("id", "model", logprobs=False, include_usage=include_usage)
    shape._created = 1
    pieces = [*(Piece(content=text) for text in texts), Piece(finish_reason="stop")]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return [shape.opening(1), *(shape.event(0, piece) for piece in pieces), shape.closing(usage)]


@pytest.mark.parametrize("kind", [ChatShape, CompletionShape])
@given(texts=_TEXTS, at_once=st.booleans())
def test_it_is_as_if_nobody_had_asked(kind: type[AnswerShape], texts: list[str], at_once: bool) -> None:
    """What our engines add to a stream for its usage is taken out, in whatever pieces it comes, whatever is said."""
    asked, unasked = (_stream(kind, texts, include_usage=asked) for asked in (True, False))
    if at_once:
        assert without_usage(b"".join(asked)) == b"".join(unasked)
    else:
        assert b"".join(map(without_usage, asked)) == b"".join(unasked)
        assert [piece for piece in asked if ends_stream(piece)] == asked[-1:]
        assert sum(map(text_pieces, asked)) == sum(map(bool, texts))


@pytest.mark.parametrize("options", [None, "absent", {}, {"include_usage": False}, {"include_usage": None}])
def test_who_did_not_ask_is_asked_for(options: Any) -> None:
    """A stream without options, or with the option not set, is sent with it, and the rest stays as it is."""
    given = {"a": 1.50} if options == "absent" else {"a": 1.50, "stream_options": options}
    body = read_object(json.dumps(given).encode())
    assert ask_for_usage(body)
    assert msgspec.json.decode(msgspec.json.encode(body)) == {"a": 1.5, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"include_obfuscation": False}, {"include_obfuscation": False}),
        ({"include_usage": None, "continuous_usage_stats": False}, {"continuous_usage_stats": False}),
        ({"continuous_usage_stats": True}, {}),
        ({"y": None}, {"y": None}),
    ],
)
def test_other_options_make_no_stream_unmetered(options: Any, kept: Any) -> None:
    """They go on to the engine as they are; but what would put usage into each chunk, which nobody asked for."""
    body = read_object(json.dumps({"stream_options": options}).encode())
    assert ask_for_usage(body)
    assert msgspec.json.decode(body["stream_options"]) == kept | {"include_usage": True}


@pytest.mark.parametrize("asked", [0, 1, "false", [], {}])
def test_an_option_that_engines_may_read_as_they_like_is_refused(asked: Any) -> None:
    """vLLM takes 0 for a no, and the stream would end without its usage."""
    body = read_object(json.dumps({"stream_options": {"include_usage": asked}}).encode())
    with pytest.raises(BadField, match=r"stream_options\.include_usage` must be true or false"):
        ask_for_usage(body)


@pytest.mark.parametrize("options", [{"include_usage": True}, [], "x"])
def test_what_was_asked_stays_as_it_is(options: Any) -> None:
    """Options that ask for usage, or for what only the engine can judge, reach it unchanged."""
    body = read_object(json.dumps({"stream_options": options}).encode())
    assert not ask_for_usage(body)
    assert msgspec.json.decode(msgspec.json.encode(body)) == {"stream_options": options}


def test_chunks_that_are_more_than_their_usage_stay() -> None:
    """Usage in a chunk that has choices is no chunk of ours to drop; neither is an error, or what cannot be read."""
    for event in (
        b'data: {"choices":[{"text":"x"}],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"error":{"message":"the \\"usage\\""}}\n\n',
        b'data: "usage" {\n\n',
    ):
        assert without_usage(event) == event
