"""Which sequences are computed together in a step."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from headrace_engines.serving.fatal import is_out_of_memory
from headrace_engines.serving.generator import GenerationFailed, TokenEvent
from headrace_engines.serving.heap import FreedBlocks, give_back
from headrace_engines.transformers.cache_cost import CacheCost
from headrace_engines.transformers.forward import Forward
from headrace_engines.transformers.group import Group
from headrace_engines.transformers.pace import Pace
from headrace_engines.transformers.prompts import PromptQueue
from headrace_engines.transformers.sampler import pick_tokens
from headrace_engines.transformers.sequence import Sequence

_log = logging.getLogger(__name__)

_PADDING_ALLOWED = 128
"""Columns of padding a row that cost less than a pass more: a group's short rows are always put together."""


class Outcome(NamedTuple):
    """What one step gave one sequence."""

    sequence: Sequence
    event: TokenEvent | GenerationFailed


class Batch(ABC):
    """The sequences being computed. Lives in the model's thread; a new batching policy is a new subclass."""

    @abstractmethod
    def __len__(self) -> int:
        """How many sequences are running."""

    @abstractmethod
    def has_room(self, sequence: Sequence) -> bool:
        """Whether this sequence may be added now; one may always be added to an empty batch."""

    @abstractmethod
    def add(self, sequence: Sequence) -> None:
        """Take a sequence on."""

    @abstractmethod
    def step(self) -> list[Outcome]:
        """Compute something. Sequences that end, fail or were cancelled leave the batch."""

    @property
    @abstractmethod
    def cache_used(self) -> float:
        """The share of the cache's memory that is in use."""


