"""The methods of Vertex AI, as the vendor's own library has them.

Its messages are made when it is imported and have no services in their descriptors, and so no ``google.api.http``
options. Path, kind and messages of a method are read from what its gRPC transport asks a channel for, the HTTP rules
from its REST transport: both are generated from the same definitions, https://github.com/googleapis/googleapis
(``google/cloud/aiplatform``).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeAlias

import msgspec
from google.cloud.location import locations_pb2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

VERSIONS = ("aiplatform_v1", "aiplatform_v1beta1")

Rule: TypeAlias = dict[str, str]
"""One binding of a method: ``method``, ``uri`` and ``body``, as `google.api_core.path_template.transcode` takes it."""

_NAMED = re.compile(r"{[^}]*}")


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One method.

    Attributes:
        path: As gRPC has it: ``/google.cloud.aiplatform.v1.EndpointService/GetEndpoint``.
        request: The protocol buffer that it takes.
        answer: The one that it answers with.
        rules: What it is in HTTP, the first one that fits.
        streams: Whether the answer is a stream of messages.
    """

    path: str
    request: Any
    answer: Any
    rules: tuple[Rule, ...]
    streams: bool = False

    @property
    def name(self) -> str:
        """Its own, without its service's."""
        return self.path.rpartition("/")[2]


def vertex_methods() -> dict[str, Method]:
    """Every method of both versions that has a twin in HTTP, by its path. Takes seconds: it imports the library."""
    found = {}
    for version in VERSIONS:
        services = importlib.import_module(f"google.cloud.{version}.services")
        for module in pkgutil.iter_modules(services.__path__):
            if module.ispkg:
                for method in _of_service(f"{services.__name__}.{module.name}.transports"):
                    found[method.path] = method
    if not found:
        raise RuntimeError("google-cloud-aiplatform has no services where they are looked for")
    return found | {method.path: method for method in _shared()}


def _of_service(transports: str) -> Iterator[Method]:
    rules = _class_in(importlib.import_module(f"{transports}.rest_base"), "_Base", "RestTransport")
    for path, streams, serialize, deserialize in _calls(importlib.import_module(f"{transports}.grpc")):
        own = getattr(rules, f"_Base{path.rpartition('/')[2]}", None)
        options = getattr(own, "_get_http_options", None)
        request = getattr(serialize, "__self__", None)
        if options is None or request is None:  # streams of requests have no twin; what all services share is below
            continue
        bindings = tuple(rule for rule in options() if "*" not in _NAMED.sub("", rule["uri"]))
        if bindings:  # without: the path goes on where no field says how (``/invoke/**``)
            yield Method(
                path=path, request=_raw(request), answer=_raw(_answer(deserialize)), rules=bindings, streams=streams
            )


def _calls(module: ModuleType) -> list[tuple[str, bool, Any, Any]]:
    """Path, whether the answer streams, and both codecs of each method that takes one message."""
    recorded = _Recorder()
    kind = _class_in(module, "", "GrpcTransport")
    transport = object.__new__(kind)  # its making wants credentials, and wraps each method in retries
    transport._stubs = {}  # as its `__init__` sets them
    transport._grpc_channel = transport._logged_channel = recorded
    for name, member in vars(kind).items():
        if isinstance(member, property) and name not in ("grpc_channel", "operations_client", "kind"):
            getattr(transport, name)
    return recorded.calls


class _Recorder:
    """A channel that is asked for methods and only keeps what it is told of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool, Any, Any]] = []

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> None:
        """A method that answers once."""
        self.calls.append((path, False, request_serializer, response_deserializer))

    def unary_stream(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> None:
        """A method that answers with a stream."""
        self.calls.append((path, True, request_serializer, response_deserializer))

    def stream_unary(self, *_: Any, **__: Any) -> None:
        """One that takes a stream: it has no twin."""

    stream_stream = stream_unary


def _class_in(module: ModuleType, begin: str, end: str) -> Any:
    for name, member in vars(module).items():
        if name.startswith(begin) and name.endswith(end) and getattr(member, "__module__", "") == module.__name__:
            return member
    raise RuntimeError(f"{module.__name__} has no class {begin}…{end}")


def _answer(deserialize: Callable[[bytes], Any] | None) -> Any:
    return empty_pb2.Empty if deserialize is None else type(deserialize(b""))


def _raw(kind: Any) -> Any:
    """The protocol buffer below one of the library's classes; one that is none of those is it already."""
    return kind.pb() if callable(getattr(kind, "pb", None)) else kind


_NAME = "{name=projects/*/locations/*/**}"


def _shared() -> Iterator[Method]:
    """What every service has besides: https://cloud.google.com/vertex-ai/docs/reference/rpc.

    These have one version in gRPC and are asked for under ``/v1``. An operation answers in the version that it was made
    in, whichever it is polled by.
    """
    operation, empty = operations_pb2.Operation, empty_pb2.Empty
    operations = "/google.longrunning.Operations"
    for name, answer, verb, uri in (
        ("GetOperation", operation, "get", f"/v1/{_NAME}"),
        (
            "ListOperations",
            operations_pb2.ListOperationsResponse,
            "get",
            "/v1/{name=projects/*/locations/**}/operations",
        ),
        ("WaitOperation", operation, "post", f"/v1/{_NAME}:wait"),
        ("CancelOperation", empty, "post", f"/v1/{_NAME}:cancel"),
        ("DeleteOperation", empty, "delete", f"/v1/{_NAME}"),
    ):
        request = getattr(operations_pb2, f"{name}Request")
        yield Method(path=f"{operations}/{name}", request=request, answer=answer, rules=(_rule(verb, uri),))
    for name, answer, uri in (
        ("GetLocation", locations_pb2.Location, "/v1/{name=projects/*/locations/*}"),
        ("ListLocations", locations_pb2.ListLocationsResponse, "/v1/{name=projects/*}/locations"),
    ):
        request = getattr(locations_pb2, f"{name}Request")
        path = f"/google.cloud.location.Locations/{name}"
        yield Method(path=path, request=request, answer=answer, rules=(_rule("get", uri),))
    for name, answer, verb in (
        ("GetIamPolicy", policy_pb2.Policy, "getIamPolicy"),
        ("SetIamPolicy", policy_pb2.Policy, "setIamPolicy"),
        ("TestIamPermissions", iam_policy_pb2.TestIamPermissionsResponse, "testIamPermissions"),
    ):
        request = getattr(iam_policy_pb2, f"{name}Request")
        uri = f"/v1/{{resource=projects/*/locations/*/**}}:{verb}"
        yield Method(
            path=f"/google.iam.v1.IAMPolicy/{name}", request=request, answer=answer, rules=(_rule("post", uri),)
        )


def _rule(verb: str, uri: str) -> Rule:
    return {"method": verb, "uri": uri} | ({"body": "*"} if verb == "post" else {})
