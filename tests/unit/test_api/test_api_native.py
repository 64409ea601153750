"""The native API: what the command line and the console see; and errors nobody expected."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import msgspec
import pytest
from api_world import SCOPE, World

from headrace import __version__
from headrace.control.routing import build_snapshot
from headrace.resources.access import Role
from headrace.resources.assignments import RuntimeReport
from headrace.resources.deployments import Replica, Warmup
from headrace.resources.egress import Egress
from headrace.resources.errors import EngineDied
from headrace.resources.models import CHAT_TEMPLATE_MAX_BYTES, ModelVersion, ServingSpec
from headrace.resources.nodes import Node
from headrace.resources.request_log import RequestLog
from headrace.resources.states import ReplicaState


def add_replica(world: World, operation: dict[str, Any], **fields: Any) -> Replica:
    """A replica of an operation's deployment, with a secret."""
    with world.store.transaction() as tx:
        deployment = world.deployment(tx, operation)
        replica = Replica(
            scope=deployment.scope,
            id="77",
            deployment_id=deployment.id,
            node_id="local",
            epoch=1,
            nonce="very-secret-nonce",
            state=ReplicaState.READY,
            resident_bytes=300,
            warmup=Warmup(time_to_first_token_s=0.1, tokens_per_s=90.0, output_tokens=16),
            created_at=1.0,
            updated_at=2.0,
            **fields,
        )
        tx.insert(replica)
    return replica


def test_status(world: World) -> None:
    """Status shows endpoints, what runs behind them, memory and nodes, and no secret."""
    operation = world.deploy(endpointConfig={"endpointUserId": "e"})
    world.advance(operation)
    add_replica(world, operation)
    with world.store.transaction() as tx:
        runtime = RuntimeReport(name="transformers", installed=True)
        tx.insert(Node(id="local", boot_id="b", memory_bytes=8, cores=2, runtimes=(runtime,), last_seen_at=1.0))
    response = world.call("GET", "/headrace/v1/status")
    status = response.json()
    assert status["version"] == __version__
    assert status["resident_bytes"] == 300
    assert status["last_error"] is None
    (endpoint,) = status["endpoints"]
    (deployed,) = endpoint["deployed_models"]
    assert endpoint["name"] == f"{SCOPE}/endpoints/e"
    assert deployed["deployment"]["state"] == "READY"
    assert deployed["deployment"]["replicas"][0]["warmup"]["tokens_per_s"] == 90.0
    assert [node["id"] for node in status["nodes"]] == ["local"]
    assert "very-secret-nonce" not in response.text
    (found,) = world.json("GET", "/headrace/v1/runtimes")["runtimes"]
    assert (found["node"], found["name"]) == ("local", "transformers")
    assert world.json("GET", "/headrace/v1/nodes")["nodes"] == status["nodes"]


def test_a_deadline_that_no_calendar_has_breaks_no_list(world: World) -> None:
    """Of a row that is there; who asks for one is refused."""
    operation = world.deploy(endpointConfig={"endpointUserId": "e"})
    with world.store.transaction() as tx:
        tx.update(msgspec.structs.replace(world.deployment(tx, operation), deadline_at=1e12))
    (listed,) = world.json("GET", "/headrace/v1/status")["endpoints"]
    assert "It has until 9999-12-31" in listed["deployed_models"][0]["deployment"]["pending"]
    assert len(world.json("GET", "/headrace/v1/endpoints")["endpoints"]) == 1
    body = {"artifact_uri": "/", "project": "my-proj", "timeout_s": 1e12}
    assert world.error("POST", "/headrace/v1/deployments", json=body) == (400, "BAD_FIELD")


def test_last_error(world: World) -> None:
    """The last error is the newest of all deployments and replicas that are not gone."""
    operation = world.deploy()
    add_replica(world, operation, failure=EngineDied("It died.").failure)
    error = world.json("GET", "/headrace/v1/status")["last_error"]
    assert (error["kind"], error["id"], error["failure"]["code"]) == ("replica", "77", "ENGINE_DIED")