class DynamicBatch(Batch):
    """One token of every sequence in each step, sequences of like length in one pass; prompts apart, in bounded pieces.

    Memory is not set aside for what a sequence may become, only for what it is. When the budget is used up, the
    youngest sequence gives its cache back and is computed anew later; the oldest always goes on.

    Args:
        forward: Runs the model.
        max_running: Sequences at once.
        budget_bytes: For all caches together.
        cost: What a token takes of that.
        give_back: Gives the memory of caches that were freed back, where they lie.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        max_running: int,
        budget_bytes: int,
        cost: CacheCost,
        give_back: Callable[[], object] = give_back,
    ) -> None:
        self._max_running = max_running
        self._budget_bytes = budget_bytes
        self._cost = cost
        self._forward = forward
        self._prompts = PromptQueue(forward, cost)
        self._pace = Pace()
        self._freed = FreedBlocks(budget_bytes, give_back)
        self._groups: list[Group] = []
        self._displaced: list[Sequence] = []  # oldest first
        self._arrivals: dict[Sequence, None] = {}  # in the order of arrival

    def __len__(self) -> int:
        return len(self._arrivals)

    @property
    def cache_used(self) -> float:
        """The share of the budget that the caches take, room to grow included."""
        return self._used_bytes() / self._budget_bytes

    def has_room(self, sequence: Sequence) -> bool:
        """Whether it may be one more, and its prompt fits what is left of the budget."""
        if not self._arrivals:
            return True
        return len(self) < self._max_running and not self._displaced and self._fits(sequence)

    def add(self, sequence: Sequence) -> None:
        """Take a sequence on; its prompt is next."""
        self._arrivals[sequence] = None
        self._prompts.add(sequence)

    def step(self) -> list[Outcome]:
        """A piece of the prompts that wait, then one token of every sequence that is past its prompt."""
        self._drop_cancelled()
        self._reread()
        self._make_room()
        outcomes = []
        decoding = list(self._groups)
        if self._prompts:
            outcomes += self._read_prompts(sum(group.rows for group in decoding))
        if decoding:
            began_s = time.perf_counter()
            for group in decoding:
                outcomes += self._decode(group)
            self._pace.decoded(time.perf_counter() - began_s)
        return outcomes

    def _decode(self, group: Group) -> list[Outcome]:
        copied_bytes = group.held_bytes(self._cost) if group.room_after_step > group.room else 0
        outcomes = self._outcomes(group.sequences, group.step)
        if copied_bytes:  # into blocks with room to grow
            self._freed.add(copied_bytes, self._used_bytes())
        self._keep_going(group, outcomes)
        return outcomes

    def _read_prompts(self, decoding: int) -> list[Outcome]:
        limit = self._pace.piece_tokens(len(self._prompts), decoding)
        piece = self._prompts.next_piece(limit, self._budget_bytes - self._used_bytes())
        began_s = time.perf_counter()
        try:
            group, logits = piece.read()
        except Exception as error:
            _log.exception("A prompt failed.")
            self._prompts.remove(piece.sequences)
            return self._ended([Outcome(sequence, failed(error)) for sequence in piece.sequences])
        self._pace.read(piece.computed_tokens, time.perf_counter() - began_s)
        if group is None:
            return []
        self._prompts.remove(piece.sequences)
        outcomes = self._outcomes(group.sequences, lambda: logits)
        self._groups.append(group)
        self._keep_going(group, outcomes)
        if group in self._groups:
            self._find_company(group)
        return outcomes

    def _outcomes(self, sequences: list[Sequence], compute: Callable[[], Any]) -> list[Outcome]:
        try:
            events = pick_tokens([(one.sampler, one.token_ids) for one in sequences], compute())
        except Exception as error:
            _log.exception("A step failed.")
            events = [failed(error)] * len(sequences)
        outcomes = []
        for sequence, event in zip(sequences, events, strict=True):
            if isinstance(event, GenerationFailed):
                outcomes.append(Outcome(sequence, event))
                continue
            sequence.token_ids.append(event.token_id)
            logprobs = () if event.logprob is None else (event.logprob,)
            outcomes.append(Outcome(sequence, TokenEvent((event.token_id,), sequence.finish_reason, logprobs)))
        return self._ended(outcomes)

    def _ended(self, outcomes: list[Outcome]) -> list[Outcome]:
        for sequence, event in outcomes:
            if _is_last(event):
                del self._arrivals[sequence]
        return outcomes

    def _keep_going(self, group: Group, outcomes: list[Outcome]) -> None:
        self._keep(group, [row for row, outcome in enumerate(outcomes) if not _is_last(outcome.event)])

    def _keep(self, group: Group, rows: list[int]) -> None:
        if len(rows) < group.rows:
            held_bytes = group.held_bytes(self._cost)
            group.regroup(rows)
            self._freed.add(held_bytes, self._used_bytes())
        if not rows:
            self._groups.remove(group)

    def _find_company(self, newcomer: Group) -> None:
        """Let a group that is past its prompts join the one where it makes the least padding, if that is little."""
        if not self._forward.abilities.shares:
            return
        others = [group for group in self._groups if group is not newcomer and self._may_join(newcomer, group)]
        if others:
            host = min(others, key=lambda group: _distance(group, newcomer))
            self._groups.remove(newcomer)
            held_bytes = newcomer.held_bytes(self._cost) + host.held_bytes(self._cost)
            host.regroup(range(host.rows), newcomer)
            self._freed.add(held_bytes, self._used_bytes())

    def _may_join(self, newcomer: Group, host: Group) -> bool:
        rows, columns = newcomer.rows + host.rows, max(newcomer.columns, host.columns)
        encoded_columns = max(newcomer.encoded_columns, host.encoded_columns)
        allowed = 2 * (newcomer.tokens + host.tokens) + rows * _PADDING_ALLOWED
        if self._cost.grows and rows * (columns + encoded_columns) > allowed:
            return False
        apart_bytes = newcomer.bytes_after_step(self._cost) + host.bytes_after_step(self._cost)
        together_bytes = self._cost.block_bytes(rows, self._forward.with_growth(columns), encoded_columns)
        return self._used_bytes() - apart_bytes + together_bytes <= self._budget_bytes

    def _drop_cancelled(self) -> None:
        cancelled = {sequence for sequence in self._arrivals if sequence.cancelled}
        if not cancelled:
            return
        self._prompts.remove(cancelled)
        self._displaced = [sequence for sequence in self._displaced if sequence not in cancelled]
        for group in list(self._groups):
            self._keep(group, [row for row, sequence in enumerate(group.sequences) if sequence not in cancelled])
        for sequence in cancelled:
            del self._arrivals[sequence]

    def _reread(self) -> None:
        for group in list(self._groups):
            for sequence in group.to_be_reread:
                self._take_out(sequence)
                self._prompts.add(sequence)

    def _make_room(self) -> None:
        """Displace the youngest until the next step fits; take the displaced on again when there is room."""
        while self._used_bytes() > self._budget_bytes:
            computed = [sequence for sequence in self._arrivals if sequence not in self._displaced]
            if len(computed) == 1:
                break  # the budget holds any one sequence
            self._displace(computed[-1])
        while self._displaced and self._fits(self._displaced[0]):
            self._prompts.add(self._displaced.pop(0))

    def _displace(self, sequence: Sequence) -> None:
        self._prompts.remove([sequence])
        self._take_out(sequence)
        self._displaced.insert(0, sequence)

    def _take_out(self, sequence: Sequence) -> None:
        for group in self._groups:
            if sequence in group.sequences:
                self._keep(group, [row for row, other in enumerate(group.sequences) if other is not sequence])
                break

    def _fits(self, sequence: Sequence) -> bool:
        return self._used_bytes() + self._prompts.bytes_of(sequence) <= self._budget_bytes

    def _used_bytes(self) -> int:
        """What everything takes once the next step is done."""
        return self._prompts.held_bytes + sum(group.bytes_after_step(self._cost) for group in self._groups)


def _distance(one: Group, other: Group) -> int:
    """Columns of padding that a row gets when they are put together."""
    return abs(one.columns - other.columns) + abs(one.encoded_columns - other.encoded_columns)


def _is_last(event: TokenEvent | GenerationFailed) -> bool:
    return isinstance(event, GenerationFailed) or event.finish_reason is not None


def failed(error: Exception) -> GenerationFailed:
    """What an exception means for the requests that it met."""
    if isinstance(error, GenerationFailed):
        return error
    if is_out_of_memory(error):
        return GenerationFailed("ENGINE_OUT_OF_MEMORY", "The engine ran out of memory while computing this request.")
    return GenerationFailed("ENGINE_DIED", f"The engine failed while computing this request: {type(error).__name__}.")
