"""Tool calls: read out of text however it is cut, and on the wire."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fake import HERMES_TEMPLATE, MARK, PLAIN_TEMPLATE, Saying, post, refused, serving, stream
from tool_texts import BOTH, FRAGMENTS, LONDON, LONDON_CALL, NAMED, PARIS, PARIS_CALL, READ, Calls, cut, form, read

from headrace_engines.serving.tools.formats import (
    CONSTRAINED,
    FORMATS,
    HERMES,
    LLAMA3_JSON,
    MISTRAL,
    format_of,
    knows_tools,
)
from headrace_engines.serving.tools.reader import ForcedCall
from headrace_engines.serving.tools.readers import call_reader

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(("name", "text", "content", "calls"), READ)
def test_calls_are_told_from_content(name: str, text: str, content: str, calls: Calls) -> None:
    """Well-formed calls are calls, word for word; what begins like one and is none is content."""
    assert read(call_reader(form(name), NAMED), [text]) == (content, calls)


@settings(deadline=None)
@given(st.sampled_from(READ), st.data())
def test_any_cut_gives_the_same_calls(case: tuple[str, str, str, Calls], data: st.DataObject) -> None:
    """Where the pieces of a stream end makes no difference."""
    name, text, content, calls = case
    assert read(call_reader(form(name), NAMED), cut(text, data)) == (content, calls)


@settings(deadline=None)
@given(st.sampled_from([*FORMATS.values(), CONSTRAINED]), FRAGMENTS, st.data())
def test_any_text_in_any_cut_reads_the_same(form: Any, text: str, data: st.DataObject) -> None:
    """However broken a text is, its pieces say what the whole says."""
    assert read(call_reader(form, NAMED), cut(text, data)) == read(call_reader(form, NAMED), [text])


@settings(deadline=None)
@given(st.sampled_from([HERMES, LLAMA3_JSON, MISTRAL]), FRAGMENTS)
def test_nothing_is_lost(form: Any, text: str) -> None:
    """A text without calls is its content; with calls, content and arguments are parts of the text, in order."""
    content, calls = read(call_reader(form, NAMED), [text])
    if not calls:
        assert content == text
    rest = text
    for _, arguments in calls:
        if arguments != "{}":  # stands for none
            assert without_spaces(arguments) in without_spaces(rest)
    left = iter(text)
    assert all(character in left for character in content)


def without_spaces(text: str) -> str:
    """JSON may be written anew, without its spaces."""
    return "".join(text.split())


@settings(deadline=None)
@given(st.text(), st.text())
def test_words_around_a_call_stay(before: str, after: str) -> None:
    """What is said before and after a call is content, but for white space that touches the call."""
    text = f"{before}<tool_call>{LONDON_CALL}</tool_call>{after}"
    if "<" not in before + after:
        assert read(call_reader(HERMES, NAMED), [text]) == (before.rstrip() + after.lstrip(), BOTH[:1])


def test_only_one_call_may_be_wanted() -> None:
    """Nothing after the first is told."""
    text = f"Hm. <tool_call>{LONDON_CALL}</tool_call> And <tool_call>{PARIS_CALL}</tool_call>"
    for pieces in ([text], list(text)):
        assert read(call_reader(HERMES, NAMED, only_one=True), pieces) == ("Hm.", BOTH[:1])


@settings(deadline=None)
@given(st.lists(st.text()))
def test_a_forced_call_is_all_arguments(pieces: list[str]) -> None:
    """A model that could write nothing else than arguments has written nothing else."""
    text = "".join(pieces)
    assert read(ForcedCall("look"), pieces) == ("", [("look", text)] if text else [])


TEMPLATES = {
    "{% if tools %}<tool_call>{}</tool_call>{% endif %}": "hermes",
    "{%- if tools is defined %}[TOOL_CALLS]{% endif %}": "mistral",
    '{% if not tools is defined %}{% endif %}"parameters": dictionary of argument name and its value': "llama3_json",
    "{% for tool in tools %}<tool_call>\n<function=f>\n<parameter=p>{% endfor %}": "qwen3_coder",
    "{% if tools %}<|python_tag|>in the format of [func_name1(params_name1=params_value1...)]{% endif %}": "pythonic",
    "{% if tools %}Use exact format: [func_name1(param1=value1), func_name2(...)]{% endif %}": "pythonic",
    '{% if tools %}<|python_start|>{"name": f, "parameters": dictionary of argument name{% endif %}': "llama3_json",
    "{% if tools %}<|python_start|>{% endif %}": "pythonic",
    "{% for tool in tools %}call it{% endfor %}": None,
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_template_shows_the_format(template: str) -> None:
    """A marker, or the words that describe a call; a format that is not known is not guessed."""
    found = format_of(template)
    assert (found and found.name) == TEMPLATES[template]
    assert knows_tools(template)


HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}},
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {
                "$ref": "#/$defs/L",
                "$defs": {"L": {"type": "object", "properties": {"next": {"$ref": "#"}}}},
            },
        },
    },
]
WEATHER = {"name": "get_weather", "arguments": LONDON}


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


def calls_of(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions that a whole choice calls."""
    return [call["function"] for call in choice["message"]["tool_calls"]]


