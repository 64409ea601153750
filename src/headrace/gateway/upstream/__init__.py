"""The client side of the gateway: HTTP/1.1 to engines and to the control plane."""

from __future__ import annotations

from headrace.gateway.upstream.address import Address, read_address
from headrace.gateway.upstream.client import Upstream, UpstreamAnswer, UpstreamRequest
from headrace.gateway.upstream.errors import BrokeOff, NoAnswer, TimedOut, Unreachable, UpstreamError

__all__ = [
    "Address",
    "BrokeOff",
    "NoAnswer",
    "TimedOut",
    "Unreachable",
    "Upstream",
    "UpstreamAnswer",
    "UpstreamError",
    "UpstreamRequest",
    "read_address",
]
