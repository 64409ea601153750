"""What nodes and gateways ask of control, and tell it. Never routed to from outside: gateways do not pass it on."""

from __future__ import annotations

import hmac
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from headrace.control.reconciler import Reconciler
from headrace.resources.assignments import NodeReport
from headrace.resources.errors import BadField, BadJson, BodyTooLarge, UnknownKey
from headrace.resources.leases import LeaseReport

LONGEST_WAIT_S = 60.0
MAX_REPORT_BYTES = 16 << 20
"""A node's report names every replica, with the last lines of dead engines; a gateway's every limit of a key."""

T = TypeVar("T")


def internal_router(reconciler: Reconciler, token: str) -> APIRouter:
    """Routes below ``/internal/``.

    Args:
        reconciler: Gives orders and takes reports.
        token: What callers show as ``Authorization: Bearer``.
    """

    async def authorise(request: Request) -> None:
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), token.encode()):
            raise UnknownKey("This path is for Headrace's own processes.")

    async def orders(request: Request) -> Response:
        seen, wait_s = _number(request, "seen"), _number(request, "wait_s")
        newest = await reconciler.orders(
            request.path_params["node_id"], seen=int(seen), wait_s=min(wait_s, LONGEST_WAIT_S)
        )
        return Response(msgspec.json.encode(newest), media_type="application/json")

    async def report(request: Request) -> Response:
        told = await _body(request, NodeReport)
        if told.node_id != request.path_params["node_id"]:
            raise BadField("The report is another node's.", evidence=f"Its node_id is {told.node_id[:80]!r}.")
        await reconciler.report(told)
        return Response(status_code=204)

    async def leases(request: Request) -> Response:
        number = request.path_params["number"]
        if number not in map(str, range(reconciler.leases.gateways)):
            raise BadField("There is no such gateway.", evidence=f"Its number is {number[:80]!r}.")
        answer = reconciler.leases.report(int(number), await _body(request, LeaseReport))
        return Response(msgspec.json.encode(answer), media_type="application/json")

    router = APIRouter(dependencies=[Depends(authorise)])
    router.add_api_route("/internal/nodes/{node_id}/orders", orders, methods=["GET"])
    router.add_api_route("/internal/nodes/{node_id}/report", report, methods=["PUT"])
    router.add_api_route("/internal/gateways/{number}/leases", leases, methods=["PUT"])
    return router


def _number(request: Request, name: str) -> float:
    try:
        value = float(request.query_params.get(name, "0"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**53:
        raise BadField(f"{name} is not a number.", evidence=f"It is {request.query_params.get(name)!r}.")
    return value


async def _body(request: Request, kind: type[T]) -> T:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REPORT_BYTES:
            raise BodyTooLarge("The report is too long.", evidence=f"At most {MAX_REPORT_BYTES:,} bytes are read.")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadJson(f"This is no {kind.__name__}.", evidence=str(error)) from error