def test_native_deploy(world: World) -> None:
    """The native deploy takes what Vertex AI's has no field for, and its operation can be polled either way."""
    body = {
        "artifact_uri": "/",
        "project": "my-proj",
        "model_id": "smol",
        "runtime": "transformers",
        "max_model_len": 512,
        "dtype": "bfloat16",
        "machine": {"machine_type": "g2-standard-4", "accelerator_type": "NVIDIA_L4", "accelerator_count": 1},
    }
    operation = world.json("POST", "/headrace/v1/deployments", json=body)
    assert world.woken.times == 1
    assert world.json("GET", f"/v1/{operation['name']}")["name"] == operation["name"]
    (model,) = world.json("GET", "/headrace/v1/models")["models"]
    (version,) = model["versions"]
    assert version["spec"] == {"runtime": "transformers", "max_model_len": 512, "dtype": "bfloat16"}
    (endpoint,) = world.json("GET", "/headrace/v1/endpoints")["endpoints"]
    assert endpoint["deployed_models"][0]["deployment_id"] == operation["targets"]["deployment"]


WISHED = {
    "tensor_parallel": 2,
    "prefix_caching": False,
    "chat_template": "{% for m in messages %}{{ m.content }}é\n{% endfor %}",
    "tool_parser": "pythonic",
    "software_specification": "watsonx-cfm-caikit-1.1",
}


def test_what_is_wished_of_the_engine_is_kept_and_shown(world: World) -> None:
    """Through the store and back, with the deployment and the model, and with Vertex AI's model by name and size."""
    body = {"artifact_uri": "/", "project": "my-proj", "model_id": "smol", **WISHED}
    operation = world.json("POST", "/headrace/v1/deployments", json=body)
    (model,) = world.json("GET", "/headrace/v1/models")["models"]
    assert model["versions"][0]["spec"] == WISHED
    deployment = operation["targets"]["deployment"]
    assert world.json("GET", f"/headrace/v1/deployments/{deployment}")["spec"] == WISHED
    with world.store.transaction(read_only=True) as tx:
        (version,) = tx.list(ModelVersion)
    assert version.spec == ServingSpec(**WISHED)
    assert world.json("GET", f"/v1/{SCOPE}/models/smol")["headrace"]["servingSpec"] == {
        "tensorParallel": 2,
        "prefixCaching": False,
        "chatTemplateSizeBytes": len(WISHED["chat_template"].encode()),
        "toolParser": "pythonic",
        "softwareSpecification": "watsonx-cfm-caikit-1.1",
    }


def test_when_it_scales_to_zero_is_kept_and_shown(world: World) -> None:
    """Seconds go in and come out; left out they are 0, and a time that cannot be held is refused."""
    body = {"artifact_uri": "/", "project": "my-proj"}
    operation = world.json("POST", "/headrace/v1/deployments", json=body | {"scale_to_zero_after_s": 300})
    shown = world.json("GET", f"/headrace/v1/deployments/{operation['targets']['deployment']}")
    assert shown["scale_to_zero_after_s"] == 300.0
    operation = world.json("POST", "/headrace/v1/deployments", json=body)
    shown = world.json("GET", f"/headrace/v1/deployments/{operation['targets']['deployment']}")
    assert shown["scale_to_zero_after_s"] == 0.0
    refused = world.error("POST", "/headrace/v1/deployments", json=body | {"scale_to_zero_after_s": 0.1})
    assert refused == (400, "BAD_FIELD")


