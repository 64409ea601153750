"""Texts with tool calls in every format, and what they say."""

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from headrace_engines.serving.tools.formats import CONSTRAINED, FORMATS
from headrace_engines.serving.tools.reader import Reader

Calls = list[tuple[str, str]]
SCHEMA: dict[str, Any] = {
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "far": {"type": ["number", "null"]},
        "sure": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "where": {"$ref": "#/$defs/place"},
        "unit": {"enum": ["C", 7]},
    },
    "$defs": {"place": {"type": "object"}},
}
NAMED: dict[str, Any] = {"look": SCHEMA, "get_weather": SCHEMA}


def read(reader: Reader, pieces: list[str]) -> tuple[str, Calls]:
    """The content and the calls of a text that comes in pieces."""
    content, calls = "", list[list[str]]()
    for reading in [*map(reader.push, pieces), reader.flush()]:
        content += reading.content
        for piece in reading.calls:
            if piece.name is not None:
                assert piece.call_index == len(calls)
                calls.append([piece.name, ""])
            calls[piece.call_index][1] += piece.arguments
    return content, [(name, arguments) for name, arguments in calls]


LONDON = '{"city": "London"}'
PARIS = '{"city": "Paris }]</tool_call>\\" [TOOL_CALLS]", "days": [1, {"a": 2}]}'


def json_call(name: str, arguments: str, key: str = "arguments") -> str:
    """A call as most models write it."""
    return f'{{"name": "{name}", "{key}": {arguments}}}'


def xml_call(name: str, **values: str) -> str:
    """A call as Qwen3-Coder's template shows it."""
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


LONDON_CALL, PARIS_CALL = json_call("get_weather", LONDON), json_call("look", PARIS)
BOTH: Calls = [("get_weather", LONDON), ("look", PARIS)]

_JSON: list[tuple[str, str, str, Calls]] = [
    ("hermes", f"<tool_call>\n{LONDON_CALL}\n</tool_call>", "", BOTH[:1]),
    ("hermes", f"Hm.\n<tool_call>{LONDON_CALL}</tool_call>\n<tool_call>{PARIS_CALL}</tool_call>\n", "Hm.", BOTH),
    ("hermes", f"<tool_call>{LONDON_CALL}</tool_call>\nDone.", "Done.", BOTH[:1]),
    ("hermes", '<tool_call>{"arguments": {"a":1}, "name": "look"}</tool_call>', "", [("look", '{"a":1}')]),
    ("hermes", '<tool_call>{"name": "look"}</tool_call>', "", [("look", "{}")]),
    ("hermes", '<tool_call>{"name": "look", "arguments": "{\\"a\\":1}"}</tool_call>', "", [("look", '{"a":1}')]),
    ("hermes", '<tool_call>{"type": "function", "name": "look", "arguments": {}}</tool_call>', "", [("look", "{}")]),
    ("hermes", '<tool_call>{"name": "look", "arguments": {"a":1}, "b": 5}</tool_call> Z', "Z", [("look", '{"a":1}')]),
    ("hermes", "just <b>text</b> {}", "just <b>text</b> {}", []),
    ("hermes", "a <tool_call>not json</tool_call> b", "a <tool_call>not json</tool_call> b", []),
    ("hermes", '<tool_call>{"name": "rm"}</tool_call>', '<tool_call>{"name": "rm"}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "rm", "arguments": {}}', '<tool_call>{"name": "rm", "arguments": {}}', []),
    ("hermes", '<tool_call>{"name": "look"', '<tool_call>{"name": "look"', []),
    ("hermes", "<tool_call>", "<tool_call>", []),
    ("hermes", "text <tool_", "text <tool_", []),
    ("hermes", '<tool_call>{"name": "look", "arguments": {"a": </tool_call>b', "b", [("look", '{"a": ')]),
    ("hermes", '<tool_call>{"name": "look", "arguments": {"a": "b', "", [("look", '{"a": "b')]),
    ("hermes", f"<tool_call>{LONDON_CALL}", "", BOTH[:1]),
    ("hermes", f"<tool_call>{LONDON_CALL}</tool", "", BOTH[:1]),
    ("hermes", "<tool_call></tool_call>", "<tool_call></tool_call>", []),
    ("llama3_json", json_call("look", LONDON, "parameters"), "", [("look", LONDON)]),
    ("llama3_json", f"<|python_tag|>{LONDON_CALL}; {PARIS_CALL}", "", BOTH),
    ("llama3_json", f"  {LONDON_CALL}", "", BOTH[:1]),
    ("llama3_json", f"It is {LONDON_CALL}", f"It is {LONDON_CALL}", []),
    ("llama3_json", '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', []),
    ("llama3_json", '{"a": 1} and more', '{"a": 1} and more', []),
    ("mistral", f"[TOOL_CALLS] [{LONDON_CALL}, {PARIS_CALL}]", "", BOTH),
    ("mistral", f"Well.[TOOL_CALLS]get_weather[ARGS]{LONDON}[TOOL_CALLS]look{PARIS}", "Well.", BOTH),
    ("mistral", f"[TOOL_CALLS]get_weather[CALL_ID]a1b2[ARGS]{LONDON}", "", BOTH[:1]),
    ("mistral", "[TOOL_CALLS] I cannot.", "[TOOL_CALLS] I cannot.", []),
    ("mistral", "[1, 2]", "[1, 2]", []),
    ("constrained", f"[{LONDON_CALL},{PARIS_CALL}]", "", BOTH),
    ("constrained", f"[{LONDON_CALL}", "", BOTH[:1]),
]  # fmt: skip

