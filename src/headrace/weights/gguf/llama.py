"""The llama architecture: from llama.cpp's keys and tensor names to transformers' ``LlamaForCausalLM``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headrace.weights.config import MOST_LAYERS
from headrace.weights.gguf.source import GgufSource
from headrace.weights.gguf_alone import ARCHITECTURE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_OUTSIDE_BLOCKS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INSIDE_BLOCKS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.([a-z_]+)\.weight")


def require_convertible(source: GgufSource) -> None:
    """Refuse what would convert into a model that computes something else.

    Raises:
        ConversionFailed: Another architecture, experts, scaled positions, biases, or tensors without a place.
    """
    if source.architecture != ARCHITECTURE:
        raise source.refuse(
            f"its architecture is {source.architecture!r}, and only {ARCHITECTURE!r} is converted",
            f"general.architecture is {source.architecture!r}.",
        )
    if experts := source.metadata.get("llama.expert_count", 0):
        raise source.refuse("it is a mixture of experts", f"llama.expert_count is {experts}.")
    scaling = source.metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise source.refuse("its positions are scaled", f"llama.rope.scaling.type is {scaling!r}.")
    # Among these is rope_freqs.weight: Llama 3.1's scaling, folded into numbers that do not give its parameters back.
    homeless = [tensor.name for tensor in source.tensors if hf_name(tensor.name) is None]
    if homeless:
        raise source.refuse(
            f"{len(homeless)} of its tensors have no place in LlamaForCausalLM", f"The first is {homeless[0]}."
        )
    names = {tensor.name for tensor in source.tensors}
    if _layers(source) > MOST_LAYERS:  # before as many names are made
        raise source.refuse(
            "it says that it has more layers than any model", f"llama.block_count is {_layers(source)}."
        )
    wanted = {f"blk.{block}.{part}.weight" for block in range(_layers(source)) for part in _INSIDE_BLOCKS}
    missing = sorted((wanted | {"token_embd.weight", "output_norm.weight"}) - names)
    if missing:
        raise source.refuse(f"{len(missing)} tensors of the model are not in it", f"The first is {missing[0]}.")


def hf_name(gguf_name: str) -> str | None:
    """The name that transformers gives a tensor; None where it has none."""
    if gguf_name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[gguf_name]
    match = _BLOCK.fullmatch(gguf_name)
    if match is None or match[2] not in _INSIDE_BLOCKS:
        return None
    return f"model.layers.{match[1]}.{_INSIDE_BLOCKS[match[2]]}.weight"


def restore_rows(source: GgufSource, gguf_name: str, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Undo the order that llama.cpp gives the rows of Q and K.

    It rotates neighbouring pairs of a head's dimensions where transformers rotates the two halves against each other,
    so its converter interleaves the halves (``LlamaModel.permute`` in ``convert_hf_to_gguf.py``).
    """
    heads = source.require("llama.attention.head_count")
    if ".attn_k." in gguf_name:
        heads = source.metadata.get("llama.attention.head_count_kv", heads)
    elif ".attn_q." not in gguf_name:
        return weights
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config_json(source: GgufSource) -> dict[str, Any]:
    """The content of ``config.json``. Keys are those that transformers 4 and 5 and vLLM all read."""
    get = source.metadata.get
    heads, hidden = source.require("llama.attention.head_count"), source.require("llama.embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": get("llama.attention.key_length", hidden // heads),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": source.require("llama.feed_forward_length"),
        "max_position_embeddings": source.require("llama.context_length"),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": _layers(source),
        "num_key_value_heads": get("llama.attention.head_count_kv", heads),
        "pretraining_tp": 1,
        "rms_norm_eps": _shortest(source.require("llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest(get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in source.tensors),
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(source.require("tokenizer.ggml.tokens")),
    }
    return config | special_token_ids(source)


def special_token_ids(source: GgufSource) -> dict[str, int]:
    """The ids of the tokens that begin, end and pad a sequence, as far as the file names them."""
    keys = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    found = {name: source.metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
    return {name: token_id for name, token_id in found.items() if token_id is not None}


def _layers(source: GgufSource) -> int:
    return int(source.require("llama.block_count"))


def _shortest(number: float) -> float:
    """The number that was meant: a float32 read as a Python float shows digits that nobody wrote (9.9999997e-06)."""
    import numpy as np  # noqa: PLC0415  # see source.py

    return float(str(np.float32(number)))
