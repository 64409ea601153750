"""A llama of a few hundred numbers, enough for whoever reads a folder and runs nothing; and an encoder that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "vocab_size": 10,
    "max_position_embeddings": 8192,
}


def llama_tensors(config: dict[str, Any]) -> dict[str, Any]:
    """All that a llama of this configuration has, with six numbers between its two halves."""
    hidden = config["hidden_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (6, hidden),
        "mlp.up_proj": (6, hidden),
        "mlp.down_proj": (hidden, 6),
    }
    layers = range(config["num_hidden_layers"])
    shapes = {f"model.layers.{number}.{name}.weight": shape for number in layers for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def write_llama(folder: Path) -> Path:
    """Write it; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(llama_tensors(CONFIG), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"model": {}}')
    return folder


ENCODER: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 259,
    "type_vocab_size": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 258,
    "torch_dtype": "float32",
}


def write_encoder(folder: Path) -> Path:
    """A BERT of a few thousand random numbers, to whom every byte is a token; it runs. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size, inner = ENCODER["hidden_size"], ENCODER["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (ENCODER["vocab_size"], size),
        "embeddings.position_embeddings.weight": (ENCODER["max_position_embeddings"], size),
        "embeddings.token_type_embeddings.weight": (2, size),
        **_linear("pooler.dense", size, size),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(ENCODER["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{part}", size, size)
        shapes |= _linear(f"{layer}.attention.output.dense", size, size)
        shapes |= _linear(f"{layer}.intermediate.dense", inner, size)
        shapes |= _linear(f"{layer}.output.dense", size, inner)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    chance = np.random.default_rng(20261127)
    tensors = {name: chance.normal(0.0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(size, np.float32), f"{name}.bias": np.zeros(size, np.float32)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(ENCODER))
    _write_tokenizer(folder)
    return folder


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _write_tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    inner.add_special_tokens(list(names.values()))
    inner.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
