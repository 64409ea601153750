"""What a store is asked for where processes are killed, or where many want the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from headrace.cli.app import run
from headrace.storage.download import PART_BYTES
from object_stores import Network, Store, network, running

BIG = 3 * PART_BYTES + 12345
CONFIG = {"model_type": "turbine", "architectures": ["TurbineForCausalLM"], "num_hidden_layers": 1, "hidden_size": 8}
UNNOTED = {
    "config.json": json.dumps(CONFIG | {"num_attention_heads": 4, "vocab_size": 10}).encode(),
    "tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
    "model.safetensors": save({"gate": np.frombuffer(random.Random(1).randbytes(BIG), np.uint8)}),
}
"""A model whose only fault is that its format is not noted."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The Hub's stand-in, which has a checksum of every file."""
    with running("hf", tmp_path / "hub") as hub:
        hub.put("unnoted", UNNOTED)
        yield hub


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


DIES = """
import os, signal, sys
from headrace.cli import convert
from headrace.cli.app import run
began = []
def die(step, done, total):
    if step not in began:
        began.append(step)
    if len(began) == int(sys.argv[3]) and done > int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
convert._tell = die
run(["convert", sys.argv[1], sys.argv[2], "--json"])
"""


def killed(store: Store, between: Network, target: Path, step: int, after_bytes: int) -> None:
    """`headrace convert`, killed once its first (fetching) or second step (converting) has come so far."""
    command = [sys.executable, "-c", DIES, store.address("unnoted"), str(target), str(step), str(after_bytes)]
    done = subprocess.run(command, env=os.environ | store.variables(between.port), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("step", "after_bytes", "still_bytes"),
    [(1, PART_BYTES, BIG - PART_BYTES // 2), (2, 0, PART_BYTES)],
    ids=["fetching", "converting"],
)
def test_a_killed_conversion_is_gone_on_with_by_the_same_command(
    step: int, after_bytes: int, still_bytes: int, store: Store, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `kill -9` nothing bears the name; what came is not fetched again, and goes when the new folder is whole."""
    with network(store) as between:
        killed(store, between, here / "new", step, after_bytes)
        assert not [name for name in os.listdir(here) if not name.startswith(".new.")]
        for name, value in store.variables(between.port).items():
            monkeypatch.setenv(name, value)
        before = between.passed
        assert run(["convert", store.address("unnoted"), str(here / "new"), "--json"]) == 0
        assert between.passed - before < still_bytes
    assert os.listdir(here) == ["new"]


STAGES = """
import sys
from pathlib import Path
from headrace.storage import open_artifacts, stage
print(stage(open_artifacts(sys.argv[1]), Path(sys.argv[2]), lambda *_: None))
"""


def test_many_who_ask_at_once_get_one_download(store: Store, here: Path) -> None:
    """Three processes: the numbers pass the network once, and all three have the same folder."""
    with network(store) as between:
        command = [sys.executable, "-c", STAGES, store.address("unnoted"), str(here)]
        variables = os.environ | store.variables(between.port)
        processes = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        folders = {process.communicate()[0].strip() for process in processes}
        assert between.passed < BIG + PART_BYTES
    (folder,) = folders
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == UNNOTED
