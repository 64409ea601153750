"""What this engine takes of what the seam allows."""

from __future__ import annotations

from headrace_engines.serving.generator import GenerationRequest, GrammarInvalid


def require_possible(request: GenerationRequest) -> None:
    """Refuse what GenAI would answer with something else.

    Raises:
        GrammarInvalid: The text could go on, or have to, after the grammar's end: GenAI then lets any token in.
    """
    if request.grammar is not None and (request.ignore_eos or request.min_tokens):
        raise GrammarInvalid("this engine ends a text where its grammar does; leave out `ignore_eos` and `min_tokens`.")
