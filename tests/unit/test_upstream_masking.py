"""A server's key in its own answers: hidden however it is written, wherever the network cut it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.gateway.upstream import Secret
from headrace.gateway.upstream.masking import Masking

KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="*"), min_size=8, max_size=40)


def shown(key: str, pieces: list[bytes]) -> bytes:
    """What is left of an answer that comes in these pieces."""
    masking = Masking(Secret(key))
    return b"".join([*(masking.feed(piece) for piece in pieces), masking.rest()])


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = [0, *sorted(edge % (len(data) + 1) for edge in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(key=KEYS, around=st.lists(st.text(max_size=20), min_size=2, max_size=4), at=st.lists(st.integers(0, 500)))
def test_no_cut_lets_the_key_through(key: str, around: list[str], at: list[int]) -> None:
    """Plain or as JSON, in one piece or byte by byte, the key is not in what is passed on."""
    for written in (key.join(around), json.dumps(key.join(around))):
        data = written.encode()
        for pieces in (cut(data, at), [bytes([byte]) for byte in data]):
            passed_on = shown(key, pieces)
            assert key.encode() not in passed_on
            assert json.dumps(key)[1:-1].encode() not in passed_on


@given(key=KEYS, text=st.binary(max_size=200), at=st.lists(st.integers(0, 300)))
def test_an_answer_without_the_key_is_passed_on_as_it_is(key: str, text: bytes, at: list[int]) -> None:
    """Nothing is lost, changed or moved in an answer that does not have the key."""
    data = text + key[:-1].encode()  # its end looks like a key that begins
    assume(not any(form in data for form in Secret(key).forms))
    assert shown(key, cut(data, at)) == data


@pytest.mark.parametrize(
    "written",
    [
        "sk/a+b<c>&0123",
        r"sk\/a+b<c>&0123",
        r"sk/a+b\u003cc\u003e\u00260123",
        r"sk/a\u002Bb\u003Cc\u003E\u00260123",
    ],
)
def test_a_key_is_found_as_others_write_json(written: str) -> None:
    """The escapes that PHP, Go and .NET put into strings do not carry a key past us."""
    assert shown("sk/a+b<c>&0123", [written[:5].encode(), written[5:].encode()]) == b"***"


def test_a_whole_event_is_not_held() -> None:
    """A stream is as quick as before: what ends where an event ends is passed on at once."""
    masking = Masking(Secret("dddddddd"))
    assert masking.feed(b'data: {"a": "d"}\n\n') == b'data: {"a": "d"}\n\n'


def test_a_short_key_is_no_secret_word() -> None:
    """Placeholders like EMPTY stand in honest text, and are left there."""
    assert shown("EMPTY", [b"is it EMPTY?"]) == b"is it EMPTY?"
    assert Secret("EMPTY").hide_in("EMPTY") == "EMPTY"
    assert "0123456789" not in repr(Secret("0123456789"))
