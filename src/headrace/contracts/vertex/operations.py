"""Long-running operations as the vendor's clients poll them.

Clients parse ``metadata`` and ``response`` strictly: their ``@type`` must be of the API version that was called, and
they may hold only fields that the vendor's protocol buffers know.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from headrace.contracts.vertex.errors import google_error
from headrace.contracts.vertex.json_bodies import Duration, duration_s, parse_object, read
from headrace.contracts.vertex.timestamps import rfc3339
from headrace.resources.errors import BadField, Cancelled, Failure, error_from
from headrace.resources.operations import Operation, OperationKind
from headrace.resources.states import OperationState

_TYPES: Mapping[OperationKind, tuple[str, str]] = MappingProxyType(
    {
        "create_endpoint": ("CreateEndpointOperationMetadata", "Endpoint"),
        "update_endpoint": ("UpdateEndpointOperationMetadata", "Endpoint"),
        "deploy": ("DeployOperationMetadata", "DeployResponse"),
        "deploy_model": ("DeployModelOperationMetadata", "DeployModelResponse"),
        "mutate_deployed_model": ("MutateDeployedModelOperationMetadata", "MutateDeployedModelResponse"),
        "undeploy": ("UndeployModelOperationMetadata", "UndeployModelResponse"),
        "delete_endpoint": ("DeleteOperationMetadata", ""),
        "upload_model": ("UploadModelOperationMetadata", "UploadModelResponse"),
        "delete_model": ("DeleteOperationMetadata", ""),
        "delete_model_version": ("DeleteOperationMetadata", ""),
    }
)
"""Of each kind: the message in ``metadata``, and the one in ``response``; empty for ``google.protobuf.Empty``."""

_EMPTY = "type.googleapis.com/google.protobuf.Empty"
_CANCELLED = 1  # google.rpc.Code: what clients expect of an operation that was cancelled
_OTHERWISE = "v1beta1"  # an operation that began in another contract is told in the version that has every message


def contract_of(version: str) -> str:
    """What is stored in an operation that was asked for through a version of Vertex AI's API."""
    return f"vertex/{version}"


def operation_json(operation: Operation, made: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A ``google.longrunning.Operation``.

    Args:
        operation: As stored.
        made: What it made, in the vendor's own fields alone; None: of that its response has what the operation knows.
    """
    vendor, _, version = operation.contract.partition("/")
    package = f"type.googleapis.com/google.cloud.aiplatform.{version if vendor == 'vertex' else _OTHERWISE}"
    metadata_type, response_type = _TYPES[operation.kind]
    wire: dict[str, Any] = {
        "name": operation.name,
        "metadata": {"@type": f"{package}.{metadata_type}", **_metadata(operation)},
    }
    if operation.state is OperationState.RUNNING:
        return wire
    wire["done"] = True
    if operation.failure is not None:
        wire["error"] = _status(operation.failure)
    else:
        response = (made or _response(operation)) if response_type else {}
        wire["response"] = {"@type": f"{package}.{response_type}" if response_type else _EMPTY, **response}
    return wire


def _metadata(operation: Operation) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "genericMetadata": {
            "createTime": rfc3339(operation.created_at),
            "updateTime": rfc3339(operation.updated_at),
        }
    }
    if operation.kind == "deploy":
        metadata["destination"] = str(operation.scope)
        metadata["modelId"] = operation.targets.get("model", "")
    return metadata


def _response(operation: Operation) -> dict[str, Any]:
    targets = operation.targets
    if operation.kind in ("create_endpoint", "update_endpoint"):
        return {
            "name": operation.scope.name("endpoints", targets["endpoint"]),
            "displayName": targets["display_name"],
            "createTime": rfc3339(operation.created_at),
            "updateTime": rfc3339(operation.created_at),
        }
    if operation.kind in ("deploy_model", "mutate_deployed_model"):
        return {"deployedModel": _deployed_model(operation)}
    if operation.kind == "upload_model":
        return {
            "model": operation.scope.name("models", operation.targets["model"]),
            "modelVersionId": operation.targets["version"],
        }
    if operation.kind != "deploy":
        return {}
    return {
        "publisherModel": operation.targets.get("publisher_model", ""),
        "endpoint": operation.scope.name("endpoints", operation.targets["endpoint"]),
        "model": operation.scope.name("models", operation.targets["model"]),
    }


def _deployed_model(operation: Operation) -> dict[str, Any]:
    """What never changes about it, in fields that each version of the vendor's message has; its endpoint tells more."""
    targets = operation.targets
    return {
        "id": targets["deployed_model"],
        "model": operation.scope.name("models", targets["model"]),
        "modelVersionId": targets["version"],
        "displayName": targets["display_name"],
    }


def _status(failure: Failure) -> dict[str, Any]:
    """A ``google.rpc.Status``: as in an HTTP answer, but numbered as gRPC does."""
    error = error_from(failure)
    _, body = google_error(error)
    return {
        "code": _CANCELLED if isinstance(error, Cancelled) else error.grpc_code,
        "message": body["error"]["message"],
        "details": body["error"]["details"],
    }


def filter_done(expression: str) -> bool | None:
    """The only filter of ``ListOperations``: ``done=true`` or ``done=false``; None when it is empty.

    Raises:
        BadField: It is another expression.
    """
    compact = expression.replace(" ", "").replace('"', "").lower()
    if not compact:
        return None
    if compact not in {"done=true", "done=false"}:
        raise BadField(
            "filter of operations is not understood.",
            evidence=f"It is {expression[:200]!r}.",
            fix="Use done=true or done=false.",
        )
    return compact == "done=true"


class WaitBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``WaitOperationRequest``."""

    name: str = ""
    timeout: Duration | None = None


def read_wait(body: bytes, *, default_s: float) -> float:
    """How many seconds a ``:wait`` may take.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown or of the wrong type.
    """
    timeout = read(WaitBody, parse_object(body)).timeout
    return default_s if timeout is None else max(0.0, duration_s(timeout))
