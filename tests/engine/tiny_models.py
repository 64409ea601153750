"""Run by the engine's Python: tiny random checkpoints of many architectures, as transformers writes them.

Usage: ``python tiny_models.py OUT_DIR [TYPE ...]``: a folder for each type under OUT_DIR, with configuration, float32
safetensors and a byte-level tokenizer. The same seed makes the same weights. Folders that are there are left alone.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB = 320
BOS, EOS, PAD = 256, 257, 258

CONTEXT = 256

_PLAIN = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "tie_word_embeddings": False,
}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_positions": CONTEXT,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
_LONGROPE = {
    "original_max_position_embeddings": 30,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    },
}
_MAMBA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "state_size": 8,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
_T5 = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "n_positions": CONTEXT,
    "decoder_start_token_id": PAD,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
_BART = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "decoder_start_token_id": EOS,
    "forced_eos_token_id": None,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
_BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": PAD,
}

TEXT_MODELS: dict[str, dict[str, Any]] = {
    "bart": _BART,
    "bloom": {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": BOS}
    | {"eos_token_id": EOS, "pad_token_id": PAD, "seq_length": CONTEXT},
    "codegen": _GPT2 | {"rotary_dim": 4, "tie_word_embeddings": False},
    "cohere": _PLAIN,
    "cohere2": _PLAIN | {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "deepseek_v2": _PLAIN
    | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    | {"v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    | {"moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_shared_experts": 1, "topk_method": "greedy"},
    "deepseek_v3": _PLAIN
    | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    | {"v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    | {"moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_shared_experts": 1},
    "exaone4": _PLAIN | {"num_hidden_layers": 4, "sliding_window": 8, "sliding_window_pattern": 2},
    "falcon": _PLAIN | {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-alibi": _PLAIN | {"alibi": True, "new_decoder_architecture": False, "multi_query": True},
    "falcon_mamba": _MAMBA,
    "gemma": _PLAIN | {"head_dim": 8},
    "gemma2": _PLAIN | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": _PLAIN
    | {"head_dim": 8, "sliding_window": 8, "num_hidden_layers": 3}
    | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "query_pre_attn_scalar": 8},
    "gemma3": {
        "text_config": _PLAIN | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
        "vision_config": _VISION,
        "mm_tokens_per_image": 4,
    },
    "glm": _PLAIN | {"head_dim": 8},
    "glm4": _PLAIN | {"head_dim": 8},
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2 | {"multi_query": True},
    "gpt_neo": {"vocab_size": VOCAB, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8}
    | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": CONTEXT}
    | {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD},
    "gpt_neox": _PLAIN,
    "gpt_oss": _PLAIN | _MOE | {"head_dim": 8, "sliding_window": 8},
    "gptj": _GPT2 | {"rotary_dim": 4, "tie_word_embeddings": False},
    "granite": _PLAIN,
    "granitemoe": _PLAIN | _MOE,
    "granitemoehybrid": _PLAIN
    | _MOE
    | {"layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
    | {"mamba_expand": 2, "mamba_chunk_size": 8, "shared_intermediate_size": 32},
    "jais2": _PLAIN,
    "llama": _PLAIN,
    "llama-dynamic": _PLAIN | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    "llama4_text": _PLAIN
    | _MOE
    | {"num_hidden_layers": 4, "head_dim": 8, "attention_chunk_size": 8, "intermediate_size_mlp": 48},
    "llama4": {
        "text_config": _PLAIN
        | _MOE
        | {"num_hidden_layers": 4, "head_dim": 8, "attention_chunk_size": 8, "intermediate_size_mlp": 48},
        "vision_config": _VISION
        | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32, "intermediate_size": 128},
    },
    "llama-longrope": _PLAIN | _LONGROPE,
    "mamba": _MAMBA,
    "mamba2": _MAMBA | {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "marian": _BART,
    "mbart": _BART,
    "ministral3": _PLAIN | {"head_dim": 8},
    "mistral": _PLAIN | {"sliding_window": 8},
    "mistral3": {
        "text_config": _PLAIN | {"model_type": "mistral", "head_dim": 8, "sliding_window": None},
        "vision_config": _VISION | {"model_type": "pixtral", "head_dim": 8},
        "image_token_index": 300,
    },
    "mixtral": _PLAIN | _MOE,
    "mpt": {
        "vocab_size": VOCAB,
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": CONTEXT,
        "expansion_ratio": 2,
    }
    | {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD},
    "mt5": _T5,
    "nemotron": _PLAIN | {"head_dim": 8},
    "olmo": _PLAIN,
    "olmo2": _PLAIN,
    "olmo3": _PLAIN | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "opt": _PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "pegasus": _BART,
    "persimmon": _PLAIN,
    "phi": _PLAIN,
    "phi3": _PLAIN | {"original_max_position_embeddings": CONTEXT},
    "phi3-longrope": _PLAIN | _LONGROPE,
    "qwen2": _PLAIN,
    "qwen2-window": _PLAIN | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen2_moe": _PLAIN
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24},
    "qwen3": _PLAIN | {"head_dim": 8},
    "qwen3_moe": _PLAIN | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "qwen3_next": _PLAIN
    | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    | {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 24},
    "smollm3": _PLAIN,
    "stablelm": _PLAIN,
    "starcoder2": _PLAIN | {"sliding_window": 8},
    "t5": _T5,
    "umt5": _T5,
}
"""The configuration of each; a name may add what makes it special after a hyphen."""

ENCODERS: dict[str, dict[str, Any]] = {
    "albert": _BERT | {"embedding_size": 16},
    "bert": _BERT,
    "camembert": _BERT | {"pad_token_id": 1},
    "distilbert": {"vocab_size": VOCAB, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
    | {"max_position_embeddings": CONTEXT, "pad_token_id": PAD},
    "electra": _BERT | {"embedding_size": 16},
    "modernbert": _BERT
    | {"bos_token_id": BOS, "eos_token_id": EOS, "cls_token_id": BOS, "sep_token_id": EOS}
    | {"local_attention": 8},
    "mpnet": _BERT | {"pad_token_id": 1},
    "nomic_bert": _BERT,
    "roberta": _BERT | {"pad_token_id": 1},
    "xlm-roberta": _BERT | {"pad_token_id": 1},
}
"""The same for encoders."""

SPREAD = 0.4
"""Standard deviation of the weights: wide enough that answers wander, where transformers' own ends in one token."""


