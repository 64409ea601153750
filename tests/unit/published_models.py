"""Public configuration fields of V2's base models and of the watsonx table's examples, and their published sizes.

``source`` says where the size stands. "files": the elements in the publisher's safetensors, as the model's page on the
Hugging Face Hub shows them, to the last one where `parameters` has all digits; "card": the publisher's model card or
report, rounded as it is there. Where files are given in GB, they are what the Hub lists beside their names.

All was written by hand on 2026-11-24. On 2026-11-26 the counts were looked up where the Hub's answers
(``/api/models/NAME``, ``safetensors.total``) and the publishers' cards are quoted in public repositories; those of
`UNCHECKED` were found nowhere. The fields were not looked up one by one: where the formulas give a published count to
the last parameter, they are right in all that takes parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Published(NamedTuple):
    """A model's fields, its size, where that stands, and how many parameters a token meets (MoE)."""

    config: dict[str, Any]
    parameters: float
    source: str
    active: float | None = None


def decoder(kind: str, layers: int, hidden: int, width: int, heads: int, kv_heads: int, vocab: int, **more: Any) -> Any:
    """The fields under their usual names."""
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        **more,
    }


def nested(kind: str, text: dict[str, Any], vision: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A multimodal model's file."""
    return {"model_type": kind, "text_config": text, "vision_config": vision, **more}


UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14, "image_size": 896}
LLAMA4_VISION = {
    "hidden_size": 1408,
    "intermediate_size": 5632,
    "num_hidden_layers": 34,
    "patch_size": 14,
    "image_size": 336,
    "projector_input_dim": 4096,
    "projector_output_dim": 4096,
}


def llama4(experts: int, step: int) -> dict[str, Any]:
    """Scout and Maverick differ in their experts."""
    text = decoder("llama4_text", 48, 5120, 8192, 40, 8, 202_048, head_dim=128, intermediate_size_mlp=16_384)
    text |= {"num_local_experts": experts, "num_experts_per_tok": 1, "interleave_moe_layer_step": step}
    return nested("llama4", text, LLAMA4_VISION, **UNTIED)


def gemma3(layers: int, hidden: int, width: int, heads: int, kv_heads: int, head_dim: int) -> dict[str, Any]:
    """Those that see."""
    text = decoder("gemma3_text", layers, hidden, width, heads, kv_heads, 262_208, head_dim=head_dim)
    return nested("gemma3", text, SIGLIP)


GEMMA3_4B = gemma3(34, 2560, 10_240, 8, 4, 256)
GEMMA3_27B = gemma3(62, 5376, 21_504, 32, 16, 128)
QWEN25_1B = decoder("qwen2", 28, 1536, 8960, 12, 2, 151_936, **TIED)
DEEPSEEK_V3 = decoder(
    "deepseek_v3", 61, 7168, 18_432, 128, 128, 129_280, **UNTIED, q_lora_rank=1536, kv_lora_rank=512,
    qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=256, num_experts_per_tok=8,
    n_shared_experts=1, moe_intermediate_size=2048, first_k_dense_replace=3, topk_method="noaux_tc",
)  # fmt: skip
DEEPSEEK_SIZE = "card, 671B and 37B active; the files have 684,531,386,000, with scales and a layer that predicts ahead"
QWEN3_NEXT = decoder(
    "qwen3_next", 48, 2048, 5120, 16, 2, 151_936, **UNTIED, head_dim=256, full_attention_interval=4,
    linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128,
    linear_conv_kernel_dim=4, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
    shared_expert_intermediate_size=512, decoder_sparse_step=1, mlp_only_layers=[],
)  # fmt: skip


def gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    """Both sizes are of one width."""
    more = {"num_local_experts": experts, "num_experts_per_tok": 4, "attention_bias": True, "head_dim": 64}
    return decoder("gpt_oss", layers, 2880, 2880, 64, 8, 201_088, **UNTIED, **more)


