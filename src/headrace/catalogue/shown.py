"""Entries and their machines as the native API and ``--json`` show them."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.catalogue.entries import Entry
from headrace.catalogue.options import Option


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry; sizes in bytes, sequences in tokens."""
    folder = entry.folder
    return {
        "id": entry.id,
        "name": entry.name,
        "display_name": entry.display_name,
        "publisher": entry.publisher,
        "model": entry.model,
        "version": entry.version,
        "family": entry.family,
        "task": entry.task,
        "instruct": entry.instruct,
        "images": entry.images,
        "licence": msgspec.to_builtins(entry.licence),
        "parameters": entry.parameters,
        "weight_bytes": folder.weight_bytes,
        "quantisation": folder.config.quantisation,
        "context_tokens": entry.context_tokens,
        "runtime": entry.runtime,
        "hub": entry.hub,
    }


def option_json(option: Option) -> dict[str, Any]:
    """A machine for it."""
    shape, plan = option.shape, option.plan
    return {
        "machine_type": shape.name,
        "accelerator_type": shape.accelerator.name if shape.accelerator else "",
        "accelerator_count": shape.accelerator_count,
        "usd_per_h": shape.usd_per_h,
        "runtime": option.runtime,
        "tensor_parallel": plan.devices,
        "need_bytes": plan.need.total_bytes,
        "available_bytes": plan.available_bytes,
        "context_that_fits": plan.context_that_fits,
        "sequences_that_fit": plan.sequences_that_fit,
    }
