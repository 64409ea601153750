"""How each family builds a decoder's layer, as far as that changes how many parameters it has."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Family(msgspec.Struct, frozen=True):
    """A family's habits; the defaults are Llama's.

    Attributes:
        gated: The MLP has three matrices, not two.
        qkv_bias: The projections to queries, keys and values have a bias.
        out_bias: The projection after the attention has one.
        mlp_bias: The MLP's matrices have one.
        norm_vectors: Vectors of a norm: one (RMS), two (with a bias), none (OLMo's).
        norms: Norms in a layer.
        qk_norm: Queries and keys have a norm of one head's width each.
        positions: Positions are learned vectors.
        embedding_norm: There is a norm after the embedding.
        head_bias: The output head has a bias.
        mlp_share: The share of the configured width that each of the MLP's matrices has.
        q_factor: How often the projection to queries is there: twice where it makes a gate as well.
        sinks: Each head has a learned sink.
    """

    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    norm_vectors: int = 1
    norms: int = 2
    qk_norm: bool = False
    positions: bool = False
    embedding_norm: bool = False
    head_bias: bool = False
    mlp_share: float = 1.0
    q_factor: int = 1
    sinks: bool = False


_LLAMA = Family()
_GPT = Family(gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, norm_vectors=2)
_GPTJ = Family(gated=False, mlp_bias=True, norm_vectors=2, norms=1, head_bias=True)
_QWEN3 = Family(qk_norm=True)

FAMILIES: Mapping[str, Family] = {
    "bloom": msgspec.structs.replace(_GPT, embedding_norm=True),
    "codegen": _GPTJ,
    "deepseek_v2": _LLAMA,
    "deepseek_v3": _LLAMA,
    "exaone": _LLAMA,
    "falcon": Family(gated=False, norm_vectors=2, norms=1),
    "gemma": _LLAMA,
    "gemma2": Family(norms=4),
    "gemma3": Family(norms=4, qk_norm=True),
    "gemma3_text": Family(norms=4, qk_norm=True),
    "gpt2": msgspec.structs.replace(_GPT, positions=True),
    "gpt_bigcode": msgspec.structs.replace(_GPT, positions=True),
    "gpt_neox": _GPT,
    "gpt_oss": Family(qkv_bias=True, out_bias=True, mlp_bias=True, sinks=True),
    "gptj": _GPTJ,
    "granite": _LLAMA,
    "jais": msgspec.structs.replace(_GPT, gated=True),
    "llama": _LLAMA,
    "llama4": _LLAMA,
    "llama4_text": _LLAMA,
    "ministral": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "mpt": Family(gated=False),
    "mt5": _LLAMA,
    "nemotron": Family(gated=False, norm_vectors=2),
    "olmo": Family(norm_vectors=0),
    "persimmon": msgspec.structs.replace(_GPT, qk_norm=True),
    "phi": msgspec.structs.replace(_GPT, norms=1, head_bias=True),
    "phi3": _LLAMA,
    "qwen": Family(qkv_bias=True, mlp_share=0.5),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_next": Family(qk_norm=True, q_factor=2),
    "starcoder2": _GPT,
    "t5": _LLAMA,
    "umt5": _LLAMA,
}
"""By ``model_type``; those of V2's list and of the table of watsonx architectures. From ``models/*/modeling_*.py`` of
transformers 5.23.0; exaone 3, jais and qwen (1) from the code that their publishers keep beside their weights."""
