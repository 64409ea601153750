"""What a folder's chat template cannot do."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.resources.errors import ChatTemplateInvalid, ChatTemplateLimited
from headrace.weights.finding import Finding, finding_of
from headrace.weights.templates.rehearsal import Outcome, rehearse
from headrace.weights.templates.source import Template

_LOST = {
    "everything": "The chat template refuses even a single question: completions work, chats do not.",
    "system": "The chat template takes no system message: chats with one are refused, or go on without it.",
    "turns": "The chat template takes no second question: only chats of one turn work.",
    "tools": "The chat template takes no tool calls and results: chats work, tools do not.",
}
_FIX = "Nothing, if you do not need it; else give a template that has it: `headrace deploy --chat-template FILE`."
_MEND = "Copy the template from the model's source again, or give another: `headrace deploy --chat-template FILE`."


def check_template(template: Template) -> Iterator[Finding]:
    """Try a template with a system message, several turns and tools, and name what it cannot do."""
    outcome = rehearse(template)
    if (reason := _invalid(outcome)) is not None:
        invalid = ChatTemplateInvalid("The chat template cannot be used.", evidence=reason, fix=_MEND)
        yield finding_of(invalid, template.file)
        return
    if outcome.unknown:
        unknown = ChatTemplateLimited("The chat template could not be tried.", evidence=outcome.unknown, fix=_FIX)
        yield finding_of(unknown, template.file, "warning")
    for what, why in outcome.lost:
        limited = ChatTemplateLimited(_LOST.get(what, f"The chat template loses {what}."), evidence=why, fix=_FIX)
        yield finding_of(limited, template.file, "warning")
    if not outcome.turn:
        unmarked = ChatTemplateLimited(
            "The chat template does not say that the model speaks next: it may go on with the user's words.",
            evidence="add_generation_prompt changes nothing, and an answer in its output follows a header of its own.",
            fix=_FIX,
        )
        yield finding_of(unmarked, template.file, "warning")


def _invalid(outcome: Outcome) -> str | None:
    if outcome.syntax:
        line, why = outcome.syntax
        return f"It does not parse: line {line}: {why.rstrip('.')}."
    if outcome.endless:
        return "It was stopped after 3 s of processor time; templates take milliseconds."
    return next((f"It was stopped: {why}." for what, why in outcome.lost if what == "memory"), None)
