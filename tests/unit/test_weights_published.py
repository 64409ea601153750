"""The table of architectures against published models: its shapes, summed up, are the counts that publishers give.

The counts were written down without a hub at hand on 2026-11-24. Those of Llama, Mistral, Mixtral, Gemma, Qwen, phi,
gpt-oss, GPT-2, GPT-J, GPT-NeoX, StarCoder and BLOOM were found on 2026-11-26 in the Hub's answers or the publishers'
cards, as public repositories quote them (``published_models.py``). That of MPT was found rounded; those of Falcon,
OPT, T5, BERT and Mamba were not.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest

from headrace.weights.architectures import HEADS, families, shape_of, sizes_of

TIED = tuple(HEADS)
"""What is left out of a model whose head is its embedding."""


def common(model_type: str, layers: int, hidden: int, heads: int, ffn: int, vocab: int, **other: Any) -> dict[str, Any]:
    """A configuration in the words that most families use."""
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
    } | other


PUBLISHED: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "meta-llama/Llama-3.1-8B": (
        common("llama", 32, 4096, 32, 14336, 128256, num_key_value_heads=8), 8_030_261_248, (),
    ),
    "meta-llama/Llama-3.1-70B": (
        common("llama", 80, 8192, 64, 28672, 128256, num_key_value_heads=8), 70_553_706_496, (),
    ),
    "meta-llama/Llama-3.2-1B": (
        common("llama", 16, 2048, 32, 8192, 128256, num_key_value_heads=8), 1_235_814_400, TIED,
    ),
    "mistralai/Mistral-7B-v0.1": (
        common("mistral", 32, 4096, 32, 14336, 32000, num_key_value_heads=8), 7_241_732_096, (),
    ),
    "mistralai/Mistral-Nemo-Base-2407": (
        common("mistral", 40, 5120, 32, 14336, 131072, num_key_value_heads=8, head_dim=128), 12_247_782_400, (),
    ),
    "mistralai/Mixtral-8x7B-v0.1": (
        common("mixtral", 32, 4096, 32, 14336, 32000, num_key_value_heads=8, num_local_experts=8), 46_702_792_704, (),
    ),
    "google/gemma-2-27b": (
        common("gemma2", 46, 4608, 32, 36864, 256000, num_key_value_heads=16, head_dim=128), 27_227_128_320, TIED,
    ),
    "google/gemma-3-1b-pt": (
        common("gemma3_text", 26, 1152, 4, 6912, 262144, num_key_value_heads=1, head_dim=256), 999_885_952, TIED,
    ),
    "Qwen/Qwen2.5-7B": (common("qwen2", 28, 3584, 28, 18944, 152064, num_key_value_heads=4), 7_615_616_512, ()),
    "Qwen/Qwen3-8B": (
        common("qwen3", 36, 4096, 32, 12288, 151936, num_key_value_heads=8, head_dim=128), 8_190_735_360, (),
    ),
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": (
        common("qwen3_moe", 62, 6144, 96, 8192, 151936, num_key_value_heads=8, head_dim=128, num_experts=160,
               moe_intermediate_size=2560),
        480_154_875_392,
        ("mlp.up_proj", "mlp.gate_proj", "mlp.down_proj", "shared_expert"),
    ),
    "microsoft/phi-4": (common("phi3", 40, 5120, 40, 17920, 100352, num_key_value_heads=10), 14_659_507_200, ()),
    "microsoft/phi-2": (common("phi", 32, 2560, 32, 10240, 51200, num_key_value_heads=32), 2_779_683_840, ()),
    "openai/gpt-oss-20b": (
        common("gpt_oss", 24, 2880, 64, 2880, 201088, num_key_value_heads=8, head_dim=64, num_local_experts=32),
        20_914_757_184, (),
    ),
    "openai-community/gpt2": (
        {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
        124_439_808, TIED,
    ),
    "bigcode/starcoder": (
        {"model_type": "gpt_bigcode", "n_layer": 40, "n_embd": 6144, "n_head": 48, "n_positions": 8192,
         "n_inner": 24576, "vocab_size": 49152, "multi_query": True},
        15_517_456_384, TIED,
    ),
    "EleutherAI/gpt-j-6b": (
        {"model_type": "gptj", "n_layer": 28, "n_embd": 4096, "n_head": 16, "n_positions": 2048, "vocab_size": 50400},
        6_050_882_784, (),
    ),
    "EleutherAI/gpt-neox-20b": (common("gpt_neox", 44, 6144, 64, 24576, 50432), 20_554_567_680, ()),
    "bigscience/bloom-560m": (
        {"model_type": "bloom", "n_layer": 24, "hidden_size": 1024, "n_head": 16, "vocab_size": 250880},
        559_214_592, TIED,
    ),
    "tiiuae/falcon-7b": (
        {"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71,
         "vocab_size": 65024, "multi_query": True},
        6_921_720_704, (*TIED, "ln_attn", "ln_mlp"),
    ),
    "mosaicml/mpt-7b": (
        {"model_type": "mpt", "n_layers": 32, "d_model": 4096, "n_heads": 32, "vocab_size": 50432,
         "max_seq_len": 2048},
        6_649_286_656, TIED,
    ),
    "facebook/opt-125m": (
        {"model_type": "opt", "num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "ffn_dim": 3072,
         "word_embed_proj_dim": 768, "vocab_size": 50272, "max_position_embeddings": 2048},
        125_239_296, TIED,
    ),
    "google-t5/t5-small": (
        {"model_type": "t5", "num_layers": 6, "d_model": 512, "num_heads": 8, "d_kv": 64, "d_ff": 2048,
         "vocab_size": 32128},
        60_506_624, (*TIED, "wi_0", "wi_1", "relative_attention_bias"),
    ),
    "google-bert/bert-base-uncased": (
        common("bert", 12, 768, 12, 3072, 30522, max_position_embeddings=512, type_vocab_size=2), 109_482_240, (),
    ),
    "state-spaces/mamba-130m-hf": (
        {"model_type": "mamba", "num_hidden_layers": 24, "hidden_size": 768, "intermediate_size": 1536,
         "state_size": 16, "time_step_rank": 48, "conv_kernel": 4, "vocab_size": 50280},
        129_135_360, TIED,
    ),
}  # fmt: skip
"""What the publishers' config.json says, the number of parameters that the model's page gives, and the rows that the
model does not have."""

DEEPSEEK_V3 = common(
    "deepseek_v3", 61, 7168, 128, 18432, 129280, moe_intermediate_size=2048, n_routed_experts=256, n_shared_experts=1,
    q_lora_rank=1536, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128,
)  # fmt: skip


def summed(raw: dict[str, Any], wanted: Callable[[str], bool], layers_of: Callable[[str], int | None]) -> int:
    """The parameters of all rows; biases are not in the table."""
    sizes, total = sizes_of(raw), 0
    for pattern, row in families()[raw["model_type"]].items():
        shape = shape_of(row, sizes)
        if not wanted(pattern):
            continue
        assert None not in shape, (pattern, row.shape)
        layers = layers_of(pattern) or sizes["decoder_layers"] if "*" in pattern else 1
        experts = sizes["experts"] if ".experts.*" in pattern else 1
        total += layers * experts * prod(size for size in shape if size)
    return total


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_adds_up_to_the_published_count(name: str) -> None:
    """Within half a percent, which the biases take that the table does not list."""
    raw, published, left_out = PUBLISHED[name]
    counted = summed(raw, lambda pattern: not any(part in pattern for part in left_out), lambda _: None)
    assert counted == pytest.approx(published, rel=0.005)
    assert counted <= published


def test_deepseek_adds_up_to_its_published_count() -> None:
    """Three of its 61 layers are dense: 671 billion in all."""

    def layers_of(pattern: str) -> int | None:
        if ".mlp." not in pattern:
            return 61
        return 58 if "expert" in pattern or "gate.weight" in pattern else 3

    assert summed(DEEPSEEK_V3, lambda _: True, layers_of) == pytest.approx(671_026_419_200, rel=1e-4)
