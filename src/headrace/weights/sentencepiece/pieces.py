"""How many pieces a SentencePiece model has: of its protobuf, field 1 is a piece, as often as there are pieces."""

from __future__ import annotations

from headrace.resources.errors import TokenizerInvalid
from headrace.weights.reader import SMALL_FILE_BYTES, FolderReader
from headrace.weights.sentencepiece.proto import fields

_PIECE = 1
_KNOWN_FIELDS = range(1, 6)
"""Pieces, trainer, normaliser, self-test data, denormaliser."""

_FIRST_EXTENSION = 200


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
    except ValueError as error:
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
    pieces = 0
    for field, value in fields(content):
        if field not in _KNOWN_FIELDS and field < _FIRST_EXTENSION:
            raise ValueError(field)
        pieces += field == _PIECE and isinstance(value, bytes)
    return pieces


def _invalid(name: str, evidence: str) -> TokenizerInvalid:
    return TokenizerInvalid(
        f"{name} is not a SentencePiece model.",
        evidence=f"{name}: {evidence}.",
        fix=f"Copy {name} from the model's source again.",
    )
