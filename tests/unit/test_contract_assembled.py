"""A streamed answer, put together again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.openai.assembled import assembled


def events(*chunks: Any) -> bytes:
    """A stream of these, with its end."""
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def chunk(delta: Any, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    """One piece of a chat."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


@given(texts=st.lists(st.text(), min_size=1, max_size=6))
@settings(deadline=None)
def test_texts_are_joined(texts: list[str]) -> None:
    """The pieces of a text, in their order, for chats and completions; the usage of the last chunk is there."""
    usage = {"prompt_tokens": 1, "completion_tokens": len(texts), "total_tokens": 1 + len(texts)}
    pieces = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    last = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": usage}
    answer = assembled(events(*pieces, chunk({}, finish="stop"), last))
    assert answer == {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "usage": usage,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(texts)}, "finish_reason": "stop"}],
    }
    plain = assembled(events(*({"choices": [{"index": 0, "text": text}]} for text in texts)))
    assert plain == {"choices": [{"index": 0, "text": "".join(texts)}]}


def test_choices_and_tool_calls_are_told_apart() -> None:
    """By their index, however their parts are mixed."""
    first = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "river", "arguments": ""}}
    part = {"index": 0, "function": {"arguments": '{"name": '}}
    rest = {"index": 0, "function": {"arguments": '"Isar"}'}}
    other = {"index": 1, "id": "call-2", "type": "function", "function": {"name": "lake", "arguments": "{}"}}
    answer = assembled(
        events(
            chunk({"content": "b"}, index=1),
            chunk({"content": None, "tool_calls": [first]}),
            chunk({"tool_calls": [part, other]}),
            chunk({"content": "c"}, index=1),
            chunk({"tool_calls": [rest]}),
        )
    )
    assert answer is not None
    one, two = answer["choices"]
    calls = one["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [
        {"name": "river", "arguments": '{"name": "Isar"}'},
        {"name": "lake", "arguments": "{}"},
    ]
    assert (calls[0]["id"], one["message"]["content"]) == ("call-1", None)
    assert two["message"] == {"content": "bc"}


def test_an_error_in_a_stream_is_kept() -> None:
    """With what came before it."""
    answer = assembled(events(chunk({"content": "x"}), {"error": {"code": "ENGINE_FAILED"}}))
    assert answer is not None
    assert (answer["error"], answer["choices"][0]["message"]) == ({"code": "ENGINE_FAILED"}, {"content": "x"})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "index", "delta", "content", "tool_calls", "function", "text", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(chunks=st.lists(_JSON, max_size=4), garbage=st.binary(max_size=40))
@settings(deadline=None)
def test_anything_else_is_passed_over(chunks: list[Any], garbage: bytes) -> None:
    """Whatever an engine sends in place of chunks, nothing is raised."""
    assembled(events(*chunks) + garbage)


def test_nothing_is_nothing() -> None:
    """A stream that broke off before its first chunk has no answer."""
    assert assembled(b"") is None
    assert assembled(b": a comment\n\n") is None
