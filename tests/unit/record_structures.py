"""Run by the engine's Python: records the tensors that transformers writes for tiny models of many architectures.

Usage: ``python record_structures.py > recorded_structures.json``. The sizes are such that no two of them are equal by
chance. It is run by hand when an architecture is added; the tests read what it wrote.
"""

import inspect
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

import tiny_models

RENAMED = {32: 48, 320: 330, 256: 264}
"""What the tiny models' sizes become: hidden, vocabulary, positions."""

FIELDS = {
    "intermediate_size": 80, "ffn_dim": 80, "d_ff": 80, "moe_intermediate_size": 28, "head_dim": 16,
    "shared_expert_intermediate_size": 36, "shared_intermediate_size": 36, "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80, "intermediate_size_mlp": 92, "hidden_dim": 80, "d_kv": 16, "num_local_experts": 3,
    "num_experts": 3, "n_routed_experts": 4, "kv_lora_rank": 20, "q_lora_rank": 18, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 10, "v_head_dim": 14, "state_size": 6, "mamba_d_head": 12,
}  # fmt: skip

LEFT_OUT = {
    "mamba2", "phi3-longrope", "llama-longrope", "llama-dynamic", "qwen2-window",
}  # fmt: skip
"""Variants of what is there already, and architectures that the table does not describe."""


def sized(value: dict[str, Any]) -> dict[str, Any]:
    """A tiny model's configuration with the sizes of this record."""
    changed: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            changed[key] = sized(item) if key == "text_config" else item
        elif key in FIELDS and item is not None:
            changed[key] = FIELDS[key]
        elif isinstance(item, int) and not isinstance(item, bool) and not key.endswith("_id"):
            changed[key] = RENAMED.get(item, item)
        else:
            changed[key] = item
    return changed


def record(name: str, folder: Path) -> dict[str, Any]:
    """One architecture's configuration and tensors."""
    kind = tiny_models._type_of(name)
    wanted = sized((tiny_models.TEXT_MODELS | tiny_models.ENCODERS)[name])
    accepted = inspect.signature(transformers.CONFIG_MAPPING[kind]).parameters
    if "head_dim" in accepted and kind != "persimmon":
        wanted["head_dim"] = FIELDS["head_dim"]
    config = transformers.AutoConfig.for_model(kind, **wanted)
    model = tiny_models._class_of(name, config).from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors |= {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118
    kept = json.loads((folder / "config.json").read_text())
    kept.pop("transformers_version", None)
    return {"config": kept, "tensors": tensors}


def main() -> None:
    """Print the record: one architecture a line."""
    transformers.logging.disable_progress_bar()
    print('{"recorded with": "transformers ' + transformers.__version__ + '",')
    lines = []
    for name in [*tiny_models.TEXT_MODELS, *tiny_models.ENCODERS]:
        if name in LEFT_OUT:
            continue
        with tempfile.TemporaryDirectory() as folder:
            lines.append(f'"{name}": {json.dumps(record(name, Path(folder)), separators=(",", ":"))}')
    print('"architectures": {\n' + ",\n".join(lines) + "\n}}")


if __name__ == "__main__":
    main()
