"""gcloud, unmodified, before our server, where it is installed: no package registry has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vendor_client import MACHINES_OWN

from server_process import ServerProcess

SCRIPT = Path(__file__).parents[2] / "tools" / "gcloud.sh"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.mark.timeout(900)  # fourteen commands, each of which starts an interpreter
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_registers_deploys_asks_and_deletes(
    shared_server: ServerProcess, demo_model: Path, tmp_path: Path
) -> None:
    """Every command of the documents does what it says, by what `headrace env gcloud` prints and nothing else."""
    headrace = tmp_path / "bin" / "headrace"
    headrace.parent.mkdir()
    headrace.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headrace.cli "$@"\n')
    headrace.chmod(0o755)
    left_out = (*MACHINES_OWN, *PROXIES, *(name.lower() for name in PROXIES))
    environment = {name: value for name, value in shared_server.environment.items() if name not in left_out}
    environment |= {"PATH": f"{headrace.parent}:{environment['PATH']}", "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")}
    done = subprocess.run(
        ["bash", str(SCRIPT), str(demo_model)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Tokyo" in done.stdout
    with shared_server.client() as client:
        place = "/v1/projects/default/locations/us-central1"
        for kind in ("models", "endpoints"):
            left = client.get(f"{place}/{kind}").json().get(kind, [])
            assert not any(each["displayName"].startswith("gcloud-") for each in left)
