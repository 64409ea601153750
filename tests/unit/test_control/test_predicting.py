"""What was predicted of a deployment, beside what was measured of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file
from scripted import GIB, World

from headrace.control import FolderChecker
from headrace.control.predicting import compare
from headrace.hardware import look
from headrace.resources.deployments import Predicted, Replica
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node

SAID = Predicted(
    weights_bytes=GIB // 2,
    cache_bytes=8 * GIB,
    overhead_bytes=GIB,
    load_s=4.0,
    time_to_first_token_s=0.05,
    tokens_per_s=75.0,
    rates="datasheets",
)


@pytest.mark.parametrize(("runtime", "memory_error"), [("transformers", 50.0), ("vllm", 850.0)])
def test_each_figure_stands_beside_what_was_measured(world: World, runtime: str, memory_error: float) -> None:
    """Memory, the way to health and the warm-up's speeds, each with its error; the cache counts where it is filled."""
    says = world.checker.says
    assert not isinstance(says, Exception)
    world.checker.says = msgspec.structs.replace(says, predicted=SAID, runtime=runtime)
    world.deploy()
    deployment = asyncio.run(world.until_state("READY"))
    assert deployment.predicted == SAID
    (replica,) = world.rows(Replica)
    timeline = world.timeline(replica.id, "replica")
    began, healthy = (next(one.at for one in timeline if one.state == state) for state in ("STARTING", "WARMING"))
    found = {one.figure: one for one in compare(deployment, replica, timeline)}
    assert found["resident_bytes"].error_percent == pytest.approx(memory_error)
    assert found["load_s"].measured == healthy - began
    assert found["time_to_first_token_s"].error_percent == pytest.approx(-50.0)
    assert found["tokens_per_s"].error_percent == pytest.approx(50.0)


def test_a_measured_prompt_stands_beside_one_of_its_length(world: World) -> None:
    """A short prompt takes what the weights' way takes, a long one its arithmetic. Writing and memory are of then."""
    says = world.checker.says
    assert not isinstance(says, Exception)
    said = msgspec.structs.replace(SAID, prompt_tokens_per_s=1000.0)
    world.checker.says = msgspec.structs.replace(says, predicted=said)
    world.deploy()
    deployment = asyncio.run(world.until_state("READY"))
    (replica,) = world.rows(Replica)
    assert replica.warmup is not None
    for tokens, predicted in ((10, 10 / 0.05), (200, 1000.0)):
        warmup = msgspec.structs.replace(
            replica.warmup, prompt_tokens=tokens, prompt_s=0.4, decode_tokens_per_s=60.0, resident_bytes=GIB // 2
        )
        compared = compare(deployment, msgspec.structs.replace(replica, warmup=warmup), [])
        found = {one.figure: one for one in compared}
        reading = found["prompt_tokens_per_s"]
        assert (reading.predicted, reading.measured) == (pytest.approx(predicted), pytest.approx(tokens / 0.4))
        assert found["tokens_per_s"].measured == 60.0
        assert found["resident_bytes"].measured == GIB // 2


def test_nothing_is_compared_where_nothing_was_predicted_or_measured(world: World) -> None:
    """An older deployment, and a replica that never was READY."""
    world.deploy()
    deployment = asyncio.run(world.until_state("READY"))
    (replica,) = world.rows(Replica)
    assert compare(deployment, replica, world.timeline(replica.id, "replica")) == []
    said = msgspec.structs.replace(deployment, predicted=SAID)
    assert compare(said, msgspec.structs.replace(replica, warmup=None), []) == []


def test_checking_predicts_what_the_node_can_do(tmp_path: Path) -> None:
    """Bytes always; speeds where the node says what machine it is."""
    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 10, "n_positions": 64}
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    layer = {"ln_1": (8,), "attn.c_attn": (8, 24), "attn.c_proj": (8, 8), "ln_2": (8,)}
    layer |= {"mlp.c_fc": (8, 32), "mlp.c_proj": (32, 8)}
    shapes = {f"h.0.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {f"h.0.{name}.bias": (shape[-1],) for name, shape in layer.items()}
    shapes |= {"wte.weight": (10, 8), "wpe.weight": (64, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)}
    tensors = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    version = ModelVersion(
        scope=DEFAULT_SCOPE, model_id="m", version="1", artifact_uri=tmp_path.as_uri(), created_at=0.0
    )
    mute = Node(id="local", boot_id="b", memory_bytes=4 * GIB, cores=2, last_seen_at=0.0)
    said = FolderChecker().check(version, mute).predicted
    assert said is not None
    assert (said.weights_bytes, said.load_s) == (sum(2 * array.size for array in tensors.values()), 0.0)
    told = msgspec.structs.replace(mute, hardware=msgspec.to_builtins(look(tmp_path)))
    said = FolderChecker(tmp_path).check(version, told).predicted
    assert said is not None
    assert said.tokens_per_s > 0
    assert said.time_to_first_token_s == pytest.approx(1 / said.tokens_per_s)
    assert said.prompt_tokens_per_s > 0
    assert said.rates
