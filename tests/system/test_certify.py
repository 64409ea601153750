"""A certificate of a real deployment: what was asked for is told, and what was made for it is taken off again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from known_profile import keep_known_profile
from server_process import ServerProcess, eventually

LATENCIES = ("--slo-first", "60", "--slo-gap", "60")


@pytest.fixture(scope="module")
def sold(shared_server: ServerProcess, demo_model: Path) -> ServerProcess:
    """A server with an endpoint called brook that was sold a chunk, in the project of its commands."""
    shared_server.cli("deploy", str(demo_model), "--name", "brook", "--throughput", "1x:2x")
    with shared_server.client() as client:
        (pool,) = client.get("/headrace/v1/deployments").json()["deployments"]
        keep_known_profile(client, pool["id"])
    return shared_server


def _endpoints(server: ServerProcess) -> list[str]:
    return sorted(each["name"] for each in json.loads(server.cli("endpoints", "list", "--json").stdout)["endpoints"])


def _keys(server: ServerProcess) -> int:
    keys = json.loads(server.cli("keys", "list", "--json").stdout)["keys"]
    return sum(not each["revoked_at"] for each in keys if each["name"].startswith("certify-"))


def test_a_promise_is_tried_beside_a_flood(sold: ServerProcess, tmp_path: Path) -> None:
    """Both tenants ask; the figures are of what was sent; the page is kept; endpoint and key of the flood are gone."""
    before = _endpoints(sold)
    page = tmp_path / "report.html"
    short = ("--minutes", "0.1", "--rate", "400", *LATENCIES, "--html", str(page))
    trace = tmp_path / "trace.csv"
    trace.write_text("ContextTokens,GeneratedTokens\n40,8\n20,4\n")
    done = sold.cli("certify", "brook", *short, "--trace", str(trace), "--json", check=False)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["kept"] else 1)
    assert found["tenant"]["asked"] > 5
    assert found["tenant"]["answered"] + sum(found["tenant"]["refusals"].values()) == found["tenant"]["asked"]
    assert found["flood"]["asked"] > found["tenant"]["asked"]
    assert found["work_error"] is not None
    assert found["guaranteed_tokens_per_s"] > 0
    assert "<svg" in page.read_text()
    eventually(lambda: _endpoints(sold) == before)
    assert _keys(sold) == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_tells_what_was_seen_and_takes_off_what_was_made(sold: ServerProcess, end: signal.Signals) -> None:
    """Ended in the middle it says so, with figures, and leaves neither endpoint nor key."""
    before = _endpoints(sold)
    command = [sys.executable, "-m", "headrace.cli", "certify", "brook", "--rate", "200", *LATENCIES, "--json"]
    process = subprocess.Popen(command, env=sold.environment, stdout=subprocess.PIPE, text=True)
    try:
        eventually(lambda: _keys(sold) == 1)
        process.send_signal(end)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert json.loads(output)["interrupted"]
    eventually(lambda: _endpoints(sold) == before)
    assert _keys(sold) == 0


def test_what_cannot_be_certified_is_refused(sold: ServerProcess) -> None:
    """An endpoint that is not there, and a file of lengths that is none; neither makes anything."""
    assert sold.cli("certify", "nobody", check=False).returncode == 3
    done = sold.cli("certify", "brook", "--trace", "/nonexistent", *LATENCIES, check=False)
    assert (done.returncode, "--trace" in done.stderr) == (2, True)
    done = sold.cli("certify", "brook", "--html", "/nonexistent/page.html", *LATENCIES, check=False)
    assert (done.returncode, "--html" in done.stderr) == (2, True)
