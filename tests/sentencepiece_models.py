"""SentencePiece models trained here on a few hundred sentences, as the families train theirs."""

from __future__ import annotations

import io
import random
from functools import lru_cache
from typing import Any

import sentencepiece

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "LlamaTokenizer",
        {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
        | {"remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True},
    ),
    "gemma": (
        "GemmaTokenizer",
        {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
        | {"remove_extra_whitespaces": False, "add_dummy_prefix": False}
        | {"user_defined_symbols": ["<start_of_turn>", "<end_of_turn>", "\n\n"]},
    ),
    "t5": (
        "T5Tokenizer",
        {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"}
        | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    ),
    "unigram-bytes": (
        "LlamaTokenizer",
        {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity"}
        | {"remove_extra_whitespaces": False},
    ),
}
"""``tokenizer_class``, and how the model is trained."""

_TEXT = (
    "river water dam turbine flow gate channel head race power the of and to in is it that for was on with as be at by "
    "Wasser Strömung Kraftwerk übergroß čeština señor façade 12 345 2026 naïve ﬁre ½ 東京 水力 発電 Мощность река"
)
_WORDS = _TEXT.split()

TEXTS = (
    "",
    " ",
    "river",
    " river",
    "river  water   flow ",
    "The turbine's head is 12.5 m; 2026!",
    "line\nbreak\n\nand\ttab",
    "  leading and trailing  ",
    "Übergröße, naïve façade, señor čeština",
    "ﬁre ½ Ⅷ ① ｆｕｌｌｗｉｄｔｈ",
    "東京の水力発電は強い。",
    "Мощность реки",
    "emoji 🌊🏞️ and 👩‍👩‍👧",
    "▁already ▁marked▁",
    "zero\u200bwidth\u00a0no-break",
    "e\u0301 combined",
    "def f(x):\n    return x  # code",
)
"""In several scripts, with spaces at every place."""


@lru_cache
def trained(family: str) -> bytes:
    """A model of 400 pieces; the same each time."""
    rng = random.Random(1)
    sentences = [" ".join(rng.choices(_WORDS, k=rng.randint(3, 12))) + rng.choice(".!?,") for _ in range(600)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=500 if FAMILIES[family][1].get("byte_fallback") else 250,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": -1} | FAMILIES[family][1],
    )
    return written.getvalue()
