"""Which watsonx software specification is certified for an architecture: the documents' table, and nothing else.

What a runtime knows beyond that is its own affair (`headrace.runtimes`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

from headrace.resources.errors import BadField, NotCertified
from headrace.weights.architectures import family_of
from headrace.weights.config import CONFIG_FILE
from headrace.weights.finding import Finding, finding_of

_ALIASES = {"gpt-neox": ("gpt_neox",), "qwen": ("qwen", "qwen2")}
"""The table's names that are not the ``model_type``: its qwen is the distilled DeepSeek-R1, whose type is qwen2."""


class Certified(msgspec.Struct, frozen=True):
    """One line of the table.

    Attributes:
        architecture: As the table calls it.
        quantisation: Methods that it accepts, lower case; unquantised weights are always accepted.
        tensor_parallel: It may be shared among devices; without, only Small is offered.
        configurations: Sizes of machine that are offered.
        specifications: Software specifications that serve it.
    """

    architecture: str
    quantisation: tuple[str, ...]
    tensor_parallel: bool
    configurations: tuple[str, ...]
    specifications: tuple[str, ...]


@lru_cache(maxsize=1)
def certified_table() -> Mapping[str, tuple[Certified, ...]]:
    """The lines by ``model_type``, from watsonx.ai's table of architectures (``watsonx_architectures.csv``)."""
    text = files("headrace.weights").joinpath("watsonx_architectures.csv").read_text("utf-8")
    table: dict[str, tuple[Certified, ...]] = {}
    for line in csv.DictReader(text.splitlines()):
        certified = Certified(
            architecture=line["architecture"],
            quantisation=_split(line["quantization"].lower()),
            tensor_parallel=line["tensor_parallel"] == "yes",
            configurations=_split(line["configurations"]),
            specifications=_split(line["software_specifications"]),
        )
        for name in _ALIASES.get(certified.architecture, (certified.architecture,)):
            table[name] = (*table.get(name, ()), certified)
    return table


def require_specification(name: str) -> None:
    """Hold that a software specification is one of the table's.

    Raises:
        BadField: It is not; the fix lists them.
    """
    known = sorted({each for lines in certified_table().values() for line in lines for each in line.specifications})
    if name not in known:
        raise BadField(
            "There is no such software specification.",
            evidence=f"It is {name[:60]!r}.",
            fix=f"They are: {', '.join(known)}.",
        )


def specification_findings(raw: Mapping[str, Any], name: str) -> Iterator[Finding]:
    """Hold that a software specification is certified for a model's architecture.

    Args:
        raw: The content of ``config.json``.
        name: The specification, one of the table's.
    """
    certified = specifications_for(raw)
    if name in certified:
        return
    lines = {line for of_type in certified_table().values() for line in of_type if name in line.specifications}
    error = NotCertified(
        f"{name} is not certified for {family_of(raw)[:40] or 'a model without a model_type'}.",
        evidence=f"It is for {', '.join(sorted(line.architecture for line in lines))}.",
        fix=f"Ask for {' or '.join(certified)}, or for none: what is certified is less than what can be served."
        if certified
        else "Ask for none: what is certified is less than what can be served.",
    )
    yield finding_of(error, CONFIG_FILE)


def _split(cell: str) -> tuple[str, ...]:
    return tuple(part for part in cell.split(";") if part)


def specifications_for(raw: Mapping[str, Any], method: str | None = None) -> tuple[str, ...]:
    """The software specifications that are certified for a model; empty where none is.

    Args:
        raw: The content of ``config.json``.
        method: How the weights are quantised, as in ``quant_method``; None for 16- and 32-bit weights.
    """
    lines = certified_table().get(family_of(raw), ())
    served = [line for line in lines if method is None or method.lower() in line.quantisation]
    return tuple(dict.fromkeys(name for line in served for name in line.specifications))
