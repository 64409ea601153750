"""Memory fit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.capacity import MemoryNeed, check_fit, estimate
from headrace.capacity.memory import VLLM_WORKER_BYTES
from headrace.resources.errors import ConfigInvalid, DoesNotFit
from headrace.weights import ModelFolder
from headrace.weights.config import parse_config
from headrace.weights.header import TensorEntry

SMOL = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
}


def folder(raw: dict[str, object], dtype: str = "BF16") -> ModelFolder:
    """SmolLM2-135M, by its headers."""
    size_bytes = 134_515_008 * (4 if dtype == "F32" else 2)
    return ModelFolder(
        config=parse_config(raw),
        weights_format="safetensors",
        weight_files=("model.safetensors",),
        weight_bytes=size_bytes,
        parameters=134_515_008,
        bytes_by_dtype={dtype: size_bytes},
        tensors=(),
        files={"model.safetensors": size_bytes},
        tokenizer_files=(),
        has_chat_template=False,
    )


def test_the_cache_is_counted_per_token() -> None:
    """2 × 30 layers × 3 KV heads × 64 × 2 bytes = 23,040 bytes for a token of SmolLM2."""
    need = estimate(folder(SMOL), context_tokens=2048, concurrency=4)
    assert need.kv_bytes_per_token == 23_040
    assert need.kv_bytes == 23_040 * 2048 * 4
    assert need.total_bytes == need.weights_bytes + need.kv_bytes + need.overhead_bytes


def test_a_model_without_attention_keeps_nothing_for_a_token() -> None:
    """A Mamba has no heads to count and is planned all the same: any context fits that leaves room for its states."""
    need = estimate(folder({"model_type": "mamba", "num_hidden_layers": 24, "hidden_size": 768}), 4096, 8)
    assert need.kv_bytes_per_token == 0
    assert need.kv_bytes == 8 * 24 * (1536 * 16 + 1536 * 4) * 4
    assert need.tokens_that_fit(need.total_bytes) == 4096 * 8
    assert need.tokens_that_fit(need.total_bytes - 1) == 4096 * 7
    assert need.tokens_that_fit(need.weights_bytes + need.overhead_bytes) == 0
    with pytest.raises(DoesNotFit):
        check_fit(need, need.total_bytes - 1)


def test_a_type_asked_for_changes_weights_and_cache() -> None:
    """float32 takes twice of bfloat16, whatever is stored; auto keeps what is stored."""
    stored32, stored16 = folder(SMOL, "F32"), folder(SMOL)
    assert (
        estimate(stored16, 1, 1, "float32") == estimate(stored32, 1, 1, "auto") == estimate(stored32, 1, 1, "float32")
    )
    assert estimate(stored32, 1, 1, "bfloat16") == estimate(stored16, 1, 1, "auto")
    assert estimate(stored32, 1, 1).kv_bytes_per_token == 46_080


def test_pickled_weights_count_as_they_are_stored() -> None:
    """Of a pickle only the size is known."""
    pickled = msgspec.structs.replace(folder(SMOL), weights_format="bin", parameters=None, bytes_by_dtype={})
    assert estimate(pickled, 1, 1, "float32").weights_bytes == pickled.weight_bytes


def test_a_configuration_without_sizes_is_named() -> None:
    """What is missing from the configuration is said, not guessed."""
    with pytest.raises(ConfigInvalid, match="layers"):
        estimate(folder({"model_type": "odd"}), 1, 1)


def test_what_does_not_fit_says_what_would() -> None:
    """The evidence has every part, the fix the largest context × concurrency."""
    need = MemoryNeed(weights_bytes=1000, kv_bytes_per_token=10, context_tokens=100, concurrency=8, overhead_bytes=500)
    with pytest.raises(DoesNotFit) as caught:
        check_fit(need, 1500 + 2500)
    assert "250 tokens fit" in caught.value.fix
    assert "a context of 100 tokens with 2 at once" in caught.value.fix
    assert "8 at once with 31 tokens each" in caught.value.fix
    assert "10 bytes a token × 100 tokens × 8 at once" in caught.value.evidence


def test_weights_without_room_say_how_much_is_short() -> None:
    """No context is offered where the weights alone do not fit."""
    need = MemoryNeed(
        weights_bytes=4 * 1024**3, kv_bytes_per_token=10, context_tokens=1, concurrency=1, overhead_bytes=0
    )
    with pytest.raises(DoesNotFit, match=r"free 1\.00 GiB"):
        check_fit(need, 3 * 1024**3)


@given(
    weights=st.integers(0, 10**6),
    per_token=st.integers(1, 1000),
    context=st.integers(1, 1000),
    concurrency=st.integers(1, 64),
    available=st.integers(0, 10**8),
)
def test_the_largest_that_fits_is_the_largest(
    weights: int, per_token: int, context: int, concurrency: int, available: int
) -> None:
    """So many tokens fit, and one more does not."""
    need = MemoryNeed(weights, per_token, context, concurrency, overhead_bytes=10)
    tokens = need.tokens_that_fit(available)
    if tokens:
        check_fit(msgspec.structs.replace(need, context_tokens=tokens, concurrency=1), available)
    assume(available > weights + 10)
    with pytest.raises(DoesNotFit):
        check_fit(msgspec.structs.replace(need, context_tokens=tokens + 1, concurrency=1), available)


def test_vllms_own_processes_are_counted() -> None:
    """Two gigabytes and more beside weights and cache, where other engines take half of one."""
    others, vllm = estimate(folder(SMOL), 2048, 8), estimate(folder(SMOL), 2048, 8, runtime="vllm")
    assert vllm.overhead_bytes > 2 * 1024**3
    assert vllm.total_bytes - others.total_bytes == vllm.overhead_bytes - others.overhead_bytes
    assert (vllm.weights_bytes, vllm.kv_bytes) == (others.weights_bytes, others.kv_bytes)


def test_experts_that_openvino_cuts_in_two_are_counted_twice_on_a_cpu() -> None:
    """Gate and up of a mixture's experts, whose graph computes both halves once more; not what comes after them."""
    config = SMOL | {"model_type": "mixtral", "num_local_experts": 2}
    names = [f"model.layers.0.block_sparse_moe.experts.{number}.w{part}.weight" for number in (0, 1) for part in "123"]
    experts = tuple(TensorEntry(name, "BF16", (100, 1000), 200_000, "model.safetensors") for name in names)
    mixture = msgspec.structs.replace(folder(config), tensors=experts)
    on_cpu = estimate(mixture, 100, 1, runtime="openvino", on_cpu=True).overhead_bytes
    assert on_cpu - estimate(mixture, 100, 1, runtime="openvino").overhead_bytes == 4 * 200_000


def test_what_a_runtime_keeps_twice_on_a_cpu_is_counted_there() -> None:
    """vLLM's packed head beside the embedding that it may be; on a GPU, and in other runtimes, nothing."""
    model = folder(SMOL | {"vocab_size": 49_152})
    for runtime, twice_bytes in (("vllm", 49_152 * 576 * 2), ("openvino", 0), ("transformers", 0)):
        there = estimate(model, 2048, 4, runtime=runtime, on_cpu=True)
        assert there.total_bytes - estimate(model, 2048, 4, runtime=runtime).total_bytes == twice_bytes


def test_devices_that_share_a_model_have_a_head_each() -> None:
    """SmolLM2's three key/value heads on three devices are as many; on nine, each is there three times."""
    alone, three, nine = (estimate(folder(SMOL), 2048, 8, runtime="vllm", tensor_parallel=count) for count in (1, 3, 9))
    assert three.kv_bytes == alone.kv_bytes
    assert nine.kv_bytes == 3 * alone.kv_bytes
    assert nine.overhead_bytes - alone.overhead_bytes == 8 * VLLM_WORKER_BYTES
