"""Whether a folder's tokenizer can be read, and whether the model has an embedding for each of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec

from headrace.resources.errors import (
    ArtifactsNotFound,
    ConfigInvalid,
    HeadraceError,
    SpecialTokensOutside,
    TokenizerInvalid,
    TokenizerMismatch,
    TokenizerMissing,
)
from headrace.weights.config import CONFIG_FILE, ModelConfig
from headrace.weights.finding import Finding, attempt, finding_of
from headrace.weights.folder import TOKENIZER_JSON, TOKENIZER_MAX_BYTES, inspect
from headrace.weights.reader import FolderReader, read_json_object
from headrace.weights.sentencepiece import count_pieces, is_tiktoken

_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_GENERATION = "generation_config.json"
_SHOWN = 4
_COPY = "Copy config.json, the weights and the tokenizer's files from the same revision of the same model."

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Added(msgspec.Struct, frozen=True):
    """A token that was added to a vocabulary, such as a special one."""

    id: _Id
    content: str


class _Model(msgspec.Struct):
    type: str | None = None
    vocab: msgspec.Raw = msgspec.Raw(b"null")


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[Added] | None = None


class Vocabulary(msgspec.Struct, frozen=True):
    """What ``tokenizer.json`` says of its tokens.

    Attributes:
        largest_id: The largest id of an ordinary token; -1 where there is none.
        added: The added tokens.
    """

    largest_id: int
    added: tuple[Added, ...]


def check_tokenizer(reader: FolderReader, config: ModelConfig | None) -> Iterator[Finding]:
    """Name what is wrong with a tokenizer whose ``tokenizer.json``, where there is one, is an object with a model.

    Args:
        reader: The folder; it has one of `headrace.weights.folder.TOKENIZER_FILES`.
        config: What the model says; None where that cannot be read.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    found: list[Finding] = []
    vocabulary: Vocabulary | None = None
    if TOKENIZER_JSON in reader.sizes():
        vocabulary = attempt(partial(read_vocabulary, reader), TOKENIZER_JSON, found)
    pieces = _pieces(reader, found)
    yield from found
    yield from _without_merges(reader)
    if config is None or config.vocab is None:
        return
    largest = vocabulary.largest_id if vocabulary else pieces - 1
    if largest >= config.vocab and largest >= (rows := _rows(reader, config.vocab)):
        mismatch = TokenizerMismatch(
            "The tokenizer has tokens that the model does not know.",
            evidence=f"Its largest token id is {largest:,}; the model's embedding has {rows:,} rows.",
            fix=_COPY,
        )
        yield finding_of(mismatch, TOKENIZER_JSON if vocabulary else "")
        return
    yield from _special_tokens(reader, config.vocab, vocabulary)


def read_vocabulary(reader: FolderReader) -> Vocabulary:
    """The tokens of ``tokenizer.json``.

    Raises:
        TokenizerInvalid: Its vocabulary or its added tokens are not of the form that the tokenizers library writes.
    """
    content = reader.read_range(TOKENIZER_JSON, 0, min(reader.sizes()[TOKENIZER_JSON], TOKENIZER_MAX_BYTES))
    try:
        file = msgspec.json.decode(content, type=_File)
        ids = _ids(file.model)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise TokenizerInvalid(
            f"{TOKENIZER_JSON} is not a tokenizer.",
            evidence=f"{TOKENIZER_JSON}: {problem}.",
            fix=f"Copy {TOKENIZER_JSON} from the model's source again.",
        ) from problem
    added = tuple(file.added_tokens or ())
    special = {token.id for token in added}
    largest = max(ids, default=-1)
    if largest in special:
        largest = max((each for each in ids if each not in special), default=-1)
    return Vocabulary(largest, added)


