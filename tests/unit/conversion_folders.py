"""Small model folders on the disk, to be converted: what is wrong with each is in its weight files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save
from written_pickles import saved

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
TOKENIZER = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}

Arrays = dict[str, np.ndarray]


LLAMA_LAYER = {
    "input_layernorm": (8,),
    "post_attention_layernorm": (8,),
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (16, 8),
    "mlp.up_proj": (16, 8),
    "mlp.down_proj": (8, 16),
}
"""Shapes of a layer of a tiny llama."""


def llama(layers: int = 2) -> Arrays:
    """The tensors of a tiny llama, random, the same each time."""
    rng = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (10, 8), "model.norm.weight": (8,), "lm_head.weight": (10, 8)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in LLAMA_LAYER.items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def folder(root: Path, weights: dict[str, bytes], **config: Any) -> Path:
    """A folder with these weight files and all that a model needs besides."""
    root.mkdir(parents=True)
    files = {
        "config.json": json.dumps(CONFIG | config).encode(),
        "tokenizer.json": json.dumps(TOKENIZER).encode(),
        "tokenizer_config.json": b"{}",
        "README.md": b"# A model\n",
    }
    for name, content in (files | weights).items():
        (root / name).write_bytes(content)
    return root


def pickled(root: Path, arrays: Arrays | None = None, **config: Any) -> Path:
    """One pickle."""
    return folder(root, {"pytorch_model.bin": saved(llama() if arrays is None else arrays)}, **config)


def sharded(arrays: Arrays, ending: str = "bin", *, index: bool = True) -> dict[str, bytes]:
    """Two files of weights, and an index."""
    names = list(arrays)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    stem = "pytorch_model" if ending == "bin" else "model"
    files, weight_map = {}, {}
    for number, half in enumerate(halves, start=1):
        file = f"{stem}-0000{number}-of-00002.{ending}"
        part = {name: arrays[name] for name in half}
        files[file] = saved(part) if ending == "bin" else save(part, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, file)
    if index:
        files[f"{stem}.{ending}.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return files


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def weights_of(root: Path) -> Arrays:
    """Every tensor of a folder, as the safetensors library reads it."""
    found: Arrays = {}
    for path in sorted(root.glob("*.safetensors")):
        found |= load_file(path)
    return found


def equal(left: Arrays, right: Arrays) -> bool:
    """The same names, types, shapes and bits."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )
