"""Databricks' API around an endpoint: tags, limits, the AI gateway, access lists, logs, metrics, OpenAPI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_world import World
from prometheus_client.parser import text_string_to_metric_families

from headrace.contracts.databricks.endpoints import serving_id
from headrace.contracts.databricks.tags import Tag, TagsPatch
from headrace.control import commands
from headrace.control.inference_tables import InferenceTables
from headrace.control.routing import build_snapshot
from headrace.resources.access import Role
from headrace.resources.egress import Egress
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.layout import Layout
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope
from headrace.resources.operations import ApiKey
from headrace.resources.snapshot import EndpointRoute

SCOPE = Scope(DEFAULT_PROJECT, DEFAULT_LOCATION)
SERVING = "/api/2.0/serving-endpoints"
ENDPOINT, LOGGING = f"/v1beta1/{SCOPE}/endpoints/e1", "predictRequestResponseLoggingConfig"
TABLE = {"inference_table_config": {"enabled": True, "catalog_name": "main", "schema_name": "logs"}}
MINUTE = {"renewal_period": "minute"}


@pytest.fixture
def made(world: World) -> World:
    """A world with an endpoint ``e1`` in the default project, that serves a model."""
    world.deploy(scope=SCOPE, endpointConfig={"endpointUserId": "e1", "endpointDisplayName": "e1"})
    return world


def refused(world: World, method: str, path: str, **options: Any) -> tuple[int, str]:
    """Status and code of a request that must fail in Databricks' shape."""
    response = world.call(method, path, **options)
    body = response.json()
    assert body["message"], response.text
    return response.status_code, body["error_code"]


def routed(world: World) -> EndpointRoute:
    """The endpoint, as gateways hear of it."""
    with world.store.transaction() as tx:
        (endpoint,) = build_snapshot(tx, 1, Egress()).endpoints
        assert msgspec.json.decode(msgspec.json.encode(endpoint), type=EndpointRoute) == endpoint
        return endpoint


def key_of(world: World, name: str, role: Role = Role.PREDICTOR, *, service: bool = False) -> tuple[str, str]:
    """A fresh key's id and secret."""
    with world.store.transaction() as tx:
        public_key = "PEM" if service else ""
        key, secret = commands.create_key(
            tx, name=name, project=DEFAULT_PROJECT, role=role, now=1.0, public_key=public_key
        )
        return key.id, secret


def permissions_path(world: World) -> str:
    """Where the access list of ``e1`` is: at its id, not at its name."""
    with world.store.transaction() as tx:
        (endpoint,) = tx.list(Endpoint)
    return f"/api/2.0/permissions/serving-endpoints/{serving_id(endpoint)}"


