"""Bad weights end as a FAILED operation with code, evidence and fix, and leave no process behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_process import ServerProcess


def _edit_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def _truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.truncate(100_000_000)


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "no config.json": ("CONFIG_MISSING", lambda folder: (folder / "config.json").unlink()),
    "config.json is not JSON": ("CONFIG_INVALID", lambda folder: (folder / "config.json").write_text("{") and None),
    "no weights": ("WEIGHTS_MISSING", lambda folder: (folder / "model.safetensors").unlink()),
    "truncated safetensors": ("WEIGHTS_TRUNCATED", _truncate),
    "quantised": (
        "WEIGHTS_QUANTISED",
        lambda folder: _edit_config(folder, quantization_config={"quant_method": "awq"}),
    ),
    "unknown architecture": (
        "ENGINE_UNSUPPORTED_ARCHITECTURE|ARCHITECTURE_UNSUPPORTED",
        lambda folder: _edit_config(folder, model_type="turbine", architectures=["TurbineForCausalLM"]),
    ),
    "a tensor of another shape": ("SHAPE_MISMATCH", lambda folder: _edit_config(folder, intermediate_size=1024)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(shared_server: ServerProcess, demo_model: Path, tmp_path: Path, fault: str) -> None:
    """Each fault in the weights' folder fails the operation with its code, its evidence and its fix."""
    codes, damage = FAULTS[fault]
    folder = tmp_path / "weights"
    shutil.copytree(demo_model, folder)
    damage(folder)
    operation = shared_server.await_operation(shared_server.deploy(folder))
    assert "error" in operation, operation
    detail = operation["error"]["details"][0]
    assert detail["reason"] in codes.split("|"), operation
    assert detail["metadata"]["evidence"]
    assert detail["metadata"]["fix"]
    assert not shared_server.pids("headrace_engines")


def test_a_gguf_is_refused_with_the_command_that_converts_it(shared_server: ServerProcess, tmp_path: Path) -> None:
    """A folder with nothing else fails in CHECKING, and not for lack of a config.json; the fix is the command."""
    folder = tmp_path / "quantised"
    folder.mkdir()
    architecture = b"general.architecture" + (8).to_bytes(4, "little") + (5).to_bytes(8, "little") + b"llama"
    (folder / "river.Q4_1.gguf").write_bytes(b"GGUF" + bytes(20) + (20).to_bytes(8, "little") + architecture)
    operation = shared_server.await_operation(shared_server.deploy(folder))
    detail = operation["error"]["details"][0]
    assert detail["reason"] == "WEIGHTS_QUANTISED"
    assert f"`headrace convert {folder}/river.Q4_1.gguf ./river.Q4_1`" in detail["metadata"]["fix"]


def test_an_address_that_leads_nowhere(shared_server: ServerProcess) -> None:
    """An address without files fails the operation; it is not a 5xx and not a wait."""
    operation = shared_server.await_operation(shared_server.deploy("/nowhere/at/all"))
    assert operation["error"]["details"][0]["reason"] == "ARTIFACTS_NOT_FOUND"


def test_weights_larger_than_memory(shared_server: ServerProcess, demo_model: Path, tmp_path: Path) -> None:
    """A model that no machine here can hold is refused in CHECKING, with both numbers (a sparse file: true headers)."""
    folder = tmp_path / "huge"
    shutil.copytree(demo_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    _edit_config(folder, vocab_size=300 * 10**6, hidden_size=1000)
    size_bytes = 2 * 300 * 10**9
    header = {
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [300 * 10**6, 1000], "data_offsets": [0, size_bytes]}
    }
    encoded = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    with (folder / "model.safetensors").open("wb") as weights:
        weights.write(len(encoded).to_bytes(8, "little") + encoded)
        weights.truncate(8 + len(encoded) + size_bytes)
    operation = shared_server.await_operation(shared_server.deploy(folder))
    assert operation["error"]["details"][0]["reason"] == "DOES_NOT_FIT", operation


def test_nothing_is_left_of_failures(shared_server: ServerProcess) -> None:
    """After all that, the server is well and runs no engine."""
    assert not shared_server.pids("headrace_engines")
    with shared_server.client() as client:
        status = client.get("/headrace/v1/status")
    assert status.status_code == 200


def test_an_engine_without_memory_is_classified(server: ServerProcess, demo_model: Path) -> None:
    """An engine that finds no memory for its weights fails the deployment as out of memory, with its last words.

    The node's address space is limited from outside, and its engines inherit that.
    """
    program = Path(__file__).parent.parent / "engine" / "import_size.py"
    asked = subprocess.run([os.environ["HEADRACE_TEST_ENGINE_PYTHON"], program], check=True, capture_output=True)
    [node] = server.pids("headrace.server.node")
    limit_bytes = int(asked.stdout) + 250 * 2**20
    resource.prlimit(node, resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    operation = server.await_operation(server.deploy(demo_model))
    detail = operation["error"]["details"][0]
    assert detail["reason"] == "ENGINE_OUT_OF_MEMORY", operation
    assert detail["metadata"]["evidence"]
    assert not server.pids("headrace_engines")
