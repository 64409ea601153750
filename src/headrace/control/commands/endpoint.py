"""An endpoint by itself: made with nothing behind it, and changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.control.commands.found import find_endpoint, find_living_endpoint
from headrace.control.commands.request_log import check_request_log, set_by_hand
from headrace.control.commands.split import split_traffic
from headrace.control.commands.texts import check_description, check_labels, check_text
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import BadField
from headrace.resources.names import Scope, check_id, new_id
from headrace.resources.operations import Operation, OperationKind
from headrace.resources.request_log import RequestLog
from headrace.resources.states import OperationState
from headrace.store import Transaction

LONGEST_INFERENCE_S = 3600.0
"""Vertex AI's bound of ``clientConnectionConfig.inferenceTimeout``."""

SHORTEST_INFERENCE_S = 1.0
"""Less than that hardly any first token takes on a machine that is busy: every request would end with 504."""

_FIELDS = ("display_name", "description", "labels", "inference_timeout_s")


class EndpointRequest(msgspec.Struct, kw_only=True, frozen=True):
    """The endpoint that is to be there.

    Attributes:
        contract: The API it was asked through.
        endpoint_id: Its id; empty: made up.
        dedicated: As in `Endpoint`; so what follows.
    """

    scope: Scope
    contract: str
    endpoint_id: str = ""
    display_name: str
    description: str = ""
    labels: dict[str, str] = {}
    dedicated: bool = True
    request_log: RequestLog | None = None
    inference_timeout_s: float = 0.0


def create_endpoint(tx: Transaction, request: EndpointRequest, *, now: float) -> Operation:
    """Make an endpoint with nothing deployed; the operation is done at once.

    Raises:
        BadField: It has no display name, or something of it cannot be.
        BadName: The id is not well formed.
        NameTaken: There is an endpoint of this id, be it one that is being deleted.
    """
    endpoint = Endpoint(
        scope=request.scope,
        id=check_id(request.endpoint_id, field="endpointId") if request.endpoint_id else new_id(),
        display_name=request.display_name,
        description=request.description,
        labels=request.labels,
        dedicated=request.dedicated,
        inference_timeout_s=request.inference_timeout_s,
        request_log=request.request_log,
        created_at=now,
        updated_at=now,
    )
    _check(endpoint)
    tx.insert(endpoint)
    return _done(tx, endpoint, "create_endpoint", contract=request.contract, now=now)


def endpoint_updated(tx: Transaction, scope: Scope, endpoint_id: str, *, contract: str, now: float) -> Operation:
    """The operation of an endpoint that was changed in this transaction (`change_endpoint`), which is done at once.

    Raises:
        EndpointNotFound: There is no such endpoint.
    """
    endpoint = find_endpoint(tx, scope, endpoint_id)
    return _done(tx, endpoint, "update_endpoint", contract=contract, now=now)


def _done(tx: Transaction, endpoint: Endpoint, kind: OperationKind, *, contract: str, now: float) -> Operation:
    operation = Operation(
        scope=endpoint.scope,
        id=new_id(),
        parent=endpoint.name,
        kind=kind,
        contract=contract,
        targets={"endpoint": endpoint.id, "display_name": endpoint.display_name},
        created_at=now,
        updated_at=now,
    )
    tx.insert(operation)
    return tx.move(operation, OperationState.SUCCEEDED)


def change_endpoint(
    tx: Transaction, scope: Scope, endpoint_id: str, changes: Mapping[str, Any], *, version: int | None = None
) -> Endpoint:
    """Change an endpoint, or how its traffic is shared out. Requests under way stay where they are.

    Args:
        tx: An open transaction.
        scope: Where.
        endpoint_id: Which one.
        changes: By name: ``display_name``, ``description``, ``labels``, ``inference_timeout_s``; ``sampling_rate``, of
            the request log, whose redactions stay (None: off); ``split``, the percents by deployed model.
        version: The ``resource_version`` that the caller knows; None: whichever it is.

    Raises:
        EndpointNotFound: There is no such endpoint, or it is being deleted.
        BadField: A value cannot be one.
        RolloutRunning: The traffic is to change, and a rollout decides on it.
        StaleWrite: It was changed since the caller read it.
        StillInUse: The request log is to be off, and an inference table is made from it.
    """
    endpoint = find_living_endpoint(tx, scope, endpoint_id)
    fields = {name: changes[name] for name in _FIELDS if name in changes}
    changed = msgspec.structs.replace(endpoint, **fields)
    if "sampling_rate" in changes:
        rate, log = changes["sampling_rate"], endpoint.request_log or RequestLog()
        changed = set_by_hand(changed, None if rate is None else msgspec.structs.replace(log, sampling_rate=rate))
    if version is not None:
        changed = msgspec.structs.replace(changed, resource_version=version)
    _check(changed)
    if "split" in changes:
        split_traffic(tx, scope, endpoint_id, changes["split"])
    return tx.update(changed)


def _check(endpoint: Endpoint) -> None:
    if not endpoint.display_name.strip():
        raise BadField("An endpoint needs a display name.", fix="Give displayName: it need not be unique.")
    check_text("The endpoint's display name", endpoint.display_name)
    check_description("The endpoint's description", endpoint.description)
    check_labels(endpoint.labels)
    if endpoint.request_log is not None:
        check_request_log(endpoint.request_log)
    timeout_s = endpoint.inference_timeout_s
    if timeout_s and not SHORTEST_INFERENCE_S <= timeout_s <= LONGEST_INFERENCE_S:
        raise BadField(
            f"An inference timeout is from {SHORTEST_INFERENCE_S:g} to {LONGEST_INFERENCE_S:g} s.",
            evidence=f"It is {timeout_s:g} s.",
            fix="Leave it out for the gateway's own limits.",
        )