@pytest.mark.anyio
async def test_calls_on_the_wire() -> None:
    """Whole: content, calls with ids, `tool_calls` as the reason; streamed: the same in deltas; tools are rendered."""
    saying = Saying(f"Hm.\n<tool_call>{LONDON_CALL}</tool_call><tool_call>{PARIS_CALL}</tool_call>", tokens_per_event=3)
    body = {"messages": HI, "tools": TOOLS, "max_tokens": 500}
    async with serving(saying) as client:
        answer = await post(client, CHAT, body)
        chunks = await stream(client, CHAT, body)
        assert b'"get_weather"' in bytes(saying.requests[0].prompt_ids)
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hm.", "tool_calls")
    assert calls_of(choice) == [WEATHER, {"name": "look", "arguments": PARIS}]
    assert all(re.fullmatch(r"call_\w{24}", call["id"]) for call in choice["message"]["tool_calls"])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hm."
    built: list[dict[str, Any]] = []
    for part in [part for delta in deltas for part in delta.get("tool_calls", [])]:
        if "id" in part:
            assert (part["index"], part["type"], part["function"]["arguments"]) == (len(built), "function", "")
            built.append({"name": part["function"]["name"], "arguments": ""})
        else:
            built[part["index"]]["arguments"] += part["function"]["arguments"]
    assert built == calls_of(choice)
    assert len([delta for delta in deltas if "tool_calls" in delta]) > 10  # arguments come as they are written
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.anyio
async def test_markers_that_are_special_tokens_are_seen() -> None:
    """With tools, special tokens are text; without, they are hidden as always."""
    saying = Saying(b"")
    saying.ending = (MARK, 256)
    async with serving(saying) as client:
        with_tools = await post(client, CHAT, {"messages": HI, "tools": TOOLS})
        without = await post(client, CHAT, {"messages": HI})
    assert with_tools["choices"][0]["message"]["content"] == "<mark>"
    assert without["choices"][0]["message"]["content"] == ""


@pytest.mark.anyio
async def test_no_call_is_a_plain_answer() -> None:
    """A model that had tools and did not call one has said something."""
    async with serving(Saying("It is warm.")) as client:
        (choice,) = (await post(client, CHAT, {"messages": HI, "tools": TOOLS}))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "It is warm."}
    assert choice["finish_reason"] == "stop"


@pytest.mark.anyio
async def test_a_call_that_is_cut_off_says_length() -> None:
    """The budget ended the call, not the model."""
    saying = Saying(f"<tool_call>{LONDON_CALL}</tool_call>")
    async with serving(saying) as client:
        (choice,) = (await post(client, CHAT, {"messages": HI, "tools": TOOLS, "max_tokens": 50}))["choices"]
    assert choice["finish_reason"] == "length"
    assert calls_of(choice)[0]["name"] == "get_weather"


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [True, False])
async def test_without_parallel_calls_the_first_ends_the_answer(streamed: bool) -> None:
    """The sequence is given up once its one call is whole."""
    saying = Saying(f"<tool_call>{LONDON_CALL}</tool_call><tool_call>{PARIS_CALL}</tool_call>")
    body = {"messages": HI, "tools": TOOLS, "parallel_tool_calls": False, "max_tokens": 500}
    async with serving(saying) as client:
        if streamed:
            chunks = await stream(client, CHAT, body)
            assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        else:
            (choice,) = (await post(client, CHAT, body))["choices"]
            assert calls_of(choice) == [WEATHER]
            assert choice["finish_reason"] == "tool_calls"
    assert (saying.cancelled, saying.open) == (1, 0)


