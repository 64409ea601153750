"""An error in the midst of a stream is told apart from whatever else a stream says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.openai.events import ErrorEvent, error_in, event

PIECE = event(b'{"choices":[{"text":"a"}]}')

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("error", "message", "refused"),
    [
        ({"message": "m", "type": "server_error", "code": "ENGINE_DIED"}, "m", False),
        ({"message": "m", "type": "invalid_request_error"}, "m", True),
        ({"message": "m", "type": "BadRequestError", "code": 400}, "m", True),
        ({"message": "m", "code": 429}, "m", False),
        ({"message": "m", "type": ["BadRequestError"], "code": {}}, "m", False),
        ("no room", "no room", False),
    ],
)
def test_an_error_is_told_with_whose_fault_it_is(error: Any, message: str, refused: bool) -> None:
    """In the shapes of our engines, of vLLM and of others; what came before it is kept apart."""
    said = event(json.dumps({"error": error}).encode())
    assert error_in(PIECE + said + event(b"[DONE]")) == ErrorEvent(PIECE, message, refused)


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":null,"choices":[]}',
        b'{"error":{},"choices":[]}',
        b'{"choices":[{"logprobs":{"tokens":["error"]}}]}',
        b'{"choices":[{"text":"{\\"error\\": 1}"}]}',
        b'{"error"',
        b'"error"',
    ],
)
def test_what_is_none_goes_on(data: bytes) -> None:
    """A field that says there is none, a token of that text, what cannot be read."""
    assert error_in(PIECE + event(data)) is None


@given(error=JSON, others=st.dictionaries(st.text(), JSON, max_size=3))
def test_whatever_a_server_says_is_read(error: Any, others: dict[str, Any]) -> None:
    """Any JSON in the place of an error is one or none, and never a failure of the gateway."""
    found = error_in(event(json.dumps(others | {"error": error}).encode()))
    assert (found is not None) == bool(error)
