"""What of an endpoint's requests is written down, as a user says it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import regex

from headrace.contracts.databricks.kept import kept_of, with_kept
from headrace.control.access_lists import ai_gateway_of
from headrace.control.commands.texts import check_text
from headrace.request_log.patterns import compiled
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import BadField, EndpointNotFound, StillInUse
from headrace.resources.names import Scope
from headrace.resources.request_log import RequestLog
from headrace.store import Transaction

MOST_REDACTIONS = 32
"""Fields, and patterns, of one endpoint: each is looked for in every text that is logged."""

TURNED_ON_BY_TABLE = "logs_for_table"
"""What is kept of an endpoint whose log nobody asked for but its inference table, which turns it off again."""


def change_request_log(
    tx: Transaction, scope: Scope, endpoint_id: str, changes: Mapping[str, Any] | None, *, now: float
) -> Endpoint:
    """Turn an endpoint's request log on, change it, or turn it off. Holds for requests that come from then on.

    Args:
        tx: An open transaction.
        scope: Of the endpoint.
        endpoint_id: Which one.
        changes: Fields of `RequestLog`; the others stay, or are the defaults of a log that was off. None: off.
        now: Unix seconds.

    Raises:
        EndpointNotFound: There is no such endpoint, or it is being deleted.
        BadField: A value cannot be one.
        StillInUse: It is to be off, and an inference table is made from it.
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
    if endpoint is None or endpoint.deleting:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id!r} that goes on.")
    log = None if changes is None else msgspec.structs.replace(endpoint.request_log or RequestLog(), **changes)
    if log is not None:
        check_request_log(log)
    changed = set_by_hand(endpoint, log)
    if changed == endpoint:
        return endpoint
    return tx.update(msgspec.structs.replace(changed, updated_at=now))


def set_by_hand(endpoint: Endpoint, log: RequestLog | None) -> Endpoint:
    """An endpoint with this log as somebody's own: it outlives the inference table that may have turned it on.

    Raises:
        StillInUse: It is to be off, and an inference table is made from it.
    """
    table = ai_gateway_of(endpoint).inference_table_config
    if log is None and table is not None and table.enabled:
        raise StillInUse(
            f"The inference table of endpoint {endpoint.id!r} is made from its request log.",
            evidence="The table is enabled: without the log it would get no rows any more.",
            fix="Disable the table first: `inference_table_config` of the endpoint's AI gateway, with `enabled` false.",
        )
    kept = endpoint.kept
    if TURNED_ON_BY_TABLE in kept_of(kept):
        kept = with_kept(kept, {TURNED_ON_BY_TABLE: None})
    return msgspec.structs.replace(endpoint, request_log=log, kept=kept)


def check_request_log(log: RequestLog) -> None:
    """Hold that requests can be logged so.

    Raises:
        BadField: They cannot.
    """
    if not 0.0 < log.sampling_rate <= 1.0:
        raise BadField(
            "sampling_rate is above 0 and at most 1.",
            evidence=f"It is {log.sampling_rate:g}.",
            fix="To log nothing, turn the request log off.",
        )
    _check_number("redact_fields", log.redact_fields)
    _check_number("redact_patterns", log.redact_patterns)
    for field in log.redact_fields:
        check_text("A field to redact", field)
        if not all(field.split(".")):
            raise BadField(
                "A field to redact is a name, or names with dots between them.",
                evidence=f"It is {field!r}.",
                fix="For example content, or messages.content.",
            )
    for pattern in log.redact_patterns:
        check_text("A pattern to redact", pattern)
        _check_pattern(pattern)


def _check_number(name: str, values: Sequence[str]) -> None:
    if len(values) > MOST_REDACTIONS:
        raise BadField(f"{name} has too many.", evidence=f"They are {len(values)}; {MOST_REDACTIONS} are allowed.")


def _check_pattern(pattern: str) -> None:
    try:
        empty = compiled(pattern).search("") is not None
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise BadField(
            "A pattern to redact is no regular expression.",
            evidence=f"{pattern!r}: {error}.",
            fix="It is written as for Python's module re.",
        ) from None
    if empty:
        raise BadField(
            "A pattern to redact must not match the empty text.",
            evidence=f"{pattern!r} does.",
            fix="Have it match at least one character: + in place of *.",
        )