def test_tags(made: World) -> None:
    """Added, changed, taken away; the answer is all that there are."""
    body = {"add_tags": [{"key": "team", "value": "rivers"}, {"key": "bare"}], "delete_tags": ["z"]}
    told = made.json("PATCH", f"{SERVING}/e1/tags", json=body)
    assert told == {"tags": [{"key": "team", "value": "rivers"}, {"key": "bare", "value": ""}]}
    told = made.json("PATCH", f"{SERVING}/e1/tags", json={"add_tags": [{"key": "team", "value": "x"}]})
    assert {"key": "team", "value": "x"} in told["tags"]
    told = made.json("PATCH", f"{SERVING}/e1/tags", json={"delete_tags": ["bare", "team"]})
    assert told == {"tags": []}
    contradiction = {"add_tags": [{"key": "a"}], "delete_tags": ["a"]}
    assert refused(made, "PATCH", f"{SERVING}/e1/tags", json=contradiction) == (400, "INVALID_PARAMETER_VALUE")
    assert refused(made, "PATCH", f"{SERVING}/nope/tags", json=body) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_rate_limits_reach_the_gateway(made: World) -> None:
    """Those of rate-limits and of the AI gateway hold together; principals become keys; an empty list ends them."""
    anna, _ = key_of(made, "anna")
    robot, _ = key_of(made, "robot", service=True)
    limits = [
        {"calls": 5, "key": "user", **MINUTE},
        {"calls": 9, "key": "user", "principal": "anna", **MINUTE},
        {"tokens": 70, "key": "service_principal", "principal": robot, **MINUTE},
    ]
    assert made.json("PUT", f"{SERVING}/e1/rate-limits", json={"rate_limits": limits}) == {"rate_limits": limits}
    gateway = {"rate_limits": [{"calls": 3, "tokens": 100, **MINUTE}], "usage_tracking_config": {"enabled": True}}
    assert made.json("PUT", f"{SERVING}/e1/ai-gateway", json=gateway) == gateway
    held = routed(made).limits
    assert held is not None
    assert (held.all_keys.requests_per_minute, held.all_keys.tokens_per_minute) == (3, 100)
    assert held.each_key.requests_per_minute == 5
    assert held.of_key(anna).requests_per_minute == 9
    assert held.of_key(robot).tokens_per_minute == 70
    made.json("PUT", f"{SERVING}/e1/rate-limits", json={})
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json={})
    assert routed(made).limits is None


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"calls": 5, "key": "user_group", "principal": "g", **MINUTE}, (501, "NOT_IMPLEMENTED")),
        ({"calls": 5, "key": "user", "principal": "nobody", **MINUTE}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"calls": 5, "key": "user", "renewal_period": "hour"}, (400, "INVALID_PARAMETER_VALUE")),
        ({"key": "user", **MINUTE}, (400, "INVALID_PARAMETER_VALUE")),
    ],
)
def test_wrong_limits_change_nothing(made: World, limit: dict[str, Any], told: tuple[int, str]) -> None:
    """They are refused, at both places, and what held holds."""
    good = {"rate_limits": [{"calls": 7, **MINUTE}]}
    for place in ("rate-limits", "ai-gateway"):
        made.json("PUT", f"{SERVING}/e1/{place}", json=good)
        assert refused(made, "PUT", f"{SERVING}/e1/{place}", json={"rate_limits": [limit]}) == told
    held = routed(made).limits
    assert held is not None
    assert held.all_keys.requests_per_minute == 7


def test_an_inference_table_turns_the_log_on_and_off(made: World) -> None:
    """The log that it turned on it turns off; one that was on stays on."""
    assert made.json("PUT", f"{SERVING}/e1/ai-gateway", json=TABLE) == TABLE
    assert routed(made).request_log is not None
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json={"inference_table_config": {"enabled": False}})
    assert routed(made).request_log is None
    made.json("PATCH", "/headrace/v1/endpoints/e1", json={"request_log": {"sampling_rate": 0.5}})
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json=TABLE)
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json={})
    log = routed(made).request_log
    assert log is not None
    assert log.sampling_rate == 0.5
    bad = {"inference_table_config": {"enabled": True, "catalog_name": "..", "schema_name": "logs"}}
    assert refused(made, "PUT", f"{SERVING}/e1/ai-gateway", json=bad) == (400, "INVALID_PARAMETER_VALUE")
    guarded = {"guardrails": {"input": {"safety": True}}}
    assert refused(made, "PUT", f"{SERVING}/e1/ai-gateway", json=guarded) == (501, "NOT_IMPLEMENTED")


SETTING: list[tuple[str, dict[str, Any]]] = [
    ("/headrace/v1/endpoints/e1", {"request_log": {"redact_fields": ["messages.content"]}}),
    ("/headrace/v1/endpoints/e1", {"request_log": {}}),
    (f"{ENDPOINT}?updateMask=predictRequestResponseLoggingConfig", {LOGGING: {"enabled": True, "samplingRate": 0.5}}),
]


