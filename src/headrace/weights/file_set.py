"""The weight files held against each other: each tensor once, each in the index, all of one kind and from PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.resources.errors import (
    DtypeMismatch,
    DtypeMixed,
    IndexMissing,
    TensorsDuplicated,
    TensorsUnindexed,
    WeightsFormat,
)
from headrace.weights.config import CONFIG_FILE, text_part
from headrace.weights.finding import Finding, finding_of
from headrace.weights.folder import INDEX_FILE, SINGLE_FILE, indexed_tensors
from headrace.weights.header import SafetensorsHeader, TensorEntry
from headrace.weights.pickles import PickledFile
from headrace.weights.reader import FolderReader

DECLARED = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
"""PyTorch's names, as ``dtype`` (earlier ``torch_dtype``) of config.json gives them, and those of the format."""

FRAMEWORKS_READ = frozenset({"pt", "mlx"})
"""What transformers reads as it is: MLX writes tensors as PyTorch does. TensorFlow and Flax lay some out transposed."""


def file_set_findings(reader: FolderReader, headers: Sequence[SafetensorsHeader]) -> Iterator[Finding]:
    """What is odd about a set of whole files; nothing, of none."""
    if not headers:
        return
    yield from _format_findings(headers)
    yield from duplicate_findings(headers)
    yield from _index_findings(reader, headers)


def _format_findings(headers: Sequence[SafetensorsHeader]) -> Iterator[Finding]:
    """The framework that wrote a file.

    "If the file uses an unsupported data format in its metadata header, the deployment may fail" (watsonx.ai, custom
    foundation models). Up to version 4, transformers itself refused a file whose ``format`` was missing or unknown.
    """
    by_format: dict[str | None, list[str]] = {}
    for header in headers:
        by_format.setdefault(header.metadata.get("format"), []).append(header.file)
    for written, names in by_format.items():
        if written == "pt":
            continue
        refused = written is not None and written not in FRAMEWORKS_READ
        said = f"is {written[:40]!r}" if written is not None else "is missing"
        odd = WeightsFormat(
            f"The metadata of {len(names)} weight files does not say that their format is PyTorch's.",
            evidence=f"`format` {said} in {names[0]}.",
            fix="Load the model with transformers and save it with save_pretrained."
            if refused
            else "Nothing: every engine here loads it. For others that do not, `headrace convert FOLDER NEW_FOLDER`.",
        )
        yield finding_of(odd, names[0], "error" if refused else "warning")


def duplicate_findings(files: Sequence[SafetensorsHeader] | Sequence[PickledFile]) -> Iterator[Finding]:
    """Tensors that are in two files."""
    first: dict[str, str] = {}
    twice: list[str] = []
    for file in files:
        twice.extend(
            f"{tensor.name[:120]} is in {other} and in {file.file}"
            for tensor in file.tensors
            if (other := first.setdefault(tensor.name, file.file)) != file.file
        )
    if twice:
        duplicated = TensorsDuplicated(
            f"{len(twice)} tensors are in more than one file; which of them an engine keeps is chance.",
            evidence=_some(twice),
            fix="Remove the files that do not belong to the model, or copy it again from one revision.",
        )
        yield finding_of(duplicated, "", "warning")


def _index_findings(reader: FolderReader, headers: Sequence[SafetensorsHeader]) -> Iterator[Finding]:
    if INDEX_FILE not in reader.sizes():
        yield from _unfindable_findings([header.file for header in headers])
        return
    indexed = indexed_tensors(reader)
    extra = [f"{entry.name[:120]} in {entry.file}" for header in headers for entry in header.tensors
             if entry.name not in indexed]  # fmt: skip
    if extra:
        unindexed = TensorsUnindexed(
            f"{len(extra)} tensors are in the files and not in {INDEX_FILE}.",
            evidence=_some(extra),
            fix="Copy the index and all its files from the same revision of the model.",
        )
        yield finding_of(unindexed, INDEX_FILE, "warning")


def _unfindable_findings(names: Sequence[str]) -> Iterator[Finding]:
    """Transformers opens ``model.safetensors`` or what the index names, and nothing else."""
    if len(names) > 1:
        missing = f"There are {len(names)} files and no {INDEX_FILE}."
    elif names[0] != SINGLE_FILE:
        missing = f"The only file is {names[0]}; without an index, {SINGLE_FILE} is looked for."
    else:
        return
    unfindable = IndexMissing(
        "Engines would not find the weights; Headrace writes what is missing when it deploys them.",
        evidence=missing,
        fix="Nothing; or `headrace convert FOLDER NEW_FOLDER` to have it yourself.",
    )
    yield finding_of(unfindable, "", "warning")


def dtype_findings(raw: Mapping[str, Any], tensors: Sequence[TensorEntry]) -> Iterator[Finding]:
    """Whether the matrices of an unquantised model are of one type, and of the one that config.json names.

    Vectors are left out: norms and biases of a finer type than the matrices are common and meant.
    """
    stored: Counter[str] = Counter()
    for entry in tensors:
        if len(entry.shape) > 1 and entry.dtype in DECLARED.values():
            stored[entry.dtype] += 1
    if len(stored) > 1:
        counts = ", ".join(f"{count:,} {dtype}" for dtype, count in stored.most_common())
        mixed = DtypeMixed(
            "The weights are of several types; an engine loads them all as one.",
            evidence=f"Tensors of two or more dimensions: {counts}.",
            fix="Save the model in one type, unless its publisher means it so.",
        )
        yield finding_of(mixed, "", "warning")
        return
    said = (
        raw.get("dtype") or raw.get("torch_dtype") or text_part(raw).get("dtype") or text_part(raw).get("torch_dtype")
    )
    declared = DECLARED.get(said) if isinstance(said, str) else None
    if declared and stored and declared not in stored:
        other = DtypeMismatch(
            "The weights are of another type than config.json names.",
            evidence=f"config.json says {said}; the tensors are {next(iter(stored))}.",
            fix="Nothing, if the conversion on loading is wanted; else correct dtype in config.json.",
        )
        yield finding_of(other, CONFIG_FILE, "warning")


def _some(items: list[str]) -> str:
    return "; ".join(items[:3]) + ("; …" if len(items) > 3 else ".")
