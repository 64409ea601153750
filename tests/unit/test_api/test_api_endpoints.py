"""Vertex AI's endpoints by themselves, as its clients use them: made, changed, filled, emptied, deleted."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import SCOPE, World

from headrace.resources.access import Role
from headrace.resources.endpoints import DeployedModel, Endpoint

L = f"/v1/{SCOPE}"
LOG = "predictRequestResponseLoggingConfig"
MIN, MAX = "dedicatedResources.minReplicaCount", "dedicatedResources.maxReplicaCount"


def create(world: World, endpoint_id: str, **fields: Any) -> Any:
    """An endpoint that was made with an id of the caller's own."""
    world.json("POST", f"{L}/endpoints?endpointId={endpoint_id}", json={"displayName": endpoint_id} | fields)
    return world.json("GET", f"{L}/endpoints/{endpoint_id}")


def register(world: World, model_id: str = "m") -> None:
    """One more version of a model, deployed nowhere."""
    operation = world.deploy(modelConfig={"modelUserId": model_id}, endpointConfig={"endpointUserId": "seed"})
    world.json("DELETE", f"{L}/endpoints/seed?force=true")
    world.advance(operation, "GONE")
    with world.store.transaction() as tx:  # as the reconciler does once nothing runs
        for row in (*tx.list(DeployedModel, endpoint_id="seed"), *tx.list(Endpoint, id="seed")):
            tx.delete(row)


def deploy_model(world: World, endpoint_id: str, split: dict[str, int] | None = None, **fields: Any) -> Any:
    """Ask for a version on an endpoint; the operation."""
    body: dict[str, Any] = {"deployedModel": {"model": f"{SCOPE}/models/m@1"} | fields}
    body |= {"trafficSplit": split} if split is not None else {}
    return world.json("POST", f"{L}/endpoints/{endpoint_id}:deployModel", json=body)


def refused(world: World, endpoint_id: str, *, split: Any = None, **fields: Any) -> tuple[int, str]:
    """How a deploy that must fail is answered."""
    body: dict[str, Any] = {"deployedModel": {"model": f"{SCOPE}/models/m@1"} | fields}
    body |= {"trafficSplit": split} if split is not None else {}
    return world.error("POST", f"{L}/endpoints/{endpoint_id}:deployModel", json=body)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_create(world: World, version: str) -> None:
    """An operation that is done, of the version that was asked; the endpoint is dedicated, and at the TLS port."""
    world.layout.local_login.write_text('{"url": "http://127.0.0.1:8080", "tls_url": "https://127.0.0.1:8443"}')
    body = {"displayName": "e2", "labels": {"a": "b"}, "description": "For tests."}
    operation = world.json("POST", f"/{version}/{SCOPE}/endpoints?%24alt=json%3Benum-encoding%3Dint", json=body)
    package = f"type.googleapis.com/google.cloud.aiplatform.{version}"
    assert operation["metadata"]["@type"] == f"{package}.CreateEndpointOperationMetadata"
    assert (operation["done"], operation["response"]["@type"]) == (True, f"{package}.Endpoint")
    assert operation["name"].startswith(f"{operation['response']['name']}/operations/")
    endpoint = world.json("GET", f"/v1/{operation['response']['name']}")
    assert (endpoint["displayName"], endpoint["labels"], endpoint["description"]) == ("e2", {"a": "b"}, "For tests.")
    assert (endpoint["dedicatedEndpointEnabled"], endpoint["dedicatedEndpointDns"]) == (True, "headrace.test:8443")
    assert (endpoint["deployedModels"], endpoint["trafficSplit"]) == ([], {})
    assert operation["response"].pop("@type")
    assert operation["response"] == endpoint, "the SDK goes on with it as if it had asked"
    polled = world.json("GET", f"/ui/{operation['name']}")
    assert (polled["done"], polled["response"].pop("@type")) == (True, f"{package}.Endpoint")
    assert polled == operation