V2: dict[str, Published] = {
    "Llama-2-7b": Published(
        decoder("llama", 32, 4096, 11_008, 32, 32, 32_000, **UNTIED), 6_738_415_616,
        "files, 6,738,417,664, less the 2,048 inverse frequencies of its rotary embedding",
    ),
    "Llama-2-13b": Published(
        decoder("llama", 40, 5120, 13_824, 40, 40, 32_000, **UNTIED), 13_015_864_320,
        "files, 13,015,866,880, less the 2,560 inverse frequencies of its rotary embedding",
    ),
    "Llama-3.1-8B": Published(decoder("llama", 32, 4096, 14_336, 32, 8, 128_256, **UNTIED), 8_030_261_248, "files"),
    "Llama-3.1-70B": Published(decoder("llama", 80, 8192, 28_672, 64, 8, 128_256, **UNTIED), 70_553_706_496, "files"),
    "Llama-3.2-1B": Published(decoder("llama", 16, 2048, 8192, 32, 8, 128_256, **TIED), 1_235_814_400, "files"),
    "Llama-3.2-3B": Published(decoder("llama", 28, 3072, 8192, 24, 8, 128_256, **TIED), 3_212_749_824, "files"),
    "Llama-4-Scout-17B-16E": Published(llama4(16, 1), 108_641_793_536, "files; card, 17B active", 17e9),
    "Llama-4-Maverick-17B-128E": Published(llama4(128, 2), 401_583_781_376, "files; card, 17B active", 17e9),
    "CodeLlama-13b": Published(decoder("llama", 40, 5120, 13_824, 40, 40, 32_016, **UNTIED), 13_016_028_160, "files"),
    "gemma-2-27b": Published(
        decoder("gemma2", 46, 4608, 36_864, 32, 16, 256_000, head_dim=128), 27_227_128_320, "files"
    ),
    "gemma-3-1b": Published(
        decoder("gemma3_text", 26, 1152, 6912, 4, 1, 262_144, head_dim=256), 999_885_952, "files"
    ),
    "gemma-3-4b": Published(GEMMA3_4B, 4_300_079_472, "files"),
    "gemma-3-12b": Published(gemma3(48, 3840, 15_360, 16, 8, 256), 12_187_325_040, "files"),
    "gemma-3-27b": Published(GEMMA3_27B, 27_432_406_640, "files"),
    "medgemma-4b": Published(GEMMA3_4B, 4_300_079_472, "files"),
    "medgemma-27b-text": Published(
        decoder("gemma3_text", 62, 5376, 21_504, 32, 16, 262_144, head_dim=128), 27_009_002_240,
        "card, 27B; the count is that of Gemma 3's text model of the same sizes, as KerasHub gives it",
    ),
    "Qwen2-1.5B": Published(QWEN25_1B, 1_543_714_304, "files"),
    "Qwen2.5-0.5B": Published(decoder("qwen2", 24, 896, 4864, 14, 2, 151_936, **TIED), 494_032_768, "files"),
    "Qwen2.5-1.5B": Published(QWEN25_1B, 1_543_714_304, "files"),
    "Qwen2.5-7B": Published(decoder("qwen2", 28, 3584, 18_944, 28, 4, 152_064, **UNTIED), 7_615_616_512, "files"),
    "Qwen2.5-32B": Published(decoder("qwen2", 64, 5120, 27_648, 40, 8, 152_064, **UNTIED), 32_763_876_352, "files"),
    "Qwen3-0.6B": Published(
        decoder("qwen3", 28, 1024, 3072, 16, 8, 151_936, head_dim=128, **TIED), 596_049_920,
        "files, 751,632,384, less the tied head that they hold twice",
    ),
    "Qwen3-1.7B": Published(
        decoder("qwen3", 28, 2048, 6144, 16, 8, 151_936, head_dim=128, **TIED), 1_720_574_976,
        "files, 2,031,739,904, less the tied head that they hold twice",
    ),
    "Qwen3-8B": Published(
        decoder("qwen3", 36, 4096, 12_288, 32, 8, 151_936, head_dim=128, **UNTIED), 8_190_735_360, "files"
    ),
    "Qwen3-32B": Published(
        decoder("qwen3", 64, 5120, 25_600, 64, 8, 151_936, head_dim=128, **UNTIED), 32_762_123_264, "files"
    ),
    "Qwen3-Coder-480B-A35B": Published(
        decoder(
            "qwen3_moe", 62, 6144, 8192, 96, 8, 151_936, head_dim=128, num_experts=160, num_experts_per_tok=8,
            moe_intermediate_size=2560, decoder_sparse_step=1, **UNTIED,
        ), 480_154_875_392, "files; card, 35B active", 35e9,
    ),
    "Qwen3-Next-80B-A3B": Published(
        QWEN3_NEXT, 79_674_391_296,
        "files of Qwen3-Coder-Next, which has the same sizes; its own, 81,324,862,720, predict ahead in a layer"
        " more; the card's 3B active leave the head out",
    ),
    "DeepSeek-R1": Published(DEEPSEEK_V3, 671e9, DEEPSEEK_SIZE, 37e9),
    "DeepSeek-V3": Published(DEEPSEEK_V3, 671e9, "arXiv:2412.19437, 671B and 37B active", 37e9),
    "DeepSeek-V3.1": Published(DEEPSEEK_V3, 671e9, DEEPSEEK_SIZE, 37e9),
    "Mistral-7B-v0.1": Published(decoder("mistral", 32, 4096, 14_336, 32, 8, 32_000, **UNTIED), 7_241_732_096, "files"),
    "Mixtral-8x7B-v0.1": Published(
        decoder("mixtral", 32, 4096, 14_336, 32, 8, 32_000, num_local_experts=8, num_experts_per_tok=2, **UNTIED),
        46_702_792_704, "files; arXiv:2401.04088, 13B active", 13e9,
    ),
    "Mistral-Nemo-Base-2407": Published(
        decoder("mistral", 40, 5120, 14_336, 32, 8, 131_072, head_dim=128, **UNTIED), 12_247_782_400, "files"
    ),
    "Phi-4-reasoning": Published(decoder("phi3", 40, 5120, 17_920, 40, 10, 100_352, **UNTIED), 14_659_507_200, "files"),
    "gpt-oss-20b": Published(
        gpt_oss(24, 32), 20_914_757_184, "files, MXFP4 unpacked; arXiv:2508.10925, 3.61B active", 3.61e9,
    ),
    "gpt-oss-120b": Published(
        gpt_oss(36, 128), 116_829_156_672, "files, MXFP4 unpacked; arXiv:2508.10925, 5.13B active", 5.13e9,
    ),
}  # fmt: skip
"""The base models of V2's list."""


