"""Vertex AI's bodies about models: uploads, updates and merges of aliases."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.vertex.model_bodies import ModelBody, UploadWish, read_merge, read_upload
from headrace.contracts.vertex.model_update import CHANGEABLE, read_mask, read_update
from headrace.contracts.vertex.models import etag, model_json, require_etag
from headrace.resources.errors import BadField, BadName, HeadraceError, NotSupported, StaleWrite
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope

SCOPE = Scope("my-proj", "us-central1")
MODEL = f"{SCOPE}/models/m"

SDK = b"""{"model": {"displayName": "m", "containerSpec": {"imageUri": "vllm/vllm:latest", "command": ["python"],
"args": ["--model=x"], "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 8080}], "predictRoute":
"/v1/completions", "healthRoute": "/health", "grpcPorts": [{"containerPort": 9000}], "deploymentTimeout": "600s",
"sharedMemorySizeMb": "4096", "startupProbe": {"exec": {"command": ["cat", "/x"]}, "periodSeconds": 5,
"timeoutSeconds": 3}, "healthProbe": {"exec": {"command": ["cat", "/h"]}, "periodSeconds": 6, "timeoutSeconds": 4}},
"labels": {"k": "v"}, "artifactUri": "gs://bkt/m", "versionAliases": ["v-one", "default"],
"versionDescription": "first"}}"""
"""What google-cloud-aiplatform 2.7.0 sends."""


def upload(model: dict[str, Any] | None = None, **body: Any) -> UploadWish:
    """Read an upload of a named model."""
    return read_upload(json.dumps({"model": {"displayName": "m", **(model or {})}, **body}).encode(), SCOPE)


def test_what_the_sdk_sends() -> None:
    """An upload is read whole: the container as it came, aliases, labels, description."""
    wish = read_upload(SDK, SCOPE)
    assert (wish.model_id, wish.new_version, wish.display_name) == ("", False, "m")
    assert (wish.artifact_uri, wish.aliases) == ("gs://bkt/m", ("v-one", "default"))
    assert (wish.labels, wish.version_description) == ({"k": "v"}, "first")
    assert wish.container == json.loads(SDK)["model"]["containerSpec"]


def test_snake_case_and_numbers() -> None:
    """Fields may come in snake_case, 64-bit integers as numbers, and what is output only is left alone."""
    body = {
        "model": {
            "display_name": "m",
            "container_spec": {"image_uri": "i", "shared_memory_size_mb": 1024, "deployment_timeout": "1.5s"},
            "supportedDeploymentResourcesTypes": [1],
            "create_time": "2026-11-21T05:40:08Z",
            "versionId": "7",
        },
        "parent": str(SCOPE),
    }
    wish = read_upload(json.dumps(body).encode(), SCOPE)
    assert wish.container == {"imageUri": "i", "sharedMemorySizeMb": "1024", "deploymentTimeout": "1.5s"}


def test_where_it_goes() -> None:
    """A new model has the id that is asked for; a version goes to its parent, by its name or its id."""
    assert (upload(modelId="my_model-").model_id, upload(modelId="my_model-").new_version) == ("my_model-", False)
    for parent in (MODEL, "m", f"{MODEL}@2"):
        assert (upload(parentModel=parent).model_id, upload(parentModel=parent).new_version) == ("m", True)
    assert upload(parentModel=MODEL, modelId="m").model_id == "m"


def test_what_means_nothing_here_is_kept() -> None:
    """Schemas and metadata are there for whoever reads the version back."""
    said = {"predictSchemata": {"instanceSchemaUri": "gs://s"}, "metadata": {"a": [1]}, "pipelineJob": "p"}
    wish = upload({**said, "metadataSchemaUri": ""})
    assert wish.kept == said
    model = Model(scope=SCOPE, id="m", display_name="m", created_at=1.0, updated_at=1.0)
    version = ModelVersion(scope=SCOPE, model_id="m", version="1", artifact_uri="", kept=wish.kept, created_at=1.0)
    assert model_json(model, version).items() >= said.items()


@pytest.mark.parametrize(
    ("model", "body", "error", "told"),
    [
        ({"displayName": " "}, {}, BadField, "displayName"),
        ({"containerSpec": {}}, {}, BadField, "containerSpec.imageUri"),
        ({"containerSpec": {"imageUri": "i", "ports": [{"containerPort": 0}]}}, {}, BadField, "ports[0]"),
        ({"containerSpec": {"imageUri": "i", "grpcPorts": [{"containerPort": 65536}]}}, {}, BadField, "grpcPorts[0]"),
        ({"containerSpec": {"imageUri": "i", "deploymentTimeout": "0s"}}, {}, BadField, "deploymentTimeout"),
        ({"containerSpec": {"imageUri": "i", "deploymentTimeout": "2592001s"}}, {}, BadField, "at most 2592000s"),
        ({"containerSpec": {"imageUri": "i", "sharedMemorySizeMb": "-1"}}, {}, BadField, "sharedMemorySizeMb"),
        (
            {"containerSpec": {"imageUri": "i", "healthProbe": {"exec": {}, "httpGet": {}}}},
            {},
            BadField,
            "containerSpec.healthProbe has several",
        ),
        (
            {"containerSpec": {"imageUri": "i", "livenessProbe": {"periodSeconds": -1}}},
            {},
            BadField,
            "containerSpec.livenessProbe",
        ),
        ({"labels": {"a": 1}}, {}, BadField, "model.labels.a"),
        ({"versionAliases": "default"}, {}, BadField, "versionAliases must be an array"),
        ({"explanationSpec": {"parameters": {}}}, {}, NotSupported, "explanationSpec"),
        ({"encryptionSpec": {"kmsKeyName": "k"}}, {}, NotSupported, "encryptionSpec"),
        ({"what": 1}, {}, BadField, "what"),
        ({}, {"modelId": "-x"}, BadName, "modelId"),
        ({}, {"modelId": "X"}, BadName, "modelId"),
        ({}, {"parentModel": "projects/p/locations/l/models/m"}, BadField, "parentModel"),
        ({}, {"parentModel": "m/"}, BadField, "parentModel"),
        ({}, {"parentModel": "m", "modelId": "n"}, BadField, "two models"),
        ({}, {"parent": "projects/p/locations/l"}, BadField, "parent"),
        ({}, {"isDefaultVersion": True}, BadField, "isDefaultVersion"),
    ],
)
def test_bad_uploads(model: dict[str, Any], body: dict[str, Any], error: type[HeadraceError], told: str) -> None:
    """What is wrong is named."""
    with pytest.raises(error) as raised:
        upload(model, **body)
    assert told in raised.value.message


def update(mask: str, reference: str = "", **body: Any) -> Any:
    """Read an update."""
    return read_update(json.dumps(body).encode(), mask, model=MODEL, reference=reference)


def test_updates() -> None:
    """Only what the mask names is changed, in the model, or in the version that path or body name."""
    whole = {"name": MODEL, "displayName": "n", "description": "d", "versionDescription": "v", "versionId": "2"}
    of_model = update("displayName,description", **whole)
    assert (of_model.version, of_model.display_name, of_model.description, of_model.labels) == ("", "n", "d", None)
    assert update("labels", "-", labels={"a": "b"}).version == ""
    for by_path in (update("version_description", "2", **whole), update("versionDescription, labels", **whole)):
        assert (by_path.version, by_path.description, by_path.display_name) == ("2", "v", None)
    assert update("labels", "prod", labels={}).version == "prod"
    assert update("description").description == ""


@pytest.mark.parametrize(
    ("mask", "reference", "body", "told"),
    [
        ("", "", {}, "updateMask is missing"),
        (" , ", "", {}, "updateMask is missing"),
        ("artifactUri", "", {}, "'artifactUri', which cannot be changed"),
        ("display_name,container_spec.args", "", {}, "'container_spec.args'"),
        ("versionAliases", "", {}, "'versionAliases', which cannot be changed"),
        ("*", "", {}, "'*'"),
        ("displayname", "", {}, "no field"),
        ("displayName", "2", {}, "has no displayName of its own"),
        ("versionDescription", "", {}, "the path names none"),
        ("displayName,versionDescription", "2", {}, "not both"),
        ("labels", "", {"name": "projects/my-proj/locations/us-central1/models/other"}, "another model's"),
        ("labels", "", {"labels": []}, "labels must be an object"),
    ],
)
def test_bad_updates(mask: str, reference: str, body: dict[str, Any], told: str) -> None:
    """What cannot be changed is refused and named, and so is a change of two things."""
    with pytest.raises(BadField) as raised:
        update(mask, reference, **body)
    assert told in raised.value.message


FIELDS = st.sampled_from([*ModelBody.__struct_fields__, *ModelBody.__struct_encode_fields__, "", " ", "x", "a.b"])


@given(st.lists(FIELDS, max_size=5))
def test_a_mask_names_what_can_be_changed_or_is_refused(names: list[str]) -> None:
    """Whatever a mask holds, what is taken of it is changeable, and nothing of it is dropped in silence."""
    changeable = {*CHANGEABLE, "display_name", "description", "labels", "version_description"}
    given_names = [name.strip() for name in names if name.strip()]
    try:
        fields = read_mask(",".join(names))
    except BadField:
        assert not given_names or set(given_names) - changeable
        return
    assert given_names
    assert set(given_names) <= changeable
    assert len(fields) == len({name.replace("_", "").lower() for name in given_names})


@given(st.text(max_size=60))
def test_any_mask(mask: str) -> None:
    """Any text is a mask or a field that is refused."""
    with suppress(BadField):
        assert read_mask(mask)


@given(st.binary(max_size=120) | st.text(alphabet='{}[],:"\\modelnaeI ', max_size=60).map(str.encode))
def test_any_body(body: bytes) -> None:
    """Any bytes are read, or refused by an error of ours."""
    for read in (lambda: read_upload(body, SCOPE), lambda: read_merge(body)):
        with suppress(HeadraceError):
            read()


def test_etags_tell_what_would_be_overwritten() -> None:
    """A change of the model leaves a version's update alone, and the other way round; both notice their own."""
    model = Model(scope=SCOPE, id="m", display_name="m", created_at=1.0, updated_at=1.0)
    version = ModelVersion(scope=SCOPE, model_id="m", version="1", artifact_uri="/m", created_at=1.0)
    seen = etag(model, version)
    renamed = msgspec.structs.replace(model, display_name="n", last_version=9, updated_at=5.0)
    described = msgspec.structs.replace(version, description="d", aliases=("prod",), fingerprint="f")
    for sent in ("", seen):
        require_etag(sent, renamed, version, of_version=True)
        require_etag(sent, model, described, of_version=False)
    require_etag("", renamed, described, of_version=False)
    for sent, of_version in ((seen, False), (seen, True), ("e", False), ("v3", True)):
        with pytest.raises(StaleWrite):
            require_etag(sent, renamed, described, of_version=of_version)
