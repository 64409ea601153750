"""Which reader reads which format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_engines.serving.tools.formats import ToolFormat
from headrace_engines.serving.tools.json_calls import JsonCalls
from headrace_engines.serving.tools.python_calls import PythonCalls
from headrace_engines.serving.tools.reader import CallReader
from headrace_engines.serving.tools.xml_calls import XmlCalls

_READERS: Mapping[str, type[CallReader]] = {"json": JsonCalls, "python": PythonCalls, "xml": XmlCalls}
"""By `ToolFormat.syntax`."""


def call_reader(form: ToolFormat, tools: Mapping[str, Any], *, only_one: bool = False) -> CallReader:
    """What reads the calls of an answer; arguments as `CallReader`'s."""
    return _READERS[form.syntax](form, tools, only_one=only_one)
