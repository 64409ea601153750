"""Models and their versions as Vertex AI's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.contracts.vertex.timestamps import etag, rfc3339
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import ModelNotFound
from headrace.resources.models import Model, ModelVersion, ServingSpec

DEFAULT_ALIAS = "default"


def split_version(name: str) -> tuple[str, str]:
    """``id``, ``id@version`` or ``id@alias`` in a path: the id, and what follows (empty without)."""
    model_id, _, reference = name.partition("@")
    return model_id, reference


def pick_version(model: Model, versions: Sequence[ModelVersion], reference: str) -> ModelVersion:
    """The version that a path means: by number, by alias, or without either the default one.

    Args:
        model: The model.
        versions: All its versions, at least one.
        reference: A version, an alias, or empty.

    Raises:
        ModelNotFound: No version has this number or alias.
    """
    wanted = reference or DEFAULT_ALIAS
    for version in versions:
        if wanted == version.version or wanted in version.aliases:
            return version
    if not reference and versions:
        return max(versions, key=lambda version: int(version.version))
    known = [version.version for version in versions] + [alias for one in versions for alias in one.aliases]
    raise ModelNotFound(
        f"Model {model.name} has no version or alias {wanted!r}.", evidence=f"It has: {', '.join(known) or 'none'}."
    )


def _spec_json(spec: ServingSpec) -> dict[str, Any]:
    """What was said of how to serve it; a chat template by its size, as there is one in each line of a long list."""
    template = spec.chat_template
    said = {
        "runtime": spec.runtime or None,
        "maxModelLen": spec.max_model_len,
        "dtype": spec.dtype if spec.dtype != "auto" else None,
        "tensorParallel": spec.tensor_parallel if spec.tensor_parallel > 1 else None,
        "prefixCaching": spec.prefix_caching,
        "chatTemplateSizeBytes": None if template is None else len(template.encode()),
        "toolParser": spec.tool_parser,
        "allowCustomCode": spec.allow_custom_code or None,
        "softwareSpecification": spec.software_specification or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def model_json(model: Model, version: ModelVersion, bindings: Sequence[DeployedModel] = ()) -> dict[str, Any]:
    """A ``Model`` at one version, with our own facts in ``headrace`` (clients ignore fields they do not know here).

    Args:
        model: The model.
        version: One of its versions.
        bindings: What is deployed of this version, on whichever endpoint.
    """
    wire: dict[str, Any] = {
        "name": model.name,
        "versionId": version.version,
        "versionAliases": list(version.aliases),
        "versionCreateTime": rfc3339(version.created_at),
        "versionUpdateTime": rfc3339(version.created_at),
        "versionDescription": version.description,
        "displayName": model.display_name,
        "artifactUri": version.artifact_uri,
        "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
        "deployedModels": [
            {"endpoint": one.scope.name("endpoints", one.endpoint_id), "deployedModelId": one.id} for one in bindings
        ],
        "createTime": rfc3339(model.created_at),
        "updateTime": rfc3339(model.updated_at),
        "etag": etag(model.resource_version),
        "labels": model.labels,
        "headrace": {
            "modelUserId": version.user_id,
            "fingerprint": version.fingerprint,
            "servingSpec": _spec_json(version.spec),
        },
    }
    if version.spec.container is not None:
        wire["containerSpec"] = version.spec.container
    return wire