def test_another_port_is_told_once_it_is_written_down(world: World) -> None:
    """What the server wrote down of its addresses is remembered for as long as the file stays as it is."""
    for port in (8443, 9443):
        text = f'{{"url": "http://127.0.0.1:8080", "tls_url": "https://127.0.0.1:{port}"}}'
        fresh = world.layout.local_login.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(world.layout.local_login)  # as a server does that starts
        made = create(world, f"e{port}")
        assert made["dedicatedEndpointDns"].endswith(f":{port}")
        assert world.json("GET", f"{L}/endpoints/e{port}") == made


def test_without_tls_none_is_shown_as_dedicated(world: World) -> None:
    """The vendor's SDK asks a dedicated endpoint by ``https://`` and nothing else; another one where it was pointed."""
    made = create(world, "e")
    assert (made["dedicatedEndpointEnabled"], "dedicatedEndpointDns" in made) == (False, False)


def test_create_with_an_id_and_shared(world: World) -> None:
    """An id of one's own is taken once; an explicit false makes a shared endpoint; timeout and log are given back."""
    wanted = {"clientConnectionConfig": {"inferenceTimeout": "1200s"}, LOG: {"enabled": True, "samplingRate": 0.25}}
    made = create(world, "custom-id", dedicatedEndpointEnabled=False, **wanted)
    assert made["name"] == f"{SCOPE}/endpoints/custom-id"
    assert (made["dedicatedEndpointEnabled"], "dedicatedEndpointDns" in made) == (False, False)
    assert (made["clientConnectionConfig"], made[LOG]) == tuple(wanted.values())
    again = world.error("POST", f"{L}/endpoints?endpointId=custom-id", json={"displayName": "x"})
    assert again == (409, "NAME_TAKEN")
    assert world.json("GET", f"{L}/endpoints/custom-id") == made


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("", {}, 400, "BAD_FIELD"),
        ("", {"displayName": " "}, 400, "BAD_FIELD"),
        ("", {"displayName": "x" * 129}, 400, "BAD_FIELD"),
        ("", {"displayName": "a\nb"}, 400, "BAD_FIELD"),
        ("", {"displayName": ["x"]}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "description": "x" * 5000}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "description": "a\x00b"}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "labels": {str(n): "" for n in range(65)}}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "clientConnectionConfig": {"inferenceTimeout": "3601s"}}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "clientConnectionConfig": {"inferenceTimeout": "0.999s"}}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "clientConnectionConfig": {"inferenceTimeout": "0.000000001s"}}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", LOG: {"enabled": True, "samplingRate": 2}}, 400, "BAD_FIELD"),
        ("", {"displayName": "e", "network": "n"}, 501, "NOT_SUPPORTED"),
        ("?endpointId=NOT_AN_ID", {"displayName": "e"}, 400, "BAD_NAME"),
    ],
)
def test_endpoints_that_are_refused(world: World, query: str, body: dict[str, Any], status: int, code: str) -> None:
    """What cannot be is a 4xx with its code, and leaves nothing behind."""
    assert world.error("POST", f"{L}/endpoints{query}", json=body) == (status, code)
    assert world.json("GET", f"{L}/endpoints")["endpoints"] == []
    assert world.json("GET", f"{L}/operations")["operations"] == []


def test_list_with_filter_and_order(world: World) -> None:
    """Endpoints are found by display name, label and id, and come in the order that was asked for."""
    for name in ("b", "a", "c"):
        create(world, name, labels={"team": "x" if name == "a" else "y"})

    def listed(query: str) -> list[str]:
        found = world.json("GET", f"{L}/endpoints?{query}")["endpoints"]
        return [one["displayName"] for one in found]

    assert listed("orderBy=display_name") == ["a", "b", "c"]
    assert listed("orderBy=display_name%20desc") == ["c", "b", "a"]
    assert listed('filter=display_name%3D"b"') == ["b"]
    assert listed('filter=labels.team%3D"y"&orderBy=display_name') == ["b", "c"]
    assert listed("filter=endpoint%3Dc") == ["c"]


