"""The configuration held against the tensors: all there, and shaped as it says?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from headrace.resources.errors import (
    ArchitectureUnknown,
    LayersUnexpected,
    OutputHeadIgnored,
    OutputHeadMissing,
    ShapeMismatch,
    TensorsMissing,
    TensorsUnrecognised,
)
from headrace.weights.architectures import HEADS, Place, Row, families, family_of, place_of, shape_of, sizes_of
from headrace.weights.config import CONFIG_FILE, text_part
from headrace.weights.finding import Finding, finding_of
from headrace.weights.header import TensorEntry

_WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of those classes end whose models score the next token."""

_NOT_OF_TEXTS = frozenset({"tinytimemixer"})
"""Families of which the table says nothing on purpose: it is about models that read texts."""

_SHOWN = 3

_MOST_MISSING = 10_000
"""More are not counted: config.json may claim any number of layers."""

_Spots = dict[str, set[tuple[int | None, int | None]]]


class _Compared(msgspec.Struct):
    """What was seen in the files.

    Attributes:
        present: By row, the layers and experts that are there.
        wrong: What is not shaped as the configuration says.
        beyond: Tensors of layers that the configuration does not count.
    """

    present: _Spots
    wrong: list[str]
    beyond: list[str]


def shape_findings(
    raw: Mapping[str, Any], tensors: Iterable[TensorEntry], *, generates: bool = True
) -> Iterator[Finding]:
    """Hold unquantised tensors against a configuration, by the table of architectures.

    What the table does not know is passed over: a size that the configuration leaves to its family's default, tensors
    under other names (a vision tower, a rotary buffer).

    Args:
        raw: The configuration.
        tensors: What is in the files.
        generates: Whether texts are asked of it, for which it needs an output head, whatever its class is called.

    Raises:
        ConfigInvalid: As `parse_config`.
    """
    family = family_of(raw)
    rows = families().get(family)
    if family in _NOT_OF_TEXTS:
        return
    if rows is None:
        yield finding_of(_unknown(family), CONFIG_FILE, "warning")
        return
    sizes = sizes_of(raw)
    compared = _compare(rows, sizes, tensors)
    if compared.wrong:
        yield finding_of(_mismatch(compared.wrong), CONFIG_FILE)
    if _is_foreign(rows, compared.present):
        yield finding_of(_unrecognised(family, rows, compared.present), "", "warning")
        return
    if compared.beyond:
        yield finding_of(_beyond(compared.beyond, sizes), CONFIG_FILE, "warning")
    tied = raw.get("tie_word_embeddings") if text_part(raw) is raw else None
    if missing := list(islice(_missing(rows, sizes, compared.present, tied), _MOST_MISSING)):
        yield finding_of(_absent(missing, family))
    yield from _head_findings(raw, rows, compared.present, tied, generates=generates)


def _compare(rows: Mapping[str, Row], sizes: Mapping[str, int], tensors: Iterable[TensorEntry]) -> _Compared:
    compared = _Compared(defaultdict(set), [], [])
    shapes = {pattern: shape_of(row, sizes) for pattern, row in rows.items()}
    for tensor in tensors:
        place = place_of(tensor.name)
        if (row := rows.get(place.pattern)) is None:
            continue
        if _is_beyond(place, sizes):
            compared.beyond.append(tensor.name)
            continue
        compared.present[place.pattern].add((place.layer, place.expert))
        expected = shapes[place.pattern]
        if tensor.shape != expected and not _fits(tensor.shape, expected):
            compared.wrong.append(
                f"{tensor.name} is {list(tensor.shape)} and config.json makes it "
                f"[{', '.join('any' if size is None else str(size) for size in expected)}] "
                f"({', '.join(row.shape)})"
            )
    return compared


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    return all(wanted in {None, size} for size, wanted in zip(shape, expected, strict=True))


def _layers(pattern: str, sizes: Mapping[str, int]) -> int | None:
    return sizes.get("encoder_layers" if pattern.startswith("encoder.") else "decoder_layers")


def _is_beyond(place: Place, sizes: Mapping[str, int]) -> bool:
    layers = _layers(place.pattern, sizes)
    # DeepSeek's models bring layers after the last that guess further tokens and are not counted
    return (
        place.layer is not None
        and layers is not None
        and place.layer >= layers + sizes.get("num_nextn_predict_layers", 0)
    )


def _is_foreign(rows: Mapping[str, Row], present: _Spots) -> bool:
    """Whether less than half of what a layer has has goes by the family's names: all would be wrong."""
    of_layers = [
        pattern for pattern, row in rows.items() if row.required and "*" in pattern and _stack(pattern, present)
    ]
    return 2 * sum(pattern in present for pattern in of_layers) < len(of_layers) or not of_layers


def _stack(pattern: str, present: _Spots) -> bool:
    """Whether the half of an encoder-decoder that a row belongs to is there: some are published as encoders alone."""
    half = pattern.partition(".")[0]
    return half not in {"encoder", "decoder"} or any(other.startswith(f"{half}.") for other in present)


def _missing(rows: Mapping[str, Row], sizes: Mapping[str, int], present: _Spots, tied: object) -> Iterator[str]:
    for pattern, row in rows.items():
        if pattern in HEADS or not _stack(pattern, present):
            continue
        if row.shape[:1] == ("vocab",) and tied is not False and any(head in present for head in HEADS):
            continue  # of two tied tensors, writers keep either
        spots = present.get(pattern, set())
        layers: Iterable[int | None] = sorted({layer for layer, _ in spots if layer is not None})
        if row.required:
            layers = range(_layers(pattern, sizes) or 0) if "*" in pattern else (None,)
        experts = range(sizes.get("experts", 0)) if ".experts.*" in pattern else (None,)
        for layer in layers:
            yield from (_named(pattern, layer, expert) for expert in experts if (layer, expert) not in spots)


def _named(pattern: str, layer: int | None, expert: int | None) -> str:
    name = pattern.replace("experts.*", f"experts.{expert}")
    return name.replace("*", str(layer), 1)


def _head_findings(
    raw: Mapping[str, Any], rows: Mapping[str, Row], present: _Spots, tied: object, *, generates: bool
) -> Iterator[Finding]:
    if not any(head in rows for head in HEADS):
        return
    names = raw.get("architectures") or ()
    has_head = any(head in present for head in HEADS)
    needed = generates or any(str(name).endswith(_WITH_HEAD) for name in names)
    if tied is False and not has_head and needed:
        missing = OutputHeadMissing(
            "The model has no output head, and may not use its embedding as one.",
            evidence="No lm_head.weight in the files; tie_word_embeddings is false in config.json.",
            fix="If it was trained with tied embeddings, set tie_word_embeddings to true; else copy the tensor.",
        )
        yield finding_of(missing, CONFIG_FILE)
    if tied is True and has_head:
        ignored = OutputHeadIgnored(
            "The model brings an output head that no engine loads.",
            evidence="lm_head.weight is in the files; tie_word_embeddings is true in config.json.",
            fix="If the head was trained by itself, set tie_word_embeddings to false; else leave it as it is.",
        )
        yield finding_of(ignored, CONFIG_FILE, "warning")


def _some(items: list[str]) -> str:
    return "; ".join(item[:240] for item in items[:_SHOWN]) + ("; …" if len(items) > _SHOWN else ".")


def _unknown(family: str) -> ArchitectureUnknown:
    return ArchitectureUnknown(
        "The doctor does not know this architecture, so the tensors were not held against config.json.",
        evidence=f"model_type is {family[:80]!r}.",
        fix="Nothing, if a runtime knows it; a wrong shape is then found when the engine loads it.",
    )


def _mismatch(wrong: list[str]) -> ShapeMismatch:
    return ShapeMismatch(
        f"{len(wrong)} tensors are not shaped as config.json says.",
        evidence=_some(wrong),
        fix="Copy config.json and the weights from the same revision of the model.",
    )


def _unrecognised(family: str, rows: Mapping[str, Row], present: _Spots) -> TensorsUnrecognised:
    absent = [pattern for pattern, row in rows.items() if row.required and pattern not in present]
    return TensorsUnrecognised(
        f"Most tensors do not have the names that the architecture {family} gives them.",
        evidence=f"Not there: {_some(absent)}",
        fix="Check that config.json belongs to these weights and that they were saved in the Hugging Face format.",
    )


def _beyond(names: list[str], sizes: Mapping[str, int]) -> LayersUnexpected:
    return LayersUnexpected(
        "The files hold layers that config.json does not count; engines leave them out or refuse them.",
        evidence=f"{sizes.get('decoder_layers')} layers in config.json; {len(names)} tensors beyond: {_some(names)}",
        fix="Copy config.json from the same revision as the weights.",
    )


def _absent(missing: list[str], family: str) -> TensorsMissing:
    return TensorsMissing(
        f"{len(missing)} tensors that every {family} model has are not there.",
        evidence=f"Missing: {_some(missing)}",
        fix="Copy all weight files, and config.json, from the same revision of the model.",
    )
