"""gRPC's metadata as HTTP's headers, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Iterable

from headrace.gateway.request_head import Headers
from headrace.resources.errors import BadField

_PASSED_ON = frozenset({"authorization", "baggage", "traceparent", "tracestate", "user-agent"})
_NEVER = ("x-forwarded-",)
"""What a gateway's proxies say of the client, and not the client."""

DEADLINE = "x-server-timeout"
"""The seconds that Google's clients wait, as those say over REST."""

_TELLING = re.compile(r"x-[a-z0-9_.-]+|retry-after")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""What a header's value may have (RFC 9110, 5.5). HTTP/2 carries any bytes, and gRPC's library hands them on: a line's
end in one would begin another request on the connection to the gateway, which others share."""


def request_headers(metadata: Iterable[tuple[str, str | bytes]], deadline_s: float | None) -> Headers:
    """What a call's metadata says to a gateway.

    Args:
        metadata: Names are in lower case; those of bytes end in ``-bin`` and are left out, for they are gRPC's alone.
        deadline_s: How long the client waits from now on; None: any time.

    Raises:
        BadField: A value cannot be one of a header.
    """
    passed = [
        (name, value)
        for name, value in metadata
        if isinstance(value, str)
        and (name in _PASSED_ON or name.startswith("x-"))
        and not name.startswith(_NEVER)
        and not name.endswith("-bin")
        and (name != DEADLINE or deadline_s is None)
    ]
    for name, value in passed:
        if not _FIELD_VALUE.fullmatch(value):
            raise BadField(
                f"The metadata {name[:100]} has a character that no header can have.",
                fix="Leave out line breaks and other control characters, and what is not of Latin-1.",
            )
    headers: Headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in passed]
    if deadline_s is not None:
        headers.append((DEADLINE.encode("ascii"), b"%.3f" % deadline_s))
    return headers


def answer_metadata(headers: Headers) -> tuple[tuple[str, str], ...]:
    """What an answer's headers say to the client: the request's id, what is left of limits, when to come back."""
    found = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if _TELLING.fullmatch(name) and not name.endswith("-bin") and _PRINTABLE.fullmatch(value):
            found.append((name, value))
    return tuple(found)
