"""What the converters make is the model that they were given: held against transformers in float32."""

import json
import math
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_launch import required, source_root

from headrace.node.conversion import convert
from headrace.resources.errors import ConversionFailed, EngineBadTensor
from headrace.resources.models import Dtype
from headrace.runtimes import Environment, Installable
from headrace.runtimes.conversions import DIRECT_TYPES, openvino_conversion

HERE = Path(__file__).parent
PYTHONS = {
    "reference": "HEADRACE_TEST_ENGINE_PYTHON",
    "openvino": "HEADRACE_TEST_OPENVINO_PYTHON",
    "openvino-converter": "HEADRACE_TEST_CONVERTER_PYTHON",
}

DIRECT_BOUND = 2e-3
"""Nats by which a token's log-probability may differ from transformers': the order of float32 sums, nothing else."""
GENERAL_BOUND = 5e-2
"""The same where numbers are rounded: optimum-intel writes norms and rotations in float16 too."""

ROWS = [[random.Random(row).randrange(3, 259) for _ in range(150)] for row in range(2)]
NEW_TOKENS = 16

_SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
_GRANITE = {
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.6,
    "logits_scaling": 2.0,
}

DIRECT: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True, "head_dim": 24},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    "llama-3.1": {"model_type": "llama", "rope_parameters": _LLAMA3},
    "llama-linear": {"model_type": "llama", "rope_parameters": _LINEAR},
    "llama-bf16": {"model_type": "llama", "dtype": "bfloat16"},
    "llama-f16": {"model_type": "llama", "dtype": "float16"},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": False},
    "qwen2-tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "qwen3-tied": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True, "attention_bias": True},
    "granite": {"model_type": "granite"} | _GRANITE,
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layer_interval": 2},
}
GENERAL: dict[str, dict[str, Any]] = {
    "gpt_neox-bf16": {"model_type": "gpt_neox", "dtype": "bfloat16"},
    "mistral-sliding": {"model_type": "mistral", "sliding_window": 64},
}


class Engine:
    """What the direct way takes its environment from."""

    name = "openvino"
    requirements = "openvino==tested\n"
    complete = True
    disk_bytes = 0


class Checkpoints:
    """Tiny checkpoints and the demo model, and what transformers says of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        cases: dict[str, dict[str, Any]] = {
            name: {"folder": str(folder / name), "config": _SIZES | config, "rounded": [""]}
            for name, config in (DIRECT | GENERAL).items()
        }
        cases["llama"]["rounded"] += ["bfloat16", "float16"]
        cases["demo"] = {"folder": str(required("HEADRACE_TEST_MODEL")), "config": None, "rounded": [""]}
        given = {"rows": ROWS, "new": NEW_TOKENS, "cases": cases}
        self.said = run("reference", "conversion_reference.py", given=given)

    def copy(self, name: str, target: Path) -> Path:
        """One's folder, to be changed and converted; its files are links."""
        source = required("HEADRACE_TEST_MODEL") if name == "demo" else self._folder / name
        return shutil.copytree(source, target, copy_function=os.symlink)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Made once, by one process."""
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


def run(python: str, program: str, *arguments: str, given: object) -> Any:
    """What a program of this folder prints as JSON."""
    done = subprocess.run(
        [str(required(PYTHONS[python])), str(HERE / program), *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CI": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def environment_of(installable: Installable) -> Environment:
    """That of the tests' set-up, with the programs of this checkout."""
    return Environment(required(PYTHONS[installable.name]).parents[1], source_root())


def converted(folder: Path, dtype: Dtype = "auto") -> Path:
    """As a node converts it; the environments are those of the tests' set-up."""
    conversion = openvino_conversion(folder, dtype, Engine())
    return convert(conversion, folder, environment_of, lambda *_: None, lambda: False)[0]


def compare(wanted: dict[str, Any], target: Path, bound: float) -> None:
    """Each token's log-probability within the bound, and the same greedy tokens."""
    got = run("openvino", "conversion_result.py", str(target), given={"rows": ROWS, "new": NEW_TOKENS})
    rows = zip(wanted["likelihoods"], got["likelihoods"], strict=True)
    pairs = [pair for want, have in rows for pair in zip(want, have, strict=True)]
    assert max(abs(want - have) for want, have in pairs) < bound
    spread = max(want for want, _ in pairs) - min(want for want, _ in pairs)
    assert spread > 20 * bound, "a flat distribution would prove nothing"
    assert got["greedy"] == wanted["greedy"]


