"""Calls that are JSON objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace_engines.serving.tools.formats import ToolFormat
from headrace_engines.serving.tools.json_scan import JsonScan
from headrace_engines.serving.tools.reader import CallReader

_ENVELOPE_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_NAMED_HEAD = re.compile(r"([\w.\-]+)(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
_NAMED_HEAD_START = re.compile(r"[\w.\-]*(?:\[[A-Z_]*(?:\]\w*)?)*\s*")


class JsonCalls(CallReader):
    """Reads calls whose arguments, a JSON object, are passed on word for word as they come."""

    def __init__(self, form: ToolFormat, tools: Mapping[str, Any], *, only_one: bool = False) -> None:
        super().__init__(form, tools, only_one=only_one)
        self._scan = JsonScan(form.closing)

    def _begins_call(self) -> bool:
        return self._pending[0] == "{" or (
            self._form.named_head and bool(_NAMED_HEAD_START.match(self._pending, 0, 1).end())  # type: ignore[union-attr] # it matches nothing at least
        )

    def _head(self) -> bool:
        """Before the arguments of what may be a call."""
        enveloped = self._pending[0] == "{"
        match = (_ENVELOPE_HEAD if enveloped else _NAMED_HEAD).match(self._pending)
        if match is not None:
            name = _json(match.group(1)) if enveloped else match.group(1)
            if name not in self._tools:
                return self._not_a_call(match.end())
            self._announce(name)
            self._pending = self._pending[match.end() :]
            self._scan = JsonScan(self._form.closing)
            self._state = self._arguments if not enveloped else self._enveloped_arguments
            return True
        if not enveloped:
            start = _NAMED_HEAD_START.fullmatch(self._pending)
            return self._not_a_call(0) if start is None or self._final else False
        end = JsonScan(self._form.closing).find_end(self._pending)
        if end is None:
            return self._not_a_call(len(self._pending)) if self._final else False
        call = _json(self._pending[:end])
        name, arguments = _parts_of(call)
        if name is None or name not in self._tools or arguments is None:
            return self._not_a_call(end)
        self._announce(name)
        self._argue(arguments)
        self._pending = self._pending[end:]
        return self._end_call()

    def _enveloped_arguments(self) -> bool:
        return self._read_arguments(self._tail)

    def _arguments(self) -> bool:
        return self._read_arguments(self._end_call)

    def _read_arguments(self, then: Callable[[], bool]) -> bool:
        """In the arguments: passed on up to their end."""
        end = self._scan.find_end(self._pending)
        sure_chars = end if end is not None else len(self._pending)
        if end is None and not self._final:
            sure_chars -= self._scan.held_chars
        self._argue(self._pending[:sure_chars])
        self._pending = self._pending[sure_chars:]
        self._scan.moved(sure_chars)
        if end is None:
            return False
        if self._scan.balanced:
            self._state = then
            if then == self._end_call:
                return self._end_call()
            self._scan = JsonScan(self._form.closing, depth=1)
            return True
        return self._end_call()

    def _tail(self) -> bool:
        """After the arguments: the rest of the envelope, which says nothing more."""
        rest = self._pending.lstrip()
        if rest and rest[0] not in ",}":
            return self._end_call()
        end = self._scan.find_end(self._pending)
        if end is None:
            return False
        self._pending = self._pending[end:]
        return self._end_call()

    def _cut_off(self) -> None:
        """Where only the envelope is cut off, the call is whole."""
        if self._state == self._tail:
            self._pending = ""
            self.calls_done += 1


def _json(text: str) -> Any:
    """What `text` is as JSON; None for what is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _parts_of(call: Any) -> tuple[str | None, str | None]:
    """A call's name and its arguments as JSON; None for what is missing or of another type."""
    if not isinstance(call, dict):
        return None, None
    name = call.get("name")
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    named = name if isinstance(name, str) else None
    return named, msgspec.json.encode(arguments).decode() if isinstance(arguments, dict) else None
