"""How long requests are: all alike, or as in a file of what somebody's users asked."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from headrace.cli.certify.load import Lengths
from headrace.cli.exits import WrongUsage

_PROMPT, _OUTPUT = "ContextTokens", "GeneratedTokens"


def alike(prompt_tokens: int, output_tokens: int, context: int) -> tuple[Lengths, float]:
    """Requests of one length, shortened in proportion where the context has no room; and their mean tokens."""
    share = min(1.0, (context - 1) / (prompt_tokens + output_tokens)) if context else 1.0
    prompt, output = max(1, int(prompt_tokens * share)), max(1, int(output_tokens * share))
    return (lambda _: (prompt, output)), float(prompt + output)


def of_trace(path: Path, context: int) -> tuple[Lengths, float]:
    """Lengths drawn from a file of CSV with ``ContextTokens`` and ``GeneratedTokens``; and their mean tokens.

    Those that the context has no room for are left out.

    Raises:
        WrongUsage: It is no such file, or nothing in it fits.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [(int(row[_PROMPT]), int(row[_OUTPUT])) for row in csv.DictReader(lines)]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise WrongUsage(
            f"--trace {path} is no file of requests.",
            evidence=f"{type(error).__name__}: {error}",
            fix=f"Give a file of CSV with the columns {_PROMPT} and {_OUTPUT}, in tokens.",
        ) from None
    fitting = [row for row in rows if min(row) > 0 and (not context or sum(row) < context)]
    if not fitting:
        raise WrongUsage(
            f"No request of --trace {path} fits into the model's context.",
            evidence=f"It has {len(rows)} requests; the context is {context} tokens.",
            fix="Give one with shorter requests, or leave it out.",
        )

    def draw(chance: random.Random) -> tuple[int, int]:
        return chance.choice(fitting)

    return draw, sum(map(sum, fitting)) / len(fitting)
