"""Models and their versions as Vertex AI's JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.contracts.vertex.timestamps import rfc3339
from headrace.resources.aliases import DEFAULT_ALIAS
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import ModelNotFound, StaleWrite
from headrace.resources.models import Model, ModelVersion, ServingSpec


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
        "versionUpdateTime": rfc3339(max(version.created_at, version.updated_at)),
        "versionDescription": version.description,
        "displayName": model.display_name,
        "description": model.description,
        "artifactUri": version.artifact_uri,
        "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
        "deployedModels": [
            {"endpoint": one.scope.name("endpoints", one.endpoint_id), "deployedModelId": one.id} for one in bindings
        ],
        "createTime": rfc3339(model.created_at),
        "updateTime": rfc3339(model.updated_at),
        "etag": etag(model, version),
        "labels": labels_of(model, version),
        "headrace": {
            "modelUserId": version.user_id,
            "fingerprint": version.fingerprint,
            "servingSpec": _spec_json(version.spec),
        },
    }
    if version.spec.container is not None:
        wire["containerSpec"] = version.spec.container
    return wire | version.kept


def labels_of(model: Model, version: ModelVersion) -> dict[str, str]:
    """The labels of a model as those see them who read one of its versions: both, and the version's where both have."""
    return model.labels | version.labels


def etag(model: Model, version: ModelVersion) -> str:
    """The opaque tag of what an update may change: of the model, and behind a dot of the version.

    It is of the content, so that an update is refused only where it would overwrite what its sender has not seen: that
    somebody else registered another version, say, is no reason.
    """
    of_model = (model.display_name, model.description, sorted(model.labels.items()))
    of_version = (version.version, version.description, sorted(version.labels.items()))
    return ".".join(hashlib.sha256(msgspec.json.encode(part)).hexdigest()[:12] for part in (of_model, of_version))


def require_etag(sent: str, model: Model, version: ModelVersion, *, of_version: bool) -> None:
    """Hold that what an update overwrites is what its sender knows.

    Args:
        sent: The update's etag; empty: it does not mind.
        model: The model as it is.
        version: The version that is changed; any one where the model is.
        of_version: Whether it is the version that is changed.

    Raises:
        StaleWrite: It is not.
    """
    mine, theirs = etag(model, version).split("."), sent.split(".")
    if sent and (len(theirs) != len(mine) or theirs[of_version] != mine[of_version]):
        raise StaleWrite(
            f"Model {model.name} was changed by somebody else.",
            evidence=f"The update's etag is {sent[:60]!r}; now it is {'.'.join(mine)!r}.",
            fix="Read it again and repeat the change, or leave etag out to change it whatever it is.",
        )
