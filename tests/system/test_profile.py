"""What a replica carries, measured on a real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server_process import ServerProcess


@pytest.fixture(scope="module")
def profiled(shared_server: ServerProcess, demo_model: Path) -> ServerProcess:
    """A server with an endpoint called river, in the project of its commands."""
    shared_server.cli("deploy", str(demo_model), "--name", "river")
    return shared_server


def test_a_replica_is_measured(profiled: ServerProcess) -> None:
    """Every combination that the context has room for is a point, and the fit and its error are told of them."""
    short = ("--prompts", "16,64,100000", "--outputs", "4,12", "--at", "1,2,4", "--seconds", "0.5")
    slow = ("--first-token", "60", "--inter-token", "60")
    found = json.loads(profiled.cli("profile", "river", *short, *slow, "--json").stdout)
    points = found["points"]
    assert len(points) == 12
    assert all(
        abs(point["prompt_tokens"] / wanted - 1) < 0.3
        for point, wanted in zip(points, [16] * 6 + [64] * 6, strict=True)
    )
    assert all(point["requests"] > 0 and point["wall_s"] > 0 for point in points)
    assert (found["fit"]["points"], found["fit"]["held_out"], found["concurrency"]) == (8, 4, 4)
    assert 0 < 4 * found["chunk"] <= found["tokens_per_s"]
    shown = profiled.cli("profile", "river", *short, "--first-token", "0.001").stdout
    assert "Not even one request at a time keeps the latencies" in shown


def test_what_cannot_be_told_is_refused(profiled: ServerProcess) -> None:
    """Numbers that are none, and too few of them; neither is a failure of ours."""
    done = profiled.cli("profile", "river", "--prompts", "16,x", check=False)
    assert (done.returncode, "--prompts takes whole numbers" in done.stderr) == (2, True)
    short = ("--prompts", "16", "--outputs", "4,8", "--at", "1,2", "--seconds", "0.5")
    done = profiled.cli("profile", "river", *short, check=False)
    assert done.returncode != 0
    assert "PROFILE_TOO_SMALL" in done.stderr