def test_patch(world: World) -> None:
    """What the mask names changes, all else in the body does not; the answer is the endpoint with a new etag."""
    made = create(world, "e", labels={"a": "b"})
    body = made | {"displayName": "other", "labels": {"c": "d"}, "description": "No."}
    patched = world.json("PATCH", f"{L}/endpoints/e?updateMask=displayName", json=body)
    assert (patched["displayName"], patched["labels"], patched.get("description")) == ("other", {"a": "b"}, None)
    assert patched["etag"] != made["etag"]
    assert world.json("GET", f"{L}/endpoints/e") == patched
    assert world.error("PATCH", f"{L}/endpoints/e?updateMask=labels", json=body) == (409, "STALE_WRITE")
    body = {"labels": {}, "clientConnectionConfig": {"inferenceTimeout": "60s"}}
    patched = world.json("PATCH", f"{L}/endpoints/e?updateMask=labels,clientConnectionConfig", json=body)
    assert (patched["labels"], patched["clientConnectionConfig"]) == ({}, {"inferenceTimeout": "60s"})


def test_update_as_an_operation(world: World) -> None:
    """`:update` changes what Vertex AI changes by it; its operation is done, and its response is the endpoint."""
    made = create(world, "e", labels={"a": "b"})
    body = {"endpoint": made | {"displayName": "other", "clientConnectionConfig": {"inferenceTimeout": "60s"}}}
    operation = world.json("POST", f"{L}/endpoints/e:update", json=body)
    now = world.json("GET", f"{L}/endpoints/e")
    assert (now["displayName"], now["clientConnectionConfig"]) == ("e", {"inferenceTimeout": "60s"})
    package = "type.googleapis.com/google.cloud.aiplatform.v1"
    assert operation["metadata"]["@type"] == f"{package}.UpdateEndpointOperationMetadata"
    assert (operation["done"], operation["response"].pop("@type")) == (True, f"{package}.Endpoint")
    assert operation["response"] == now
    assert world.json("GET", f"/ui/{operation['name']}")["done"]
    assert world.error("POST", f"{L}/endpoints/e:update", json=body) == (409, "STALE_WRITE")


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("e", {}, 400, "BAD_FIELD"),
        ("e", {"endpoint": {"displayName": "x"}}, 400, "BAD_FIELD"),
        ("e", {"endpoint": {"clientConnectionConfig": {"inferenceTimeout": "0.1s"}}}, 400, "BAD_FIELD"),
        ("e", {"endpoint": {"clientConnectionConfig": {"colour": 1}}}, 400, "BAD_FIELD"),
        ("e", {"updateMask": "x"}, 400, "BAD_FIELD"),
        ("nothing", {"endpoint": {"clientConnectionConfig": {"inferenceTimeout": "9s"}}}, 404, "ENDPOINT_NOT_FOUND"),
    ],
)
def test_updates_that_are_refused(world: World, name: str, body: Any, status: int, code: str) -> None:
    """What it does not change, or what cannot be, is refused, and nothing of it is kept."""
    made = create(world, "e")
    assert world.error("POST", f"{L}/endpoints/{name}:update", json=body) == (status, code)
    assert world.json("GET", f"{L}/endpoints/e") == made


def test_a_list_tells_the_fields_that_are_asked_for(world: World) -> None:
    """`readMask` leaves all others out, of endpoints and models; a field that there is not is refused."""
    create(world, "e", labels={"a": "b", "c": "d"}, description="d")
    register(world)

    def listed(kind: str, mask: str) -> dict[str, Any]:
        [one] = world.json("GET", f"{L}/{kind}?readMask={mask}")[kind]
        return dict(one)

    assert listed("endpoints", "name,display_name") == {"name": f"{SCOPE}/endpoints/e", "displayName": "e"}
    assert listed("endpoints", "labels.a,description") == {"labels": {"a": "b"}, "description": "d"}
    assert listed("endpoints", "labels.a,labels") == {"labels": {"a": "b", "c": "d"}}
    assert listed("endpoints", "*") == listed("endpoints", "") == world.json("GET", f"{L}/endpoints/e")
    assert set(listed("models", "versionId,artifactUri")) == {"versionId", "artifactUri"}
    for kind in ("endpoints", "models"):
        assert world.error("GET", f"{L}/{kind}?readMask=colour") == (400, "BAD_FIELD")


