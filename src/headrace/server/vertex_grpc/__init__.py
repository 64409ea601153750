"""Vertex AI over gRPC: a process of its own that says over HTTP, to a gateway, what it was asked over gRPC.

It is a client of the gateway's public port like any other: keys, limits, routes and errors are the gateway's and the
control plane's alone. What gRPC adds is translated here.

* `methods`: which methods there are, with their messages and HTTP rules, as the vendor's own library has them
* `transcoding`: a message as an HTTP request, and the answer's body as a message
* `streams`: the body of a streamed answer, cut into the JSON documents that each become a message
* `metadata`: metadata as headers, and the other way round
* `statuses`: errors in Google's JSON as ``google.rpc.Status``
* `front`: takes calls, and sends them on
* `credentials`: the TLS port's certificate as gRPC shows it
* `serving`: the server itself
"""

from __future__ import annotations

import importlib.util

from headrace.resources.extras import install

EXTRA = install("vertex-grpc")

_NEEDED = ("grpc", "grpc_status", "google.cloud.aiplatform_v1")


def available() -> bool:
    """Whether the extra ``vertex-grpc`` is installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in _NEEDED)
    except ModuleNotFoundError:
        return False
