"""What a request may use at most: its prompts, and the longest answers that it allows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.openai.need import EMBEDDINGS_PATH, need_of
from headrace.contracts.openai.requests import read_object
from headrace.resources.errors import BadField

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def total(path: str, body: dict[str, Any], *counted: int, context: int = 1000) -> int | None:
    """What it comes to if its prompts have so many tokens."""
    need = need_of(path, read_object(msgspec.json.encode(body)))
    assert len(need.questions) == len(counted)
    return need.total(counted, context)


@pytest.mark.parametrize(
    ("path", "body", "counted", "tokens"),
    [
        (CHAT, {"messages": HI, "max_tokens": 5}, [7], 12),
        (CHAT, {"messages": HI, "max_completion_tokens": 5}, [7], 12),
        (CHAT, {"messages": HI, "max_tokens": 5, "max_completion_tokens": 9}, [7], 16),
        (CHAT, {"messages": HI, "max_tokens": 5, "n": 3}, [7], 22),
        (CHAT, {"messages": HI, "max_tokens": 5, "n": None}, [7], 12),
        (CHAT, {"messages": HI}, [7], 1000),
        (CHAT, {"messages": HI, "max_tokens": None}, [7], 1000),
        (CHAT, {"messages": HI, "max_tokens": "5"}, [7], 12),
        (CHAT, {"messages": HI, "max_tokens": 4.5}, [7], 12),
        (CHAT, {"messages": HI, "max_tokens": 0}, [7], 8),
        (CHAT, {"messages": HI, "max_tokens": -1}, [7], 1000),
        (CHAT, {"messages": HI, "max_tokens": 5000}, [7], 1000),
        (CHAT, {"messages": HI}, [1200], 1200),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 5}, [2], 7),
        (COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 5, "n": 2}, [2, 3], 25),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 5, "best_of": 4, "n": 2}, [2], 22),
        (COMPLETIONS, {"prompt": [1, 2, 3], "max_tokens": 5}, [], 8),
        (COMPLETIONS, {"prompt": [[1, 2, 3], [4]], "max_tokens": 5}, [], 14),
        (COMPLETIONS, {"prompt": [[1, 2, 3], "a"], "max_tokens": 5}, [2], 15),
        (COMPLETIONS, {"prompt": [], "max_tokens": 5}, [], 0),
        (COMPLETIONS, {"max_tokens": 5}, [], 0),
        (EMBEDDINGS_PATH, {"input": "a", "max_tokens": 5}, [2], 2),
        (EMBEDDINGS_PATH, {"input": ["a", "b"]}, [2, 3], 5),
        (EMBEDDINGS_PATH, {"input": [1, 2, 3]}, [], 3),
        (EMBEDDINGS_PATH, {"input": [[1, 2, 3], [4]]}, [], 4),
    ],
)
def test_what_a_request_needs(path: str, body: dict[str, Any], counted: list[int], tokens: int) -> None:
    """Each prompt, and as many answers to it as are asked for, each as long as it may get."""
    assert total(path, body, *counted) == tokens


@pytest.mark.parametrize("value", ["x", "nan", True, [5], {}], ids=repr)
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n", "best_of"])
def test_what_is_no_number_is_named(field: str, value: Any) -> None:
    """A request is not taken for one that may use the whole context because its cap cannot be read."""
    with pytest.raises(BadField, match=f"`{field}` must be a number") as refused:
        need_of(CHAT, read_object(msgspec.json.encode({"messages": HI, field: value})))
    assert refused.value.fix


def test_without_a_context_the_request_has_to_say() -> None:
    """Where nobody knows how long an answer may get, only `max_tokens` tells."""
    assert total(CHAT, {"messages": HI}, 7, context=0) is None
    assert total(CHAT, {"messages": HI, "max_tokens": 5}, 7, context=0) == 12
    assert total(EMBEDDINGS_PATH, {"input": "a"}, 2, context=0) == 2


def test_a_chat_is_counted_with_all_that_its_prompt_is_made_of() -> None:
    """Tools and the template's variables are in the question, nothing else of the request is, and no nulls."""
    body = {
        "model": "m",
        "messages": HI,
        "tools": [{"type": "function"}],
        "chat_template_kwargs": {"think": False},
        "add_generation_prompt": None,
        "continue_final_message": False,
        "temperature": 0.5,
        "stream": True,
    }
    (question,) = need_of(CHAT, read_object(msgspec.json.encode(body))).questions
    asked = msgspec.json.decode(msgspec.json.encode(question))
    assert asked == {
        name: body[name] for name in ("messages", "tools", "chat_template_kwargs", "continue_final_message")
    }


_NUMBERS = st.none() | st.integers(-5, 2000) | st.floats(0, 50) | st.integers(0, 99).map(str)
_PROMPTS = st.text(max_size=3) | st.lists(st.integers(0, 9), max_size=4)


@given(
    prompt=_PROMPTS | st.lists(_PROMPTS, max_size=4),
    max_tokens=_NUMBERS,
    samples=_NUMBERS,
    tokens=st.integers(1, 50),
    context=st.integers(1, 100),
)
def test_the_least_is_no_more_than_the_total(
    prompt: Any, max_tokens: Any, samples: Any, tokens: int, context: int
) -> None:
    """Whatever a body says, what is known before its prompts are counted is not above what is known after."""
    body = {"prompt": prompt, "max_tokens": max_tokens, "n": samples}
    need = need_of(COMPLETIONS, read_object(msgspec.json.encode(body)))
    for max_model_len in (context, 0) if need.max_tokens is not None else (context,):
        total = need.total([tokens] * len(need.questions), max_model_len)
        assert total is not None
        assert 0 <= need.least(max_model_len) <= total