@pytest.mark.parametrize(("path", "body"), SETTING)
def test_a_log_that_somebody_set_outlives_its_table(made: World, path: str, body: dict[str, Any]) -> None:
    """Through whichever API: from then on it is theirs, and the table that had turned it on leaves it as it is."""
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json=TABLE)
    made.json("PATCH", path, json=body)
    theirs = routed(made).request_log
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json={"inference_table_config": {"enabled": False}})
    assert theirs is not None
    assert routed(made).request_log == theirs


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/headrace/v1/endpoints/e1", {"request_log": None}),
        (f"{ENDPOINT}?updateMask=predictRequestResponseLoggingConfig", {LOGGING: {"enabled": False}}),
    ],
)
def test_the_log_of_a_table_is_not_turned_off_under_it(made: World, path: str, body: dict[str, Any]) -> None:
    """It would get no rows and still be called enabled: refused by name, until the table is disabled."""
    made.json("PATCH", "/headrace/v1/endpoints/e1", json={"request_log": {"sampling_rate": 0.5}})
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json=TABLE)
    assert made.error("PATCH", path, json=body) == (400, "STILL_IN_USE")
    assert routed(made).request_log is not None
    made.json("PUT", f"{SERVING}/e1/ai-gateway", json={"inference_table_config": {"enabled": False}})
    made.json("PATCH", path, json=body)
    assert routed(made).request_log is None


def test_tables_of_one_name_are_each_projects_own(made: World, tmp_path: Path) -> None:
    """Two projects have a catalog ``main`` each: what was asked of one is in no table of the other."""
    theirs = Scope("theirs", DEFAULT_LOCATION)
    made.deploy(scope=theirs, endpointConfig={"endpointUserId": "e1", "endpointDisplayName": "e1"})
    table = {"inference_table_config": {"enabled": True, "catalog_name": "main", "schema_name": "logs"}}
    for key in (made.admin, made.key("theirs", Role.ADMIN)):
        made.json("PUT", f"{SERVING}/e1/ai-gateway", json=table, key=key)
    with made.store.transaction() as tx:
        wanted = InferenceTables(made.store, Layout(tmp_path)).wanted(tx)
    assert {(scope.project, path.relative_to(tmp_path).parts[1]) for scope, _, path in wanted} == {
        ("default", "default"),
        ("theirs", "theirs"),
    }


def test_an_access_list_narrows(made: World) -> None:
    """Without one roles decide; with one, those on it, with their level, and admins."""
    path = permissions_path(made)
    assert routed(made).callers is None
    anna, secret = key_of(made, "anna", Role.DEPLOYER)
    bert, other = key_of(made, "bert", Role.DEPLOYER)
    entries = [
        {"user_name": "anna", "permission_level": "CAN_MANAGE"},
        {"user_name": bert, "permission_level": "CAN_QUERY"},
    ]
    told = made.json("PUT", path, json={"access_control_list": entries})
    assert told["object_type"] == "serving-endpoint"
    assert told["object_id"] == path.removeprefix("/api/2.0/permissions")
    line = {"user_name": "anna", "all_permissions": [{"permission_level": "CAN_MANAGE", "inherited": False}]}
    assert line in told["access_control_list"]
    assert routed(made).callers == {anna, bert}
    assert made.json("GET", path, key=other) == told
    levels = {secret: "CAN_MANAGE", other: "CAN_QUERY", made.admin: "CAN_MANAGE"}
    assert {key: made.json("GET", f"{SERVING}/e1", key=key)["permission_level"] for key in levels} == levels
    _, stranger = key_of(made, "carl", Role.DEPLOYER)
    assert refused(made, "GET", f"{SERVING}/e1", key=stranger) == (403, "PERMISSION_DENIED")
    seen = [made.json("GET", SERVING, key=key)["endpoints"] for key in (secret, stranger)]
    assert [[one["name"] for one in each] for each in seen] == [["e1"], []]
    tags = {"add_tags": [{"key": "a"}]}
    assert refused(made, "PATCH", f"{SERVING}/e1/tags", json=tags, key=other) == (403, "PERMISSION_DENIED")
    assert refused(made, "PUT", path, json={}, key=other) == (403, "PERMISSION_DENIED")
    assert refused(made, "DELETE", f"{SERVING}/e1", key=other) == (403, "PERMISSION_DENIED")
    config = {"served_entities": [{"entity_name": "m", "workload_size": "Small", "scale_to_zero_enabled": False}]}
    assert refused(made, "PUT", f"{SERVING}/e1/config", json=config, key=other) == (403, "PERMISSION_DENIED")
    made.json("PATCH", f"{SERVING}/e1/tags", json=tags, key=secret)
    made.json("PATCH", path, json={"access_control_list": [{"user_name": "bert", "permission_level": "CAN_VIEW"}]})
    assert routed(made).callers == {anna}
    made.json("PUT", path, json={"access_control_list": []})
    assert routed(made).callers == frozenset()
    assert refused(made, "GET", path, key=secret) == (403, "PERMISSION_DENIED")
    made.json("PUT", path, json={})
    assert routed(made).callers is None