def gpt(kind: str, layers: int, hidden: int, heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    """The fields under GPT-2's names."""
    return {"model_type": kind, "n_layer": layers, "n_embd": hidden, "n_head": heads, "vocab_size": vocab, **more}


def t5(kind: str, layers: int, hidden: int, width: int, heads: int, vocab: int, proj: str) -> dict[str, Any]:
    """The fields under T5's names."""
    return {
        "model_type": kind, "num_layers": layers, "num_decoder_layers": layers, "d_model": hidden, "d_ff": width,
        "num_heads": heads, "d_kv": 64, "vocab_size": vocab, "feed_forward_proj": proj, "tie_word_embeddings": False,
    }  # fmt: skip


WATSONX: dict[str, Published] = {
    "bloom-560m": Published(
        {"model_type": "bloom", "n_layer": 24, "hidden_size": 1024, "n_head": 16, "vocab_size": 250_880},
        559_214_592, "files",
    ),
    "codegen-350M-mono": Published(gpt("codegen", 20, 1024, 16, 51_200, **UNTIED), 356_712_448, "files"),
    "EXAONE-3.0-7.8B": Published(
        decoder("exaone", 32, 4096, 14_336, 32, 8, 102_400, **UNTIED), 7.82e9,
        "card, 7.8B; the files have 31.27 GB in float32",
    ),
    "falcon-7b": Published(
        {"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71}
        | {"multi_query": True, "vocab_size": 65_024},
        6_921_720_704, "files, 7,217,189,760, less the tied head that they hold twice",
    ),
    "gemma-2b": Published(decoder("gemma", 18, 2048, 16_384, 8, 1, 256_000, head_dim=256), 2_506_172_416, "files"),
    "gemma-2-9b": Published(
        decoder("gemma2", 42, 3584, 14_336, 16, 8, 256_000, head_dim=256), 9_241_705_984, "files"
    ),
    "starcoder": Published(
        gpt("gpt_bigcode", 40, 6144, 48, 49_152, multi_query=True, n_inner=24_576, n_positions=8192), 15_517_456_384,
        "files",
    ),
    "pythia-12b": Published(
        decoder("gpt_neox", 36, 5120, 20_480, 40, 40, 50_688, **UNTIED), 11_846_072_320, "arXiv:2304.01373, table 1"
    ),
    "gpt-j-6b": Published(gpt("gptj", 28, 4096, 16, 50_400, **UNTIED), 6_053_381_344, "card"),
    "gpt2-large": Published(gpt("gpt2", 36, 1280, 20, 50_257, n_positions=1024), 774_030_080, "files"),
    "granite-3.0-8b": Published(decoder("granite", 40, 4096, 12_800, 32, 8, 49_155, **TIED), 8.17e9,
        "card, 8.1B; the files of granite-3.1-8b, of the same sizes, have 16.34 GB in bfloat16"),
    "jais-13b": Published(gpt("jais", 40, 5120, 40, 84_992, n_inner=13_653), 13e9, "card, 13B"),
    "Mistral-7B-v0.3": Published(decoder("mistral", 32, 4096, 14_336, 32, 8, 32_768, **UNTIED), 7_248_023_552, "files"),
    "mpt-7b": Published(
        {"model_type": "mpt", "n_layers": 32, "d_model": 4096, "n_heads": 32, "vocab_size": 50_432}, 6.65e9,
        "card, 6.7B; a copy of its files in 16 bits has 13.3 GB",
    ),
    "mt5-small": Published(t5("mt5", 8, 512, 1024, 6, 250_112, "gated-gelu"), 300_176_768, "files"),
    "Minitron-8B-Base": Published(
        decoder("nemotron", 32, 4096, 16_384, 48, 8, 256_000, head_dim=128, **UNTIED), 8.27e9,
        "files, 16.5 GB in bfloat16; arXiv:2407.14679, 6.2B without embeddings", None,
    ),
    "OLMo-7B-hf": Published(decoder("olmo", 32, 4096, 11_008, 32, 32, 50_304, **UNTIED), 6_888_095_744, "files"),
    "persimmon-8b-base": Published(
        decoder("persimmon", 36, 4096, 16_384, 64, 64, 262_144, **UNTIED), 9.4e9, "files, 9.4B"
    ),
    "phi-2": Published(decoder("phi", 32, 2560, 10_240, 32, 32, 51_200, **UNTIED), 2_779_683_840, "files"),
    "Phi-3-mini-4k": Published(decoder("phi3", 32, 3072, 8192, 32, 32, 32_064, **UNTIED), 3_821_079_552, "files"),
    "Qwen-7B": Published(decoder("qwen", 32, 4096, 22_016, 32, 32, 151_936, **UNTIED), 7_721_324_544, "files"),
    "Qwen2-7B": Published(decoder("qwen2", 28, 3584, 18_944, 28, 4, 152_064, **UNTIED), 7_615_616_512, "files"),
    "flan-t5-small": Published(t5("t5", 8, 512, 1024, 6, 32_128, "gated-gelu"), 76_961_152, "files"),
    "flan-t5-large": Published(t5("t5", 24, 1024, 2816, 16, 32_128, "gated-gelu"), 783_150_080, "files"),
}  # fmt: skip
"""Examples of the table of watsonx architectures; its llama, mixtral and qwen2 are among V2's."""

UNCHECKED = frozenset({"codegen-350M-mono", "jais-13b", "persimmon-8b-base"})
"""Whose counts were written from memory on 2026-11-24 and found at no source since: CodeGen's card rounds its own to
350 million, 1.9 % less, Adept says 8 billion of what are 9.4 with the embeddings, and Jais's 13 billion is its name."""
