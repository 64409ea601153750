"""What of an endpoint's requests is written down, as a user says it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import regex

from headrace.control.commands.texts import check_text
from headrace.request_log.patterns import compiled
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import BadField, EndpointNotFound
from headrace.resources.names import Scope
from headrace.resources.request_log import RequestLog
from headrace.store import Transaction

MOST_REDACTIONS = 32
"""Fields, and patterns, of one endpoint: each is looked for in every text that is logged."""


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
    """
    endpoint = tx.get(Endpoint, scope=scope, id=endpoint_id)
    if endpoint is None or endpoint.deleting:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id!r} that goes on.")
    log = None if changes is None else msgspec.structs.replace(endpoint.request_log or RequestLog(), **changes)
    if log is not None:
        check_request_log(log)
    if log == endpoint.request_log:
        return endpoint
    return tx.update(msgspec.structs.replace(endpoint, request_log=log, updated_at=now))


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
