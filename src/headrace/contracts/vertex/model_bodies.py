"""Bodies about models: ``models:upload``, ``PATCH`` of one, and ``:mergeVersionAliases``.

The messages are those of google-cloud-aiplatform 2.7.0 (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models).
What is said to be output only is taken and left alone, as Google's APIs do: clients send back what they read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.vertex.containers import ContainerSpec, check_container
from headrace.contracts.vertex.json_bodies import parse_object, read
from headrace.resources.aliases import AliasChange, read_change
from headrace.resources.errors import BadField, NotSupported
from headrace.resources.names import Scope, check_model_id


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of the wire."""


class PredictSchemata(_Message, frozen=True, omit_defaults=True):
    """Where the schemas of instances, parameters and predictions are."""

    instance_schema_uri: str = ""
    parameters_schema_uri: str = ""
    prediction_schema_uri: str = ""


class ModelBody(_Message, frozen=True):
    """``Model``. Fields of the type ``object`` are read by nobody here."""

    name: str = ""
    version_id: str = ""
    version_aliases: tuple[str, ...] = ()
    version_create_time: object = None
    version_update_time: object = None
    display_name: str = ""
    description: str = ""
    version_description: str = ""
    default_checkpoint_id: str = ""
    predict_schemata: PredictSchemata | None = None
    metadata_schema_uri: str = ""
    metadata: object = None
    supported_export_formats: object = None
    training_pipeline: object = None
    pipeline_job: str = ""
    container_spec: ContainerSpec | None = None
    artifact_uri: str = ""
    supported_deployment_resources_types: object = None
    supported_input_storage_formats: object = None
    supported_output_storage_formats: object = None
    create_time: object = None
    update_time: object = None
    deployed_models: object = None
    explanation_spec: object = None
    etag: str = ""
    labels: dict[str, str] = {}
    data_stats: object = None
    encryption_spec: object = None
    model_source_info: object = None
    original_model_info: object = None
    metadata_artifact: object = None
    base_model_source: object = None
    satisfies_pzs: object = None
    satisfies_pzi: object = None
    checkpoints: object = None
    headrace: object = None  # our own facts, in what was read and is sent back

    @property
    def kept(self) -> dict[str, Any]:
        """What means nothing here and is shown to whoever reads the version back, in the wire's names."""
        schemata = msgspec.to_builtins(self.predict_schemata) if self.predict_schemata else None
        said = {
            "predictSchemata": schemata,
            "metadataSchemaUri": self.metadata_schema_uri,
            "metadata": self.metadata,
            "pipelineJob": self.pipeline_job,
            "baseModelSource": self.base_model_source,
        }
        return {name: value for name, value in said.items() if value}


class UploadBody(_Message, frozen=True):
    """``UploadModelRequest``. The account that reads a cloud's storage means nothing here."""

    parent: str = ""
    parent_model: str = ""
    model_id: str = ""
    model: ModelBody = ModelBody()
    service_account: str = ""


class UploadWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be registered.

    Attributes:
        model_id: Of the model to make, or empty to have one made; with ``new_version`` of the one that gets a version.
        container: As it came; None without one.
        kept: As `ModelVersion.kept`.
    """

    model_id: str
    new_version: bool
    display_name: str
    description: str
    version_description: str
    labels: dict[str, str]
    aliases: tuple[str, ...]
    artifact_uri: str
    container: dict[str, Any] | None
    kept: dict[str, Any]


def read_upload(body: bytes, scope: Scope) -> UploadWish:
    """What a ``models:upload`` body asks for.

    Args:
        body: The request's body, camelCase or snake_case.
        scope: The project and location in the request's path.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, missing, of the wrong type, or out of its range.
        BadName: The model's id is not well formed.
        NotSupported: It asks for what is not there.
    """
    message = read(UploadBody, parse_object(body))
    model = message.model
    if message.parent and message.parent != str(scope):
        raise BadField(
            "parent is not the location in the path.",
            evidence=f"The body says {message.parent[:200]!r}, the path {str(scope)!r}.",
            fix="Leave parent out of the body, or make the two the same.",
        )
    if not model.display_name.strip():
        raise BadField("model.displayName is missing.", fix="Give the model a name; it need not be unique.")
    for field, value in {"explanationSpec": model.explanation_spec, "encryptionSpec": model.encryption_spec}.items():
        if value:
            raise NotSupported(f"model.{field} is not supported.", fix="Leave it out.")
    if model.container_spec is not None:
        check_container(model.container_spec, "model.containerSpec")
    return UploadWish(
        model_id=_target(message, scope),
        new_version=bool(message.parent_model),
        display_name=model.display_name,
        description=model.description,
        version_description=model.version_description,
        labels=model.labels,
        aliases=model.version_aliases,
        artifact_uri=model.artifact_uri.strip(),
        container=model.container_spec.json() if model.container_spec else None,
        kept=model.kept,
    )


def _target(message: UploadBody, scope: Scope) -> str:
    """The id of the model that is made or gets a version."""
    if not message.parent_model:
        return check_model_id(message.model_id, field="modelId") if message.model_id else ""
    place, _, name = message.parent_model.rpartition("/")
    parent_id = name.partition("@")[0]
    if place not in {"", f"{scope}/models"} or not parent_id:
        raise BadField(
            "parentModel is no model of the location in the path.",
            evidence=f"It is {message.parent_model[:200]!r}.",
            fix=f"Give {scope}/models/MODEL.",
        )
    if message.model_id not in {"", parent_id}:
        raise BadField(
            "modelId and parentModel are two models.",
            evidence=f"{message.model_id[:64]!r} and {parent_id[:64]!r}.",
            fix="Leave modelId out: a version is added to parentModel.",
        )
    return parent_id


class MergeBody(_Message, frozen=True):
    """``MergeVersionAliasesRequest``."""

    name: str = ""
    version_aliases: tuple[str, ...] = ()


def read_merge(body: bytes) -> AliasChange:
    """What a ``:mergeVersionAliases`` body asks for.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, missing, or of the wrong type, or an alias is none.
    """
    return read_change(read(MergeBody, parse_object(body)).version_aliases, field="versionAliases")