def test_patch_keeps_redactions(world: World) -> None:
    """A log that the vendor's clients change keeps what is redacted in it; switched off, it is off."""
    create(world, "e")
    world.json("PATCH", "/headrace/v1/endpoints/e", json={"request_log": {"redact_fields": ["content"]}})
    body = {LOG: {"enabled": True, "samplingRate": 0.5}}
    log = world.json("PATCH", f"{L}/endpoints/e?updateMask={LOG}", json=body)["headrace"]["requestLog"]
    assert (log["samplingRate"], log["redactFields"]) == (0.5, ["content"])
    assert LOG not in world.json("PATCH", f"{L}/endpoints/e?updateMask={LOG}", json={})


@pytest.mark.parametrize(
    ("mask", "body", "status", "code"),
    [
        ("", {"displayName": "x"}, 400, "BAD_FIELD"),
        ("name", {"name": "x"}, 400, "BAD_FIELD"),
        ("createTime", {}, 400, "BAD_FIELD"),
        ("colour", {}, 400, "BAD_FIELD"),
        ("displayName", {}, 400, "BAD_FIELD"),
        ("displayName", {"displayName": 5}, 400, "BAD_FIELD"),
        ("labels", {"labels": {"a": None, "b": 5}}, 400, "BAD_FIELD"),
        ("trafficSplit", {"trafficSplit": {"7": 100}}, 400, "BAD_FIELD"),
        ("trafficSplit", {"trafficSplit": {"7": 50}}, 400, "BAD_FIELD"),
        ("displayName", b"{,}", 400, "BAD_JSON"),
    ],
)
def test_patches_that_are_refused(world: World, mask: str, body: Any, status: int, code: str) -> None:
    """A mask or a value that cannot be is refused, and the endpoint stays as it was."""
    made = create(world, "e")
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    assert world.error("PATCH", f"{L}/endpoints/e?updateMask={mask}", **sent) == (status, code)
    assert world.json("GET", f"{L}/endpoints/e") == made
    assert world.error("PATCH", f"{L}/endpoints/nothing?updateMask={mask}", **sent)[0] in {400, 404}


def test_what_is_not_there(world: World) -> None:
    """Endpoints, models, versions and deployed models that are not there are 404s of their own."""
    register(world)
    create(world, "e")
    patch = ("PATCH", f"{L}/endpoints/nothing?updateMask=displayName")
    assert world.error(*patch, json={"displayName": "x"}) == (404, "ENDPOINT_NOT_FOUND")
    assert refused(world, "nothing") == (404, "ENDPOINT_NOT_FOUND")
    assert refused(world, "e", model=f"{SCOPE}/models/nothing") == (404, "MODEL_NOT_FOUND")
    assert refused(world, "e", model=f"{SCOPE}/models/m@2") == (404, "MODEL_NOT_FOUND")
    assert refused(world, "e", model=f"{SCOPE}/models/m@stable") == (404, "MODEL_NOT_FOUND")
    mutation = {"deployedModel": {"id": "7", "dedicatedResources": {"minReplicaCount": 1}}, "updateMask": MIN}
    for endpoint in ("e", "nothing"):
        status, code = world.error("POST", f"{L}/endpoints/{endpoint}:mutateDeployedModel", json=mutation)
        assert (status, code.partition("_")[2]) == (404, "NOT_FOUND")
    body = {"deployedModelId": "7"}
    assert world.error("POST", f"{L}/endpoints/e:undeployModel", json=body) == (404, "DEPLOYMENT_NOT_FOUND")
    assert world.json("GET", f"{L}/endpoints/e")["deployedModels"] == []


