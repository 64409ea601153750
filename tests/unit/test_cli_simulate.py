"""`headrace simulate`: a load is simulated without a server, and what makes no sense is refused by its option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from headrace.cli.app import app
from headrace.resources.profiles import Carried, Cost

COST = Cost(prompt=1e-3, prompt_squared=1e-8, step=0.02, sequence=1e-3, context=1e-7)
CARRIED = Carried(cost=COST, concurrency=8, first_s=3.0, gap_s=0.2)


@pytest.fixture
def cost(tmp_path: Path) -> str:
    """A file of what a replica carries."""
    file = tmp_path / "cost.json"
    file.write_bytes(msgspec.json.encode(CARRIED))
    return str(file)


def run(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_a_load_is_simulated(cost: str) -> None:
    """Figures of each tenant, of replicas, and what a simulated request costs."""
    sold = ("--guaranteed", "100", "--most", "200")
    options = ("--tenants", "3", "--rate", "100", *sold, "--flood", "5", "--minutes", "5")
    found = json.loads(run("--cost", cost, *options, "--json").stdout)
    assert [one["name"] for one in found["tenants"]] == ["tenant 1", "tenant 2", "tenant 3", "flood"]
    assert all(one["refused"] == 0 for one in found["tenants"][:3])
    assert found["tenants"][3]["asked"] > 0
    assert found["most_replicas"] == 1
    assert found["microseconds_per_request"] > 0
    shown = run("--cost", cost, *options).stdout
    assert "replica-hours" in shown


def test_a_trace_is_played_by_the_autoscaler(cost: str, tmp_path: Path) -> None:
    """Requests come when the file says, as many times as fast as asked for."""
    trace = tmp_path / "trace.csv"
    lines = [f"2023-11-16 18:15:{second:02}.6805900,374,44" for second in range(0, 60, 2)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n")
    scaled = ("--max-replicas", "4", "--target", "concurrent_requests=2", "--speed-up", "2", "--minutes", "1")
    found = json.loads(run("--cost", cost, "--trace", str(trace), *scaled, "--json").stdout)
    (told,) = found["tenants"]
    assert (told["asked"], told["answered"]) == (30, 30)
    assert 1 <= found["most_replicas"] <= 4
    by_work = ("--max-replicas", "4", "--target", "provisioned_work=90", "--minutes", "1")
    assert run("--cost", cost, "--trace", str(trace), *by_work).exit_code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--profile"),
        (("--cost", "/nonexistent", "--rate", "1"), "--cost"),
        (("COST",), "--rate"),
        (("COST", "--rate", "1", "--trace", "x"), "--rate"),
        (("COST", "--trace", "/nonexistent"), "--trace"),
        (("COST", "--rate", "1", "--replicas", "4", "--max-replicas", "2"), "--max-replicas"),
        (("COST", "--rate", "1", "--max-replicas", "2"), "--target"),
        (("COST", "--rate", "1", "--max-replicas", "2", "--target", "luck=3"), "concurrent_requests"),
        (("COST", "--rate", "inf"), "--rate"),
        (("COST", "--rate", "1", "--guaranteed", "inf"), "--guaranteed"),
        (("COST", "--rate", "1", "--flood", "inf"), "--flood"),
        (("COST", "--rate", "1e308", "--minutes", "1"), "--minutes"),
        (("COST", "--rate", "1", "--flood", "1e12", "--minutes", "100000"), "--minutes"),
    ],
)
def test_what_makes_no_sense_is_refused(cost: str, options: tuple[str, ...], told: str) -> None:
    """Exit code 2, and the option in what is said."""
    given = [part for each in options for part in (("--cost", cost) if each == "COST" else (each,))]
    done = run(*given)
    assert done.exit_code == 2
    assert told in done.stderr


@pytest.mark.parametrize(
    "nothing", [{"concurrency": 0}, {"cost": msgspec.structs.replace(COST, context=1e308)}], ids=["none", "endless"]
)
def test_a_replica_that_carries_nothing_is_refused(tmp_path: Path, nothing: dict[str, Any]) -> None:
    """Of a concurrency of zero no throughput follows, nor of requests that never end."""
    file = tmp_path / "cost.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(CARRIED, **nothing)))
    done = run("--cost", str(file), "--rate", "1")
    assert (done.exit_code, "carries nothing" in done.stderr) == (2, True)


def test_a_cost_below_nothing_is_refused(tmp_path: Path) -> None:
    """A file of it is no measurement of anything."""
    file = tmp_path / "cost.json"
    negative = msgspec.structs.replace(CARRIED, cost=msgspec.structs.replace(COST, sequence=-1e-4))
    file.write_bytes(msgspec.json.encode(negative))
    done = run("--cost", str(file), "--rate", "1")
    assert (done.exit_code, "less than nothing" in done.stderr) == (2, True)


def test_a_trace_with_less_than_no_tokens_is_refused(cost: str, tmp_path: Path) -> None:
    """It is no file of requests, and the number is told."""
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-01 00:00:00,-5,3\n")
    refused = run("--cost", cost, "--trace", str(trace))
    assert refused.exit_code != 0
    assert "-5 tokens" in refused.output + refused.stderr
