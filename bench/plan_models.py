"""Run by the Python of the transformers engine: checkpoints of real architectures of 20 to 130 million parameters.

Usage: ``plan_models.py OUT_DIR TOKENIZER_DIR NAME ...``: a folder for each name under OUT_DIR, in bfloat16, with the
given tokenizer; those that are there are left alone. A name that ends with ``-1`` is that architecture of one layer.
Weights are random: what they are does not change what they take.
"""

import shutil
import sys
from pathlib import Path

import torch
import transformers

VOCAB = 49_152
CONTEXT = 1024

_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
_PLAIN = _SPECIAL | {
    "vocab_size": VOCAB,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
}
_GROUPED = {"num_hidden_layers": 16, "num_key_value_heads": 4}
_TIED = {"tie_word_embeddings": True}

MODELS = {
    "SmolLM2-135M": _PLAIN | _TIED | {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30}
    | {"num_attention_heads": 9, "num_key_value_heads": 3},
    "llama": _PLAIN,
    "qwen2": _PLAIN | _GROUPED,
    "qwen3": _PLAIN | _GROUPED | _TIED | {"head_dim": 128},
    "mistral": _PLAIN | _GROUPED | {"sliding_window": None},
    "gemma": _PLAIN | _TIED | {"head_dim": 128, "num_key_value_heads": 4},
    "phi": _PLAIN | {"intermediate_size": 2048},
    "phi3": _PLAIN | {"original_max_position_embeddings": CONTEXT},
    "gpt_neox": _PLAIN | {"intermediate_size": 2048},
    "gpt2": _SPECIAL | {"vocab_size": VOCAB, "n_positions": CONTEXT, "n_embd": 512, "n_layer": 12, "n_head": 8},
    "opt": _PLAIN | _TIED | {"ffn_dim": 2048, "word_embed_proj_dim": 512},
    "falcon": _PLAIN | _TIED | {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 8},
    "bloom": _SPECIAL | {"vocab_size": VOCAB, "hidden_size": 512, "n_layer": 12, "n_head": 8, "seq_length": CONTEXT},
    "mixtral": _PLAIN | {"num_hidden_layers": 8, "intermediate_size": 1024, "num_key_value_heads": 8}
    | {"num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def build(name, folder, tokenizer):
    """The checkpoint of one architecture, made unless it is there."""
    target = folder / name
    if (target / "made").is_file():
        return
    torch.manual_seed(1)
    fields = dict(MODELS[name.removesuffix("-1")])
    name = fields.pop("model_type", name.removesuffix("-1"))
    if target.name.endswith("-1"):
        fields |= {layers: 1 for layers in ("num_hidden_layers", "n_layer") if layers in fields}
    config = transformers.AutoConfig.for_model(name, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(target)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, target / file)
    (target / "made").touch()


transformers.logging.disable_progress_bar()
for wanted in sys.argv[3:]:
    build(wanted, Path(sys.argv[1]), Path(sys.argv[2]))
