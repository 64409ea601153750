"""Prompts on their way into the cache, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from headrace_engines.transformers.cache_cost import CacheCost
from headrace_engines.transformers.forward import Forward
from headrace_engines.transformers.group import Group
from headrace_engines.transformers.sequence import Sequence

ENCODED_PER_TOKEN = 2
"""Tokens of an encoder that count as one here: they pass half the layers and no vocabulary.

With t5-small (bart-base) in bfloat16 with AMX, 128 of them and the first of the answer cost 56 (159) ms of CPU, and
the next token of 32 others 36 (69) ms.
"""


class _Prompt:
    """A sequence whose prompt is being read.

    Attributes:
        done: Tokens in the state.
        state: None before the first piece.
    """

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.done = 0
        self.state: Any = None


class Piece(NamedTuple):
    """What one pass reads: whole prompts together, or a part of one.

    Attributes:
        prompts: One, or several of which nothing was read yet.
        tokens: Of a single prompt, how many to read.
        computed_tokens: What the pass computes, padding included, an encoder's tokens as they count here.
    """

    forward: Forward
    prompts: list[_Prompt]
    tokens: int
    computed_tokens: int

    @property
    def sequences(self) -> list[Sequence]:
        """Whose prompts they are."""
        return [prompt.sequence for prompt in self.prompts]

    def read(self) -> tuple[Group | None, Any]:
        """Compute it: the sequences, ready for their first token, and its logits; None while a prompt goes on."""
        first = self.prompts[0]
        if first.state is None:
            first.state = self.forward.start([one.token_ids[: one.prompt_len] for one in self.sequences])
        if len(self.prompts) > 1:
            every = [self.forward.token_ids(prompt.sequence) for prompt in self.prompts]
            lengths = [len(token_ids) for token_ids in every]
            logits = self.forward.run(first.state, every, lengths, lengths)
            return Group(self.forward, self.sequences, first.state, lengths), logits
        token_ids = self.forward.token_ids(first.sequence)
        new_ids = token_ids[first.done : first.done + self.tokens]
        first.done += len(new_ids)
        logits = self.forward.run(first.state, [new_ids], [first.done], [len(token_ids)])
        if first.done < len(token_ids):
            return None, None
        return Group(self.forward, self.sequences, first.state, [first.done]), logits


class PromptQueue:
    """The sequences whose prompts are not read yet.

    Args:
        forward: Reads them.
        cost: What a token takes in the cache.
    """

    def __init__(self, forward: Forward, cost: CacheCost) -> None:
        self._forward = forward
        self._cost = cost
        self._prompts: list[_Prompt] = []
        self._turn = 0

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def held_bytes(self) -> int:
        """What their caches take once they are read."""
        return sum(self.bytes_of(prompt.sequence) for prompt in self._prompts)

    def bytes_of(self, sequence: Sequence) -> int:
        """What a sequence's cache takes once its tokens so far are read."""
        return self._block_bytes([sequence])

    def add(self, sequence: Sequence) -> None:
        """Read this one, too."""
        self._prompts.append(_Prompt(sequence))

    def remove(self, sequences: Iterable[Sequence]) -> None:
        """Forget these and what was read of them."""
        gone = set(sequences)
        self._prompts = [prompt for prompt in self._prompts if prompt.sequence not in gone]

    def next_piece(self, limit: int, spare_bytes: int) -> Piece:
        """What to read next.

        The oldest prompt and the shortest take turns, so that neither waits for a long one to end.

        Args:
            limit: Tokens to read at most; what cannot be read in pieces may be more.
            spare_bytes: What padding may take beyond `held_bytes`.
        """
        self._turn += 1
        first = min(self._prompts, key=self._left) if self._turn % 2 else self._prompts[0]
        abilities = self._forward.abilities
        if first.done or self._left(first) >= limit:
            tokens = min(limit, self._left(first)) if abilities.chunks else self._left(first)
            return Piece(self._forward, [first], tokens, tokens)
        together = self._together(first, limit, spare_bytes)
        return Piece(self._forward, together, self._left(first), len(together) * max(map(self._left, together)))

    def _together(self, first: _Prompt, limit: int, spare_bytes: int) -> list[_Prompt]:
        """What is read in the same pass as this prompt, which is unread."""
        chosen = [first]
        for prompt in self._prompts if self._forward.abilities.pads else ():
            if prompt is not first and not prompt.done:
                more = [*chosen, prompt]
                longest = max(self._left(one) for one in more)
                if len(more) * longest <= limit and self._padding_bytes(more) <= spare_bytes:
                    chosen = more
        return chosen

    def _padding_bytes(self, prompts: list[_Prompt]) -> int:
        apart_bytes = sum(self.bytes_of(prompt.sequence) for prompt in prompts)
        return self._block_bytes([prompt.sequence for prompt in prompts]) - apart_bytes

    def _block_bytes(self, sequences: list[Sequence]) -> int:
        columns = max(len(self._forward.token_ids(sequence)) for sequence in sequences)
        encoded_columns = max(map(self._forward.encoded_len, sequences))
        return self._cost.block_bytes(len(sequences), self._forward.with_growth(columns), encoded_columns)

    def _left(self, prompt: _Prompt) -> int:
        """Tokens to read, and what an encoder's count."""
        encoded = self._forward.encoded_len(prompt.sequence) // ENCODED_PER_TOKEN
        return encoded + len(self._forward.token_ids(prompt.sequence)) - prompt.done
