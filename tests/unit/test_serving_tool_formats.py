"""Python's and Qwen's way to write tool calls: every value comes back, nothing is run, and no text takes long."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_texts import NAMED, cut, read, xml_call

from headrace_engines.serving.tools.formats import PYTHONIC, QWEN3_CODER
from headrace_engines.serving.tools.python_scan import MAX_DEPTH, literal_as_json
from headrace_engines.serving.tools.readers import call_reader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.data())
def test_whatever_python_writes_is_read_as_json(arguments: dict[str, Any], data: st.DataObject) -> None:
    """Every literal comes back as the value that it stands for, however the text is cut."""
    text = f"[look({', '.join(f'{key}={value!r}' for key, value in arguments.items())})]"
    content, calls = read(call_reader(PYTHONIC, NAMED), cut(text, data))
    assert (content, [name for name, _ in calls]) == ("", ["look"])
    assert json.loads(calls[0][1]) == arguments


@settings(deadline=None)
@given(st.text(), st.data())
def test_any_text_is_a_parameter_of_qwens(value: str, data: st.DataObject) -> None:
    """A value is told as it stands between its marks, also with quotes and beginnings of marks."""
    if not re.search("</parameter>|<parameter=|</function>", value):
        content, calls = read(call_reader(QWEN3_CODER, NAMED), cut(xml_call("look", city=value), data))
        assert (content, json.loads(calls[0][1])) == ("", {"city": value})


@pytest.mark.parametrize("form", [PYTHONIC, QWEN3_CODER])
def test_arguments_come_before_the_call_is_whole(form: Any) -> None:
    """Python's one by one, Qwen's texts as they are written."""
    reader = call_reader(form, NAMED)
    text = xml_call("look", city="Lon") if form is QWEN3_CODER else '[look(city="Lon", days=3)]'
    begun = reader.push(text[: text.index("Lon") + 6])
    assert begun.calls[0][1:] == ("look", "")
    assert "".join(call.arguments for call in begun.calls).startswith('{"city": "Lon')
    assert not reader.calls_done


HEAVY = {
    "brackets": "[look(a=" + "[" * 20_000,
    "closed brackets": "[look(a=" + "[" * 2_000 + "]" * 2_000 + ")]",
    "calls": "[look(a=" + "a(" * 20_000,
    "negations": "[look(a=" + "-" * 40_000 + "1)]",
    "nots": "[look(a=" + "not " * 12_000 + "1)]",
    "sums": "[look(a=1" + "+1" * 20_000 + ")]",
    "conditions": "[look(a=" + "1 if 1 else " * 4_000 + "1)]",
    "lambdas": "[look(a=" + "lambda: " * 6_000 + "1)]",
    "generators": "[look(a=[" + "x for x in " * 4_000 + "1])]",
    "digits": "[look(a=" + "9" * 40_000 + ")]",
    "quotes": "[look(a=" + "\"'" * 20_000,
    "numbers": "[look(a=[" + "1," * 20_000 + "])]",
    "names": "[" + "look" * 10_000,
    "parameters": "<tool_call><function=look><parameter=" * 1_000,
    "functions": "<tool_call><function=" * 2_000,
    "spaces": "<tool_call><function=look>" + " " * 60_000,
    "line breaks": "<tool_call><function=look><parameter=days>" + "\n" * 40_000,
    "almost ends": "<tool_call><function=look><parameter=city>" + "\n</paramete" * 4_000,
}
"""Texts that a reader could be slow at; by what they are full of."""


@pytest.mark.parametrize("full_of", HEAVY)
def test_no_text_is_more_than_it_is_long(full_of: str) -> None:
    """Whole and in tokens it ends in time that its length explains: the suite's own limit stands for that."""
    text = HEAVY[full_of]
    for form in (PYTHONIC, QWEN3_CODER):
        whole = read(call_reader(form, NAMED), [text])
        assert read(call_reader(form, NAMED), [text[start : start + 5] for start in range(0, len(text), 5)]) == whole


def test_literals_are_bounded() -> None:
    """What is too deep for Python's parser is no literal, and nothing is ever run."""
    assert literal_as_json("[" * 20 + "]" * 20) == "[" * 20 + "]" * 20
    deep = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert read(call_reader(PYTHONIC, NAMED), [f"[look(a={deep})]"])[1] == []
    for source in ("", "# nothing", "1, 2", "*[1]", "b'x'", "1j", "...", "f'{1}'", "-True", "{1: 2}", "{**{}}", "1)(2"):
        assert literal_as_json(source) is None, source
