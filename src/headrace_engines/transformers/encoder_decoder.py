"""Passes of encoder-decoder models, for rows of several sequences.

A row is two: what the encoder made of the prompt, aligned at its beginning as encoders count positions, and what the
decoder has read, aligned at its end as in every cache here::

    column      0   1   2   3   4  |  0   1   2
    row 0       p   q   r   .   .  |  .   s   a
    row 1       t   u   v   w   x  |  s   b   c

T5's position bias is one of distances, and two columns are as far apart as their tokens, so it needs nothing more.
Tables of absolute positions would take a column's number for its token's: `RowPositions` asks them for the token's.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from headrace_engines.transformers.forward import Abilities, Forward, columns_of, mask_of_ends, padded_at_begin
from headrace_engines.transformers.padded_cache import Part, merged, merged_at_begin
from headrace_engines.transformers.sequence import Sequence


class EncodedState:
    """What an encoder-decoder keeps of its rows.

    Attributes:
        cache: The decoder's own keys and values, and those of what it reads.
        encoded_lens: Tokens of each row's prompt.
        encoded: The encoder's answer to the prompts; None once the decoder has made keys and values of it.
    """

    def __init__(self, cache: Any, encoded_lens: list[int], encoded: Any = None) -> None:
        self.cache = cache
        self.encoded_lens = encoded_lens
        self.encoded = encoded


class RowPositions(torch.nn.Module):  # type: ignore[misc]  # torch is not in this environment
    """A decoder's table of positions, that may be asked for each row's own.

    Args:
        table: The decoder's.

    Attributes:
        positions: Of each row's new tokens, of shape (rows, new); None leaves the table as it is.
    """

    def __init__(self, table: torch.nn.Module) -> None:
        super().__init__()
        self.table = table
        self.positions: Any = None

    def forward(self, tokens: Any, past_len: int = 0, position_ids: Any = None) -> Any:
        """As the table, whose rows were all alike."""
        if self.positions is None:
            return self.table(tokens, past_len, position_ids=position_ids)
        every = self.table(tokens, past_len, position_ids=self.positions.flatten())
        return every.reshape(*self.positions.shape, -1)


class EncoderDecoderForward(Forward):
    """Passes of an encoder-decoder model: the prompt is the encoder's, the answer the decoder's.

    Args:
        model: A sequence-to-sequence language model of transformers.
    """

    abilities = Abilities(shares=True, chunks=False, pads=True)

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.generation_config
        start_id = config.decoder_start_token_id
        self._start_id = int(config.bos_token_id if start_id is None else start_id)
        self._config = model.config.get_text_config(decoder=True)
        self._positions = _row_positions(model.get_decoder())

    def token_ids(self, sequence: Sequence) -> list[int]:
        """The decoder's start, and the answer."""
        return [self._start_id, *sequence.token_ids[sequence.prompt_len :]]

    def encoded_len(self, sequence: Sequence) -> int:
        """Its prompt."""
        return sequence.prompt_len

    def start(self, prompts: list[list[int]]) -> EncodedState:
        """The prompts, encoded."""
        lens = [len(prompt) for prompt in prompts]
        columns = max(lens)
        padded = [prompt + [0] * (columns - len(prompt)) for prompt in prompts]
        arguments = {"input_ids": torch.tensor(padded, device=self._model.device)} | self._mask(lens)
        cache = EncoderDecoderCache(DynamicCache(config=self._config), DynamicCache(config=self._config))
        return EncodedState(cache, lens, self._model.get_encoder()(**arguments))

    def merged(self, parts: SequenceOf[Part]) -> EncodedState:
        """One cache for all, and what was read for all."""
        written = [Part(part.state.cache.self_attention_cache, part.rows, part.lengths) for part in parts]
        own = merged(written, self.most_columns)
        read = merged_at_begin([Part(part.state.cache.cross_attention_cache, part.rows, _lens(part)) for part in parts])
        return EncodedState(EncoderDecoderCache(own, read), [length for part in parts for length in _lens(part)])

    def run(self, state: EncodedState, token_ids: list[list[int]], lengths: list[int], _: list[int]) -> Any:
        """Logits after each row's last token."""
        new = max(len(row) for row in token_ids)
        columns = columns_of(state.cache.self_attention_cache) + new
        ends = torch.tensor(lengths, device=self._model.device)[:, None]
        arguments = self._mask(state.encoded_lens)
        if min(lengths) < columns:
            arguments["decoder_attention_mask"] = mask_of_ends(ends, columns)
            if self._positions is not None:
                first = ends - new
                self._positions.positions = (first + torch.arange(new, device=ends.device)).clamp(min=0)
        try:
            output = self._model(
                encoder_outputs=state.encoded or self._shape_of_encoded(state),
                decoder_input_ids=padded_at_begin(token_ids, self._model.device),
                past_key_values=state.cache,
                use_cache=True,
                **arguments,
            )
        finally:
            if self._positions is not None:
                self._positions.positions = None
        state.encoded = None
        return output.logits[:, -1, :]

    def cache_of(self, state: EncodedState) -> Any:
        """The decoder's, with what it keeps of the prompt."""
        return state.cache

    def _mask(self, lens: list[int]) -> dict[str, Any]:
        """What hides the ends of shorter prompts, where there are any."""
        columns = max(lens)
        if min(lens) == columns:
            return {}
        device = self._model.device
        shown = torch.arange(columns, device=device) < torch.tensor(lens, device=device)[:, None]
        return {"attention_mask": shown.long()}

    def _shape_of_encoded(self, state: EncodedState) -> Any:
        """Of the encoder's answer the models want to know no more than how many columns it had."""
        shape = (len(state.encoded_lens), max(state.encoded_lens), 1)
        nothing = torch.zeros((1, 1, 1), dtype=self._model.dtype, device=self._model.device)
        return BaseModelOutput(last_hidden_state=nothing.expand(shape))


def _lens(part: Part) -> list[int]:
    return [part.state.encoded_lens[row] for row in part.rows]


def _row_positions(decoder: Any) -> RowPositions | None:
    """The decoder's table of positions, replaced; None where positions are relative."""
    table = getattr(decoder, "embed_positions", None)
    if table is None:
        return None
    decoder.embed_positions = RowPositions(table)
    return decoder.embed_positions  # type: ignore[no-any-return]  # transformers has no types
