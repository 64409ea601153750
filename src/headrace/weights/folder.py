"""A model folder at a glance: what `inspect` learns from listings, headers and small files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Literal

import msgspec

from headrace.resources.errors import ConfigInvalid, TokenizerInvalid, WeightsCorrupt, WeightsMissing
from headrace.weights.beginnings import instead_of
from headrace.weights.config import ModelConfig, read_config
from headrace.weights.gguf_alone import gguf_error
from headrace.weights.header import TensorEntry, read_ahead, read_header
from headrace.weights.pickles.checkpoint import read_pickle
from headrace.weights.reader import FolderReader, read_json_object, read_once

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
BIN_INDEX_FILE = "pytorch_model.bin.index.json"

TOKENIZER_JSON = "tokenizer.json"

TOKENIZER_FILES = (
    TOKENIZER_JSON,
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tiktoken.model",
    "tekken.json",
)
"""The files any one of which makes a tokenizer, by the families that write them."""

TOKENIZER_MAX_BYTES = 256 * 1024 * 1024
"""The longest tokenizer.json that is read; the largest real one, of 262,144 tokens, has 33 MB."""

WeightsFormat = Literal["safetensors", "bin", "pt"]
"""How weights are stored. ``bin`` and ``pt`` are pickles: those that transformers loads, and those that nobody does."""

NOT_THE_MODEL = (
    *("adapter_", "consolidated", "optimizer", "training_args", "scheduler", "rng_state", "random_states"),
    *("openvino_", "scaler", "ggml"),
)
"""Beginnings of weight-like files that are not what a runtime loads: adapters, duplicates, a training's state,
other programs' files."""


class ModelFolder(msgspec.Struct, frozen=True):
    """What a folder holds.

    Attributes:
        config: The model's shape.
        weights_format: How the weights are stored. Pickles are read as descriptions and never run.
        weight_files: The files that hold them.
        weight_bytes: What the tensors take.
        parameters: Elements in all tensors as stored (a tied head counts once); None where there is none.
        bytes_by_dtype: What the tensors take, by element type.
        tensors: Every tensor; in pickles those that share their numbers have an entry each.
        files: Every file of the folder and its size in bytes.
        tokenizer_files: Those of `TOKENIZER_FILES` that are there.
        has_chat_template: A chat can become a prompt.
    """

    config: ModelConfig
    weights_format: WeightsFormat
    weight_files: tuple[str, ...]
    weight_bytes: int
    parameters: int | None
    bytes_by_dtype: dict[str, int]
    tensors: tuple[TensorEntry, ...]
    files: dict[str, int]
    tokenizer_files: tuple[str, ...]
    has_chat_template: bool


def inspect(reader: FolderReader) -> ModelFolder:
    """Read a folder's configuration and the headers of its weights.

    Raises:
        ConfigMissing: As `read_config`; and `ConfigInvalid`.
        WeightsMissing: There are no weights, or files or tensors that the index names are not there.
        WeightsQuantised: The weights are a GGUF file.
        WeightsTruncated: As `read_header`; and `WeightsCorrupt`.
        PickleUnsafe: As `read_pickle`.
    """
    reader = read_once(reader)
    if gguf := lone_gguf(reader.sizes()):  # before the config.json, which it needs none of
        raise gguf_error(reader, gguf)
    config = read_config(reader)
    weights_format, names = find_weights(reader)
    bytes_by_dtype: Counter[str] = Counter()
    if weights_format == "safetensors":
        read_ahead(reader, names)
        tensors = tuple(entry for name in names for entry in read_header(reader, name).tensors)
        require_indexed_tensors(reader, tensors)
        parameters = sum(entry.elements for entry in tensors)
        for entry in tensors:
            bytes_by_dtype[entry.dtype] += entry.size_bytes
    else:
        pickled = [read_pickle(reader, name) for name in names]
        tensors = tuple(entry for file in pickled for entry in file.tensors)
        require_indexed_tensors(reader, tensors, BIN_INDEX_FILE)
        parameters = sum(file.parameters for file in pickled)
        for file in pickled:
            bytes_by_dtype.update(file.bytes_by_dtype)
    sizes = dict(reader.sizes())
    return ModelFolder(
        config=config,
        weights_format=weights_format,
        weight_files=names,
        weight_bytes=bytes_by_dtype.total() if tensors else sum(sizes[name] for name in names),
        parameters=parameters if tensors else None,
        bytes_by_dtype=dict(bytes_by_dtype),
        tensors=tensors,
        files=sizes,
        tokenizer_files=find_tokenizer(sizes),
        has_chat_template=has_chat_template(reader),
    )


def find_weights(reader: FolderReader) -> tuple[WeightsFormat, tuple[str, ...]]:
    """Which files are the model's: those that an index names, else every one of the best format that is there.

    Raises:
        WeightsMissing: There are none, or the index names others than there are.
        WeightsCorrupt: The index is not one.
        WeightsQuantised: There is only a GGUF file.
    """
    sizes = reader.sizes()
    if INDEX_FILE in sizes:
        return "safetensors", _indexed_files(reader, INDEX_FILE)
    if found := safetensors_files(reader):
        return "safetensors", found
    if BIN_INDEX_FILE in sizes:
        return "bin", _indexed_files(reader, BIN_INDEX_FILE)
    if found := _named(sizes, ".bin"):
        # what transformers writes, and alone reads; other tools' files may lie beside it
        return "bin", tuple(name for name in found if name.startswith("pytorch_model")) or found
    if found := saved_alone(sizes):
        return "pt", found
    if gguf := lone_gguf(sizes):
        raise gguf_error(reader, gguf)
    raise WeightsMissing(
        "The folder has no weights.",
        evidence=f"No *.safetensors, *.bin or *.pt among its {len(sizes)} files.",
        fix="Copy the model's *.safetensors files beside its config.json.",
    )


