"""The machines on which an entry would run, worked out as `headrace plan` does it: nothing of it is written by hand."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from headrace.capacity import PLANNED_SEQUENCES, Load, Plan, context_tokens, place_of, plan
from headrace.catalogue.entries import Entry, find_entry
from headrace.hardware import Shape, cheapest_first, read_catalogue

NUMBER_FORMAT = "bfloat16"
"""What every entry computes in, those that are stored in fewer bits, too."""

GPU_RUNTIME = "vllm"
"""The runtime that serves models on GPUs (`headrace.runtimes.choice`)."""


class Option(msgspec.Struct, frozen=True):
    """A machine type for an entry.

    Attributes:
        shape: The machine.
        plan: The entry on it.
    """

    shape: Shape
    plan: Plan

    @property
    def runtime(self) -> str:
        """What serves it there."""
        return GPU_RUNTIME


def options_of(entry: Entry, context: int | None = None, concurrency: int | None = None) -> tuple[Option, ...]:
    """Vertex AI's machine types on which an entry has room: of each kind of accelerator the cheapest, cheap to dear.

    Args:
        entry: The model.
        context: Its longest sequence, in tokens; None for what `headrace plan` takes by default.
        concurrency: Such sequences at once; likewise.

    Raises:
        BadField: The model has no such context.
    """
    return _options(entry.id, context, concurrency or PLANNED_SEQUENCES)


@lru_cache(maxsize=1024)
def _options(entry_id: str, context: int | None, concurrency: int) -> tuple[Option, ...]:
    entry = find_entry(entry_id)
    folder = entry.folder
    found: dict[str, Option] = {}
    load = Load(context_tokens(folder.config, context), concurrency, runtime=GPU_RUNTIME)
    for shape in cheapest_first(read_catalogue().shapes):
        if shape.kind != "vertex" or shape.accelerator is None or shape.accelerator.name in found:
            continue
        if not shape.flops_per_s(NUMBER_FORMAT):
            continue
        planned = plan(folder, load, place_of(shape, NUMBER_FORMAT))
        if planned.fits:
            found[shape.accelerator.name] = Option(shape, planned)
    return tuple(found.values())