def _ids(model: _Model) -> Any:
    """The ids of a vocabulary: a dict of tokens to ids, or a list whose places are the ids (``Unigram``)."""
    if model.type not in {"BPE", "WordPiece", "WordLevel", "Unigram"} or bytes(model.vocab) == b"null":
        return ()  # one that a newer library has: nothing is known of its form
    if model.type == "Unigram":
        return range(len(msgspec.json.decode(model.vocab, type=list[tuple[str, float]])))
    return msgspec.json.decode(model.vocab, type=dict[str, _Id]).values()


def _pieces(reader: FolderReader, found: list[Finding]) -> int:
    """The pieces of the folder's SentencePiece model; 0 where there is none, or it is another's format."""
    sizes = reader.sizes()
    for name in _SENTENCEPIECE_FILES:
        if name in sizes and not is_tiktoken(reader, name):
            # engines take tokenizer.json where there is one, so a broken file beside it is only odd
            severity: Any = "warning" if TOKENIZER_JSON in sizes else "error"
            return attempt(partial(count_pieces, reader, name), name, found, severity) or 0
    return 0


def _without_merges(reader: FolderReader) -> Iterator[Finding]:
    sizes = reader.sizes()
    others = (TOKENIZER_JSON, "merges.txt", "vocab.txt", "tekken.json", *_SENTENCEPIECE_FILES)
    if "vocab.json" in sizes and not any(name in sizes for name in others):
        if any(name.endswith((".spm", ".tiktoken")) for name in sizes):
            return
        missing = TokenizerMissing(
            "The tokenizer is not whole: a vocabulary alone does not say how text is cut.",
            evidence="vocab.json is there; merges.txt and tokenizer.json are not.",
            fix="Copy merges.txt or tokenizer.json from the model's source.",
        )
        yield finding_of(missing, "vocab.json", "warning")


def _special_tokens(reader: FolderReader, vocab: int, vocabulary: Vocabulary | None) -> Iterator[Finding]:
    if all(value < vocab for _, value in _named_ids(reader, vocabulary)):
        return
    rows = _rows(reader, vocab)
    outside = 0
    shown: list[str] = []
    for what, value in _named_ids(reader, vocabulary):  # one by one: there may be as many as the file is long
        if value >= rows:
            outside += 1
            if len(shown) < _SHOWN:
                shown.append(f"{what} is {value:,}")
    if outside:
        special = SpecialTokensOutside(
            f"{outside} special token(s) lie outside the model's vocabulary.",
            evidence=f"{'; '.join(shown)}; the model's embedding has {rows:,} rows.",
            fix=f"Nothing, if nobody uses them. Else: {_COPY[0].lower()}{_COPY[1:]}",
        )
        yield finding_of(special, "", "warning")


def _named_ids(reader: FolderReader, vocabulary: Vocabulary | None) -> Iterator[tuple[str, int]]:
    for token in vocabulary.added if vocabulary else ():
        yield f"{token.content[:40]!r}", token.id
    for file, field, value in _special_ids(reader):
        yield f"{field} of {file}", value


def _special_ids(reader: FolderReader) -> Iterator[tuple[str, str, int]]:
    for file in (CONFIG_FILE, _GENERATION):
        for field, value in _small_object(reader, file).items():
            if field in _SPECIAL_IDS:
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, int) and not isinstance(each, bool):
                        yield file, field, min(each, 2**63)  # a number of a thousand digits is no better evidence


def _small_object(reader: FolderReader, file: str) -> Mapping[str, Any]:
    if file not in reader.sizes():
        return {}
    try:
        return read_json_object(reader, file, ConfigInvalid)
    except ArtifactsNotFound:
        raise
    except HeadraceError:
        return {}  # named elsewhere, where somebody needs it


def _rows(reader: FolderReader, vocab: int) -> int:
    """The rows of the largest embedding: what the weights have, where that is more than the configuration says."""
    try:
        tensors = inspect(reader).tensors
    except ArtifactsNotFound:
        raise
    except HeadraceError:
        return vocab
    named = (entry for entry in tensors if len(entry.shape) == 2 and ("emb" in entry.name or "wte" in entry.name))
    return max([vocab, *(entry.shape[0] for entry in named)])
