"""Texts that follow a JSON schema or a regular expression, by llguidance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import llguidance  # type: ignore[import-not-found]  # in the engine's environment only
import llguidance.hf  # type: ignore[import-not-found]
import torch

from headrace_engines.serving.generator import Grammar, GrammarInvalid, SamplingImpossible

_MAX_SYMBOLS = 100_000
"""Symbols of a compiled grammar, a fifth of llguidance's own limit: about a second to compile at worst."""

_LEXER_FUEL = 1_000_000
"""llguidance's own limit for building a grammar's regular expressions: some twenty milliseconds, it says."""

_WHY_MAX_CHARS = 500


class Follower:
    """Where one text stands in its grammar.

    Args:
        matcher: llguidance's.
        end_ids: Tokens that end the text.
    """

    def __init__(self, matcher: Any, end_ids: list[int]) -> None:
        self._matcher = matcher
        self._end_ids = end_ids

    def allowed(self, scores: Any) -> Any:
        """The scores, of shape (1, vocabulary), with minus infinity where a token would leave the grammar.

        Raises:
            SamplingImpossible: The grammar leaves no token.
        """
        if self._matcher.is_stopped():
            ended = torch.full_like(scores, -torch.inf)
            ended[:, self._end_ids] = scores[:, self._end_ids]
            return ended
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        if self._matcher.is_error():
            raise SamplingImpossible
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        known = min(len(mask), len(allowed))
        allowed[:known] = mask[:known] > 0
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def take(self, token_id: int) -> None:
        """Go on by a token that was allowed."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)


class GrammarCompiler:
    """Makes followers; to be used by one thread that is not the model's, as some patterns take seconds.

    Args:
        tokenizer: The folder's, as transformers reads it.
        vocab_size: Token ids are below this.
        end_ids: End-of-sequence tokens.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = sorted(end_ids)
        self._made: Any = None
        self._limits = llguidance.LLParserLimits(max_grammar_size=_MAX_SYMBOLS, initial_lexer_fuel=_LEXER_FUEL)

    def compile(self, grammar: Grammar) -> Follower:
        """A follower at the beginning of a text.

        Raises:
            GrammarInvalid: The grammar is none, is too large, or this model's tokens cannot follow one.
        """
        try:
            matcher = llguidance.LLMatcher(self._tokens(), _source(grammar), log_level=0, limits=self._limits)
        except (ValueError, RuntimeError) as error:
            raise GrammarInvalid(_shortened(str(error))) from error
        matcher.compute_logit_bias()  # the first is the slow one: it lays the lexer out
        if matcher.is_error():
            raise GrammarInvalid(_shortened(matcher.get_error()))
        return Follower(matcher, self._end_ids)

    def _tokens(self) -> Any:
        if not self._end_ids:
            raise GrammarInvalid("this model has no end-of-sequence token, so a text could not end where it matches.")
        if self._made is None:
            self._made = llguidance.hf.from_tokenizer(self._tokenizer, self._vocab_size, self._end_ids)
        return self._made


def _source(grammar: Grammar) -> str:
    if grammar.kind == "json_schema":
        source: str = llguidance.LLMatcher.grammar_from_json_schema(grammar.text)
    else:
        source = llguidance.LLMatcher.grammar_from_regex(grammar.text)
    return source


def _shortened(why: str) -> str:
    return f"{why[:_WHY_MAX_CHARS].strip().rstrip('.')}."
