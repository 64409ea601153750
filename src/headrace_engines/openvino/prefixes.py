"""What the pipeline's cache holds of earlier texts, as far as that can be told from outside."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence


class Prefixes:
    """Follows the blocks of GenAI's prefix cache, which does not tell what is in it.

    It keeps whole blocks of what was computed, each known by all tokens up to its end, until there is room for no more;
    then the one that was used longest ago goes. So does this. Where the two differ a piece of a prompt turns out longer
    or shorter than was meant, and nothing else.

    Args:
        blocks: How many there are.
        block_tokens: Tokens of each.

    Attributes:
        changes: How often something was added: as long as it is the same, so is what is kept.
    """

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self._blocks = blocks
        self._block_tokens = block_tokens
        self.changes = 0
        self._kept: OrderedDict[int, None] = OrderedDict()

    def keep(self, token_ids: Sequence[int]) -> None:
        """A text that was computed."""
        self.changes += 1
        for key in self._keys(token_ids):
            self._kept[key] = None
            self._kept.move_to_end(key)
        while len(self._kept) > self._blocks:
            self._kept.popitem(last=False)

    def kept(self, token_ids: Sequence[int]) -> int:
        """Tokens at the beginning of a text that need not be computed again."""
        blocks = 0
        for key in self._keys(token_ids):
            if key not in self._kept:
                break
            self._kept.move_to_end(key)
            blocks += 1
        return blocks * self._block_tokens

    def _keys(self, token_ids: Sequence[int]) -> Iterator[int]:
        """One of each whole block, which depends on all before it."""
        key = 0
        for end in range(self._block_tokens, len(token_ids) + 1, self._block_tokens):
            key = hash((key, *token_ids[end - self._block_tokens : end]))
            yield key
