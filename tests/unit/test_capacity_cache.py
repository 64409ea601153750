"""The cache of each kind of layer, against sizes worked out by hand from the public configurations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.capacity import MemoryNeed
from headrace.capacity.cache import SAVINGS, Saving, cache_need
from headrace.capacity.layers import layer_kinds
from headrace.capacity.memory import activation_bytes
from headrace.resources.errors import ConfigInvalid
from headrace.weights.config import parse_config

SIZES = {"num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
FULL_BYTES = 2 * 2 * 64 * 2  # keys and values × KV heads × width × two bytes


def need(raw: dict[str, Any], runtime: str = "", tensor_parallel: int = 1) -> Any:
    """The cache of a configuration in two-byte numbers."""
    return cache_need(parse_config(raw), 2, runtime, tensor_parallel)


@pytest.mark.parametrize(
    ("raw", "numbers"),
    [
        # Llama 2 7B: every head its own keys and values
        ({"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}, 262_144),
        # Llama 3.1 8B: eight KV heads for 32
        (
            {"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
            | {"num_key_value_heads": 8},
            65_536,
        ),
        # StarCoder 15B: one for all
        (
            {"model_type": "gpt_bigcode", "n_layer": 40, "n_head": 48, "n_embd": 6144, "multi_query": True},
            40 * 2 * 128,
        ),
        # flan-t5-large: a decoder of 24 layers, 16 heads of 64
        ({"model_type": "t5", "num_layers": 24, "num_decoder_layers": 24, "num_heads": 16, "d_kv": 64}, 24 * 2 * 1024),
    ],
    ids=["MHA", "GQA", "MQA", "encoder-decoder"],
)
def test_attention_keeps_keys_and_values_of_every_token(raw: dict[str, Any], numbers: int) -> None:
    """Two vectors of every KV head in every layer, and nothing for a sequence as such."""
    cache = need(raw)
    assert (cache.bytes_per_token, cache.bytes_per_sequence) == (2 * numbers, 0)


DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}


def test_latent_attention_is_small_only_where_the_runtime_keeps_it_compressed() -> None:
    """DeepSeek V3: 61 × 576 numbers in vLLM, on every device again; 71 times that where keys and values are whole."""
    assert need(DEEPSEEK_V3, "vllm").bytes_per_token == 61 * 576 * 2
    assert need(DEEPSEEK_V3, "vllm", 8).bytes_per_token == 8 * 61 * 576 * 2
    assert need(DEEPSEEK_V3, "openvino").bytes_per_token == 61 * 128 * (192 + 128) * 2
    assert need(DEEPSEEK_V3) == need(DEEPSEEK_V3, "openvino")


def test_other_families_with_compressed_keys_are_planned_whole() -> None:
    """A runtime may compute them without ever caching the compressed form."""
    assert need(DEEPSEEK_V3 | {"model_type": "minicpm3"}, "vllm") == need(DEEPSEEK_V3)


@pytest.mark.parametrize("odd", [[16_384] * 12, "wide", None, 2.5])
def test_a_width_of_another_form_does_not_keep_a_model_from_being_planned(odd: object) -> None:
    """Gemma 3n gives a list of widths, one for each layer."""
    config = parse_config(SIZES | {"model_type": "gemma3n_text", "hidden_size": 512, "intermediate_size": odd})
    assert activation_bytes(config, 8, 2) > 0


@pytest.mark.parametrize(
    ("raw", "windowed"),
    [
        ({"model_type": "gemma2", "sliding_window": 4096}, 6),
        ({"model_type": "gemma3_text", "sliding_window": 1024}, 10),
        ({"model_type": "gemma3_text", "sliding_window": 1024, "sliding_window_pattern": 4}, 9),
        ({"model_type": "gpt_oss", "sliding_window": 128}, 6),
        ({"model_type": "cohere2", "sliding_window": 4096}, 9),
        ({"model_type": "mistral", "sliding_window": 4096}, 12),
        ({"model_type": "phi3", "sliding_window": 2047}, 12),
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 4}, 0),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 4}, 8),
        ({"model_type": "any", "layer_types": ["sliding_attention", "full_attention"] * 6, "sliding_window": 9}, 6),
    ],
)
def test_windows_bound_the_tokens_of_their_layers(
    raw: dict[str, Any], windowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers with a window are told from the configuration, and save memory only in a runtime that is known to."""
    assert layer_kinds(parse_config(SIZES | raw)).count("window") == windowed
    assert need(SIZES | raw, "vllm").bytes_per_token == 12 * FULL_BYTES
    monkeypatch.setitem(SAVINGS, "saver", frozenset[Saving]({"window"}))
    saved = need(SIZES | raw, "saver")
    assert saved.bytes_per_token == (12 - windowed) * FULL_BYTES
    assert saved.window_bytes_per_token == windowed * FULL_BYTES
    assert saved.window_tokens == (raw.get("sliding_window") or 0)


