"""Runs a script in the environment of a vendor's unmodified client, away from this process's own packages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MACHINES_OWN = (
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
"""Variables by which a machine points clients at a bundle of certificates: a test sets what it means to be read."""

TIMEOUT_S = 300


def run_client(variable: str, script: Path | str, *arguments: str, env: Mapping[str, str] | None = None) -> Any:
    """What a script of a client's user comes to: its last line, which is JSON.

    Args:
        variable: Tells the interpreter that has the client, as `tools/assets.py` (`VENDOR_CLIENTS`) names it.
        script: A file, or the text of a program.
        arguments: Its command line.
        env: What is in its environment besides this process's own, less `MACHINES_OWN`.
    """
    python = os.environ.get(variable)
    assert python, f"{variable} is not set: run the tests through `make test`, or see CONTRIBUTING.md"
    program = [str(script)] if isinstance(script, Path) else ["-c", script]
    ours = {name: value for name, value in os.environ.items() if name not in MACHINES_OWN}
    done = subprocess.run(
        [python, *program, *arguments],
        env={**ours, "PYTHONNOUSERSITE": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return json.loads(done.stdout.strip().rpartition("\n")[2])
