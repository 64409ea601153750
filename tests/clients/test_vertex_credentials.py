"""Service accounts and errors, by Google's own libraries: both generations of the SDK, each in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_process import LOCATION, PROJECT, ServerProcess

PROGRAM = Path(__file__).with_name("sdk_credentials.py")
GENERATIONS = {"2": "HEADRACE_TEST_VERTEX_SDK_2_PYTHON", "1": "HEADRACE_TEST_VERTEX_SDK_1_PYTHON"}


@pytest.fixture(scope="module", params=sorted(GENERATIONS, reverse=True))
def shown(
    request: pytest.FixtureRequest,
    shared_server: ServerProcess,
    endpoint: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What the SDK of a generation did with a service account that `headrace keys create` made."""
    file = tmp_path_factory.mktemp("account") / "sa.json"
    made = shared_server.cli(
        *("keys", "create", "the sdk", "--format", "service-account", "--out", str(file), "--json"),
        *("--project", PROJECT),
    )
    told = {
        "url": shared_server.url,
        "endpoint": endpoint,
        "parent": f"projects/{PROJECT}/locations/{LOCATION}",
        "file": str(file),
        "key_id": json.loads(made.stdout)["id"],
        "admin": shared_server.key,
    }
    done = subprocess.run(
        [os.environ[GENERATIONS[request.param]], str(PROGRAM)],
        input=json.dumps(told),
        env=os.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["version"].startswith(f"{request.param}.")
    return found


def test_a_service_account_predicts(shown: dict[str, Any], endpoint: str) -> None:
    """Traded at our `/token`, self-signed, and found by GOOGLE_APPLICATION_CREDENTIALS: each gets a model's answer."""
    assert 3500 < shown["seconds"] <= 3600
    for way in ("traded", "self_signed", "default"):
        assert "Tokyo" in shown[way], way
    assert shown["project"] == PROJECT
    assert endpoint in shown["listed"]


def test_a_revoked_service_account_is_out(shown: dict[str, Any]) -> None:
    """What it signed before is refused, and it gets no new token; the library says why."""
    assert shown["revoked"] == 200
    assert (shown["afterwards"]["type"], shown["afterwards"]["reason"]) == ("Unauthorized", "UNKNOWN_KEY")
    assert shown["refresh"]["type"] == "RefreshError"
    assert "invalid_grant" in shown["refresh"]["message"]
    assert "revoked" in shown["refresh"]["message"]


def test_errors_are_the_sdks_own_with_our_reason(shown: dict[str, Any]) -> None:
    """`reason`, `domain` and `metadata` of its exceptions are our code, its evidence and its fix; a page is linked."""
    missing, forbidden = shown["missing"], shown["forbidden"]
    assert (missing["type"], missing["reason"], missing["domain"]) == ("NotFound", "ENDPOINT_NOT_FOUND", "headrace")
    assert (forbidden["type"], forbidden["reason"]) == ("Forbidden", "ROLE_MISSING")
    assert set(forbidden["metadata"]) == {"evidence", "fix"}
    assert any("/ROLE_MISSING.md" in detail for detail in forbidden["details"])


def test_failed_operations_have_the_same(shown: dict[str, Any]) -> None:
    """An operation's error is parsed strictly, and holds the reason, the evidence, the fix and the page."""
    failed = shown["failed"]
    assert failed["reason"] == "ARTIFACTS_NOT_FOUND"
    assert failed["domain"] == "headrace"
    assert failed["metadata"]["fix"]
    assert failed["page"].endswith("/ARTIFACTS_NOT_FOUND.md")
