"""What requests used, summed by key, endpoint and model."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.native.nouns import reach
from headrace.api.requests import answer, context_of, number, principal_of
from headrace.api.viewing import may_view
from headrace.resources.access import EVERY_PROJECT, Permission
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import BadField
from headrace.resources.models import Model
from headrace.resources.operations import ApiKey
from headrace.resources.usage import HOUR_S, UsageBy, UsageSum, hour_of
from headrace.store import Transaction

DEFAULT_SPAN_S = 86_400
_LATEST_AT = 1e11


async def get_usage(request: Request) -> Response:
    """Sums from ``from`` to ``to`` (Unix seconds, widened to whole hours; the last day if not told), told apart ``by``.

    ``by`` names any of key, endpoint and model, with commas; all three if not told, a single sum if empty.

    Raises:
        BadField: What was asked for cannot be understood, or ends before it begins.
    """
    context, conditions, by = context_of(request), reach(request), _by(request)
    until = number(request, "to", default=context.clock(), most=_LATEST_AT)
    since = number(request, "from", default=max(0.0, until - DEFAULT_SPAN_S), most=_LATEST_AT)
    if "to" in request.query_params and since > until:
        raise BadField(
            "from must not be after to.",
            evidence=f"from is {since:.15g}, to is {until:.15g}.",
            fix="Give from the earlier time, in Unix seconds.",
        )
    begin_at, end_at = hour_of(since), math.ceil(until / HOUR_S) * HOUR_S

    def read(tx: Transaction) -> list[dict[str, Any]]:
        names = _names(tx, request, conditions)
        found = tx.usage.sums(by, begin_at=begin_at, end_at=end_at, **conditions)
        return [_wire(each) | _named(each, names) for each in found]

    return answer({"from": begin_at, "to": end_at, "by": by, "usage": await context.read(read)})


def _by(request: Request) -> list[UsageBy]:
    text = request.query_params.get("by", ",".join(UsageBy))
    try:
        return [UsageBy(word.strip()) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise BadField(f"by names any of {', '.join(UsageBy)}.", evidence=f"It is {text[:80]!r}.") from error


def _wire(found: UsageSum) -> dict[str, Any]:
    fields = msgspec.structs.asdict(found)
    of: dict[str, Any] = fields.pop("of")
    return of | fields | {"total_tokens": found.prompt_tokens + found.completion_tokens}


def _names(tx: Transaction, request: Request, conditions: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """Display names by kind, place and id; of endpoints and keys only those that whoever asks may see."""
    endpoints = [row for row in tx.list(Endpoint, **conditions) if may_view(request, row)]
    names = {("endpoint", str(row.scope), row.id): row.display_name for row in endpoints}
    names |= {("model", str(row.scope), row.id): row.display_name for row in tx.list(Model, **conditions)}
    principal = principal_of(request)
    if not principal.may(Permission.ADMINISTER, principal.project):
        return names
    # Keys of every project use each one's endpoints: whoever may list them is told their names whatever was asked for.
    everywhere = principal.reaches(EVERY_PROJECT)
    keys = tx.list(ApiKey) if everywhere else tx.list(ApiKey, project=principal.project)
    return names | {("key", "", key.id): key.name for key in keys}


def _named(found: UsageSum, names: dict[tuple[str, str, str], str]) -> dict[str, str]:
    """What is summed up under its names, where they are still known: what has none is called by its id."""
    of = found.of
    scope = f"projects/{of['project']}/locations/{of['location']}" if "project" in of else ""
    places = {kind: (kind, "" if kind == "key" else scope, of.get(f"{kind}_id", "")) for kind in UsageBy}
    return {f"{kind}_name": names[place] or place[2] for kind, place in places.items() if place in names}
