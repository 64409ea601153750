"""At what scale an entity is served: the throughput that is bought of it, or numbers of replicas."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.capacity.units import SLICES, chunk
from headrace.contracts.databricks.served import UNITS_OF_A_CHUNK, ServedEntity
from headrace.control.carrying import carried_by
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
    """What an entity asks for, of this version; whoever sells a throughput holds that it can be (`sell`).

    A guarantee wins over ``scale_to_zero_enabled``: it holds at any time.

    Raises:
        NotOptimizable: Model units are bought, and nothing can be stated of what they are here.
    """
    if not entity.provisioned:
        return scale_of_replicas(entity)
    if entity.provisioned_model_units:
        return Scale(provision=_of_units(entity, chunk(carried_by(tx, version, data_dir=data_dir))))
    least, most = entity.min_provisioned_throughput, entity.max_provisioned_throughput
    most = least if most is None else most
    assert most is not None, "one of the two makes it provisioned"
    return Scale(provision=Provision(min_tokens_per_s=least or 0, max_tokens_per_s=most, chunk=0))


def scale_of_replicas(entity: ServedEntity) -> Scale:
    """Of an entity of which no throughput is bought."""
    least, most = entity.replicas
    idle_s = IDLE_S if entity.scale_to_zero_enabled or not least else 0.0
    return Scale(min_replicas=max(least, 1), max_replicas=max(most, 1), idle_s=idle_s)


def _of_units(entity: ServedEntity, of_chunk: int) -> Provision:
    """Fifty units are a chunk. Bursts may take the rest of the replicas that they fill in part."""
    units = entity.provisioned_model_units or 0
    chunks = units // UNITS_OF_A_CHUNK
    most = -(-chunks // SLICES) * SLICES if entity.burst_scaling_enabled else chunks
    return Provision(
        min_tokens_per_s=chunks * of_chunk, max_tokens_per_s=most * of_chunk, chunk=of_chunk, model_units=units
    )
