"""The row of a deployment that begins: as every deploy makes it."""

from __future__ import annotations

import msgspec

from headrace.resources.autoscaling import Autoscaling
from headrace.resources.deployments import LONGEST_DEADLINE_S, Deployment, MachineSpec
from headrace.resources.errors import BadField
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope, new_id


class PoolWish(msgspec.Struct, kw_only=True, frozen=True):
    """What every deploy says of its replicas.

    Attributes:
        initial_replicas: As in `Deployment`.
        scale_to_zero_after_s: How long nobody must have asked before no replica runs; 0: never.
        autoscaling: By what it scales between the two numbers of replicas; None: as by default.
        timeout_s: How long it may take until it is READY; at most `LONGEST_DEADLINE_S`.
    """

    scope: Scope
    machine: MachineSpec = MachineSpec()
    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int = 0
    scale_to_zero_after_s: float = 0.0
    autoscaling: Autoscaling | None = None
    timeout_s: float = 3600.0


def check_deadline(timeout_s: float) -> None:
    """Hold that a deployment may be given so long until it is READY.

    Raises:
        BadField: It may not.
    """
    if not 0 < timeout_s <= LONGEST_DEADLINE_S:
        raise BadField(
            "The deadline must lie ahead, and not too far.",
            evidence=f"timeout_s is {timeout_s}; at most {LONGEST_DEADLINE_S:,.0f} are allowed.",
            fix="Give seconds, such as 3600.",
        )


def new_pool(wish: PoolWish, version: ModelVersion, *, display_name: str, now: float, runtime: str = "") -> Deployment:
    """A deployment that is ACCEPTED; it is not inserted.

    Args:
        wish: At what scale, on what machine; checked already.
        version: What it serves.
        display_name: Its own.
        now: Unix seconds.
        runtime: Where that is known beforehand; empty: CHECKING chooses.
    """
    return Deployment(
        scope=wish.scope,
        id=new_id(),
        model_id=version.model_id,
        model_version=version.version,
        display_name=display_name,
        machine=wish.machine,
        min_replicas=wish.min_replicas,
        max_replicas=wish.max_replicas,
        initial_replicas=wish.initial_replicas,
        scale_to_zero_after_s=wish.scale_to_zero_after_s,
        autoscaling=wish.autoscaling,
        runtime=runtime,
        deadline_at=now + wish.timeout_s,
        created_at=now,
        updated_at=now,
    )