def test_what_is_left_open_is_said_nowhere(world: World) -> None:
    """Versions of before there were such wishes read as those that have none."""
    operation = world.deploy()
    with world.store.transaction(read_only=True) as tx:
        deployment = world.deployment(tx, operation)
        (version,) = tx.list(ModelVersion)
    assert version.spec == ServingSpec()
    assert world.json("GET", f"/headrace/v1/deployments/{deployment.id}")["spec"] == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tensor_parallel", 0),
        ("tensor_parallel", -2),
        ("tensor_parallel", 1.5),
        ("prefix_caching", "yes"),
        ("chat_template", ""),
        ("chat_template", " \n"),
        ("chat_template", "é" * (CHAT_TEMPLATE_MAX_BYTES // 2 + 1)),
        ("tool_parser", ""),
        ("tool_parser", "two\nlines"),
        ("tool_parser", "x" * 200),
        ("software_specification", "watsonx-cfm-caikit-9"),
    ],
)
def test_a_wish_that_is_none_is_refused_at_once(world: World, field: str, value: Any) -> None:
    """Nothing is made of it, nor with an external server, which is started with nothing."""
    body = {"artifact_uri": "/", field: value}
    assert world.error("POST", "/headrace/v1/deployments", json=body) == (400, "BAD_FIELD")
    external = {"external": {"base_url": "https://h/v1", "model": "m"}, field: WISHED[field]}
    assert world.error("POST", "/headrace/v1/deployments", json=external) == (400, "BAD_FIELD")
    assert world.json("GET", "/headrace/v1/models")["models"] == []


def test_the_longest_template_is_taken(world: World) -> None:
    """Up to its bound, and JSON's escapes do not count."""
    template = "\n" * (CHAT_TEMPLATE_MAX_BYTES - 1) + "x"
    world.json("POST", "/headrace/v1/deployments", json={"artifact_uri": "/", "chat_template": template})


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("deployments", b"{", "BAD_JSON"),
        ("deployments", b"{}", "BAD_FIELD"),
        ("deployments", b'{"artifact_uri": "/", "shape": 1}', "BAD_FIELD"),
        ("deployments", b'{"artifact_uri": "/", "dtype": "int3"}', "BAD_FIELD"),
        ("deployments", b'{"artifact_uri": ""}', "BAD_FIELD"),
        ("deployments", b'{"artifact_uri": "/", "project": "NO"}', "BAD_NAME"),
        (
            "deployments",
            b'{"artifact_uri": "/", "machine": {"machine_type": "g2-standard-4"}}',
            "MACHINE_SPEC_INCOMPLETE",
        ),
        ("keys", b'{"name": "x", "role": "king"}', "BAD_FIELD"),
        ("keys", b'{"name": " ", "role": "viewer"}', "BAD_FIELD"),
        ("keys", b'{"name": "x", "project": "NO"}', "BAD_NAME"),
        ("keys", b'{"name": "x", "tokens_per_minute": 0}', "BAD_FIELD"),
        ("keys", b'{"name": "x", "requests_per_minute": 1.5}', "BAD_FIELD"),
    ],
)
def test_bad_bodies(world: World, path: str, body: bytes, code: str) -> None:
    """Every bad body is refused with its code."""
    assert world.error("POST", f"/headrace/v1/{path}", content=body) == (400, code)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("ftp://host/river", "SCHEME_NOT_SUPPORTED"),
        ("file:///nowhere/river", "ARTIFACTS_NOT_FOUND"),
        ("/nowhere/river", "ARTIFACTS_NOT_FOUND"),
        ("river", "BAD_FIELD"),
        ("s3://", "BAD_FIELD"),
    ],
)
def test_an_address_that_cannot_be_one_leaves_nothing_behind(world: World, address: str, code: str) -> None:
    """What needs no store to be asked is refused at once: no endpoint, no model, no operation."""
    body = {"artifact_uri": address, "endpoint_display_name": "river"}
    assert world.error("POST", "/headrace/v1/deployments", json=body) == (400, code)
    for noun in ("endpoints", "models", "deployments", "operations"):
        assert world.json("GET", f"/headrace/v1/{noun}")[noun] == []


def test_deployment_and_its_timeline(world: World) -> None:
    """A deployment shows every state it passed, with times, and its replicas."""
    operation = world.deploy()
    world.advance(operation, "CHECKING STAGING")
    add_replica(world, operation)
    (listed,) = world.json("GET", "/headrace/v1/deployments")["deployments"]
    shown = world.json("GET", f"/headrace/v1/deployments/{listed['id']}")
    assert [move["state"] for move in shown["timeline"]] == ["ACCEPTED", "CHECKING", "STAGING"]
    assert [move["at"] for move in shown["timeline"]] == sorted(move["at"] for move in shown["timeline"])
    assert [move["state"] for move in shown["replicas"][0]["timeline"]] == ["READY"]
    assert "nonce" not in shown["replicas"][0]
    assert world.error("GET", "/headrace/v1/deployments/1") == (404, "DEPLOYMENT_NOT_FOUND")


