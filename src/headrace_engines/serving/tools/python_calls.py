"""Calls that are written as Python calls things, with literals for arguments. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace_engines.serving.tools.formats import ToolFormat
from headrace_engines.serving.tools.python_scan import PythonScan, literal_as_json
from headrace_engines.serving.tools.reader import CallReader

_HEAD = re.compile(r"([\w.\-]{1,64})\s*\(")
_HEAD_START = re.compile(r"[\w.\-]{1,64}\s*")
_KEY = re.compile(r"\s*([^\W\d]\w*)\s*=")


class PythonCalls(CallReader):
    """Reads ``name(key=literal, …)``; each argument is told once it is whole.

    A call is announced with its first argument, or when it has none. An argument after that which is no literal is
    told word for word, so that the arguments are no JSON, as they were none.
    """

    def __init__(self, form: ToolFormat, tools: Mapping[str, Any], *, only_one: bool = False) -> None:
        super().__init__(form, tools, only_one=only_one)
        self._name = ""
        self._start = 0  # of the first argument in the pending text: behind the head, which may still be no call's
        self._scan = PythonScan(0)

    def _begins_call(self) -> bool:
        return _HEAD_START.match(self._pending) is not None

    def _head(self) -> bool:
        """Before the parenthesis."""
        match = _HEAD.match(self._pending)
        if match is None:
            undecided = _HEAD_START.fullmatch(self._pending) and not self._final
            return False if undecided else self._not_a_call(0)
        self._name, self._start = match.group(1), match.end()
        if self._name not in self._tools:
            return self._not_a_call(match.end())
        self._scan = PythonScan(self._start)
        self._state = self._first_argument
        return True

    def _first_argument(self) -> bool:
        """In what makes it a call or not."""
        end = self._scan.find_end(self._pending, final=self._final)
        if end is None:
            return self._not_a_call(len(self._pending)) if self._final else False
        source, last = self._pending[self._start : end], self._pending[end] == ")"
        told = "" if last and not source.strip() else self._told(source)
        if told is None:
            return self._not_a_call(end)
        self._announce(self._name)
        self._argue("{" + told)
        return self._go_on(end, last=last)

    def _argument(self) -> bool:
        """In a later argument."""
        end = self._scan.find_end(self._pending, final=self._final)
        if end is None:
            if self._final:  # cut off
                self._argue(f",{self._pending}")
                self._pending = ""
            return False
        source, last = self._pending[:end], self._pending[end] == ")"
        if source.strip() or not last:  # a comma may stand behind the last one
            told = self._told(source)
            self._argue(f", {source.strip() if told is None else told}")
        return self._go_on(end, last=last)

    def _told(self, source: str) -> str | None:
        """An argument as a member of a JSON object; None where it is no literal by name."""
        key = _KEY.match(source) if self._scan.plain else None
        value = None if key is None else literal_as_json(source[key.end() :])
        return None if key is None or value is None else f"{json.dumps(key.group(1), ensure_ascii=False)}: {value}"

    def _go_on(self, end: int, *, last: bool) -> bool:
        self._pending = self._pending[end + 1 :]
        if last:
            self._argue("}")
            return self._end_call()
        self._scan = PythonScan(0)
        self._state = self._argument
        return True
