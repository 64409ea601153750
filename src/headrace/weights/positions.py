"""How long a sequence a model takes whose ``config.json`` does not say: what its class in transformers means then."""

from __future__ import annotations

from collections.abc import Mapping

_BY_TOKENS: Mapping[int, str] = {
    128: "blenderbot",
    256: "ctrl",
    512: (
        "albert bert bert-generation blenderbot-small camembert data2vec-text distilbert electra ernie megatron-bert "
        "mpnet openai-gpt prophetnet rembert roberta roberta-prelayernorm roc_bert trocr xlm xlm-roberta xmod"
    ),
    514: "xlm-roberta-xl",
    1_024: "bart biogpt git gpt-sw3 gpt2 gpt_bigcode marian mbart mvp pegasus plbart rwkv",
    1_536: "roformer",
    2_048: (
        "aria aria_text bitnet blip-2 codegen dbrx deepseek_v2 diffllama doge dots1 exaone4 exaone4_5 exaone_moe "
        "falcon gpt_neo gpt_neox gpt_neox_japanese gptj granite granite4_vision granitemoe granitemoe_swa "
        "granitemoehybrid granitemoeshared hrm_text hunyuan_v1_dense hunyuan_v1_moe hyperclovax idefics3 llama llava "
        "llava_next llava_next_video mpt musicgen musicgen_melody nanochat nomic_bert olmo olmo2 olmo3 opt phi "
        "smolvlm xglm"
    ),
    3_000: "moshi",
    4_096: (
        "arcee big_bird bigbird_pegasus blt deepseek_v3 flex_olmo helium jetmoe nemotron nemotron_h nemotron_h_omni "
        "olmoe phi3 reformer stablelm starcoder2 zamba zamba2"
    ),
    8_192: (
        "beam cohere cohere2 cohere2_moe cohere2_vision cohere_compass cohere_compass_text falcon_h1 gemma gemma2 "
        "granite_swa jais2 modernbert modernbert-decoder paligemma vaultgemma"
    ),
    16_384: "afmoe fuyu persimmon",
    32_768: (
        "axk1 gemma3n gemma3n_text glm4v got_ocr2 internlm3 internvl llava_onevision minicpm3 minicpmv4_6 minicpmv4_7 "
        "qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_moe qwen2_vl qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text "
        "qwen3_5_text qwen3_moe qwen3_next qwen3_omni_moe qwen4_exp qwen4_exp_text smollm3"
    ),
    65_536: "apertus glm4v_moe olmo_hybrid",
    128_000: "lfm2 lfm2_moe lfm2_vl lfm3 qwen3_vl qwen3_vl_moe step3p7",
    131_072: (
        "axk2 cosmos3_edge cwm diffusion_gemma ernie4_5 ernie4_5_moe ernie4_5_vl_moe gemma3 gemma3_text gemma4 "
        "gemma4_text glm glm4 glm4_moe glm_ocr gpt_oss hy_v3 inkling_text iquestcoder laguna llama4 llama4_text "
        "longcat_flash mellum mimo_v2_flash minimax ministral mistral mistral3 mixtral mllama moss_transcribe_diarize "
        "muse_glimmer paddleocr_vl phi4_multimodal phimoe solar_open youtu zaya"
    ),
    163_840: "deepseek_v32",
    196_608: "minimax_m2",
    202_752: "glm4_moe_lite glm_moe_dsa",
    262_144: (
        "bailing_hybrid bamba flint gemma4_unified gemma4_unified_assistant gemma4_unified_text hy_v4 jamba kolibri1 "
        "ministral3"
    ),
    524_288: "dots3_note dots3_note_text minimax_m3_vl minimax_m3_vl_text seed_oss",
    1_048_576: "deepseek_v4 glm5_next inkling2_text kimi_linear",
}
"""Families, by ``model_type``, by what the configuration class of transformers 5.23.0 has for its text part where the
file says nothing (``models/*/configuration_*.py``): ``max_position_embeddings``, ``n_positions``, ``max_seq_len`` or
``seq_length``, as the engine reads them. Those that are not here have no such number: their positions are relative.
`tests/engine/test_default_contexts.py` holds all against the classes."""

DEFAULT_POSITIONS: Mapping[str, int] = {
    family: tokens for tokens, families in _BY_TOKENS.items() for family in families.split()
}
"""Tokens by ``model_type``."""
