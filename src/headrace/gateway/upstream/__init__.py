"""The client side of the gateway: HTTP/1.1 to engines, to the control plane and to external servers."""

from __future__ import annotations

from headrace.gateway.upstream.address import Address, read_address
from headrace.gateway.upstream.client import Upstream, UpstreamAnswer
from headrace.gateway.upstream.connection import MoreTime
from headrace.gateway.upstream.dial import Outside
from headrace.gateway.upstream.errors import (
    BrokeOff,
    NoAnswer,
    Stalled,
    TimedOut,
    Unreachable,
    Untrusted,
    UpstreamError,
)
from headrace.gateway.upstream.masking import Secret
from headrace.gateway.upstream.request import UpstreamRequest

__all__ = [
    "Address",
    "BrokeOff",
    "MoreTime",
    "NoAnswer",
    "Outside",
    "Secret",
    "Stalled",
    "TimedOut",
    "Unreachable",
    "Untrusted",
    "Upstream",
    "UpstreamAnswer",
    "UpstreamError",
    "UpstreamRequest",
    "read_address",
]