@pytest.mark.parametrize("reference", ["", "@1", "@default"])
def test_deploy_model(world: World, reference: str) -> None:
    """By default version, number and alias; the operation ends with the deployed model, which keeps what was asked."""
    register(world)
    create(world, "e")
    metrics = [{"metricName": "aiplatform.googleapis.com/prediction/online/cpu/utilization", "target": 60}]
    dedicated = {
        "machineSpec": {"machineType": "n1-standard-4", "acceleratorType": 5, "acceleratorCount": 1},
        "minReplicaCount": 1,
        "maxReplicaCount": 3,
        "autoscalingMetricSpecs": metrics,
    }
    model = f"{SCOPE}/models/m{reference}"
    operation = deploy_model(
        world, "e", {"0": 100}, model=model, displayName="d1", dedicatedResources=dedicated, serviceAccount="a@b"
    )
    package = "type.googleapis.com/google.cloud.aiplatform.v1"
    assert operation["metadata"]["@type"] == f"{package}.DeployModelOperationMetadata"
    assert operation["name"].startswith(f"{SCOPE}/endpoints/e/operations/")
    assert "done" not in operation
    world.advance(operation)
    done = world.json("GET", f"/ui/{operation['name']}")
    (deployed,) = world.json("GET", f"{L}/endpoints/e")["deployedModels"]
    assert done["response"] == {
        "@type": f"{package}.DeployModelResponse",
        "deployedModel": {
            "id": deployed["id"],
            "model": f"{SCOPE}/models/m",
            "modelVersionId": "1",
            "displayName": "d1",
        },
    }
    assert world.json("GET", f"{L}/endpoints/e")["trafficSplit"] == {deployed["id"]: 100}
    told = deployed["dedicatedResources"]
    assert told["machineSpec"]["acceleratorType"] == "NVIDIA_TESLA_T4"
    assert (told["maxReplicaCount"], told["autoscalingMetricSpecs"]) == (3, metrics)
    assert deployed["serviceAccount"] == "a@b"
    model_json = world.json("GET", f"{L}/models/m")
    assert model_json["deployedModels"] == [{"endpoint": f"{SCOPE}/endpoints/e", "deployedModelId": deployed["id"]}]
    assert world.error("DELETE", f"{L}/models/m") == (400, "STILL_IN_USE")


def test_several_on_one_endpoint(world: World) -> None:
    """The new one gets its share once it is READY, named "0" until its id is known; then the split is PATCHed."""
    register(world)
    create(world, "e")
    world.advance(deploy_model(world, "e", {"0": 100}, displayName="one"))
    (one,) = world.json("GET", f"{L}/endpoints/e")["deployedModels"]
    operation = deploy_model(world, "e", {"0": 20, one["id"]: 80}, displayName="two", id="72")
    assert world.json("GET", f"{L}/endpoints/e")["trafficSplit"] == {one["id"]: 100, "72": 0}
    world.advance(operation)
    assert world.json("GET", f"{L}/endpoints/e")["trafficSplit"] == {one["id"]: 80, "72": 20}
    body = {"trafficSplit": {"72": 100}}
    patched = world.json("PATCH", f"{L}/endpoints/e?updateMask=trafficSplit", json=body)
    assert patched["trafficSplit"] == {one["id"]: 0, "72": 100}
    none = world.json("PATCH", f"{L}/endpoints/e?updateMask=trafficSplit", json={})
    assert none["trafficSplit"] == {one["id"]: 0, "72": 0}
    for wrong in ({"72": 99}, {"72": 110, one["id"]: -10}, {"73": 100}, {"72": "x"}, []):
        body = {"trafficSplit": wrong}
        assert world.error("PATCH", f"{L}/endpoints/e?updateMask=trafficSplit", json=body) == (400, "BAD_FIELD")
    assert world.json("GET", f"{L}/endpoints/e")["trafficSplit"] == none["trafficSplit"]


