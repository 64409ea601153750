"""How models write tool calls into their text. Which format a model was trained on, its chat template shows."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from typing import Literal

import msgspec


class ToolFormat(msgspec.Struct, frozen=True, kw_only=True):
    """One way to write calls.

    A block of calls opens with `opening` anywhere, or with `starts_with` as the first character of the answer. In it
    calls stand one after another.

    Attributes:
        name: What ``--tool-parser`` calls it; vLLM's names.
        syntax: How one call is written. ``json``: an object with ``name`` and ``arguments`` (or ``parameters``);
            ``python``: ``name(key=literal, …)``; ``xml``: ``<function=name>`` with a ``<parameter=key>`` for each.
        opening: Marker before calls; empty where there is none.
        closing: Marker after them; empty where there is none.
        starts_with: An answer that begins with this character begins with calls; empty where a marker is needed.
        separators: Characters between calls, besides white space.
        named_head: A call may also be written as ``name[ARGS]{…}``.
        short_ids: Ids of calls are nine letters and digits: Mistral's templates refuse others.
    """

    name: str
    syntax: Literal["json", "python", "xml"] = "json"
    opening: str = ""
    closing: str = ""
    starts_with: str = ""
    separators: str = ""
    named_head: bool = False
    short_ids: bool = False

    def new_call_id(self) -> str:
        """An id for one call."""
        letters = string.ascii_letters + string.digits
        random = "".join(secrets.choice(letters) for _ in range(9 if self.short_ids else 24))
        return random if self.short_ids else f"call_{random}"


HERMES = ToolFormat(name="hermes", opening="<tool_call>", closing="</tool_call>")
LLAMA3_JSON = ToolFormat(name="llama3_json", opening="<|python_tag|>", starts_with="{", separators=";,")
MISTRAL = ToolFormat(name="mistral", opening="[TOOL_CALLS]", separators="[],", named_head=True, short_ids=True)
PYTHONIC = ToolFormat(
    name="pythonic",
    syntax="python",
    opening="<|python_start|>",
    closing="<|python_end|>",
    starts_with="[",
    separators="[],",
)
QWEN3_CODER = ToolFormat(name="qwen3_coder", syntax="xml", opening="<tool_call>", closing="</tool_call>")

FORMATS: Mapping[str, ToolFormat] = {each.name: each for each in (HERMES, LLAMA3_JSON, MISTRAL, PYTHONIC, QWEN3_CODER)}
"""By name."""

CONSTRAINED = ToolFormat(name="constrained", starts_with="[", separators="[],")
"""A JSON list of calls: what `serving.tools.grammar` makes a model write when it has to call."""

# In the order of trial. The words of an example say more than a marker where several formats share that: Llama's
# templates for ``[func_name1(…)]`` have ``<|python_tag|>`` too, and those of Llama 4 for JSON ``<|python_start|>``.
_SIGNS: tuple[tuple[str, ToolFormat], ...] = (
    (r"<tool_call>.*<function=", QWEN3_CODER),
    (r"<tool_call>", HERMES),
    (r"\[TOOL_CALLS\]", MISTRAL),
    (r"\[func_name1?\(", PYTHONIC),
    (r"<\|python_tag\|>|\"parameters\": dictionary of argument name", LLAMA3_JSON),
    (r"<\|python_start\|>", PYTHONIC),
)

_NAMES_TOOLS = re.compile(r"\{[{%][^{}%]*\btools\b")


def knows_tools(template: str) -> bool:
    """Whether a chat template does anything with tools."""
    return _NAMES_TOOLS.search(template) is not None


def format_of(template: str) -> ToolFormat | None:
    """The format that a chat template shows its model; None for one that is not in `FORMATS`."""
    for sign, form in _SIGNS:
        if re.search(sign, template, re.DOTALL):
            return form
    return None
