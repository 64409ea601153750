"""One table chooses the engine, whoever asks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from test_doctor import healthy, tensors, written
from test_plan import _small_machine

from headrace.cli.app import run
from headrace.control import FolderChecker
from headrace.resources.deployments import MachineSpec
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node


@pytest.mark.parametrize(("stored", "chosen"), [("float16", "openvino"), ("float32", "transformers")])
def test_deploy_doctor_and_plan_name_the_same_runtime(
    stored: str, chosen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same folder on a machine without a GPU; the first two with the same reason."""
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("headrace.cli.planning.look", lambda _dir: _small_machine())
    files = healthy(dtype=stored)
    files["model.safetensors"] = save(
        {name: tensor.astype(np.dtype(stored)) for name, tensor in tensors().items()}, metadata={"format": "pt"}
    )
    folder = tmp_path / "model"
    folder.mkdir()
    uri = written(folder, files)
    version = ModelVersion(scope=DEFAULT_SCOPE, model_id="1", version="1", artifact_uri=uri, created_at=0.0)
    node = Node(id="local", boot_id="b", memory_bytes=4 << 30, cores=2, last_seen_at=0.0)
    deployed = FolderChecker().check(version, node, MachineSpec())

    assert run(["doctor", uri, "--json"]) == 0
    doctor = json.loads(capsys.readouterr().out)["summary"]["served_by"]["cpu"]
    assert run(["plan", uri, "--machine", "this-machine", "--context", "8", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (deployed.runtime, doctor["runtime"], planned["runtime"]) == (chosen, chosen, chosen)
    assert deployed.runtime_reason.startswith(doctor["reason"].partition(";")[0])
