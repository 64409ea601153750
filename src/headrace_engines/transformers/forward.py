"""One pass through the model, for rows of several sequences."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, EncoderDecoderCache

from headrace_engines.transformers.padded_cache import can_be_merged, has_recurrent_state
from headrace_engines.transformers.sequence import Sequence
from headrace_engines.transformers.sharing import may_share


class Abilities(NamedTuple):
    """What a model's passes may do.

    Attributes:
        shares: Several sequences at once, and a cache that rows join and leave; else one sequence a pass.
        chunks: A prompt in pieces.
    """

    shares: bool
    chunks: bool


class Forward(ABC):
    """How a kind of model is run. A state is what it keeps of the rows between passes."""

    abilities: Abilities

    @abstractmethod
    def token_ids(self, sequence: Sequence) -> list[int]:
        """The tokens that the passes of a sequence read, from the first on."""

    @abstractmethod
    def start(self, prompt_ids: list[int]) -> Any:
        """The state of a sequence of which nothing was read yet."""

    @abstractmethod
    def run(self, state: Any, token_ids: list[list[int]], lengths: list[int]) -> Any:
        """Logits after each row's last token, of shape (rows, vocabulary); the state takes the new tokens in.

        Args:
            state: Of as many rows.
            token_ids: New tokens of each row. They may differ in number only while nothing was read yet.
            lengths: Tokens of each row so far, the new ones included.
        """

    @abstractmethod
    def cache_of(self, state: Any) -> Any:
        """The cache of transformers' in a state; None where there is none."""


class CausalForward(Forward):
    """Passes of a decoder-only model.

    Args:
        model: A causal language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._config = model.config.get_text_config(decoder=True)
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in ("past_key_values", "cache_params") if name in parameters), None)
        self._takes_positions = "position_ids" in parameters
        # As `generate` does: logits of the last position only, where the architecture can.
        self._keep_last = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        cache = DynamicCache(config=self._config)
        shares = self._cache_name is not None and may_share(self._config) and can_be_merged(cache)
        self.abilities = Abilities(shares=shares, chunks=shares and not has_recurrent_state(cache))

    def token_ids(self, sequence: Sequence) -> list[int]:
        """Prompt and answer."""
        return sequence.token_ids

    def start(self, _prompt_ids: list[int]) -> Any:
        """An empty cache; None for a model that has none and reads the whole sequence each time."""
        return None if self._cache_name is None else DynamicCache(config=self._config)

    def run(self, state: Any, token_ids: list[list[int]], lengths: list[int]) -> Any:
        """Logits after each row's last token."""
        new = max(len(row) for row in token_ids)
        columns = new if state is None else _columns(state) + new
        device = self._model.device
        padded = torch.tensor([[0] * (new - len(row)) + row for row in token_ids], device=device)
        arguments: dict[str, Any] = {"input_ids": padded, "use_cache": state is not None, **self._keep_last}
        if self._cache_name is not None:
            arguments[self._cache_name] = state
        ends = torch.tensor(lengths, device=device)[:, None]
        if min(lengths) < columns:
            arguments["attention_mask"] = (torch.arange(columns, device=device) >= columns - ends).long()
        if self._takes_positions:
            arguments["position_ids"] = (ends - new + torch.arange(new, device=device)).clamp(min=0)
        return self._model(**arguments).logits[:, -1, :]

    def cache_of(self, state: Any) -> Any:
        """The state itself."""
        return state


class EncodedState(NamedTuple):
    """What an encoder-decoder keeps of a sequence.

    Attributes:
        cache: The decoder's own keys and values, and those of what it reads.
        encoded: The encoder's answer to the prompt.
    """

    cache: Any
    encoded: Any


class EncoderDecoderForward(Forward):
    """Passes of an encoder-decoder model: the prompt is the encoder's, the answer the decoder's.

    Args:
        model: A sequence-to-sequence language model of transformers.
    """

    abilities = Abilities(shares=False, chunks=False)

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.generation_config
        start_id = config.decoder_start_token_id
        self._start_id = int(config.bos_token_id if start_id is None else start_id)

    def token_ids(self, sequence: Sequence) -> list[int]:
        """The decoder's start, and the answer."""
        return [self._start_id, *sequence.token_ids[sequence.prompt_len :]]

    def start(self, prompt_ids: list[int]) -> EncodedState:
        """The prompt, encoded."""
        config = self._model.config.get_text_config(decoder=True)
        cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        prompt = torch.tensor([prompt_ids], device=self._model.device)
        return EncodedState(cache, self._model.get_encoder()(input_ids=prompt))

    def run(self, state: EncodedState, token_ids: list[list[int]], lengths: list[int]) -> Any:
        """Logits after one sequence's last token."""
        assert len(lengths) == 1  # it shares no pass
        output = self._model(
            encoder_outputs=state.encoded,
            decoder_input_ids=torch.tensor(token_ids, device=self._model.device),
            past_key_values=state.cache,
            use_cache=True,
        )
        return output.logits[:, -1, :]

    def cache_of(self, state: EncodedState) -> Any:
        """The decoder's, with what it keeps of the prompt."""
        return state.cache


PROBE_TOKENS = 2


def probe(forward: Forward) -> Any:
    """Compute something tiny: the cache that `PROBE_TOKENS` tokens of one sequence leave behind.

    Raises:
        Exception: Whatever keeps the model from computing anything.
    """
    token_ids = [0] * PROBE_TOKENS
    with torch.inference_mode():
        state = forward.start(token_ids)
        forward.run(state, [token_ids], [PROBE_TOKENS])
    return forward.cache_of(state)


def _columns(cache: Any) -> int:
    return int(cache.get_seq_length()) if any(hasattr(layer, "get_seq_length") for layer in cache.layers) else 0
