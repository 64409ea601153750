"""Run by the engine's Python: load one GGUF file through transformers and hold our converted folder against it.

Usage: gguf_reference.py FILE.gguf CONVERTED_FOLDER; prints one JSON object.
"""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def strings() -> list[str]:
    """A few hundred varied texts, the same every time."""
    rng = random.Random(20260101)
    fixed = [
        "", " ", "  ", "\n", "\n\n\n", "\t", " \n \t", "Hello, world!", " leading", "trailing ", "two  spaces",
        "a" * 500,
        "def f(x):\n    return x ** 2  # square\n", "if (a<b) {\r\n\tb=a;\r\n}", "SELECT * FROM t WHERE id=1;",
        "I'm you're we've they'll he'd it's don't CAN'T", "3.14159 1,000,000 2026-11-21 0x1F 1e-9 v2.0.1", "abc123d4",
        "  12", "\n\n42", "x =   7", "½ cup, Ⅳ, ²", " ½", "١٢٣", "〇一二三", "日本語のテキスト", "中文字符测试",
        "한국어", "Привет, мир", "Ünïcödé çà và", "naïve cafe\u0301", "नमस्ते", "שלום", "مرحبا", "🙂👩‍👩‍👧‍👦🏳️‍🌈",
        "zero\u200bwidth", "\u00a0nbsp", "\ufeffbom", "\x00\x01\x7f", "…—“”‘’«»",
        "<|im_start|>user\nhi<|im_end|>", "<|endoftext|>", "a<|im_end|>b", "<repo_name>x<file_sep>y", "<|im_start|",
        "https://example.com/a?b=c&d=%20#e", '{"k": [1, 2, {"n": null}]}', "$E=mc^2$ \\frac{a}{b}", "<empty_output>",
    ]  # fmt: skip
    words = ["the", "of", "tree", "Zürich", "x1", "42", "7", "don't", "==", "->", "()", "日", "é", "🙂", "¾"]
    words += ["<|im_end|>", "\n", "  ", "\t"]
    mixed = [
        "".join(rng.choice([" ", "", " "]) + rng.choice(words) for _ in range(rng.randint(1, 30))) for _ in range(200)
    ]
    letters = [chr(code) for code in range(0x20, 0x3000) if unicodedata.category(chr(code))[0] in "LNPSZM"]
    noise = ["".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(150)]
    return fixed + mixed + noise


def conversations() -> list[list[dict[str, str]]]:
    """Chats for the template."""
    return [
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve  42?"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c\n"}],
    ]


def compare_tensors(gguf: Path, folder: Path) -> dict[str, object]:
    """Names and bits of every tensor."""
    reference = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    ).state_dict()
    ours = load_file(folder / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return {
        "only_reference": sorted(set(reference) - set(ours)),
        "only_ours": sorted(set(ours) - set(reference)),
        "different": [name for name in ours if not same_bits(reference[name], ours[name])],
        "different_when_loaded": [
            n for n, tensor in loaded.state_dict().items() if not same_bits(reference[n], tensor)
        ],
        "equal": sum(same_bits(reference[name], ours[name]) for name in ours),
        "dtype_when_loaded": str(loaded.dtype),
    }


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in type, shape and every bit."""
    both_bfloat16 = one.dtype == other.dtype == torch.bfloat16
    return both_bfloat16 and bool(torch.equal(one.view(torch.int16), other.view(torch.int16)))


def compare_tokenizers(gguf: Path, folder: Path) -> dict[str, object]:
    """Ids, texts decoded back, and rendered chats.

    transformers cuts this family's text without first setting every digit apart, which its own tokenizer.json and
    llama.cpp do ("smollm"). The reference gets that step here; `plain_differences` tells what it changes.
    """
    ours, reference = (
        AutoTokenizer.from_pretrained(folder),
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name),
    )
    texts = strings()
    plain = [text for text in texts if ours(text).input_ids != reference(text).input_ids]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    reference.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return {
        "strings": len(texts),
        "different": [text for text in texts if ours(text).input_ids != reference(text).input_ids],
        "plain_differences": plain,
        "not_restored": [text for text in texts if ours.decode(ours(text).input_ids) != text],
        "chats_equal": all(
            ours.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
            == reference.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
            for chat in conversations()
            for prompt in (True, False)
        ),
        "chat_text": ours.apply_chat_template(conversations()[0], tokenize=False, add_generation_prompt=True),
        "chat_ids": ours.apply_chat_template(conversations()[0], add_generation_prompt=True)["input_ids"],
        "special": [ours.bos_token, ours.eos_token, ours.unk_token, ours.pad_token],
        "reference_special": [reference.bos_token, reference.eos_token, reference.unk_token, reference.pad_token],
    }


if __name__ == "__main__":
    file, converted = Path(sys.argv[1]), Path(sys.argv[2])
    result = {"tensors": compare_tensors(file, converted), "tokenizers": compare_tokenizers(file, converted)}
    sys.stdout.write("\n" + json.dumps(result))