def test_no_runtime_is_trusted_to_let_go_of_tokens_outside_a_window() -> None:
    """Until a runtime's peak was measured, its windows are planned at full length."""
    assert not any("window" in savings for savings in SAVINGS.values())


MAMBA2 = {"mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_n_groups": 1}
MAMBA2_NUMBERS = 48 * 64 * 128 + (48 * 64 + 2 * 128) * 4
QWEN3_NEXT = {
    "model_type": "qwen3_next",
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}


@pytest.mark.parametrize(
    ("raw", "attention", "state_numbers"),
    [
        (QWEN3_NEXT, 3, 9 * (32 * 128 * 128 + 8192 * 4)),
        (
            {"model_type": "granitemoehybrid", "layer_types": ["mamba"] * 10 + ["attention"] * 2} | MAMBA2,
            2,
            10 * MAMBA2_NUMBERS,
        ),
        ({"model_type": "bamba", "attn_layer_indices": [3, 9]} | MAMBA2, 2, 10 * MAMBA2_NUMBERS),
        ({"model_type": "falcon_h1", "mamba_d_ssm": 3072} | MAMBA2, 12, 12 * MAMBA2_NUMBERS),
        (
            {"model_type": "jamba", "attn_layer_period": 8, "attn_layer_offset": 4, "hidden_size": 512}
            | {"mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2},
            1,
            11 * 1024 * (16 + 4),
        ),
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-MM-M*-E"}
            | {"mamba_num_heads": 48, "mamba_head_dim": 64, "ssm_state_size": 128, "conv_kernel": 4, "n_groups": 1},
            2,
            5 * MAMBA2_NUMBERS,
        ),
        (
            {"model_type": "nemotron_h", "layers_block_type": ["linear_attention", "mlp", "full_attention"] * 4}
            | {"mamba_num_heads": 48, "mamba_head_dim": 64, "ssm_state_size": 128, "conv_kernel": 4, "n_groups": 1},
            4,
            4 * MAMBA2_NUMBERS,
        ),
    ],
    ids=["qwen3_next", "granitemoehybrid", "bamba", "falcon_h1", "jamba", "nemotron_h", "nemotron_h of transformers 5"],
)
def test_hybrids_keep_tokens_in_their_attention_and_states_elsewhere(
    raw: dict[str, Any], attention: int, state_numbers: int
) -> None:
    """Only layers of attention cost by the token; each other keeps a state of four-byte numbers."""
    cache = need(SIZES | raw)
    assert cache.bytes_per_token == attention * FULL_BYTES
    assert cache.bytes_per_sequence == 4 * state_numbers


def test_a_size_that_is_none_is_named() -> None:
    """A rank in words is a broken configuration, not a crash."""
    with pytest.raises(ConfigInvalid, match="kv_lora_rank"):
        need(DEEPSEEK_V3 | {"kv_lora_rank": "512"})


@given(
    per_token=st.integers(0, 100),
    windowed=st.integers(0, 100),
    window=st.integers(0, 50),
    state=st.integers(0, 1000),
    sequences=st.integers(1, 8),
    available=st.integers(0, 100_000),
)
def test_the_longest_context_that_fits_is_the_longest(
    per_token: int, windowed: int, window: int, state: int, sequences: int, available: int
) -> None:
    """With windows and states, too, so many tokens of each sequence fit and one more does not."""
    planned = MemoryNeed(100, per_token, 64, sequences, 50, windowed if window else 0, window, bytes_per_sequence=state)
    tokens = planned.context_that_fits(available, sequences)
    if tokens:
        assert 150 + sequences * planned.sequence_bytes(tokens) <= available
    if per_token:
        assert 150 + sequences * planned.sequence_bytes(tokens + 1) > available
