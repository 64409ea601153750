"""What the doctor costs: a checkpoint of 480 billion parameters in true headers over sparse files, and the demo model.

Goals (issue 4): the former under 1 s and under 150 MB at its peak, the latter under 0.5 s; the process's start
included. Processor time stands beside each, as the machine may be busy. Best of several runs.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from report import Report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from published_models import V2  # noqa: E402 - found by the path above

LARGE_GOAL_S, LARGE_GOAL_MB, SMALL_GOAL_S = 1.0, 150, 0.5
SHARDS = 241
"""As many files as Qwen3-Coder-480B-A35B-Instruct has."""
RUNS = 5


class Cost(NamedTuple):
    """What a command took."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def tensors() -> dict[str, list[int]]:
    """Names and shapes of Qwen3-Coder-480B's tensors, as its configuration gives them."""
    config = V2["Qwen3-Coder-480B-A35B"].config
    hidden, width, head = config["hidden_size"], config["moe_intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    found = {
        "model.embed_tokens.weight": [config["vocab_size"], hidden],
        "model.norm.weight": [hidden],
        "lm_head.weight": [config["vocab_size"], hidden],
    }
    for layer in range(config["num_hidden_layers"]):
        shapes = {
            "input_layernorm": [hidden],
            "post_attention_layernorm": [hidden],
            "self_attn.q_proj": [queries, hidden],
            "self_attn.k_proj": [keys, hidden],
            "self_attn.v_proj": [keys, hidden],
            "self_attn.o_proj": [hidden, queries],
            "self_attn.q_norm": [head],
            "self_attn.k_norm": [head],
            "mlp.gate": [config["num_experts"], hidden],
        }
        for expert in range(config["num_experts"]):
            shapes |= {f"mlp.experts.{expert}.{name}": [width, hidden] for name in ("gate_proj", "up_proj")}
            shapes[f"mlp.experts.{expert}.down_proj"] = [hidden, width]
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    return found


def write_large(folder: Path, tokenizer: Path) -> int:
    """Write the checkpoint, its tensors as holes; returns how many parameters it has."""
    config = V2["Qwen3-Coder-480B-A35B"].config | {"architectures": ["Qwen3MoeForCausalLM"], "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    every = list(tensors().items())
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor, shape in every[len(every) * shard // SHARDS : len(every) * (shard + 1) // SHARDS]:
            size_bytes = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size_bytes]}
            offset += size_bytes
            weight_map[tensor] = name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + offset)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for _, shape in every)


def examine(folder: Path) -> Cost:
    """Run the doctor once, and hold that it finds nothing that keeps the model from being deployed."""
    command = [sys.executable, "-m", "headrace.cli", "doctor", str(folder), "--json"]
    began = time.perf_counter()
    # An installed program has its byte code; where that must not be kept, all of it is compiled at each start.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    found = json.loads(said)
    assert found["ok"], found["findings"]
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def best(folder: Path) -> Cost:
    """The least of each over several runs."""
    runs = [examine(folder) for _ in range(RUNS)]
    return Cost(min(run.wall_s for run in runs), min(run.cpu_s for run in runs), max(run.peak_mb for run in runs))


def main() -> None:
    """Measure both."""
    report = Report("doctor", ("model", "parameters", "wall s", "processor s", "peak MB"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    demo = Path(os.environ["HEADRACE_TEST_MODEL"])
    with tempfile.TemporaryDirectory() as kept:
        parameters = write_large(Path(kept), demo)
        large = best(Path(kept))
    small = best(demo)
    report.row("Qwen3-Coder-480B, sparse", f"{parameters:,}", large.wall_s, large.cpu_s, large.peak_mb)
    report.row("SmolLM2-135M-Instruct", "134,515,008", small.wall_s, small.cpu_s, small.peak_mb)
    said = f"{large.wall_s:.2f} s ({large.cpu_s:.2f} s of processor)"
    report.goal(f"480 billion parameters in under {LARGE_GOAL_S:g} s", said, large.wall_s < LARGE_GOAL_S)
    report.goal(f"and under {LARGE_GOAL_MB} MB", f"{large.peak_mb:.0f} MB", large.peak_mb < LARGE_GOAL_MB)
    said = f"{small.wall_s:.2f} s ({small.cpu_s:.2f} s of processor)"
    report.goal(f"SmolLM2 in under {SMALL_GOAL_S:g} s", said, small.wall_s < SMALL_GOAL_S)
    report.finish()


if __name__ == "__main__":
    main()