def test_nobody_locks_themselves_out(made: World) -> None:
    """Whoever sets a list and is no admin stays on it."""
    path, (anna, secret) = permissions_path(made), key_of(made, "anna", Role.DEPLOYER)
    made.json("PUT", path, json={"access_control_list": []}, key=secret)
    assert routed(made).callers == {anna}
    made.json("PATCH", f"{SERVING}/e1/tags", json={"add_tags": [{"key": "a"}]}, key=secret)


def test_a_key_that_is_revoked_is_nobody(made: World) -> None:
    """It is found by no name, and what was granted to it is of no use to a new key of its name."""
    path, (anna, _) = permissions_path(made), key_of(made, "anna")
    entries = {"access_control_list": [{"user_name": "anna", "permission_level": "CAN_QUERY"}]}
    made.json("PUT", path, json=entries)
    with made.store.transaction() as tx:
        commands.revoke_key(tx, anna, now=2.0)
        keys = [key.id for key in tx.list(ApiKey, revoked_at=None)]
    callers = routed(made).callers
    assert callers is not None
    assert not callers & set(keys)
    assert refused(made, "PUT", path, json=entries) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"group_name": "users", "permission_level": "CAN_QUERY"}, (501, "NOT_IMPLEMENTED")),
        ({"user_name": "nobody", "permission_level": "CAN_QUERY"}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"user_name": "nobody", "permission_level": "CAN_FLY"}, (400, "INVALID_PARAMETER_VALUE")),
        ({"permission_level": "CAN_QUERY"}, (400, "INVALID_PARAMETER_VALUE")),
    ],
)
def test_wrong_entries_change_nothing(made: World, entry: dict[str, str], told: tuple[int, str]) -> None:
    """They are refused, and there is no list then."""
    path = permissions_path(made)
    for method in ("PUT", "PATCH"):
        assert refused(made, method, path, json={"access_control_list": [entry]}) == told
    assert routed(made).callers is None
    assert refused(made, "GET", "/api/2.0/permissions/serving-endpoints/nope") == (404, "RESOURCE_DOES_NOT_EXIST")


