"""What a conversion will write, decided from headers and small files before the first byte."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import msgspec

from headrace.resources.errors import ConfigInvalid, ConversionFailed, NothingToConvert
from headrace.weights.architectures import HEADS, place_of
from headrace.weights.config import CONFIG_FILE, parse_config, text_part
from headrace.weights.conversion.layout import SHARD_BYTES, PlannedFile, PlannedTensor, index, lay_out
from headrace.weights.conversion.mark import Mark, Wanted, read_mark
from headrace.weights.conversion.sources import Sources, read_sources
from headrace.weights.conversion.tensors import StoredTensor
from headrace.weights.folder import BIN_INDEX_FILE, INDEX_FILE, SINGLE_FILE, TOKENIZER_JSON
from headrace.weights.header import TensorEntry
from headrace.weights.quantisation import METHODS, method_of
from headrace.weights.reader import FolderReader, read_json_object
from headrace.weights.sentencepiece import convertible_model, tokenizer_json

_ROUNDED = frozenset({"F32", "F16"})
_FINE = ("rotary_emb.inv_freq", "e_score_correction_bias")
"""Endings of tensors that stay as fine as they are: transformers computes with them in float32 whatever the rest is
(``_keep_in_fp32_modules_strict`` of DeepSeek V3; the frequencies of rotations, which old Llama checkpoints bring)."""

_OTHER_FORMS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".npz", ".tflite",
)  # fmt: skip
"""Endings of weights in other forms, and of a training's state, which are left behind. Those in folders below the
model's belong to its parts (sentence-transformers' modules) and come along."""


class FolderPlan(msgspec.Struct, frozen=True):
    """What will be written.

    Attributes:
        mark: What the folder will say about itself.
        files: The weights that are written anew.
        linked: The weights that stay as they are: a name, and the source's file that gets it as a second one.
        small: Other contents, by name, that are written anew.
        copied: The folder's files that come along as they are.
        size_bytes: All of it together, but for what is linked.
    """

    mark: Mark
    files: tuple[PlannedFile, ...]
    small: dict[str, bytes]
    copied: tuple[str, ...]
    size_bytes: int
    linked: dict[str, str] = {}

    @property
    def what(self) -> str:
        """What is made, and from what, as a part of a sentence."""
        return self.mark.made


def plan_folder(
    reader: FolderReader,
    dtype: Wanted = "own",
    *,
    note: bool = True,
    link: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> FolderPlan:
    """Decide what a folder becomes.

    Args:
        reader: The folder, which has no error that the doctor would find.
        dtype: In which format the numbers are to be written.
        note: That the format is not noted is a reason by itself.
        link: Files in order may stay as they are, as hard links: for folders that nobody writes to.
        shard_bytes: At which size a file ends.

    Raises:
        NothingToConvert: It is in the form that every engine loads.
        ConversionFailed: It cannot be converted without loss.
        HeadraceError: As `read_sources`.
    """
    sources = read_sources(reader)
    raw = read_json_object(reader, CONFIG_FILE, ConfigInvalid)
    tied = parse_config(raw).tied_embeddings and _says_tied(raw)
    planned = [PlannedTensor(each, _written_as(each, dtype)) for each in _without_ties(sources.tensors, tied=tied)]
    tokenizer = convertible_model(reader)
    rounded = sum(tensor.dtype != tensor.source.dtype for tensor in planned)
    reasons = [*sources.reasons, *(["the format noted in its files"] if sources.unnoted and note else [])]
    if rounded:
        _require_plain(raw, planned)
        reasons.append(f"{rounded} tensors rounded to bfloat16")
    if tokenizer:
        reasons.append(f"{TOKENIZER_JSON} from {tokenizer}")
    if not reasons:
        raise _nothing(dtype)
    linked = _linked(sources) if link and not rounded and not (sources.unnoted and note) else ()
    files = linked or lay_out(planned, shard_bytes)
    small = {INDEX_FILE: index(files)} if len(files) > 1 else {}
    if rounded:
        small[CONFIG_FILE] = _as_file(_retyped(raw))
    if tokenizer:
        small[TOKENIZER_JSON] = _as_file(tokenizer_json(reader, tokenizer))
    copied = tuple(sorted(name for name in reader.sizes() if name not in small and not _is_left(name)))
    written = () if linked else files
    size_bytes = sum(len(file.header()) + file.size_bytes for file in written)
    size_bytes += sum(map(len, small.values())) + sum(reader.sizes()[name] for name in copied)
    before = read_mark(reader)
    mark = Mark(", ".join(reasons), dtype, dequantised=before is not None and before.dequantised)
    links = {file.name: file.tensors[0].source.file for file in linked}
    return FolderPlan(mark, written, small, copied, size_bytes, links)


def _linked(sources: Sources) -> tuple[PlannedFile, ...]:
    """The source's files as those of the new folder; none where they cannot stay as they are."""
    if not sources.in_order:
        return ()
    tensors: dict[str, list[PlannedTensor]] = {}
    for each in sources.tensors:
        tensors.setdefault(each.file, []).append(PlannedTensor(each, each.dtype))
    if len(tensors) == 1:
        return tuple(PlannedFile(SINGLE_FILE, tuple(found)) for found in tensors.values())
    if SINGLE_FILE in tensors:
        return ()  # transformers would take it for the whole model, whatever an index says
    return tuple(PlannedFile(name, tuple(found)) for name, found in sorted(tensors.items()))


