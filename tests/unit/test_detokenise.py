"""The pure part of streaming: characters and stop strings, however the bytes and pieces are cut."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_engines.serving.detokenise import Decode, IncrementalDetokeniser, StopScanner

SPECIAL = 1000
"""A token that shows as nothing, as end-of-sequence does."""


def decode_bytes(token_ids: Sequence[int]) -> str:
    """A byte-level tokeniser whose tokens are single bytes: the hardest case for characters."""
    return bytes(token_id for token_id in token_ids if token_id != SPECIAL).decode("utf-8", errors="replace")


WORDS = ["▁the", "▁", "cat", "▁sat", "."]


def decode_words(token_ids: Sequence[int]) -> str:
    """A SentencePiece-like tokeniser: it drops the space before the first word it sees."""
    text = "".join(WORDS[token_id] for token_id in token_ids if token_id != SPECIAL).replace("▁", " ")
    return text.removeprefix(" ")


def pieces_of(decode: Decode, token_ids: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    """What each token showed, and what was left at the end."""
    detokeniser = IncrementalDetokeniser(decode, context)
    return [detokeniser.push(token_id) for token_id in token_ids] + [detokeniser.flush()]


@given(st.text(), st.text(max_size=3))
def test_the_pieces_of_any_text_make_the_text(text: str, context: str) -> None:
    """Whatever the characters, and whatever came before, no piece shows half of one and together they are the text."""
    pieces = pieces_of(decode_bytes, list(text.encode()), list(context.encode()))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.one_of(st.integers(0, 255), st.just(SPECIAL))))
def test_the_pieces_of_any_bytes_make_what_decoding_them_at_once_makes(token_ids: list[int]) -> None:
    """Bytes that are no UTF-8 show as the decoder shows them, once each."""
    assert "".join(pieces_of(decode_bytes, token_ids)) == decode_bytes(token_ids)


@given(st.lists(st.one_of(st.integers(0, len(WORDS) - 1), st.just(SPECIAL))))
def test_a_space_at_the_seam_is_neither_lost_nor_doubled(token_ids: list[int]) -> None:
    """A tokeniser that drops a leading space drops it once, at the start, and not at every piece."""
    assert "".join(pieces_of(decode_words, token_ids)) == decode_words(token_ids)


def test_the_first_piece_continues_the_prompt() -> None:
    """With the prompt's last tokens as context, the first word keeps the space before it."""
    assert "".join(pieces_of(decode_words, [0, 2], context=[3])) == " thecat"


def test_a_character_of_four_tokens_is_shown_with_its_last() -> None:
    """Three quarters of an emoji show as nothing."""
    assert pieces_of(decode_bytes, list("😀".encode())) == ["", "", "", "😀", ""]


def test_garbage_is_not_held_back_for_ever() -> None:
    """Bytes that can no longer become a character are shown while more follow."""
    detokeniser = IncrementalDetokeniser(decode_bytes)
    assert len("".join(detokeniser.push(0xFF) for _ in range(50))) >= 40


def first_stop(text: str, stops: list[str]) -> str | None:
    """The obvious way: read character by character until the text ends in a stop string."""
    for end in range(1, len(text) + 1):
        matching = [stop for stop in stops if text[:end].endswith(stop)]
        if matching:
            return text[: end - max(map(len, matching))]
    return None


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_ends_the_text_however_it_is_cut(pieces: list[str], stops: list[str]) -> None:
    """The answer is that of reading character by character, and nothing shown is ever taken back."""
    scanner = StopScanner(stops)
    shown = ""
    for piece in pieces:
        shown += scanner.push(piece)
        if scanner.hit:
            break
    else:
        shown += scanner.flush()
    text = "".join(pieces)
    expected = first_stop(text, stops)
    assert scanner.hit == (expected is not None)
    assert shown == (text if expected is None else expected)


@pytest.mark.parametrize(("piece", "shown"), [("END", ""), ("xE", "x"), ("xEx", "xEx"), ("", "")])
def test_only_what_may_begin_a_stop_string_is_held_back(piece: str, shown: str) -> None:
    """Text is shown as soon as it cannot be part of a stop string."""
    assert StopScanner(["END."]).push(piece) == shown


def test_a_stop_string_that_keeps_almost_coming_is_looked_for_once_a_character() -> None:
    """However long it is: the work is counted, as characters that were compared."""
    compared = 0

    class Counting(str):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        def __ne__(self, other: object) -> bool:
            return not self == other

        __hash__ = str.__hash__

        def __getitem__(self, key: Any) -> str:
            return Counting(str.__getitem__(self, key)) if isinstance(key, int) else str.__getitem__(self, key)

    scanner = StopScanner([Counting("a" * 1000 + "b")])
    compared = 0
    shown = "".join(scanner.push("a" * 4) for _ in range(2500))
    assert compared <= 3 * 10_000
    assert (shown, scanner.flush()) == ("a" * 9000, "a" * 1000)
