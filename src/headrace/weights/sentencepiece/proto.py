"""What a SentencePiece model says, read from its protobuf (``sentencepiece_model.proto``).

Protobuf's library and the compiled schema would be two more dependencies of everybody for one file of a few fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""``ModelProto.SentencePiece.Type``."""

UNIGRAM, BPE = 1, 2
"""``TrainerSpec.ModelType``, those of two that are converted."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
Value = int | bytes


class Piece(msgspec.Struct, frozen=True):
    """One token; its place in the list is its id."""

    text: str
    score: float
    kind: int


class SentencePieceModel(msgspec.Struct, frozen=True):
    """A model.

    Attributes:
        pieces: Its tokens.
        model_type: `UNIGRAM`, `BPE`, or another.
        byte_fallback: What is not known is written as bytes.
        suffix: Spaces belong to the word before them (``treat_whitespace_as_suffix``).
        charsmap: Which characters are replaced before anything else, compiled; empty: none.
        dummy_prefix: A space is put before every text.
        squeezed: Spaces at both ends are taken away, and of several one is left.
        escaped: Spaces become ``▁``.
    """

    pieces: tuple[Piece, ...]
    model_type: int
    byte_fallback: bool
    suffix: bool
    charsmap: bytes
    dummy_prefix: bool
    squeezed: bool
    escaped: bool


def parse(content: bytes) -> SentencePieceModel:
    """Read a model.

    Raises:
        ValueError: The bytes are none. (UnicodeDecodeError is one.)
    """
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for field, value in fields(content):
        if field == 1:
            pieces.append(_piece(dict(fields(_as_bytes(value)))))
        elif field == 2:
            trainer |= dict(fields(_as_bytes(value)))
        elif field == 3:
            normalizer |= dict(fields(_as_bytes(value)))
    return SentencePieceModel(
        pieces=tuple(pieces),
        model_type=int(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(trainer.get(35, 0)),
        suffix=bool(trainer.get(24, 0)),
        charsmap=_as_bytes(normalizer.get(2, b"")),
        dummy_prefix=bool(normalizer.get(3, 1)),
        squeezed=bool(normalizer.get(4, 1)),
        escaped=bool(normalizer.get(5, 1)),
    )


def _piece(said: dict[int, Value]) -> Piece:
    score: float = struct.unpack("<f", _as_bytes(said.get(2, b"\0\0\0\0")))[0]
    return Piece(_as_bytes(said.get(1, b"")).decode(), score, int(said.get(3, NORMAL)))


def _as_bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a message or a text should")  # noqa: TRY004 - the bytes are wrong
    return value


def fields(content: bytes) -> Iterator[tuple[int, Value]]:
    """Each field of a message with its number: varints as int, everything else as its bytes.

    Raises:
        ValueError: The bytes are no message.
    """
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(content, position)
        elif kind in {_FIXED_32, _FIXED_64}:
            length = 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(f"field {tag >> 3} is of kind {kind}")
        if position + length > len(content):
            raise ValueError("it ends inside a field")
        yield tag >> 3, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("it ends inside a number")
