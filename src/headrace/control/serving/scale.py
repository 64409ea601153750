"""At what scale an entity is served: the throughput that is bought of it, or numbers of replicas."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.capacity.units import SLICES, chunk, require_chunks
from headrace.contracts.databricks.served import UNITS_OF_A_CHUNK, ServedEntity
from headrace.control.carrying import carried_by
from headrace.resources.errors import BadField
from headrace.resources.models import ModelVersion
from headrace.resources.profiles import Provision
from headrace.store import Transaction

IDLE_S = 1800.0
"""After which what may scale to zero does: Databricks' half hour."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """One or the other.

    Attributes:
        provision: The throughput that is sold; None: none is, and the numbers of replicas count.
        idle_s: How long nobody must have asked before it scales to zero; 0: never.
    """

    provision: Provision | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    idle_s: float = 0.0


def scale_of(tx: Transaction, version: ModelVersion, entity: ServedEntity, *, data_dir: Path | None = None) -> Scale:
    """What an entity asks for, of this version.

    A guarantee wins over ``scale_to_zero_enabled``: it holds at any time.

    Raises:
        NotOptimizable: A throughput is bought, and none can be stated.
        BadField: It is no whole number of chunks, its least is more than its most, or its most is nothing.
    """
    if not entity.provisioned:
        return scale_of_replicas(entity)
    of_chunk = chunk(carried_by(tx, version, data_dir=data_dir))
    provision = _of_units(entity, of_chunk) if entity.provisioned_model_units else _of_tokens(entity, of_chunk)
    return Scale(provision=provision, idle_s=0.0 if provision.min_tokens_per_s else IDLE_S)


def scale_of_replicas(entity: ServedEntity) -> Scale:
    """Of an entity of which no throughput is bought."""
    least, most = entity.replicas
    idle_s = IDLE_S if entity.scale_to_zero_enabled or not least else 0.0
    return Scale(min_replicas=max(least, 1), max_replicas=max(most, 1), idle_s=idle_s)


def _of_units(entity: ServedEntity, of_chunk: int) -> Provision:
    """Fifty units are a chunk. What bursts may take the rest of the replicas that its guarantee fills in part."""
    units = entity.provisioned_model_units or 0
    chunks = units // UNITS_OF_A_CHUNK
    most = -(-chunks // SLICES) * SLICES if entity.burst_scaling_enabled else chunks
    return Provision(
        min_tokens_per_s=chunks * of_chunk, max_tokens_per_s=most * of_chunk, chunk=of_chunk, model_units=units
    )


def _of_tokens(entity: ServedEntity, of_chunk: int) -> Provision:
    least, most = entity.min_provisioned_throughput, entity.max_provisioned_throughput
    most = least if most is None else most
    least = 0 if least is None else least
    assert most is not None, "one of the two makes it provisioned"
    if most <= 0 or not 0 <= least <= most:
        raise BadField(
            "max_provisioned_throughput is above 0, and min_provisioned_throughput from 0 to that.",
            evidence=f"From {least:,} to {most:,} tokens a second were asked for.",
            fix=f"A chunk is {of_chunk:,} tokens a second here: ask for {of_chunk:,} and {of_chunk:,}, or from 0 for "
            "what may scale to zero.",
        )
    require_chunks(least, of_chunk)
    require_chunks(most, of_chunk)
    return Provision(min_tokens_per_s=least, max_tokens_per_s=most, chunk=of_chunk)