def test_when_a_deployment_scales_to_zero_is_changed(world: World) -> None:
    """By who may deploy in its project; the timeline tells; what is no time, or more than that, changes nothing."""
    operation = world.deploy()
    (listed,) = world.json("GET", "/headrace/v1/deployments")["deployments"]
    path = f"/headrace/v1/deployments/{listed['id']}"
    woken = world.woken.times
    changed = world.json("PATCH", path, json={"scale_to_zero_after_s": 60})
    assert (changed["scale_to_zero_after_s"], world.woken.times) == (60, woken + 1)
    assert world.json("GET", path)["timeline"][-1]["detail"].endswith("after 60 s without a request.")
    for body in ({"scale_to_zero_after_s": 0.5}, {"scale_to_zero_after_s": -1}, {"scale_to_zero_after_s": "x"}, {}):
        assert world.call("PATCH", path, json=body).status_code == 400, body
    assert world.call("PATCH", path, json={"scale_to_zero_after_s": 5, "runtime": "vllm"}).status_code == 400
    stranger = world.key("elsewhere", Role.DEPLOYER)
    assert world.call("PATCH", path, key=stranger, json={"scale_to_zero_after_s": 5}).status_code == 404
    assert world.json("GET", path)["scale_to_zero_after_s"] == 60
    world.advance(operation, "DRAINING")
    assert world.error("PATCH", path, json={"scale_to_zero_after_s": 0}) == (404, "DEPLOYMENT_NOT_FOUND")


def test_the_number_of_replicas_is_changed(world: World) -> None:
    """The most is never less than the least; alone, the least is the number; what is no pool is refused."""
    world.deploy()
    (listed,) = world.json("GET", "/headrace/v1/deployments")["deployments"]
    path = f"/headrace/v1/deployments/{listed['id']}"
    changed = world.json("PATCH", path, json={"min_replicas": 2})
    assert (changed["min_replicas"], changed["max_replicas"]) == (2, 2)
    assert world.json("GET", path)["timeline"][-1]["detail"] == "Replicas from now on: 2; until now 1."
    changed = world.json("PATCH", path, json={"min_replicas": 1, "scale_to_zero_after_s": 60})
    assert (changed["min_replicas"], changed["max_replicas"], changed["scale_to_zero_after_s"]) == (1, 1, 60)
    changed = world.json("PATCH", path, json={"max_replicas": 3})
    assert (changed["min_replicas"], changed["max_replicas"], changed["wanted_replicas"]) == (1, 3, 1)
    assert world.json("GET", path)["timeline"][-1]["detail"] == "Replicas from now on: 1 to 3; until now 1."
    changed = world.json("PATCH", path, json={"min_replicas": 2})
    assert (changed["min_replicas"], changed["max_replicas"], changed["wanted_replicas"]) == (2, 3, 2)
    for body in ({"min_replicas": 0}, {"min_replicas": 3, "max_replicas": 2}, {"max_replicas": 0}, {}):
        assert world.error("PATCH", path, json=body) == (400, "BAD_FIELD"), body
    assert (world.json("GET", path)["min_replicas"], world.json("GET", path)["max_replicas"]) == (2, 3)


