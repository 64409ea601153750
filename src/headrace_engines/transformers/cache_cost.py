"""What sequences cost in cache memory, before it is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, EncoderDecoderCache

from headrace_engines.transformers.padded_cache import GROWTH_COLUMNS, PaddedLayer, cache_bytes


class Window(NamedTuple):
    """A layer that keeps the newest tokens only.

    Attributes:
        tokens: How many.
        token_bytes: What one of these takes.
    """

    tokens: int
    token_bytes: int


class CacheCost(NamedTuple):
    """The price of a block of rows and columns.

    Attributes:
        token_bytes: What a token takes in the layers that keep every token.
        windows: The layers that do not.
        row_bytes: What a row takes whatever its length.
    """

    token_bytes: int
    windows: tuple[Window, ...] = ()
    row_bytes: int = 0

    @property
    def grows(self) -> bool:
        """Whether a longer row takes more."""
        return bool(self.token_bytes or self.windows)

    def block_bytes(self, rows: int, columns: int, encoded_columns: int = 0) -> int:
        """What a block takes that has room for so many columns, and holds so many of an encoder's."""
        # A window's block has the same room to grow, and is copied to its beginning when that is used up.
        windows = sum(min(columns, window.tokens + GROWTH_COLUMNS) * window.token_bytes for window in self.windows)
        return rows * ((columns + encoded_columns) * self.token_bytes + windows + self.row_bytes)


def cost_of(cache: Any, tokens: int) -> CacheCost:
    """The price, from a cache of one sequence of this many tokens, which is shorter than any window."""
    if cache is None:
        return CacheCost(0)
    if isinstance(cache, EncoderDecoderCache):  # so many tokens were read by the encoder, and so many by the decoder
        return CacheCost(cache_bytes(cache) // (2 * tokens))
    windows, token_bytes = [], 0
    for layer in cache.layers:
        kept = sum(getattr(layer, name).nbytes for name in ("keys", "values") if getattr(layer, name, None) is not None)
        if isinstance(layer, PaddedLayer) and layer.window is not None:
            windows.append(Window(layer.window - 1, kept // tokens))
        elif type(layer) is DynamicSlidingWindowLayer:
            windows.append(Window(layer.sliding_window - 1, kept // tokens))
        elif isinstance(layer, DynamicLayer):
            token_bytes += kept // tokens
    row_bytes = cache_bytes(cache) - tokens * (token_bytes + sum(window.token_bytes for window in windows))
    return CacheCost(token_bytes, tuple(windows), row_bytes)
