"""The seam between the HTTP shell and whatever computes embeddings: the counterpart of `serving.generator`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec


class EmbedderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one embedder can take.

    Attributes:
        max_input_tokens: Tokens of one input, special tokens included.
        dimensions: Length of every vector.
        max_batch_inputs: Inputs of one call of `Embedder.embed`; the shell makes several calls of a request with more.
        vocab_size: Token ids are below this.
        matryoshka: Whether a vector cut short and normalised again is still a good one: the model was trained for it.
    """

    max_input_tokens: int
    dimensions: int
    max_batch_inputs: int
    vocab_size: int
    matryoshka: bool = False


class Embedder(ABC):
    """Computes one vector per sequence of token ids. Called on the event loop's thread, which it does not block."""

    limits: EmbedderLimits

    @abstractmethod
    async def embed(self, inputs: list[list[int]], computed: Callable[[int], object]) -> list[list[float]]:
        """The vectors of `inputs`, in their order, each of `EmbedderLimits.dimensions` finite numbers.

        Pooled and normalised as the model's makers say. When the awaiting task is cancelled (the client hung up),
        what was not computed yet is not.

        Args:
            inputs: One to `max_batch_inputs` sequences of one to `max_input_tokens` token ids.
            computed: Called with the tokens of an input as soon as that is computed, by which those who look on see
                that the engine works.

        Raises:
            QueueFull: Too much is waiting.
            GenerationFailed: These inputs cannot be computed; others may.
        """
