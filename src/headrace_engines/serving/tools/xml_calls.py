"""Calls as Qwen3-Coder writes them: tags for the call and for each parameter, whose values are bare text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from typing import Any

from headrace_engines.serving.tools.formats import ToolFormat
from headrace_engines.serving.tools.reader import CallReader, overlap_chars
from headrace_engines.serving.tools.typed_value import types_of, value_as_json

_FUNCTION = "<function="
_HEAD = re.compile(r"<function=([^<>\n]{1,64})>\s{0,64}(?=<parameter=|</function>|</tool_call>)")
_HEAD_START = re.compile(r"<function=[^<>\n]{0,64}(?:>\s{0,64})?")
_MARKERS = ("<parameter=", "</function>", "</tool_call>")
_KEY_MAX_CHARS = 256
_NEXT = re.compile(rf"<parameter=([^<>\n]{{0,{_KEY_MAX_CHARS}}})>|</function>|</tool_call>")

# A value ends where vLLM's does: at its own mark, and where that is missing, with the call or the next parameter.
_VALUE_ENDS = ("</parameter>", "<parameter=", "</function>")
_VALUE_END = re.compile(rf"\n?({'|'.join(_VALUE_ENDS)})")
_LONGEST_END_CHARS = max(map(len, _VALUE_ENDS)) + 1


class XmlCalls(CallReader):
    """Reads ``<function=name>`` and in it ``<parameter=key>`` with the value between line breaks.

    A value is typed by the parameter's schema. Text is passed on as it comes, other values once they are whole.
    """

    def __init__(self, form: ToolFormat, tools: Mapping[str, Any], *, only_one: bool = False) -> None:
        super().__init__(form, tools, only_one=only_one)
        self._schema: Any = None  # of this call's parameters
        self._told_one = False  # of them
        self._types: Set[str] = frozenset()  # of this value
        self._begun = False  # to read it: past the line break before it
        self._searched_chars = 0

    def _begins_call(self) -> bool | None:
        if self._pending.startswith(_FUNCTION):
            return True
        return None if _FUNCTION.startswith(self._pending) else False

    def _head(self) -> bool:
        """Before the first parameter."""
        match = _HEAD.match(self._pending)
        if match is None:
            return False if self._may_become_head() else self._not_a_call(len(_FUNCTION))
        name = match.group(1).strip()
        if name not in self._tools:
            return self._not_a_call(match.end())
        self._announce(name)
        self._schema = self._tools[name]
        self._told_one = False
        self._pending = self._pending[match.end() :]
        self._state = self._between_parameters
        return True

    def _may_become_head(self) -> bool:
        match = _HEAD_START.match(self._pending)
        assert match is not None  # it begins a call
        rest = self._pending[match.end() :]
        return not self._final and (not rest or any(marker.startswith(rest) for marker in _MARKERS))

    def _between_parameters(self) -> bool:
        """In a call and in no value: what stands here besides marks says nothing."""
        match = _NEXT.search(self._pending)
        if match is None:
            held = self._pending.rfind("<")
            known = held >= 0 and not self._final and len(self._pending) - held <= _KEY_MAX_CHARS + len(_MARKERS[0])
            self._pending = self._pending[held:] if known else ""
            return False
        if match.group(1) is None:
            self._argue("}" if self._told_one else "{}")
            of_block = match.group() == self._form.closing
            self._pending = self._pending[match.start() if of_block else match.end() :]
            return self._end_call()
        key = match.group(1).strip()
        self._types = types_of(self._schema, key)
        self._argue((", " if self._told_one else "{") + json.dumps(key, ensure_ascii=False) + ": ")
        self._told_one, self._begun, self._searched_chars = True, False, 0
        self._pending = self._pending[match.end() :]
        self._state = self._value
        return True

    @property
    def _is_text(self) -> bool:
        return self._types == {"string"}

    def _value(self) -> bool:
        """In a parameter's value."""
        if not self._begun:
            self._pending = self._pending.removeprefix("\n")
            self._begun = True
            self._argue('"' if self._is_text else "")
        match = _VALUE_END.search(self._pending, self._searched_chars)
        if match is not None:
            value = self._pending[: match.start()]
            self._argue(_escaped(value) + '"' if self._is_text else value_as_json(value, self._types))
            own_mark = match.group(1) == _VALUE_ENDS[0]
            self._pending = self._pending[match.end() if own_mark else match.start(1) :]
            self._state = self._between_parameters
            return True
        if self._final:  # cut off
            self._argue(_escaped(self._pending) if self._is_text else self._pending)
            self._pending = ""
        elif self._is_text:
            sure_chars = len(self._pending) - _held_chars(self._pending)
            self._argue(_escaped(self._pending[:sure_chars]))
            self._pending = self._pending[sure_chars:]
        else:
            self._searched_chars = max(0, len(self._pending) - _LONGEST_END_CHARS)
        return False


def _held_chars(text: str) -> int:
    """Characters at the end of a value that may be the beginning of its end."""
    plain = max(overlap_chars(text, end) for end in _VALUE_ENDS)
    if text.endswith("\n", 0, len(text) - plain):
        return plain + 1
    return plain


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