def test_what_a_deployment_scales_by_is_kept_and_changed(world: World) -> None:
    """By the metrics' names, with what is left out as it was; an unknown one is refused with those that there are."""
    wish = {"targets": {"vllm_num_requests_waiting": 4}, "lower_after_s": 60}
    body = {"artifact_uri": "gs://weights/smol", "project": SCOPE.project, "location": SCOPE.location}
    made = world.json("POST", "/headrace/v1/deployments", json=body | {"max_replicas": 3, "autoscaling": wish})
    path = f"/headrace/v1/deployments/{made['targets']['deployment']}"
    found = world.json("GET", path)
    asked = [{"metric": "vllm_num_requests_waiting", "target": 4}]
    assert found["autoscaling"] == {"targets": asked, "lower_after_s": 60.0}
    assert (found["wanted_replicas"], found["scaling"]) == (1, None)
    changed = world.json("PATCH", path, json={"autoscaling": {"targets": {"cpu_utilization": 70}}})
    assert changed["autoscaling"] == {"targets": [{"metric": "cpu_utilization", "target": 70}], "lower_after_s": 60.0}
    assert world.json("GET", path)["timeline"][-1]["detail"] == "From now on it scales by cpu_utilization=70."
    changed = world.json("PATCH", path, json={"autoscaling": {"lower_after_s": 90}})
    assert changed["autoscaling"] == {"targets": [{"metric": "cpu_utilization", "target": 70}], "lower_after_s": 90.0}
    refused = world.call("PATCH", path, json={"autoscaling": {"targets": {"gpu": 1}}})
    assert refused.status_code == 400
    assert "vllm_gpu_cache_usage_perc" in refused.text
    for wrong in ({"targets": {"cpu_utilization": "60"}}, {"targets": []}, {"lower_after_s": 1}, {"target": 1}, []):
        assert world.error("PATCH", path, json={"autoscaling": wrong}) == (400, "BAD_FIELD"), wrong


def test_an_endpoints_traffic_is_shared_out_anew(world: World) -> None:
    """By who may deploy in its project; a split that is none changes nothing."""
    for _ in range(2):
        body = {"artifact_uri": "/", "endpoint_id": "chat", "project": "my-proj"}
        world.json("POST", "/headrace/v1/deployments", json=body)
    path = "/headrace/v1/endpoints/chat"
    (endpoint,) = world.json("GET", "/headrace/v1/endpoints")["endpoints"]
    one, other = (each["id"] for each in endpoint["deployed_models"])
    split = world.json("PATCH", path, json={"traffic": {one: 30, other: 70}})
    assert {each["id"]: each["traffic"] for each in split["deployed_models"]} == {one: 30, other: 70}
    for traffic in ({one: 30}, {one: 130, other: -30}, {"stranger": 100}):
        assert world.error("PATCH", path, json={"traffic": traffic}) == (400, "BAD_FIELD")
    (endpoint,) = world.json("GET", "/headrace/v1/endpoints")["endpoints"]
    assert [each["traffic"] for each in endpoint["deployed_models"]] == [30, 70]
    whole = {"traffic": {one: 100}}
    stranger = world.key("elsewhere", Role.DEPLOYER)
    assert world.call("PATCH", path, key=stranger, json=whole).status_code == 404
    predictor = world.key("my-proj", Role.PREDICTOR)
    assert world.call("PATCH", path, key=predictor, json=whole).status_code == 403


def test_an_endpoints_requests_are_logged_on_demand(world: World) -> None:
    """What is left out stays, null turns it off; Vertex AI's clients see it, and the gateway is told."""
    world.json("POST", "/headrace/v1/deployments", json={"artifact_uri": "/", "endpoint_id": "e", "project": "my-proj"})
    path, place = "/headrace/v1/endpoints/e", f"/v1/{SCOPE}/endpoints/e"
    off = world.json("GET", place)
    assert "predictRequestResponseLoggingConfig" not in off
    woken = world.woken.times
    on = world.json("PATCH", path, json={"request_log": {"redact_fields": ["messages.content"]}})
    assert on["request_log"] == {"sampling_rate": 1.0, "redact_fields": ["messages.content"], "redact_patterns": []}
    assert world.woken.times == woken + 1
    world.json("PATCH", path, json={"request_log": {"sampling_rate": 0.25, "redact_patterns": ["[0-9]+"]}})
    shown = world.json("GET", place)
    assert shown["predictRequestResponseLoggingConfig"] == {"enabled": True, "samplingRate": 0.25}
    assert shown["headrace"]["requestLog"]["redactFields"] == ["messages.content"]
    with world.store.transaction() as tx:
        (route,) = build_snapshot(tx, 1, Egress()).endpoints
    assert route.request_log == RequestLog(
        sampling_rate=0.25, redact_fields=("messages.content",), redact_patterns=("[0-9]+",)
    )
    assert world.json("PATCH", path, json={"request_log": None})["request_log"] is None
    assert "headrace" not in world.json("GET", place)
    predictor = world.key("my-proj", Role.PREDICTOR)
    assert world.call("PATCH", path, key=predictor, json={"request_log": {}}).status_code == 403