@pytest.mark.anyio
async def test_a_named_tool_is_forced_by_its_parameters() -> None:
    """The grammar is the tool's own schema and all that the model writes are arguments."""
    saying = Saying(LONDON)
    choice = {"type": "function", "function": {"name": "get_weather"}}
    async with serving(saying) as client:
        answer = await post(client, CHAT, {"messages": HI, "tools": TOOLS, "tool_choice": choice})
    assert calls_of(answer["choices"][0]) == [WEATHER]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    grammar = saying.requests[0].grammar
    assert grammar is not None
    assert json.loads(grammar.text) == {"type": "object"}


@pytest.mark.anyio
async def test_a_required_call_is_forced_by_a_list_of_calls() -> None:
    """The grammar is a list of calls of the tools, whose references lead to where their schemas are now."""
    saying = Saying(f"[{LONDON_CALL}]")
    async with serving(saying) as client:
        answer = await post(client, CHAT, {"messages": HI, "tools": TOOLS, "tool_choice": "required"})
    assert calls_of(answer["choices"][0]) == [WEATHER]
    grammar = saying.requests[0].grammar
    assert grammar is not None
    schema = json.loads(grammar.text)
    assert (schema["type"], schema["minItems"]) == ("array", 1)
    weather, look = schema["items"]["anyOf"]
    assert weather["properties"] == {"name": {"const": "get_weather"}, "arguments": {"type": "object"}}
    assert look["properties"]["arguments"] == {"$ref": "#/$defs/tool1"}
    moved = schema["$defs"]["tool1"]
    assert moved["$ref"] == "#/$defs/tool1/$defs/L"
    assert moved["$defs"]["L"]["properties"]["next"] == {"$ref": "#/$defs/tool1"}


@pytest.mark.anyio
async def test_earlier_calls_and_their_results_are_rendered() -> None:
    """The template gets arguments as an object, and the result under the role `tool`."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    messages = [*HI, {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages.append({"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "7"}]})
    saying = Saying("Seven.")
    async with serving(saying) as client:
        await post(client, CHAT, {"messages": messages, "tools": TOOLS, "tool_choice": "none"})
    prompt = bytes(saying.requests[0].prompt_ids).decode()
    assert '"arguments": {"a": 1}' in prompt
    assert "[tool]7" in prompt
    assert "get_weather" not in prompt  # a tool that must not be called is not shown


@pytest.mark.anyio
async def test_a_model_that_knows_no_tools_says_so() -> None:
    """Its template would drop them silently; so would it drop earlier calls."""
    async with serving(Saying("a"), template=PLAIN_TEMPLATE) as client:
        error = await refused(client, CHAT, {"messages": HI, "tools": TOOLS})
        assert (error["param"], error["code"]) == ("tools", "tools_not_supported")
        result = {"role": "tool", "tool_call_id": "c1", "content": "7"}
        error = await refused(client, CHAT, {"messages": [*HI, result]})
        assert (error["param"], error["code"]) == ("messages[1].role", "tools_not_supported")
        await post(client, CHAT, {"messages": HI, "tools": TOOLS, "tool_choice": "none"})


@pytest.mark.anyio
async def test_the_format_can_be_named_at_start() -> None:
    """Where the template shows none that is known, calls are refused until the engine is told which."""
    template = HERMES_TEMPLATE.replace("<tool_call>", "<call>")
    async with serving(Saying("a"), template=template) as client:
        error = await refused(client, CHAT, {"messages": HI, "tools": TOOLS})
        assert (error["param"], "--tool-parser" in error["message"]) == ("tools", True)
    saying = Saying(f"[TOOL_CALLS] [{LONDON_CALL}]")
    async with serving(saying, template=template, tool_parser="mistral") as client:
        answer = await post(client, CHAT, {"messages": HI, "tools": TOOLS, "max_tokens": 200})
    assert calls_of(answer["choices"][0]) == [WEATHER]
    assert re.fullmatch(r"\w{9}", answer["choices"][0]["message"]["tool_calls"][0]["id"])
