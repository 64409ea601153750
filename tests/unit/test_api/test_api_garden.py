"""Model Garden and the catalogue over HTTP: lists, one model, deploying it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_world import SCOPE, World

from headrace.catalogue import entries, find_entry, read_mirror
from headrace.resources.access import Role
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope
from headrace.weights.demo import demo_model_dir

DEMO = "publishers/huggingfacetb/models/smollm2@smollm2-135m-instruct"
SDK_LIST = "/v1beta1/publishers/%2A/models?listAllVersions=true&%24alt=json%3Benum-encoding%3Dint"
VERIFIED = "labels.VERIFIED_DEPLOYMENT_CONFIG=VERIFIED_DEPLOYMENT_SUCCEED"


def artifact_uri(world: World) -> str:
    """Where the weights of the one model version are."""
    with world.store.transaction() as tx:
        (version,) = tx.list(ModelVersion)
    return version.artifact_uri


def test_the_sdk_lists_every_version(world: World) -> None:
    """What `list_deployable_models()` asks is answered with every entry, each with machines to deploy it on."""
    models = world.json("GET", f"{SDK_LIST}&filter=is_hf_wildcard%28false%29")["publisherModels"]
    names = {f"{each['name']}@{each['versionId']}" for each in models}
    assert names == {entry.name for entry in entries()}
    assert all(each["supportedActions"]["multiDeployVertex"]["multiDeployVertex"] for each in models)


def test_the_sdk_filters(world: World) -> None:
    """Its filter by a text finds models by their own names or those for people."""
    asked = 'is_hf_wildcard(false) AND (model_user_id=~"(?i).*gemma.*" OR display_name=~"(?i).*gemma.*")'
    models = world.json("GET", SDK_LIST, params={"filter": asked, "listAllVersions": "true"})["publisherModels"]
    assert {each["name"] for each in models} == {
        "publishers/google/models/gemma2",
        "publishers/google/models/gemma3",
        "publishers/google/models/medgemma",
    }


def test_models_by_their_names_on_the_hub(world: World) -> None:
    """`list_deployable_models(list_hf_models=True)` gets the same models under their names there."""
    asked = {"filter": f"is_hf_wildcard(true) AND {VERIFIED}", "pageSize": "1000"}
    models = world.json("GET", "/v1beta1/publishers/*/models", params=asked)["publisherModels"]
    assert "publishers/hf-qwen/models/qwen3-0.6b" in {each["name"] for each in models}
    assert len(models) == len(entries())


def test_a_publishers_list(world: World) -> None:
    """google-genai's `models.list()` asks for Google's, in both versions of the API, and gets a version of each."""
    for version in ("v1", "v1beta1"):
        models = world.json("GET", f"/{version}/publishers/google/models")["publisherModels"]
        assert [each["name"].rpartition("/")[2] for each in models] == ["gemma2", "gemma3", "medgemma"]
    assert world.json("GET", "/v1/publishers/nobody/models") == {"publisherModels": []}


def test_pages(world: World) -> None:
    """Pages lead through the list; the last has no token."""
    path, names = "/v1/publishers/*/models?pageSize=10&listAllVersions=true", []
    wire = world.json("GET", path)
    while token := wire.get("nextPageToken"):
        names += wire["publisherModels"]
        wire = world.json("GET", f"{path}&pageToken={token}")
    assert len(names) + len(wire["publisherModels"]) == len(entries())


def test_one_model(world: World) -> None:
    """What `list_deploy_options()` asks for is answered with machines, and the full view with what we know besides."""
    path = "/v1beta1/publishers/google/models/gemma3%40gemma-3-1b-it"
    model = world.json("GET", f"{path}?includeEquivalentModelGardenModelDeploymentConfigs=true&%24alt=json")
    assert (model["name"], model["versionId"]) == ("publishers/google/models/gemma3", "gemma-3-1b-it")
    first = model["supportedActions"]["multiDeployVertex"]["multiDeployVertex"][0]
    assert first["dedicatedResources"]["machineSpec"]["machineType"] == "g2-standard-4"
    full = world.json("GET", f"{path}?view=2")["headrace"]
    assert full["licence"]["url"] == "https://ai.google.dev/gemma/terms"
    assert full["parameters"] == 999_885_952
    by_hub = world.json("GET", "/v1beta1/publishers/qwen/models/qwen3-0.6b?isHuggingFaceModel=True")
    assert by_hub["name"] == "publishers/qwen/models/qwen3-0.6b"
    assert by_hub["supportedActions"]["multiDeployVertex"]["multiDeployVertex"]


def test_deploying_the_demo_model(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published model becomes a deployment of its weights, and the operation's answer names it."""
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path))
    body = {"publisherModelName": DEMO, "modelConfig": {"acceptEula": True}}
    operation = world.json("POST", f"/v1beta1/{SCOPE}:deploy", json=body)
    assert artifact_uri(world) == str(demo_model_dir())
    world.advance(operation)
    answer = world.json("GET", f"/ui/{operation['name']}")["response"]
    assert answer["publisherModel"] == DEMO
    endpoint = world.json("GET", f"/v1/{answer['endpoint']}")
    assert endpoint["displayName"] == "smollm2-135m-instruct"