_PYTHONIC: list[tuple[str, str, Calls]] = [
    ('[get_weather(city="London")]', "", BOTH[:1]),
    ("[get_weather(city='London'), look(days=3)]", "", [*BOTH[:1], ("look", '{"days": 3}')]),
    ('<|python_start|>[look(city="a)], b", days=-1)]<|python_end|>', "", [("look", '{"city": "a)], b", "days": -1}')]),
    ("Hm. <|python_start|>[look()]<|python_end|> Z", "Hm.Z", [("look", "{}")]),
    (" [ look ( days = 3 , ) ] ", "", [("look", '{"days": 3}')]),
    (
        '[look(a=[1, (2.5, "x")], b={"k": None, "l": true}, c="\'\\"\\n")]',
        "",
        [("look", '{"a": [1, [2.5, "x"]], "b": {"k": null, "l": true}, "c": "\'\\"\\n"}')],
    ),
    ('[look(a="""x "quoted" ),""", b="", c=\'\')]', "", [("look", '{"a": "x \\"quoted\\" ),", "b": "", "c": ""}')]),
    ('[look(a="\\ud800", b="é")]', "", [("look", '{"a": "\\ud800", "b": "é"}')]),
    ("[look(a=__import__('os').getcwd())]", "[look(a=__import__('os').getcwd())]", []),
    ("[look(a=x for x in (1,))]", "[look(a=x for x in (1,))]", []),
    ("[look(a=2**9**9)]", "[look(a=2**9**9)]", []),
    ("[look(a=1e999)]", "[look(a=1e999)]", []),
    ('[look("London")]', '[look("London")]', []),
    ("[look(,)]", "[look(,)]", []),
    ('[rm(path="/")]', '[rm(path="/")]', []),
    ("[1] Smith, J. (2020)", "[1] Smith, J. (2020)", []),
    ("See [look(days=3)]", "See [look(days=3)]", []),
    ('[look(city="Lon', '[look(city="Lon', []),
    ('[look(days=3, city="Lon', "", [("look", '{"days": 3, city="Lon')]),
    ("[look(days=3, city=London)]", "", [("look", '{"days": 3, city=London}')]),
    ("[look(days=3), get_weather(city=London)]", "get_weather(city=London)]", [("look", '{"days": 3}')]),
    ("<|python_start|>print(1)<|python_end|>", "<|python_start|>print(1)<|python_end|>", []),
]

_QWEN3_CODER: list[tuple[str, str, Calls]] = [
    (xml_call("get_weather", city="London"), "", BOTH[:1]),
    (f"Hm.\n{xml_call('get_weather', city='London')}\n{xml_call('look')} Z", "Hm.Z", [*BOTH[:1], ("look", "{}")]),
    (
        xml_call("look", city='a "b"\n<c>\\\n', days="3"),
        "",
        [("look", '{"city": "a \\"b\\"\\n<c>\\\\\\n", "days": 3}')],
    ),
    (
        xml_call("look", days="three", far="2.5", sure="True"),
        "",
        [("look", '{"days": "three", "far": 2.5, "sure": true}')],
    ),
    (
        xml_call("look", far="null", sure="null", city="null"),
        "",
        [("look", '{"far": null, "sure": null, "city": "null"}')],
    ),
    (xml_call("look", where='{"a": [1]}', other="5"), "", [("look", '{"where": {"a": [1]}, "other": "5"}')]),
    (xml_call("look", where="{'a': [None]}", unit="C"), "", [("look", '{"where": {"a": [null]}, "unit": "C"}')]),
    (xml_call("look", where="{'a': f()}", unit="7"), "", [("look", """{"where": "{'a': f()}", "unit": 7}""")]),
    (
        "<tool_call><function=look><parameter=city>x<parameter=days>3</function>",
        "",
        [("look", '{"city": "x", "days": 3}')],
    ),
    ("<tool_call><function=look>\n</tool_call>b", "b", [("look", "{}")]),
    ("<tool_call><function=look>\n<parameter=city>\nLon", "", [("look", '{"city": "Lon')]),
    ("<tool_call><function=look>\n<parameter=days>\n12", "", [("look", '{"days": 12')]),
    ("<tool_call><function=rm></function></tool_call>", "<tool_call><function=rm></function></tool_call>", []),
    ("<tool_call><function=look>what", "<tool_call><function=look>what", []),
    (f"<tool_call>{LONDON_CALL}</tool_call>", f"<tool_call>{LONDON_CALL}</tool_call>", []),
    ("a <function=look> b <tool_", "a <function=look> b <tool_", []),
]

READ: list[tuple[str, str, str, Calls]] = [
    *_JSON,
    *(("pythonic", *case) for case in _PYTHONIC),
    *(("qwen3_coder", *case) for case in _QWEN3_CODER),
]
"""By format: a text, its content, its calls."""

FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *("<tool_call>", "</tool_call>", "<tool", "[TOOL_CALLS]", "<|python_tag|>", "look[ARGS]"),
            *("{", "}", '"', "\\", "[", "]", ",", ":", ";", " ", "\n", "a", "é"),
            *('{"name": "look", "arguments": ', LONDON, LONDON_CALL, PARIS_CALL),
            *("<|python_start|>", "<|python_end|>", "look(", "a=", "days=3", "(", ")", "'", '"""', "'Paris'", "=", "#"),
            *("<function=", "look>", "<parameter=", "city>", "days>", "</parameter>", "</function>", "<", ">", "/"),
        ]
    ),
    max_size=12,
).map("".join)


def form(name: str) -> Any:
    """A format by its name."""
    return CONSTRAINED if name == "constrained" else FORMATS[name]


def cut(text: str, data: st.DataObject) -> list[str]:
    """The text in pieces."""
    places = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]
