"""What stands between the vendor's SDK and an engine: `:predict` and chats by its REST transport, and the engine asked.

One client (``vertex_client.py``, in the SDK's own environment) asks the same of one engine in turns: at its socket, by
the HTTP library under the SDK; through the gateway by the same library, in OpenAI's words and in the vendor's; and
through the gateway by the SDK. So noise meets all alike, and what the SDK itself takes is told apart from the gateway.

    make bench-vertex ARGUMENTS="--quick"
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from headrace.resources.layout import Layout
from headrace.resources.snapshot import RoutingSnapshot
from report import Report, quantile

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "tests"))

from server_process import ServerProcess, running_server  # noqa: E402 - found by the path above

CLIENT = BENCH / "vertex_client.py"
ROUNDS = {1: 400, 16: 100}
"""By tokens of output. One: all but the prompt's work is in the way. Sixteen: of an answer that is worth asking for."""

QUICK_ROUNDS = 10

COLUMNS = ("asked for", "how", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms")


def asked(server: ServerProcess, endpoint: str, output_tokens: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of every request: by what is asked for, and how."""
    snapshot = msgspec.json.decode(Layout(server.data_dir).snapshot.read_bytes(), type=RoutingSnapshot)
    [deployed] = [one for route in snapshot.endpoints for one in route.deployed]
    [replica] = deployed.replicas
    settings: dict[str, Any] = {
        "url": server.url,
        "key": server.key,
        "endpoint": endpoint,
        "socket": replica.address.removeprefix("unix:"),
        "nonce": replica.nonce,
        "served_name": deployed.served_name,
        "output_tokens": output_tokens,
        "rounds": rounds,
    }
    python = os.environ["HEADRACE_TEST_VERTEX_SDK_2_PYTHON"]
    own = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    done = subprocess.run(
        [python, str(CLIENT)], input=json.dumps(settings), env=own, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    return found


def show(report: Report, output_tokens: int, found: dict[str, dict[str, list[float]]]) -> None:
    """A row for each way, and a line for what the SDK's user waits longer for."""
    for what, ways in found.items():
        told = f"{what}, {output_tokens} token{'s' if output_tokens > 1 else ''}"
        direct = next(iter(ways.values()))
        for how, taken_ms in ways.items():
            cells = [f"{quantile(taken_ms, share):.2f}" for share in (0.5, 0.99)]
            added = [f"{quantile(taken_ms, share) - quantile(direct, share):+.2f}" for share in (0.5, 0.99)]
            report.row(told, how, *cells, *(added if taken_ms is not direct else ("", "")))
            if taken_ms is not direct:
                report.goal(f"{told}: added by {how}, p50 / p99", f"{' / '.join(added)} ms", None)


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few requests, to see that it works")
    options = parser.parse_args()
    report = Report("vertex", COLUMNS)
    before = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="hr-bench-") as folder,
        running_server(Path(folder) / "data") as server,
    ):
        endpoint = server.deployed(os.environ["HEADRACE_TEST_MODEL"])
        for output_tokens, rounds in ROUNDS.items():
            found = asked(server, endpoint, output_tokens, QUICK_ROUNDS if options.quick else rounds)
            show(report, output_tokens, found)
    report.goal("the machine's load before it began", f"{before:.1f} on {os.cpu_count()} cores", None)
    report.finish(keep=not options.quick)


if __name__ == "__main__":
    main()
