"""What speaks gRPC, before a gateway or before whatever else answers; and its methods, read once for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from headrace.gateway.upstream import Upstream, read_address
from headrace.server.vertex_grpc.front import Front
from headrace.server.vertex_grpc.methods import Method, vertex_methods

PREDICTION = "/google.cloud.aiplatform.v1.PredictionService"


@cache
def methods() -> dict[str, Method]:
    """All of both versions."""
    return vertex_methods()


def message(method: Method, fields: dict[str, Any]) -> Any:
    """A request of this method, from JSON."""
    return json_format.ParseDict(fields, method.request())


class Caller:
    """Calls methods by their names.

    Attributes:
        server: What answers.
    """

    def __init__(self, channel: Any, server: Any) -> None:
        self._channel = channel
        self.server = server

    def call(self, path: str, fields: dict[str, Any], *, key: str = "", **more: Any) -> Any:
        """A call under way: awaited for the answer, or iterated where that is a stream."""
        method = methods()[path]
        make = self._channel.unary_stream if method.streams else self._channel.unary_unary
        asked = make(
            path,
            request_serializer=lambda value: value.SerializeToString(),
            response_deserializer=method.answer.FromString,
        )
        metadata = (*more.pop("metadata", ()), *((("authorization", f"Bearer {key}"),) if key else ()))
        return asked(message(method, fields), metadata=metadata, **more)


@asynccontextmanager
async def speaking_grpc(folder: Path, url: str) -> AsyncIterator[Caller]:
    """A client of what speaks gRPC before the server at this address."""
    gateway = Upstream(read_address(url), connect_timeout_s=5)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Front(methods(), gateway)])
    address = f"unix:{folder / 'grpc.sock'}"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Caller(channel, server)
    finally:
        await server.stop(None)
        gateway.close()