@pytest.mark.parametrize("address", ["garden:mistral-ai/mistral", "hf:mistralai/Mistral-7B-v0.1"])
def test_deploying_by_name_in_the_native_api(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """The native API takes a published model where it takes an address, and finds it in the operator's mirror."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    entry = find_entry("mistral-ai/mistral")
    (tmp_path / entry.hub).mkdir(parents=True)
    (tmp_path / entry.hub / "config.json").write_text("{}")
    context = world.app.state.context
    mirrors = (read_mirror(str(tmp_path)),)
    world.app.state.context = type(context)(context.store, context.reconciler, context.layout, mirrors=mirrors)
    operation = world.json("POST", "/headrace/v1/deployments", json={"artifact_uri": address})
    assert operation["targets"]["publisher_model"] == entry.name
    assert artifact_uri(world) == f"file://{tmp_path}/{entry.hub}"


def test_what_is_refused_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its licence's acceptance, and without weights, a published model leaves no endpoint and no model."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    deploy, native = f"/v1beta1/{SCOPE}:deploy", "/headrace/v1/deployments"
    gemma = {"publisherModelName": "publishers/google/models/gemma3@gemma-3-1b-it"}
    assert world.error("POST", deploy, json=gemma) == (400, "LICENCE_NOT_ACCEPTED")
    accepted = gemma | {"modelConfig": {"acceptEula": True}}
    assert world.error("POST", deploy, json=accepted) == (400, "ARTIFACTS_NOT_FOUND")
    body = {"artifact_uri": "garden:google/gemma3"}
    assert world.error("POST", native, json=body) == (400, "LICENCE_NOT_ACCEPTED")
    assert world.error("POST", native, json=body | {"accept_licence": True}) == (400, "ARTIFACTS_NOT_FOUND")
    assert world.error("POST", native, json={"artifact_uri": "garden:nobody/nothing"}) == (404, "MODEL_NOT_FOUND")
    assert world.error("POST", native, json={"artifact_uri": "hf:nothing"}) == (400, "BAD_FIELD")
    assert world.json("GET", f"/v1/{SCOPE}/endpoints")["endpoints"] == []
    assert world.json("GET", f"/v1/{SCOPE}/models")["models"] == []


def test_a_licence_is_accepted_once_for_a_project(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK's `accept_model_license_agreement()` says counts for that model in that project from then on."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    eula = "/v1beta1/projects/my-proj/modelGardenEula"
    gemma = "publishers/google/models/gemma3@gemma-3-1b-it"
    unacknowledged = {"publisherModel": gemma, "publisherModelEulaAcked": False}
    assert world.json("POST", f"{eula}:check", json={"publisherModel": gemma}) == unacknowledged
    viewer = world.key("my-proj", Role.VIEWER)
    assert world.error("POST", f"{eula}:accept", json={"publisherModel": gemma}, key=viewer) == (403, "ROLE_MISSING")
    for _ in range(2):
        accepted = world.json("POST", f"{eula}:accept", json={"publisherModel": gemma})
        assert accepted == world.json("POST", f"{eula}:check", json={"publisherModel": gemma}, key=viewer)
        assert accepted["publisherModelEulaAcked"] is True
    for scope, model, code in (
        (SCOPE, gemma, "ARTIFACTS_NOT_FOUND"),  # only its weights are missing now
        (SCOPE, "publishers/google/models/gemma3@gemma-3-4b-it", "LICENCE_NOT_ACCEPTED"),
        (Scope("other", "us-central1"), gemma, "LICENCE_NOT_ACCEPTED"),
    ):
        assert world.error("POST", f"/v1beta1/{scope}:deploy", json={"publisherModelName": model}) == (400, code)
    free = world.json("POST", f"{eula}:check", json={"publisherModel": DEMO})
    assert free["publisherModelEulaAcked"] is True  # there is nothing to accept
    assert world.error("POST", f"{eula}:check", json={"publisherModel": "a/b"}) == (404, "MODEL_NOT_FOUND")


def test_gcloud_finds_no_quota_in_its_way(world: World) -> None:
    """What gcloud asks before it deploys a model of the Hub is answered: a region with room, and nothing used."""
    quota = "CustomModelServingL4GPUsPerProjectPerRegion"
    services = "/v1/projects/my-proj/locations/global/services/aiplatform.googleapis.com"
    info = world.json("GET", f"{services}/quotaInfos/{quota}?alt=json")
    (dimensions,) = info["dimensionsInfos"]
    assert "us-central1" in dimensions["applicableLocations"]
    assert int(dimensions["details"]["value"]) > 1000
    assert world.json("GET", "/v3/projects/my-proj/timeSeries?alt=json&view=FULL") == {"timeSeries": []}
    stranger = world.key("other", Role.VIEWER)
    assert world.error("GET", "/v3/projects/my-proj/timeSeries", key=stranger) == (403, "ROLE_MISSING")


def test_the_catalogue(world: World) -> None:
    """The native API lists every entry, shows one with its machines, and has a notebook for it."""
    models = world.json("GET", "/headrace/v1/catalogue")["models"]
    assert {each["id"] for each in models} == {entry.id for entry in entries()}
    one = world.json("GET", "/headrace/v1/catalogue/openai/gpt-oss@gpt-oss-20b")
    assert one["quantisation"] == "mxfp4"
    assert one["options"][0]["machine_type"]
    assert one["options"][0]["need_bytes"] <= one["options"][0]["available_bytes"]
    notebook = world.json("GET", "/headrace/v1/catalogue/openai/gpt-oss@gpt-oss-20b/notebook")
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    model = world.json("GET", "/v1/publishers/openai/models/gpt-oss@gpt-oss-20b")
    address = model["supportedActions"]["openNotebook"]["references"]["global"]["uri"]
    assert world.json("GET", address) == notebook
    assert world.error("GET", "/headrace/v1/catalogue/openai/nothing") == (404, "MODEL_NOT_FOUND")
