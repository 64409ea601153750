"""databricks-sdk, unmodified, around an endpoint: tags, limits, the AI gateway, permissions, logs, metrics, OpenAPI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from vendor_client import run_client

from server_process import ServerProcess, eventually

SCRIPT = Path(__file__).with_name("sdk_databricks_governance.py")
WORKSPACE = "projects/default/locations/us-central1"
"""Of a key that reaches every project."""

CHAT = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def told(shared_server: ServerProcess, demo_model: Path) -> Any:
    """What the client saw, and what the server did about it."""
    server = shared_server
    body = {"artifact_uri": str(demo_model), "project": "default", "endpoint_id": "rivers", "model_id": "smollm2"}
    with server.client() as client:
        answer = client.post("/headrace/v1/deployments", json=body)
        assert answer.status_code < 300, answer.text
        done = server.await_operation(answer.json()["name"])
        assert "response" in done, done
        url = f"/v1/{WORKSPACE}/endpoints/rivers/chat/completions"
        assert client.post(url, json=CHAT).status_code == 200
        [served] = [one for one in client.get("/headrace/v1/endpoints").json()["endpoints"] if one["id"] == "rivers"]
        made = json.loads(server.cli("keys", "create", "anna", "--project", "default", "--json").stdout)
        endpoint_id = client.get("/api/2.0/serving-endpoints/rivers").json()["id"]
        arguments = ("rivers", endpoint_id, served["deployed_models"][0]["id"], "anna", made["secret"])
        saw = run_client("HEADRACE_TEST_DATABRICKS_PYTHON", SCRIPT, server.url, server.key, *arguments)
    with server.client(made["secret"]) as anna:

        def refused() -> httpx.Response | None:
            answer = anna.post(url, json=CHAT)
            return answer if answer.status_code == 403 else None

        saw["anna"] = eventually(refused).json()
    return saw


def test_tags(told: Any) -> None:
    """The SDK reads back what is there."""
    assert told["tags"] == {"tags": [{"key": "team", "value": "rivers"}]}


def test_limits_and_gateway(told: Any) -> None:
    """The answer is what was asked."""
    assert told["limits"] == {"rate_limits": [{"calls": 1000, "key": "user", "renewal_period": "minute"}]}
    assert told["gateway"]["rate_limits"] == [{"calls": 900, "tokens": 90_000, "renewal_period": "minute"}]
    assert told["shown"] == told["gateway"]
    assert told["gateway"]["usage_tracking_config"] == {"enabled": True}
    assert told["gateway"]["inference_table_config"]["table_name_prefix"] == "rivers"


@pytest.mark.parametrize(
    ("what", "error", "code", "says"),
    [
        ("guardrails", "NotImplemented", "NOT_IMPLEMENTED", "guardrails"),
        ("group", "NotImplemented", "NOT_IMPLEMENTED", "user_group"),
        ("external", "NotImplemented", "NOT_IMPLEMENTED", "External functions"),
        ("missing", "ResourceDoesNotExist", "RESOURCE_DOES_NOT_EXIST", "nope"),
        ("no_logs", "ResourceDoesNotExist", "RESOURCE_DOES_NOT_EXIST", "nope"),
        ("denied", "PermissionDenied", "PERMISSION_DENIED", "anna"),
    ],
)
def test_refusals(told: Any, what: str, error: str, code: str, says: str) -> None:
    """The SDK's own errors, with our sentence."""
    assert told[what][:2] == [error, code]
    assert says in told[what][2]


def test_permissions(told: Any) -> None:
    """Set, read, changed; and the gateway keeps out whoever may only look."""
    line = {"user_name": "anna", "all_permissions": [{"permission_level": "CAN_QUERY", "inherited": False}]}
    assert told["set"]["access_control_list"] == [line]
    assert told["got"] == told["set"]
    assert told["updated"]["access_control_list"][0]["all_permissions"][0]["permission_level"] == "CAN_VIEW"
    assert told["levels"] == ["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]
    assert told["anna"]["error"]["status"] == "PERMISSION_DENIED"


def test_logs(told: Any) -> None:
    """The engine's own lines, and how the deployment came about."""
    assert "==> replica" in told["logs"]
    assert len(told["logs"].splitlines()) > 1
    assert "STARTING" in told["build_logs"]
    assert "READY" in told["build_logs"]


def test_metrics(told: Any) -> None:
    """Prometheus reads them, and they count the one request."""
    families = {family.name: family for family in text_string_to_metric_families(told["metrics"])}
    assert sum(sample.value for sample in families["request_count"].samples) == 1
    assert {sample.labels["endpoint_name"] for sample in families["request_count"].samples} == {"rivers"}
    assert sum(sample.value for sample in families["headrace_endpoint_replica_ready"].samples) == 1
    assert "headrace_gateway_tokens" in families


def test_openapi(told: Any) -> None:
    """One path: its invocations."""
    assert list(told["openapi"]["paths"]) == ["/serving-endpoints/rivers/invocations"]