@pytest.mark.parametrize(
    "log",
    [
        {"sampling_rate": 0},
        {"sampling_rate": 1.5},
        {"sampling_rate": -1},
        {"redact_fields": [""]},
        {"redact_fields": ["a..b"]},
        {"redact_fields": ["x"] * 33},
        {"redact_fields": ["x" * 129]},
        {"redact_patterns": ["("]},
        {"redact_patterns": ["x*"]},
        {"redact_patterns": ["x" * 129]},
        {"rate": 1},
        "on",
    ],
)
def test_a_request_log_that_cannot_be_is_refused(world: World, log: Any) -> None:
    """And nothing is logged."""
    world.json("POST", "/headrace/v1/deployments", json={"artifact_uri": "/", "endpoint_id": "e", "project": "my-proj"})
    path = "/headrace/v1/endpoints/e"
    assert world.error("PATCH", path, json={"request_log": log}) == (400, "BAD_FIELD")
    assert world.error("PATCH", path, json={}) == (400, "BAD_FIELD")
    (endpoint,) = world.json("GET", "/headrace/v1/endpoints")["endpoints"]
    assert endpoint["request_log"] is None


def test_what_a_key_may_use_is_set_and_changed(world: World) -> None:
    """By an admin of its project: what is left out stays, null takes a limit away, and what is none is refused."""
    made = world.json("POST", "/headrace/v1/keys", json={"name": "x", "project": "my-proj", "tokens_per_minute": 100})
    assert (made["requests_per_minute"], made["tokens_per_minute"]) == (None, 100)
    path, woken = f"/headrace/v1/keys/{made['id']}", world.woken.times
    admin = world.key("my-proj", Role.ADMIN)
    changed = world.json("PATCH", path, key=admin, json={"requests_per_minute": 5})
    assert (changed["requests_per_minute"], changed["tokens_per_minute"]) == (5, 100)
    assert "secret_hash" not in changed
    assert world.woken.times == woken + 1
    changed = world.json("PATCH", path, json={"tokens_per_minute": None})
    assert (changed["requests_per_minute"], changed["tokens_per_minute"]) == (5, None)
    for body in ({"tokens_per_minute": -1}, {"tokens_per_minute": "x"}, {"role": "admin"}, {"tokens_per_minute": 0}):
        assert world.error("PATCH", path, json=body) == (400, "BAD_FIELD"), body
    stranger = world.key("elsewhere", Role.ADMIN)
    assert world.error("PATCH", path, key=stranger, json={"tokens_per_minute": 9}) == (404, "KEY_NOT_FOUND")
    deployer = world.key("my-proj", Role.DEPLOYER)
    assert world.error("PATCH", path, key=deployer, json={"tokens_per_minute": 9}) == (403, "ROLE_MISSING")
    (listed,) = [each for each in world.json("GET", "/headrace/v1/keys")["keys"] if each["id"] == made["id"]]
    assert (listed["requests_per_minute"], listed["tokens_per_minute"]) == (5, None)


def test_undo_a_deployment(world: World) -> None:
    """Deleting a deployment takes it off its endpoints; it drains."""
    operation = world.deploy()
    world.advance(operation)
    (listed,) = world.json("GET", "/headrace/v1/deployments")["deployments"]
    answer = world.json("DELETE", f"/headrace/v1/deployments/{listed['id']}")
    assert [one["kind"] for one in answer["operations"]] == ["undeploy"]
    (drained,) = world.json("GET", "/headrace/v1/deployments")["deployments"]
    assert drained["state"] == "DRAINING"
    world.advance(operation, "GONE")
    assert world.json("GET", "/headrace/v1/deployments")["deployments"] == []
    assert len(world.json("GET", "/headrace/v1/deployments?all=true")["deployments"]) == 1