def _as_file(content: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _says_tied(raw: dict[str, Any]) -> bool:
    """Whether the file itself says so: where it does not, families differ in what they mean."""
    return raw.get("tie_word_embeddings", text_part(raw).get("tie_word_embeddings")) is True


def _without_ties(tensors: Sequence[StoredTensor], *, tied: bool) -> list[StoredTensor]:
    """Every tensor but the second names of the embedding, as transformers leaves them out where a model ties them.

    Any other name for the same numbers gets a copy of them: safetensors has no sharing, and what a name held is kept.
    """
    if not tied:
        return list(tensors)
    patterns: dict[tuple[object, ...], set[str]] = {}
    for tensor in tensors:
        patterns.setdefault(tensor.place, set()).add(place_of(tensor.name).pattern)
    return [tensor for tensor in tensors if not _is_tied_name(tensor.name, patterns[tensor.place])]


def _is_tied_name(name: str, same: Set[str]) -> bool:
    """Whether transformers leaves a name out.

    Args:
        name: A tensor's.
        same: The names for its numbers, itself among them, as the table of architectures has them.
    """
    pattern = place_of(name).pattern
    if pattern in {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}:
        return "shared.weight" in same
    return pattern in HEADS and bool(same - HEADS)


def _written_as(tensor: StoredTensor, dtype: Wanted) -> str:
    rounded = dtype == "bfloat16" and tensor.dtype in _ROUNDED and not tensor.name.endswith(_FINE)
    return "BF16" if rounded else tensor.dtype


def _require_plain(raw: dict[str, Any], planned: Sequence[PlannedTensor]) -> None:
    """Hold that the numbers mean themselves: a quantised model's scales may not be rounded."""
    entries = [TensorEntry(each.source.name, each.source.dtype, each.source.shape, 0, "") for each in planned]
    if method := method_of(raw, entries):
        raise ConversionFailed(
            f"A model that is quantised with {METHODS.get(method[0], method[0])} is not rounded.",
            evidence=f"{method[1]}.",
            fix="Convert it without --dtype, or take its 16- or 32-bit checkpoint.",
        )


def _retyped(raw: dict[str, Any]) -> dict[str, Any]:
    """The configuration with bfloat16 wherever it names a format for the numbers; said once if it nowhere does."""
    changed = _renamed(raw)
    return (
        changed if changed != raw or "dtype" in raw or "torch_dtype" in raw else changed | {"torch_dtype": "bfloat16"}
    )


def _renamed(part: dict[str, Any]) -> dict[str, Any]:
    return {
        key: "bfloat16"
        if key in {"dtype", "torch_dtype"} and isinstance(value, str)
        else _renamed(value)
        if isinstance(value, dict)
        else value
        for key, value in part.items()
    }


def _is_left(name: str) -> bool:
    return "/" not in name and (name in {INDEX_FILE, BIN_INDEX_FILE} or name.endswith(_OTHER_FORMS))


def _nothing(dtype: Wanted) -> NothingToConvert:
    asked = dtype == "bfloat16"
    numbers = ", and none of its numbers are float32 or float16" if asked else ""
    otherwise = "" if asked else "; or say what to change: `--dtype bfloat16` halves float32 weights"
    return NothingToConvert(
        "There is nothing to convert.",
        evidence=f"The weights are safetensors with their format noted and an index where one is needed{numbers}.",
        fix=f"Deploy the folder as it is{otherwise}.",
    )
