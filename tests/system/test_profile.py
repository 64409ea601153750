"""What a replica carries, measured on a real one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.capacity.units import chunk
from headrace.control.carrying import carried_by
from headrace.control.commands import EndpointRequest, VersionRequest, create_endpoint, deploy_version
from headrace.resources.deployments import Deployment
from headrace.resources.errors import NotOptimizable
from headrace.resources.layout import Layout
from headrace.resources.models import ModelVersion
from headrace.resources.profiles import Provision
from headrace.store import Store
from server_process import ServerProcess, eventually

SHORT = ("--prompts", "16,64,100000", "--outputs", "4,12", "--at", "1,2,4", "--seconds", "0.5")
SLOW = ("--first-token", "60", "--inter-token", "60")


@pytest.fixture(scope="module")
def profiled(shared_server: ServerProcess, demo_model: Path) -> ServerProcess:
    """A server with an endpoint called river, in the project of its commands."""
    shared_server.cli("deploy", str(demo_model), "--name", "river")
    return shared_server


def profiles(server: ServerProcess) -> list[dict[str, Any]]:
    """Those that are listed, the newest first."""
    found: list[dict[str, Any]] = json.loads(server.cli("profiles", "--json").stdout)["profiles"]
    return found


def test_a_replica_is_measured_and_kept(profiled: ServerProcess) -> None:
    """Every combination that the context has room for is a point; fit and error are told of them, and stored."""
    found = json.loads(profiled.cli("profile", "river", *SHORT, *SLOW, "--json").stdout)
    points = found["points"]
    assert len(points) == 12
    assert all(
        abs(point["prompt_tokens"] / wanted - 1) < 0.3
        for point, wanted in zip(points, [16] * 6 + [64] * 6, strict=True)
    )
    assert all(point["requests"] > 0 and point["wall_s"] > 0 for point in points)
    assert (found["fit"]["points"], found["fit"]["held_out"], found["concurrency"]) == (8, 4, 4)
    assert 0 < 4 * found["chunk"] <= found["tokens_per_s"]
    (kept,) = profiles(profiled)
    assert kept == found["profile"]
    assert kept["points"] == points
    assert (kept["tokens_per_s"], kept["chunk"]) == (found["tokens_per_s"], found["chunk"])
    assert (kept["stale"], kept["stale_because"]) == (False, "")
    shown = profiled.cli("profile", "river", *SHORT, "--first-token", "0.001", "--no-keep").stdout
    assert "Not even one request at a time keeps the latencies" in shown
    assert profiles(profiled) == [kept]
    profiled.cli("profiles", "delete", kept["id"], "--yes")
    assert profiles(profiled) == []


def test_a_version_is_deployed_for_it_and_taken_off_again(profiled: ServerProcess) -> None:
    """On an endpoint of its own; also when somebody ends the command. Then only what was there before is there."""
    (river,) = _endpoints(profiled)
    version = f"{_model(profiled)}@1"
    profiled.cli("profile", version, *SHORT, *SLOW, "--machine-type", "n1-standard-4")
    assert _endpoints(profiled) == [river]
    assert len(profiles(profiled)) == 1
    command = [sys.executable, "-m", "headrace.cli", "profile", version, *SHORT, "--seconds", "60"]
    process = subprocess.Popen(command, env=profiled.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: len(_endpoints(profiled)) == 2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert _endpoints(profiled) == [river]
    assert len(profiles(profiled)) == 1


def _endpoints(server: ServerProcess) -> list[dict[str, Any]]:
    with server.client() as client:
        found: list[dict[str, Any]] = client.get("/headrace/v1/endpoints").json()["endpoints"]
    return found


def _model(server: ServerProcess) -> str:
    with server.client() as client:
        (found,) = client.get("/headrace/v1/models").json()["models"]
    return str(found["id"])


def test_what_is_sold_is_measured_before_it_is_used(profiled: ServerProcess) -> None:
    """A deployment with a throughput has a profile when it is READY, goes by it, and says so; a second one has it, too,
    without being measured again."""
    for each in profiles(profiled):
        profiled.cli("profiles", "delete", each["id"], "--yes")
    first = _sell(profiled, "sold")
    told = [move["detail"] for move in first["timeline"]]
    assert any(detail.startswith("Measuring what a replica carries") for detail in told)
    assert len(profiles(profiled)) == 1, told
    (profile,) = profiles(profiled)
    assert len({point["concurrency"] for point in profile["points"]}) > 1
    assert not profile["stale"]
    assert any(detail.startswith(profile["summary"]) for detail in told)
    if not profile["carried"]["concurrency"]:  # on a machine that others keep busy: then nothing more is sold
        assert not first["carried"]["measured"]
        with pytest.raises(NotOptimizable, match="Not even one request"):
            _sell(profiled, "sold-too")
        return
    assert first["carried"] == profile["carried"] | {"profile_id": profile["id"]}
    second = _sell(profiled, "sold-too")
    assert second["carried"] == first["carried"]
    assert not any("easur" in move["detail"] for move in second["timeline"])
    assert profiles(profiled) == [profile]


def _sell(server: ServerProcess, endpoint_id: str) -> dict[str, Any]:
    """Deploy the registered version with a throughput; its deployment once that is READY."""
    store = Store(f"sqlite:///{Layout(server.data_dir).database}")
    try:
        with store.transaction() as tx:
            (version,) = tx.list(ModelVersion)
            scope, now = version.scope, time.time()
            carried = carried_by(tx, version, data_dir=server.data_dir)
            sold = Provision(min_tokens_per_s=0, max_tokens_per_s=4 * chunk(carried), chunk=chunk(carried))
            wish = EndpointRequest(scope=scope, contract="test", endpoint_id=endpoint_id, display_name=endpoint_id)
            create_endpoint(tx, wish, now=now)
            operation = deploy_version(
                tx,
                VersionRequest(
                    scope=scope,
                    contract="test",
                    endpoint_id=endpoint_id,
                    model_id=version.model_id,
                    version=version.version,
                    provision=sold,
                    own=True,
                ),
                now=now,
                data_dir=server.data_dir,
            )
            deployment = tx.get(Deployment, scope=scope, id=operation.targets["deployment"])
            assert deployment is not None
            if deployment.carried is None:
                tx.update(msgspec.structs.replace(deployment, carried=carried))
    finally:
        store.close()

    def ready() -> dict[str, Any] | None:
        with server.client() as client:
            found: dict[str, Any] = client.get(f"/headrace/v1/deployments/{operation.targets['deployment']}").json()
        assert found["state"] != "FAILED", found
        return found if found["state"] == "READY" else None

    found: dict[str, Any] = eventually(ready, timeout_s=240)
    return found


def test_what_cannot_be_told_is_refused(profiled: ServerProcess) -> None:
    """Numbers that are none, and too few of them; neither is a failure of ours."""
    done = profiled.cli("profile", "river", "--prompts", "16,x", check=False)
    assert (done.returncode, "--prompts takes whole numbers" in done.stderr) == (2, True)
    short = ("--prompts", "16", "--outputs", "4,8", "--at", "1,2", "--seconds", "0.5")
    done = profiled.cli("profile", "river", *short, check=False)
    assert done.returncode != 0
    assert "PROFILE_TOO_SMALL" in done.stderr
