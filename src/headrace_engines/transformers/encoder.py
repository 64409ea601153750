"""A folder with an encoder becomes a served embedding model, or a reason why not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import transformers

from headrace_engines.serving.embedder import EmbedderLimits
from headrace_engines.serving.generator import OnDeath
from headrace_engines.serving.heap import give_back
from headrace_engines.transformers.checkpoint import load_weights
from headrace_engines.transformers.embedder import EncoderEmbedder
from headrace_engines.transformers.packed import pack
from headrace_engines.transformers.pooling import Pooling, read_pooling

MAX_BATCH_INPUTS = 256

UNBOUNDED_TOKENS = 2048
"""Tokens of one input where nothing bounds them: neither the command nor the folder, and positions are relative."""

_POSITIONS_AFTER_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
"""Their first position comes after the padding token's id: a table of 514 holds 512 tokens."""


def load_embedder(
    folder: Path,
    config: Any,
    *,
    dtype: str,
    device: str,
    threads: int | None,
    max_model_len: int | None,
    own_code: bool,
    loop: asyncio.AbstractEventLoop,
    on_death: OnDeath,
) -> EncoderEmbedder:
    """Read weights and pooling, and start the model's thread.

    Raises:
        FatalError: They cannot be served; it says why.
    """
    text_config = config.get_text_config()
    pooling = read_pooling(folder, text_config.hidden_size, device)
    loader = transformers.AutoModel
    model = load_weights(folder, config, loader, dtype, unused="pooler.", own_code=own_code).to(device).eval()
    if not own_code:
        pack(model)
    give_back()  # what loading copied
    model.config.get_text_config().use_cache = False  # of a decoder: nothing follows what it has read
    own = [pooling.max_tokens, max_model_len, _positions(text_config)]
    limits = EmbedderLimits(
        max_input_tokens=min((tokens for tokens in own if tokens), default=UNBOUNDED_TOKENS),
        dimensions=pooling.width or text_config.hidden_size * len(pooling.modes),
        max_batch_inputs=MAX_BATCH_INPUTS,
        vocab_size=text_config.vocab_size,
    )
    return EncoderEmbedder(
        lambda token_ids, mask: encode(model, pooling, token_ids, mask),
        pad_id=text_config.pad_token_id or 0,
        limits=limits,
        device=device,
        threads=threads,
        loop=loop,
        on_death=on_death,
    )


def encode(model: Any, pooling: Pooling, token_ids: Any, mask: Any) -> Any:
    """Vectors of a batch."""
    states = model(input_ids=token_ids, attention_mask=mask).last_hidden_state
    return pooling(states, mask)


def _positions(config: Any) -> int | None:
    """How many tokens there are positions for; None where they are relative."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    return positions - config.pad_token_id - 1 if config.model_type in _POSITIONS_AFTER_PADDING else positions