def test_permission_levels(made: World) -> None:
    """Three, each with what it lets one do."""
    told = made.json("GET", f"{permissions_path(made)}/permissionLevels")
    assert [each["permission_level"] for each in told["permission_levels"]] == ["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]
    assert all(each["description"] for each in told["permission_levels"])


def test_logs_and_build_logs(made: World) -> None:
    """A served entity's timeline and its engines' lines; one that is not there is said so."""
    with made.store.transaction() as tx:
        (served,) = tx.list(DeployedModel)
    told = made.json("GET", f"{SERVING}/e1/served-models/{served.id}/build-logs")
    assert "ACCEPTED" in told["logs"]
    assert made.json("GET", f"{SERVING}/e1/served-models/{served.id}/logs") == {"logs": ""}
    for place in ("logs", "build-logs"):
        path = f"{SERVING}/e1/served-models/nope/{place}"
        assert refused(made, "GET", path) == (404, "RESOURCE_DOES_NOT_EXIST")


class OneGateway:
    """Tells what a gateway counted."""

    async def metrics(self) -> str:
        """Of two endpoints and their deployments."""
        return """# TYPE headrace_gateway_requests_total counter
headrace_gateway_requests_total{endpoint="e1",status="200"} 7.0
headrace_gateway_requests_total{endpoint="e1",status="429"} 2.0
headrace_gateway_requests_total{endpoint="other",status="200"} 99.0
# TYPE headrace_gateway_request_seconds histogram
headrace_gateway_request_seconds_bucket{endpoint="e1",le="0.5"} 4.0
headrace_gateway_request_seconds_bucket{endpoint="e1",le="+Inf"} 9.0
headrace_gateway_request_seconds_count{endpoint="e1"} 9.0
headrace_gateway_request_seconds_sum{endpoint="e1"} 3.0
# TYPE headrace_gateway_tokens_total counter
headrace_gateway_tokens_total{endpoint="e1",kind="prompt"} 70.0
"""


def test_metrics_of_one_endpoint(made: World) -> None:
    """What both gateways counted of it, together under the vendor's names; nothing of others."""
    context = made.app.state.context
    made.app.state.context = msgspec.structs.replace(context, gateways=(OneGateway(), OneGateway()))
    answer = made.call("GET", f"{SERVING}/e1/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    values = {
        sample.name: sample.value
        for family in families.values()
        for sample in family.samples
        if "gateway" not in sample.labels
    }
    assert (values["request_count_total"], values["request_4xx_count_total"]) == (18, 4)
    assert values["request_5xx_count_total"] == 0
    assert (values["request_latency_ms_count"], values["request_latency_ms_sum"]) == (18, 6000)
    assert "500" in {sample.labels.get("le") for sample in families["request_latency_ms"].samples}
    assert {sample.labels["gateway"] for sample in families["headrace_gateway_tokens"].samples} == {"0", "1"}
    assert 'endpoint="other"' not in answer.text


def test_openapi_of_one_endpoint(made: World) -> None:
    """OpenAPI 3.1 of its invocations."""
    told = made.json("GET", f"{SERVING}/e1/openapi")
    assert told["openapi"] == "3.1.0"
    assert list(told["paths"]) == ["/serving-endpoints/e1/invocations"]


def test_external_functions_are_refused_by_name(made: World) -> None:
    """There are no connections here."""
    assert refused(made, "POST", "/api/2.0/external-function", json={"connection_name": "c"}) == (
        501,
        "NOT_IMPLEMENTED",
    )


def test_roles_hold_without_a_list(made: World) -> None:
    """A viewer sees, and changes nothing; a predictor neither."""
    _, viewer = key_of(made, "viewer", Role.VIEWER)
    path = permissions_path(made)
    assert made.json("GET", path, key=viewer)["access_control_list"] == []
    for method, where in (("PATCH", f"{SERVING}/e1/tags"), ("PUT", f"{SERVING}/e1/rate-limits"), ("PUT", path)):
        assert refused(made, method, where, json={}, key=viewer) == (403, "PERMISSION_DENIED")
    assert refused(made, "GET", f"{SERVING}/e1/served-models/m/logs", key=viewer) == (403, "PERMISSION_DENIED")


def test_two_changes_at_once_lose_nothing(made: World) -> None:
    """Each is one transaction; whoever comes second is told, or comes after."""

    async def both() -> None:
        context = made.app.state.context

        def change(number: int) -> Any:
            def work(tx: Any) -> Any:
                endpoint = tx.get(Endpoint, scope=SCOPE, id="e1")
                return commands.patch_tags(tx, endpoint, TagsPatch(add_tags=(Tag(key=f"k{number}"),)))

            return context.write(work)

        await asyncio.gather(*(change(number) for number in range(5)))

    asyncio.run(both())
    told = made.json("PATCH", f"{SERVING}/e1/tags", json={})
    assert {tag["key"] for tag in told["tags"]} == {f"k{number}" for number in range(5)}
