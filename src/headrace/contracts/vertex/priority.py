"""Which class a request asks for by Vertex AI's header for shared capacity."""

from __future__ import annotations

from headrace.resources.errors import BadField
from headrace.resources.priority import Priority

SHARED_REQUEST_TYPE = b"x-vertex-ai-llm-shared-request-type"
"""Vertex AI's Flex PayGo and Priority PayGo. Its neighbour ``x-vertex-ai-llm-request-type`` chooses between capacity
that is shared and capacity that is one's own, and says nothing of who goes first."""

_TYPES = {"flex": Priority.BATCH, "priority": Priority.INTERACTIVE}


def priority_of(value: bytes | None) -> Priority:
    """BATCH for ``flex``; INTERACTIVE for ``priority``, and without the header.

    Raises:
        BadField: The value is another one.
    """
    if value is None:
        return Priority.INTERACTIVE
    told = value.decode("latin-1").strip()
    known = _TYPES.get(told.lower())
    if known is None:
        raise BadField(
            f"The header X-Vertex-AI-LLM-Shared-Request-Type must be {' or '.join(_TYPES)}.",
            evidence=f"It is {told[:80]!r}.",
            fix="Send flex for a request that may wait behind others, else leave the header out.",
        )
    return known