def test_undeploy_wants_to_know_who_gets_its_traffic(world: World) -> None:
    """With traffic left and others there it is refused, unless a split says what they get; the last one just goes."""
    register(world)
    create(world, "e")
    for number in ("71", "72"):
        world.advance(deploy_model(world, "e", {"0": 100}, displayName=number, id=number))
    path = f"{L}/endpoints/e:undeployModel"
    for split, code in (({}, "STILL_IN_USE"), ({"71": 0}, "STILL_IN_USE"), ({"71": 50, "72": 50}, "BAD_FIELD")):
        assert world.error("POST", path, json={"deployedModelId": "72", "trafficSplit": split}) == (400, code)
    assert world.error("POST", path, json={"deployedModelId": "72", "trafficSplit": {"9": 100}}) == (400, "BAD_FIELD")
    assert world.error("POST", path, json={"deployedModelId": "72", "trafficSplit": {"71": 99}}) == (400, "BAD_FIELD")
    assert world.json("GET", f"{L}/endpoints/e")["trafficSplit"] == {"71": 0, "72": 100}
    operation = world.json("POST", path, json={"deployedModelId": "72", "trafficSplit": {"71": 100}})
    assert operation["metadata"]["@type"].endswith("v1.UndeployModelOperationMetadata")
    assert world.json("GET", f"{L}/endpoints/e")["trafficSplit"]["71"] == 100
    world.json("POST", path, json={"deployedModelId": "71"})


def test_mutate(world: World) -> None:
    """Numbers of replicas and metrics change at once, what the mask leaves out stays, and nonsense is refused."""
    register(world)
    create(world, "e")
    world.advance(deploy_model(world, "e", {"0": 100}, id="71"))
    path = f"{L}/endpoints/e:mutateDeployedModel"

    def mutate(mask: str, **resources: Any) -> dict[str, Any]:
        return {"json": {"deployedModel": {"id": "71", "dedicatedResources": resources}, "updateMask": mask}}

    operation = world.json("POST", path, **mutate(f"{MIN},{MAX}", minReplicaCount=2, maxReplicaCount=4))
    assert operation["response"]["@type"].endswith("v1.MutateDeployedModelResponse")
    assert operation["response"]["deployedModel"]["id"] == "71"
    metrics = [{"metricName": "aiplatform.googleapis.com/prediction/online/request_count", "target": 50}]
    world.json("POST", path, **mutate("dedicatedResources.autoscalingMetricSpecs", autoscalingMetricSpecs=metrics))
    for wrong in (
        mutate(MIN, minReplicaCount=5),
        mutate(MIN, minReplicaCount=0),
        mutate(MAX, maxReplicaCount=1),
        mutate("dedicatedResources.machineSpec", machineSpec={}),
        mutate("colour"),
        mutate(""),
    ):
        assert world.error("POST", path, **wrong) == (400, "BAD_FIELD")
    (deployed,) = world.json("GET", f"{L}/endpoints/e")["deployedModels"]
    told = deployed["dedicatedResources"]
    assert (told["minReplicaCount"], told["maxReplicaCount"], told["autoscalingMetricSpecs"]) == (2, 4, metrics)


def test_deploys_that_are_refused(world: World) -> None:
    """What cannot be deployed, or not so, is a 4xx (501: not yet) with its code, and leaves nothing behind."""
    register(world)
    create(world, "e")
    machine = {"machineSpec": {"machineType": "nobody-has-this"}}
    g2 = {"machineSpec": {"machineType": "g2-standard-4"}}
    assert refused(world, "e", split={"0": 50}) == (400, "BAD_FIELD")
    assert refused(world, "e", split={"0": 50, "9": 50}) == (400, "BAD_FIELD")
    assert refused(world, "e", split={"9": 100}) == (400, "BAD_FIELD")
    assert refused(world, "e", split=[100]) == (400, "BAD_FIELD")
    assert refused(world, "e", dedicatedResources={"minReplicaCount": 2, "maxReplicaCount": 1}) == (400, "BAD_FIELD")
    assert refused(world, "e", dedicatedResources=g2) == (400, "MACHINE_SPEC_INCOMPLETE")
    assert refused(world, "e", dedicatedResources=machine) == (400, "BAD_FIELD")
    assert refused(world, "e", id="x") == (400, "BAD_FIELD")
    assert refused(world, "e", id="0") == (400, "BAD_FIELD")
    assert refused(world, "e", displayName="x" * 200) == (400, "BAD_FIELD")
    assert refused(world, "e", sharedResources="pools/1") == (501, "NOT_SUPPORTED")
    assert world.json("GET", f"{L}/endpoints/e")["deployedModels"] == []
    assert world.json("GET", f"{L}/endpoints/e/operations?filter=done%3Dfalse")["operations"] == []