def test_operations_with_timeline(world: World) -> None:
    """An operation shows its deployment's timeline; the list narrows down by state and length."""
    first, second = world.deploy(), world.deploy()
    world.advance(first)
    operations = world.json("GET", "/headrace/v1/operations")["operations"]
    assert [one["name"] for one in operations] == [second["name"], first["name"]]
    running = world.json("GET", "/headrace/v1/operations?state=running")["operations"]
    assert [one["name"] for one in running] == [second["name"]]
    assert len(world.json("GET", "/headrace/v1/operations?limit=1")["operations"]) == 1
    shown = world.json("GET", f"/headrace/v1/operations/{operations[1]['id']}")
    assert shown["done"] is True
    assert shown["deployment"]["state"] == "READY"
    assert shown["timeline"][-1]["state"] == "READY"
    assert world.error("GET", "/headrace/v1/operations?state=asleep") == (400, "BAD_FIELD")
    assert world.error("GET", "/headrace/v1/operations?limit=-1") == (400, "BAD_FIELD")
    assert world.error("GET", "/headrace/v1/operations/1") == (404, "OPERATION_NOT_FOUND")


def test_an_operation_tells_what_passed_while_it_ran(world: World) -> None:
    """Its deployment goes on for years; what comes after the operation has ended is not the operation's."""
    operation = world.deploy()
    world.advance(operation)
    [shown] = world.json("GET", "/headrace/v1/operations")["operations"]
    [listed] = world.json("GET", "/headrace/v1/deployments")["deployments"]
    path = f"/headrace/v1/deployments/{listed['id']}"
    passed = world.json("GET", f"/headrace/v1/operations/{shown['id']}")["timeline"]
    assert [passed[0]["state"], passed[-1]["state"]] == ["ACCEPTED", "READY"]
    world.json("PATCH", path, json={"scale_to_zero_after_s": 60})
    assert len(world.json("GET", path)["timeline"]) == len(passed) + 1
    assert world.json("GET", f"/headrace/v1/operations/{shown['id']}")["timeline"] == passed


def test_waiting_for_news(world: World) -> None:
    """A client that has seen all so far waits until something passes, and hears of it at once."""
    operation = world.deploy()
    path = f"/headrace/v1/operations/{operation['name'].rsplit('/', 1)[1]}"
    assert [move["state"] for move in world.json("GET", f"{path}?wait_s=30")["timeline"]] == ["ACCEPTED"]
    assert len(world.json("GET", f"{path}?wait_s=0.01&seen=1")["timeline"]) == 1

    async def wait_and_move() -> Any:
        transport = httpx.ASGITransport(app=world.app)
        headers = {"authorization": f"Bearer {world.admin}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://h", headers=headers) as client:
            waiting = asyncio.create_task(client.get(f"{path}?wait_s=30&seen=1"))
            await asyncio.to_thread(world.advance, operation, "CHECKING")
            return (await waiting).json()

    assert [move["state"] for move in asyncio.run(wait_and_move())["timeline"]] == ["ACCEPTED", "CHECKING"]


def test_logs(world: World) -> None:
    """Logs are the last lines of the engine's file, or what was kept of them when the file is gone."""
    replica = add_replica(world, world.deploy(), log_tail=("kept 1", "kept 2"))
    path = f"/headrace/v1/replicas/{replica.id}/logs"
    assert world.json("GET", f"{path}?lines=1")["lines"] == ["kept 2"]
    folder = world.layout.replica_dir(replica.id)
    folder.mkdir(parents=True)
    (folder / "engine.log").write_bytes(b"\n".join(b"line %d" % number for number in range(300)) + b"\n\xff\n")
    assert world.json("GET", f"{path}?lines=2")["lines"] == ["line 299", "�"]
    assert len(world.json("GET", path)["lines"]) == 100
    assert world.json("GET", f"{path}?lines=0")["lines"] == []
    assert world.error("GET", f"{path}?lines=x") == (400, "BAD_FIELD")
    assert world.error("GET", "/headrace/v1/replicas/..%2F..%2Fetc/logs")[0] == 404
    assert world.error("GET", "/headrace/v1/replicas/../logs")[0] == 404


