"""From a sequence of tokens to the text of an answer: whole characters, stop strings, counts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace_engines.serving.detokenise import Decode, IncrementalDetokeniser, StopScanner
from headrace_engines.serving.generator import FinishReason, TokenEvent
from headrace_engines.serving.logprobs import LoggedToken, TokenLog

# vLLM's INITIAL_INCREMENTAL_DETOKENIZATION_OFFSET: enough of the prompt to know whether a space comes first.
_CONTEXT_TOKENS = 5


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of an answer.

    Attributes:
        text: May be empty, while a character or a stop string is undecided.
        finish_reason: Set on the last piece.
        tokens: The tokens that are a part of the text up to here, and were not in an earlier piece; only when log
            probabilities are wanted.
    """

    text: str
    finish_reason: FinishReason | None = None
    tokens: tuple[LoggedToken, ...] = ()


class StopRule(msgspec.Struct, frozen=True, kw_only=True):
    """When text ends an answer.

    Attributes:
        strings: Stop strings.
        include: Show the stop string, and the text of a token that ended the sequence.
        min_tokens: Stop strings count only in what comes after this many tokens.
    """

    strings: Sequence[str] = ()
    include: bool = False
    min_tokens: int = 0


class TextReader:
    """Reads one sequence.

    Args:
        decode: Token ids to text.
        prompt_ids: The prompt: its last tokens are the context of the first piece.
        stop: When text ends it.
        log: Keeps log probabilities; None without.
    """

    def __init__(self, decode: Decode, *, prompt_ids: Sequence[int], stop: StopRule, log: TokenLog | None) -> None:
        self.completion_tokens = 0
        self._detokeniser = IncrementalDetokeniser(decode, prompt_ids[-_CONTEXT_TOKENS:])
        self._scanner = StopScanner(stop.strings, include_stop=stop.include)
        self._stop = stop
        self._log = log
        self._text_chars = 0
        self._shown_chars = 0

    def read(self, events: Sequence[TokenEvent]) -> TextDelta:
        """The text of what was made, which may end sooner than the tokens do: then `finish_reason` says so."""
        pieces: list[str] = []
        finish_reason: FinishReason | None = None
        for event in events:
            finish_reason = self._read_event(event, pieces)
            if finish_reason is not None:
                break
        text = "".join(pieces)
        self._shown_chars += len(text)
        return TextDelta(text, finish_reason, self._tokens(ended=finish_reason is not None))

    def _read_event(self, event: TokenEvent, pieces: list[str]) -> FinishReason | None:
        last = len(event.token_ids) - 1
        for index, token_id in enumerate(event.token_ids):
            self.completion_tokens += 1
            if event.finish_reason == "stop" and index == last and not self._stop.include:
                break  # the end-of-sequence token is counted and not shown
            piece = self._detokeniser.push(token_id)
            if self._log is not None:
                start, end = self._text_chars, self._text_chars + len(piece)
                undecided = self._detokeniser.holding
                self._log.add(token_id, event.logprobs[index], start=start, end=end, undecided=undecided)
                self._text_chars = end
            pieces.append(self._scan(piece))
            if self._scanner.hit:
                return "stop"
        if event.finish_reason is not None:
            pieces.append(self._scan(self._detokeniser.flush()))
            if self._scanner.hit:
                return "stop"
            pieces.append(self._scanner.flush())
        return event.finish_reason

    def _scan(self, piece: str) -> str:
        return piece if self.completion_tokens <= self._stop.min_tokens else self._scanner.push(piece)

    def _tokens(self, *, ended: bool) -> tuple[LoggedToken, ...]:
        if self._log is None:
            return ()
        shown = self._log.shown(self._shown_chars)
        if ended:
            shown += self._log.ended(self._shown_chars if self._scanner.hit else None)
        return tuple(shown)