def test_one_version_twice_under_one_name(world: World) -> None:
    """On one endpoint a second binding of a version needs a name of its own, or none; an id is taken once."""
    register(world)
    create(world, "e")
    create(world, "f")
    deploy_model(world, "e", displayName="d", id="71")
    assert refused(world, "e", displayName="d") == (409, "NAME_TAKEN")
    assert refused(world, "f", displayName="d", id="71") == (409, "NAME_TAKEN")
    deploy_model(world, "e", displayName="other")
    deploy_model(world, "f", displayName="d")
    assert len(world.json("GET", f"{L}/endpoints/e")["deployedModels"]) == 2


def test_unknown_images_are_refused_by_name(world: World) -> None:
    """A version whose container we cannot stand in for is refused with its image; one of a text server is served."""
    for model, image in (("odd", "gcr.io/mine/my-classifier:1"), ("fine", "docker.io/vllm/vllm-openai:v0.12.0")):
        world.deploy(modelConfig={"modelUserId": model, "containerSpec": {"imageUri": image}})
    create(world, "e")
    body = {"deployedModel": {"model": f"{SCOPE}/models/odd"}}
    response = world.call("POST", f"{L}/endpoints/e:deployModel", json=body)
    assert response.status_code == 501
    assert "gcr.io/mine/my-classifier:1" in response.json()["error"]["message"]
    deploy_model(world, "e", model=f"{SCOPE}/models/fine")


def test_shared_deployments_are_told(world: World) -> None:
    """Endpoints that share a deployment say so of each other; delete is refused while deployed, unless forced."""
    register(world)
    for endpoint in ("e", "f"):
        create(world, endpoint)
        world.advance(deploy_model(world, endpoint, {"0": 100}), "" if endpoint == "f" else "CHECKING")
    (on_e,) = world.json("GET", f"{L}/endpoints/e")["deployedModels"]
    (on_f,) = world.json("GET", f"{L}/endpoints/f")["deployedModels"]
    assert on_e["headrace"]["deployment"] == on_f["headrace"]["deployment"]
    assert on_e["headrace"]["sharedWith"] == [f"{SCOPE}/endpoints/f"]
    assert on_f["headrace"]["sharedWith"] == [f"{SCOPE}/endpoints/e"]
    assert world.error("DELETE", f"{L}/endpoints/f") == (400, "STILL_IN_USE")
    assert world.json("DELETE", f"{L}/endpoints/f?force=true")["done"]
    (on_e,) = world.json("GET", f"{L}/endpoints/e")["deployedModels"]
    assert "sharedWith" not in on_e["headrace"]


def test_a_deploy_can_be_cancelled(world: World) -> None:
    """A cancelled deployModel is undone, as :deploy's is."""
    register(world)
    create(world, "e")
    operation = deploy_model(world, "e", {"0": 100})
    assert world.json("POST", f"/v1/{operation['name']}:cancel") == {}
    assert world.json("GET", f"/v1/{operation['name']}")["error"]["details"][0]["reason"] == "CANCELLED"


def test_readers_may_not_change(world: World) -> None:
    """Making, changing and deploying want the role for it, in the endpoint's own project."""
    viewer, elsewhere = world.key("my-proj", Role.VIEWER), world.key("elsewhere", Role.ADMIN)
    for key in (viewer, elsewhere):
        for method, path in (
            ("POST", f"{L}/endpoints"),
            ("PATCH", f"{L}/endpoints/e?updateMask=labels"),
            ("POST", f"{L}/endpoints/e:deployModel"),
            ("POST", f"{L}/endpoints/e:mutateDeployedModel"),
        ):
            assert world.error(method, path, key=key, json={}) == (403, "ROLE_MISSING")
