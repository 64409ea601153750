"""How many pieces a SentencePiece model has, read from its protobuf by hand.

``ModelProto`` (``sentencepiece_model.proto``): field 1 is a piece, as often as there are pieces. Nothing else of it is
needed here, and it is not worth a dependency.
"""

from __future__ import annotations

from headrace.resources.errors import TokenizerInvalid
from headrace.weights.reader import SMALL_FILE_BYTES, FolderReader

_PIECE = 1
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_KNOWN_FIELDS = range(1, 6)
"""Pieces, trainer, normaliser, self-test data, denormaliser; extensions begin at 200."""


def count_pieces(reader: FolderReader, name: str) -> int:
    """The pieces of a SentencePiece model.

    Raises:
        TokenizerInvalid: The file is none, or is longer than any.
    """
    size_bytes = reader.sizes()[name]
    if size_bytes > SMALL_FILE_BYTES:
        raise _invalid(name, f"it has {size_bytes:,} bytes; at most {SMALL_FILE_BYTES:,} are read")
    content = reader.read_range(name, 0, size_bytes)
    try:
        pieces = _count(content)
    except (IndexError, ValueError) as error:
        raise _invalid(
            name, f"its {size_bytes:,} bytes are not a protobuf: they begin with {content[:16]!r}"
        ) from error
    if not pieces:
        raise _invalid(name, f"its {size_bytes:,} bytes hold no piece")
    return pieces


def is_tiktoken(reader: FolderReader, name: str) -> bool:
    """Whether a file of the same name is of OpenAI's form instead: lines of a token in base 64 and its rank."""
    first = reader.read_range(name, 0, 200).split(b"\n")[0].split(b" ")
    return len(first) == 2 and first[1].strip().isdigit() and first[0].isascii()


def _count(content: bytes) -> int:
    position = pieces = 0
    while position < len(content):
        tag, position = _varint(content, position)
        field, kind = tag >> 3, tag & 7
        if field not in _KNOWN_FIELDS and field < 200:
            raise ValueError(field)
        if kind == _BYTES:
            length, position = _varint(content, position)
            position += length
            pieces += field == _PIECE
        elif kind == _VARINT:
            _, position = _varint(content, position)
        elif kind in {_FIXED_32, _FIXED_64}:
            position += 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(kind)
    if position > len(content):
        raise ValueError(position)
    return pieces


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(shift)


def _invalid(name: str, evidence: str) -> TokenizerInvalid:
    return TokenizerInvalid(
        f"{name} is not a SentencePiece model.",
        evidence=f"{name}: {evidence}.",
        fix=f"Copy {name} from the model's source again.",
    )
