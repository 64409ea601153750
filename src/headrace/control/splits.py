"""Traffic splits that are asked for together with a deploy, and hold once its model is READY.

Until then the endpoint's traffic stays where it is, for nothing would answer the new model's share. Where a newer wish
comes meanwhile, that one holds. What the split names and is gone by then is left out; the others keep their
proportions.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.control.traffic import set_split, staying
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.resources.states import OperationState
from headrace.resources.traffic import share_out
from headrace.store import Transaction


def as_target(split: Mapping[str, int]) -> str:
    """A split as a target of its operation, for `Operation.split` to read."""
    return ",".join(f"{name}={share}" for name, share in split.items())


def give_split(tx: Transaction, operation: Operation) -> None:
    """Share its endpoint's traffic out as the operation asked."""
    there = {one.id for one in staying(tx, operation.scope, operation.targets["endpoint"])}
    wanted = {name: share for name, share in operation.split.items() if name in there}
    if sum(wanted.values()):
        set_split(tx, operation.scope, operation.targets["endpoint"], share_out(wanted))


def drop_older_splits(tx: Transaction, scope: Scope, endpoint_id: str) -> None:
    """Have no split that was asked for earlier come to hold on this endpoint: a newer wish is there."""
    for operation in tx.list(Operation, scope=scope, kind="deploy_model", state=OperationState.RUNNING):
        if operation.targets.get("endpoint") == endpoint_id and "split" in operation.targets:
            left = {name: value for name, value in operation.targets.items() if name != "split"}
            tx.update(msgspec.structs.replace(operation, targets=left))
