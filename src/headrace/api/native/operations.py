"""Operations with the timeline of what they work on, so that a client can show the phases as they pass."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.native.deployments import timeline_json
from headrace.api.native.nouns import noun_json, reach
from headrace.api.requests import answer, context_of, number
from headrace.api.viewing import require_viewer, shown
from headrace.api.waiting import until
from headrace.resources.deployments import Deployment, Transition
from headrace.resources.errors import BadField, OperationNotFound
from headrace.resources.operations import LISTED, Operation
from headrace.resources.states import OperationState
from headrace.store import Order, Transaction

MAX_WAIT_S = 30.0
"""Shorter than the time-outs of proxies and clients."""
_LONGEST_LIST = 10_000.0


class _Watched(msgspec.Struct, frozen=True):
    operation: Operation
    deployment: Deployment | None
    timeline: list[Transition]

    def json(self) -> dict[str, Any]:
        return {
            **noun_json(self.operation),
            "done": self.operation.state is not OperationState.RUNNING,
            "deployment": noun_json(self.deployment) if self.deployment else None,
            "timeline": timeline_json(self.timeline),
        }


async def list_operations(request: Request) -> Response:
    """Operations, newest first; ``state=RUNNING`` and ``limit`` narrow them down."""
    conditions = reach(request)
    if "state" in request.query_params:
        conditions["state"] = _state(request.query_params["state"])
    limit = int(number(request, "limit", default=100, most=_LONGEST_LIST))

    def read(tx: Transaction) -> list[Operation]:
        return _newest(tx, request, limit, conditions)

    return answer({"operations": [noun_json(one) for one in await context_of(request).read(read)]})


def _newest(tx: Transaction, request: Request, limit: int, conditions: dict[str, Any]) -> list[Operation]:
    """So many that are for whoever asks, however many newer ones are not."""
    newest = (Order("created_at", descending=True), Order("id", descending=True))
    found: list[Operation] = []
    last: tuple[float, str] | None = None
    while len(found) < limit:
        page = tx.page(Operation, limit=limit, orders=newest, behind_values=last, **conditions)
        found += shown(tx, request, page)
        if len(page) < limit:
            break
        last = page[-1].created_at, page[-1].id
    return found[:limit]


def _state(text: str) -> OperationState:
    try:
        return OperationState(text.upper())
    except ValueError as error:
        names = ", ".join(OperationState)
        raise BadField(f"state must be one of {names}.", evidence=f"It is {text[:40]!r}.") from error


def _passed(tx: Transaction, operation: Operation, deployment_id: str) -> list[Transition]:
    until = None if operation.state is OperationState.RUNNING else operation.updated_at
    return tx.timelines.during("deployment", deployment_id, operation.created_at, until)


async def get_operation(request: Request) -> Response:
    """One operation with its deployment, and that one's timeline while it ran: how it stood, and what passed.

    With ``wait_s`` the answer waits until the operation is done or the timeline is longer than ``seen``.
    """
    wanted, conditions = request.path_params["operation"], reach(request)
    wait_s = number(request, "wait_s", default=0.0, most=MAX_WAIT_S)
    seen = number(request, "seen", default=0.0, most=1e9)

    def read(tx: Transaction) -> _Watched:
        found = tx.list(Operation, id=wanted, **conditions)
        if not found:
            raise OperationNotFound(f"There is no operation {wanted!r}.", fix=LISTED)
        operation = found[0]
        require_viewer(tx, request, operation.scope, operation.targets.get("endpoint", ""))
        deployment_id = operation.targets.get("deployment", "")
        deployment = tx.get(Deployment, scope=operation.scope, id=deployment_id) if deployment_id else None
        return _Watched(operation, deployment, _passed(tx, operation, deployment_id) if deployment_id else [])

    def news(watched: _Watched) -> bool:
        return watched.operation.state is not OperationState.RUNNING or len(watched.timeline) > seen

    return answer((await until(context_of(request), read, news, wait_s=wait_s)).json())
