"""Run by the engine's Python: a tiny random Gemma 3 that reads images, with all that a real folder has beside it.

Usage: ``python tiny_vision_model.py OUT_DIR``. The image processor is named as published folders name theirs; which
implementation is taken (Pillow's, where there is no torchvision) is for the engine's own transformers to choose.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import BOS, CONTEXT, EOS, PAD, SPREAD, tokenizer

IMAGE_TOKENS = 4
"""What an image becomes, whatever its size."""

_SIDE, _PATCH = 28, 14
_MARKS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}

TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ message.role }}: \
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'text' %}{{ part.text }}{% else %}<start_of_image>{% endif %}{% endfor %}{% endif %}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


def build(target: Path) -> None:
    """Write the folder."""
    torch.manual_seed(20261126)
    words = vision_tokenizer()
    ids = {mark: words.convert_tokens_to_ids(token) for mark, token in _MARKS.items()}
    model = transformers.Gemma3ForConditionalGeneration(configuration(ids, len(words))).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                parameter.normal_(std=SPREAD)
    model.generation_config = transformers.GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    model.save_pretrained(target)
    as_published(target / "model.safetensors")
    words.save_pretrained(target)
    (target / "chat_template.jinja").write_text(TEMPLATE)
    processors = {
        "preprocessor_config.json": {
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "size": {"height": _SIDE, "width": _SIDE},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "image_seq_length": IMAGE_TOKENS,
        },
        "processor_config.json": {"processor_class": "Gemma3Processor", "image_seq_length": IMAGE_TOKENS},
    }
    for file, said in processors.items():
        (target / file).write_text(json.dumps(said))


def as_published(weights: Path) -> None:
    """Give the vision part the names that published folders have, which alone vLLM 0.32.0 reads."""
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model.", 1) if ".vision_model." not in name else name: tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})


def configuration(ids: dict[str, int], vocab: int) -> Any:
    """Two layers that read text and one that looks at images."""
    return transformers.Gemma3Config(
        text_config={
            "vocab_size": vocab,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "max_position_embeddings": CONTEXT,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": _SIDE,
            "patch_size": _PATCH,
            "vision_use_head": False,
        },
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=True,
    )


def vision_tokenizer() -> Any:
    """That of all tiny models, the three marks of an image, and the line ends that vLLM looks for around those."""
    inner = tokenizer().backend_tokenizer
    inner.add_tokens(["\n" * count for count in range(1, 5)])
    inner.add_special_tokens(list(_MARKS.values()))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=_MARKS,
        model_max_length=CONTEXT,
    )


if __name__ == "__main__":
    transformers.logging.disable_progress_bar()
    build(Path(sys.argv[1]))
    print(json.dumps(sys.argv[1]))