def build(name: str, folder: Path) -> Path:
    """The checkpoint of one architecture, made unless it is there."""
    target = folder / name
    if (target / "made").is_file():
        return target
    torch.manual_seed(20261121)
    config = transformers.AutoConfig.for_model(_type_of(name), **(TEXT_MODELS | ENCODERS)[name])
    model = _class_of(name, config).from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in parameter_name:
                parameter.normal_(std=SPREAD)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
    )
    model.save_pretrained(target)
    tokenizer().save_pretrained(target)
    (target / "made").touch()
    return target


def tokenizer() -> Any:
    """Every byte is a token: the simplest byte-level BPE, without a merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "</s>", "<pad>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=CONTEXT
    )


def _type_of(name: str) -> str:
    return name if name in transformers.CONFIG_MAPPING else name.rpartition("-")[0]


def _class_of(name: str, config: Any) -> Any:
    if name in ENCODERS:
        return transformers.AutoModel
    if getattr(config, "is_encoder_decoder", False):
        return transformers.AutoModelForSeq2SeqLM
    if hasattr(config, "vision_config"):  # as it is published: with the part that sees
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


if __name__ == "__main__":
    transformers.logging.disable_progress_bar()
    for wanted in sys.argv[2:] or [*TEXT_MODELS, *ENCODERS]:
        print(build(wanted, Path(sys.argv[1])))