def test_version(world: World) -> None:
    """The server says which version it is."""
    assert world.json("GET", "/headrace/v1/version")["version"] == __version__


def test_unexpected_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody expected is INTERNAL to the caller, with an id that leads to its traceback in the log."""
    world.app.state.context = msgspec.structs.replace(world.app.state.context, clock=None)
    with caplog.at_level(logging.ERROR):
        response = world.call("GET", "/headrace/v1/status", headers={"x-request-id": "my-request"})
    error = response.json()["error"]
    assert (response.status_code, error["status"]) == (500, "INTERNAL")
    assert error["details"][0]["reason"] == "INTERNAL"
    assert "my-request" in error["message"]
    assert response.headers["x-request-id"] == "my-request"
    assert "NoneType" not in response.text
    assert "my-request" in caplog.text
    assert "Traceback" in caplog.text


def test_an_unexpected_failure_is_told_in_the_shape_of_its_path(world: World) -> None:
    """Databricks' clients read it, too."""
    world.app.state.context = msgspec.structs.replace(world.app.state.context, clock=None)
    body = {"name": "ml.llm.fm"}
    response = world.call("POST", "/api/2.0/mlflow/unity-catalog/registered-models/create", json=body)
    assert (response.status_code, set(response.json())) == (500, {"error_code", "message", "details"})


def test_request_ids(world: World) -> None:
    """Every answer carries a request id: the caller's if it is fit for a log, else a fresh one."""
    mine = world.call("GET", "/healthz", headers={"x-request-id": "abc-1"})
    assert mine.headers["x-request-id"] == "abc-1"
    bad = world.call("GET", "/healthz", key=None, headers={"x-request-id": "a b\tc"})
    assert len(bad.headers["x-request-id"]) == 16


def test_a_quota_is_seen_by_its_project_and_changed_by_operators(world: World) -> None:
    """A project's own admin sees what is taken and cannot raise it; Vertex AI's shape of error where it is full."""
    admin = world.key("my-proj", Role.ADMIN)
    body = {"artifact_uri": "/", "project": "my-proj", "machine": {"machine_type": "WX-L"}}
    operation = world.json("POST", "/headrace/v1/deployments", json=body)
    shown = world.json("GET", "/headrace/v1/quota", key=admin)
    assert (shown["shares"], shown["used"]) == (1.0, 1.0)
    assert shown["deployments"] == [{"id": operation["targets"]["deployment"], "size": "WX-L", "share": 1.0}]
    assert world.error("POST", "/headrace/v1/deployments", json=body) == (429, "QUOTA_EXCEEDED")
    more = {"project": "my-proj", "shares": 2}
    assert world.error("PUT", "/headrace/v1/quota", json=more, key=admin) == (403, "ROLE_MISSING")
    assert world.json("PUT", "/headrace/v1/quota", json=more)["shares"] == 2.0
    world.json("POST", "/headrace/v1/deployments", json=body)
    assert world.error("GET", "/headrace/v1/quota?project=other", key=admin) == (403, "ROLE_MISSING")


def test_a_models_own_code_is_allowed_by_operators_alone(world: World) -> None:
    """It would have the server's rights; what an operator allowed is kept with the version and shown."""
    body = {"artifact_uri": "/", "project": "my-proj", "allow_custom_code": True}
    for role in (Role.DEPLOYER, Role.ADMIN):
        refused = world.call("POST", "/headrace/v1/deployments", key=world.key("my-proj", role), json=body)
        assert refused.status_code == 403
        assert "model's own code" in refused.json()["error"]["message"]
        assert "allow_custom_code" in refused.text
    operation = world.json("POST", "/headrace/v1/deployments", json=body)
    deployment = operation["targets"]["deployment"]
    assert world.json("GET", f"/headrace/v1/deployments/{deployment}")["spec"] == {"allow_custom_code": True}
    (endpoint,) = world.json("GET", "/headrace/v1/status")["endpoints"]
    assert endpoint["deployed_models"][0]["deployment"]["allow_custom_code"] is True
    with world.store.transaction(read_only=True) as tx:
        (version,) = tx.list(ModelVersion)
    assert version.spec == ServingSpec(allow_custom_code=True)
