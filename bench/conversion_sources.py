"""Run by the engine's Python: a llama of some size as torch pickles it and as safetensors, for bench/conversion.py.

Usage: ``python conversion_sources.py FOLDER SIZE_MB SMALL``: folders pickles, turned (matrices lie transposed) and
unmarked (safetensors without a format) under FOLDER, each of about SIZE_MB in two shards; small files from SMALL.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, FFN, VOCAB = 2048, 5632, 49_152


def tensors(layers: int) -> dict[str, torch.Tensor]:
    """Random float32, a llama's shapes."""
    shapes = {"model.embed_tokens": (VOCAB, HIDDEN), "lm_head": (VOCAB, HIDDEN), "model.norm": (HIDDEN,)}
    for layer in range(layers):
        own = {
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
            **{f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"},
            "mlp.gate_proj": (FFN, HIDDEN),
            "mlp.up_proj": (FFN, HIDDEN),
            "mlp.down_proj": (HIDDEN, FFN),
        }
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    return {f"{name}.weight": torch.rand(shape) for name, shape in shapes.items()}


def config(layers: int) -> dict[str, object]:
    """What such a model says of itself."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def main(root: Path, size_mb: int, small: Path) -> None:
    """Write the folders."""
    layer_mb = 4 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN) / 1e6
    layers = max(1, round((size_mb - 8 * VOCAB * HIDDEN / 1e6) / layer_mb))
    state = tensors(layers)
    names = list(state)
    shards = names[: len(names) // 2], names[len(names) // 2 :]
    for form in ("pickles", "turned", "unmarked"):
        folder = root / form
        folder.mkdir(parents=True)
        for path in small.glob("*.json"):
            shutil.copyfile(path, folder / path.name)
        (folder / "config.json").write_text(json.dumps(config(layers)))
        if form == "unmarked":
            save_file(state, folder / "model.safetensors")
            continue
        weight_map = {}
        for number, shard in enumerate(shards, start=1):
            file = f"pytorch_model-0000{number}-of-00002.bin"
            part = {name: state[name] for name in shard}
            if form == "turned":
                part = {
                    name: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor for name, tensor in part.items()
                }
            torch.save(part, folder / file)
            weight_map |= dict.fromkeys(shard, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
