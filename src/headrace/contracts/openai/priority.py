"""Which class a body in OpenAI's wire asks for: OpenAI's ``service_tier``, and ``priority`` as vLLM has it."""

from __future__ import annotations

import msgspec

from headrace.contracts.openai.requests import OpenAIBody
from headrace.resources.errors import BadField
from headrace.resources.priority import Priority

_BATCH_TIER = "flex"
_TIERS = ("auto", "default", _BATCH_TIER, "scale", "priority", "fast")
"""What OpenAI's client sends (openai 3.52). There ``flex`` is cheaper and slower than the others."""

_NULL = msgspec.Raw(b"null")


def priority_of(body: OpenAIBody, *, strict: bool) -> Priority:
    """BATCH if the body says ``"service_tier": "flex"``, or a ``priority`` above 0, which is vLLM's for later.

    Args:
        body: The request's.
        strict: Whether other values than theirs are refused. Without that they are left to a server that may have
            values of its own.

    Raises:
        BadField: One of the two has a value that nobody knows.
    """
    if "service_tier" not in body and "priority" not in body:
        return Priority.INTERACTIVE
    tier = _read(body, "service_tier")
    if strict and tier is not None and tier not in _TIERS:
        raise BadField(
            f"`service_tier` must be one of {', '.join(_TIERS)}.",
            evidence=f"It is {_shown(body['service_tier'])}.",
            fix=f"Send {_BATCH_TIER} for a request that may wait behind others, else leave it out.",
        )
    rank = _read(body, "priority")
    if strict and rank is not None and type(rank) is not int:
        raise BadField("`priority` must be a whole number.", evidence=f"It is {_shown(body['priority'])}.")
    later = type(rank) is int and rank > 0
    return Priority.BATCH if later or tier == _BATCH_TIER else Priority.INTERACTIVE


def _read(body: OpenAIBody, name: str) -> object:
    """The value of a field; None where it is not there, and no value of use where it is no JSON after all."""
    raw = body.get(name, _NULL)
    try:
        return msgspec.json.decode(raw) if raw != _NULL else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def _shown(raw: msgspec.Raw) -> str:
    return bytes(raw)[:80].decode("utf-8", "replace")