def safetensors_files(reader: FolderReader) -> tuple[str, ...]:
    """The model's safetensors files, whatever an index says."""
    return _named(reader.sizes(), ".safetensors")


def saved_alone(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Pickles under names that people give to ``torch.save`` and no engine looks for; none beside other weights."""
    return () if _has_weights(sizes) else tuple(sorted(_named(sizes, ".pt") + _named(sizes, ".pth")))


def lone_gguf(sizes: Mapping[str, int]) -> list[str]:
    """The GGUF files of a folder that has no other weights; none where it has."""
    if _has_weights(sizes) or saved_alone(sizes):
        return []
    return sorted(name for name in sizes if name.lower().endswith(".gguf"))


def require_indexed_tensors(reader: FolderReader, tensors: tuple[TensorEntry, ...], index: str = INDEX_FILE) -> None:
    """Hold an index's tensors against those in the files.

    Raises:
        WeightsMissing: The index places a tensor in a file that does not have it.
    """
    if index not in reader.sizes():
        return
    present = {(entry.name, entry.file) for entry in tensors}
    missing = [pair for pair in _weight_map(reader, index).items() if pair not in present]
    if missing:
        raise WeightsMissing(
            f"{len(missing)} tensors are not where {index} says.",
            evidence="; ".join(f"{tensor} is not in {file}" for tensor, file in missing[:3]),
            fix="Copy the index and all its files from the same revision of the model.",
        )


def indexed_tensors(reader: FolderReader) -> Mapping[str, str]:
    """The file of each tensor, as the index of the safetensors files says.

    Raises:
        WeightsCorrupt: The index is not one.
    """
    return _weight_map(reader, INDEX_FILE)


def find_tokenizer(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The tokenizer files that are there."""
    return tuple(name for name in TOKENIZER_FILES if name in sizes)


def require_readable_tokenizer(reader: FolderReader) -> None:
    """Hold ``tokenizer.json``, where there is one, against the form that the tokenizers library writes.

    Raises:
        TokenizerInvalid: It is too long, not JSON, or no object with a ``model``.
    """
    size_bytes = reader.sizes().get(TOKENIZER_JSON)
    if size_bytes is None:
        return
    fix = f"Copy {TOKENIZER_JSON} from the model's source again."
    if size_bytes > TOKENIZER_MAX_BYTES:
        evidence = f"{size_bytes:,} bytes; at most {TOKENIZER_MAX_BYTES:,} are read."
        raise TokenizerInvalid(f"{TOKENIZER_JSON} is too long.", evidence=evidence, fix=fix)
    content = reader.read_range(TOKENIZER_JSON, 0, size_bytes)
    try:
        msgspec.json.decode(content, type=_TokenizerJson)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        if other := instead_of(TOKENIZER_JSON, content, size_bytes):
            raise TokenizerInvalid(other.message, evidence=other.evidence, fix=other.fix) from problem
        evidence = f"{problem} ({size_bytes:,} bytes)"
        raise TokenizerInvalid(f"{TOKENIZER_JSON} is not a tokenizer.", evidence=evidence, fix=fix) from problem


class _TokenizerJson(msgspec.Struct):
    """What every ``tokenizer.json`` has: a model, of which the fields depend on its kind."""

    model: dict[str, msgspec.Raw]


def has_chat_template(reader: FolderReader) -> bool:
    """Whether the folder says how a conversation becomes a prompt.

    Raises:
        ConfigInvalid: ``tokenizer_config.json`` or ``chat_template.json`` is not a JSON object.
    """
    sizes = reader.sizes()
    holders = (name for name in ("tokenizer_config.json", "chat_template.json") if name in sizes)
    return "chat_template.jinja" in sizes or any(
        read_json_object(reader, name, ConfigInvalid).get("chat_template") for name in holders
    )


def _has_weights(sizes: Mapping[str, int]) -> bool:
    """Whether there is what an engine loads, or an index of it."""
    return bool(sizes.keys() & {INDEX_FILE, BIN_INDEX_FILE} or _named(sizes, ".safetensors") or _named(sizes, ".bin"))


def _named(sizes: Mapping[str, int], ending: str) -> tuple[str, ...]:
    return tuple(
        sorted(
            name for name in sizes if name.endswith(ending) and "/" not in name and not name.startswith(NOT_THE_MODEL)
        )
    )


def _indexed_files(reader: FolderReader, index: str) -> tuple[str, ...]:
    named = sorted(set(_weight_map(reader, index).values()))
    missing = [name for name in named if name not in reader.sizes()]
    if missing:
        raise WeightsMissing(
            f"{len(missing)} of the {len(named)} files that {index} names are not there.",
            evidence=f"Missing: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}.",
            fix="Copy the missing files from the model's source.",
        )
    return tuple(named)


def _weight_map(reader: FolderReader, index: str) -> dict[str, str]:
    return read_once(reader).once("index", index, lambda: _read_weight_map(reader, index))


def _read_weight_map(reader: FolderReader, index: str) -> dict[str, str]:
    weight_map = read_json_object(reader, index, WeightsCorrupt).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise WeightsCorrupt(
            f"{index} has no weight_map of tensors to files.",
            evidence=f"weight_map is {brief(weight_map)}.",
            fix=f"Copy {index} from the model's source again.",
        )
    return weight_map