@pytest.mark.parametrize("case", DIRECT)
def test_the_direct_way_keeps_the_checkpoints_numbers(case: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Each family, with what its members differ in, says what transformers says in float32, paged attention too."""
    target = converted(checkpoints.copy(case, tmp_path / "model"))
    assert "-own-" in target.name
    compare(checkpoints.said[case][""], target, DIRECT_BOUND)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_float32_is_rounded_where_that_is_asked(dtype: Dtype, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Matrices are rounded as torch rounds them and take half the room; norms stay float32."""
    folder = checkpoints.copy("llama", tmp_path / "model")
    target = converted(folder, dtype)
    compare(checkpoints.said["llama"][dtype], target, DIRECT_BOUND)
    half = (folder / "model.safetensors").stat().st_size / 2
    assert math.isclose((target / "openvino_model.bin").stat().st_size, half, rel_tol=0.05)


def test_the_demo_model_keeps_its_numbers_and_files(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """SmolLM2 says what transformers says; its own small files stand beside it, byte for byte."""
    folder = checkpoints.copy("demo", tmp_path / "model")
    target = converted(folder)
    compare(checkpoints.said["demo"][""], target, DIRECT_BOUND)
    for file in folder.glob("*.json"):
        assert (target / file.name).read_bytes() == file.read_bytes()
    assert not list(target.glob("*.safetensors"))


def test_the_direct_ways_tokenizer_is_the_one_of_transformers(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Tokenizer and detokenizer are, byte for byte, those that optimum-intel makes with transformers."""
    folder = checkpoints.copy("llama", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # a real one: merges, digits, added tokens, a template
        (folder / name).unlink()
        shutil.copyfile(required("HEADRACE_TEST_MODEL") / name, folder / name)
    direct = converted(folder)
    general = openvino_conversion(folder, "auto", Engine()).otherwise
    assert general is not None
    made, reason, _ = convert(
        general, folder.rename(tmp_path / "again"), environment_of, lambda *_: None, lambda: False
    )
    assert "optimum-intel" in reason
    for name in ("openvino_tokenizer.bin", "openvino_detokenizer.bin"):
        assert (direct / name).read_bytes() == (made / name).read_bytes()


def test_what_the_direct_way_does_not_build_goes_the_general_way(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A Mistral with a sliding window is refused by the one and exported by the other, and it is told; nothing of
    OpenVINO's telemetry is left at home. The other families are in `test_families`."""
    folder = checkpoints.copy("mistral-sliding", tmp_path / "model")
    home = tmp_path / "home"
    home.mkdir()
    told: list[str] = []
    conversion = openvino_conversion(folder, "auto", Engine())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        way = (conversion, folder, environment_of, lambda step, *_: told.append(step), lambda: False)
        target, reason, _ = convert(*way)
    assert "-f16-" in target.name
    assert "optimum-intel" in reason
    assert any("its attention has a sliding window" in step for step in told)
    compare(checkpoints.said["mistral-sliding"][""], target, GENERAL_BOUND)
    assert not (home / "intel").exists()


def test_numbers_that_float16_does_not_hold_are_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The general way names the tensor that would come out with infinities, and leaves nothing."""
    folder = checkpoints.copy("gpt_neox-bf16", tmp_path / "model")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    header_bytes = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + header_bytes])
    begin = 8 + header_bytes + header["gpt_neox.embed_in.weight"]["data_offsets"][0]
    weights[begin : begin + 2] = (0x7F00).to_bytes(2, "little")  # 1.7e38
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ConversionFailed) as caught:
        converted(folder)
    assert "gpt_neox.embed_in.weight" in caught.value.evidence
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["model"]


def configured(folder: Path, **changes: Any) -> Path:
    """A copy whose configuration says something else, in a file of its own: a copy's files are links."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps(config))
    return folder


def test_a_tensor_without_a_place_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A checkpoint with a tensor that its configuration does not know would become another model."""
    folder = configured(checkpoints.copy("llama-biased", tmp_path / "model"), attention_bias=False)
    with pytest.raises(EngineBadTensor) as caught:
        converted(folder)
    assert "self_attn" in caught.value.evidence


def test_a_layer_that_is_not_there_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A configuration with a layer more than the checkpoint is at fault itself: no other way of converting is tried."""
    folder = configured(checkpoints.copy("llama", tmp_path / "model"), num_hidden_layers=3)
    with pytest.raises(EngineBadTensor) as caught:
        converted(folder)
    assert "model.layers.2" in caught.value.evidence
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["model"]


def test_the_general_way_makes_up_no_tensor(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """transformers would fill what a checkpoint lacks with random numbers, and the export would be served."""
    folder = configured(checkpoints.copy("gpt_neox-bf16", tmp_path / "model"), num_hidden_layers=3)
    with pytest.raises(EngineBadTensor) as caught:
        converted(folder)
    assert "gpt_neox.layers.2" in caught.value.evidence
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["model"]


def test_both_sides_name_the_same_families() -> None:
    """What the node sends the direct way is what the direct way builds."""
    code = (
        "from headrace_engines.convert.decoder import MODEL_TYPES; import json; print(json.dumps(sorted(MODEL_TYPES)))"
    )
    done = subprocess.run(
        [str(required(PYTHONS["openvino"])), "-c", code],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(source_root())},
    )
    assert frozenset(json.loads(done.stdout)) == DIRECT_TYPES
