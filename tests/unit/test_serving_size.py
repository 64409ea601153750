"""Texts and grammars that no model could take are refused before anything is made of them; junk is never a failure."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_fake import MODEL, VOCAB_SIZE, Bytes, Saying, post, refused, serving

from headrace_engines.serving.app import build_app
from headrace_engines.serving.embedder import Embedder, EmbedderLimits
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.followable import GRAMMAR_MAX_CHARS
from headrace_engines.serving.generator import ServedModel
from headrace_engines.serving.repetition import counted_repetitions
from headrace_engines.serving.text_size import MAX_CHARS_PER_TOKEN

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONTEXT = 2000
"""`Saying`'s."""
LIMIT = CONTEXT * MAX_CHARS_PER_TOKEN
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all texts that were tokenised."""
    lengths: list[int] = []
    encode = Bytes.encode

    def noting(self: Bytes, text: str, *, add_special_tokens: bool) -> list[int]:
        lengths.append(len(text))
        return encode(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(Bytes, "encode", noting)
    return lengths


@pytest.mark.anyio
async def test_a_text_that_cannot_fit_is_not_even_tokenised(encoded: list[int]) -> None:
    """400 as for any prompt that is too long, with how many characters came and how many are read."""
    long = "x" * (LIMIT + 1)
    async with serving(Saying("a")) as client:
        encoded.clear()
        for path, body, param in (
            (COMPLETIONS, {"prompt": long}, "prompt"),
            (COMPLETIONS, {"prompt": [long]}, "prompt"),
            (CHAT, {"messages": [{"role": "user", "content": long}]}, "messages"),
            (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": long}]}]}, "messages"),
            (CHAT, {"messages": HI * (CONTEXT + 1)}, "messages"),
            ("/tokenize", {"prompt": long}, "prompt"),
            ("/tokenize", {"messages": [{"role": "user", "content": long}]}, "messages"),
        ):
            error = await refused(client, path, body)
            assert (error["code"], error["param"]) == ("context_length_exceeded", param)
        assert encoded == []
        assert f"{LIMIT + 1:,} characters" in (await refused(client, COMPLETIONS, {"prompt": long}))["message"]
        assert f"{LIMIT:,}" in (await refused(client, COMPLETIONS, {"prompt": long}))["message"]
        tokenised = await post(client, "/tokenize", {"prompt": long[1:]})
    assert tokenised["count"] == LIMIT


@pytest.mark.anyio
async def test_no_prompt_is_tokenised_of_more_than_the_engine_takes(encoded: list[int]) -> None:
    """Nor any after the first that does not fit with what was asked for."""
    long = "x" * CONTEXT
    async with serving(Saying("a")) as client:
        encoded.clear()
        for body in ({"prompt": ["a"] * 9}, {"prompt": ["a"] * 3, "n": 3}):
            assert (await refused(client, COMPLETIONS, body))["code"] == "invalid_value"
        assert encoded == []
        error = await refused(client, COMPLETIONS, {"prompt": ["a", long, long, long]})
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
        assert encoded == [1, CONTEXT]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "said"), [(COMPLETIONS, {"prompt": ["aa", "b", "b"]}), ("/v1/embeddings", {"input": ["aa", "b", "b"]})]
)
async def test_who_hangs_up_while_texts_are_tokenised_has_the_rest_left_out(
    encoded: list[int], monkeypatch: pytest.MonkeyPatch, path: str, said: dict[str, Any]
) -> None:
    """There may be thousands of them."""
    encode, going_on = Bytes.encode, threading.Event()
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def waiting(self: Bytes, text: str, *, add_special_tokens: bool) -> list[int]:
        if text == "aa":
            loop.call_soon_threadsafe(begun.set)
            assert going_on.wait(60)
        return encode(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(Bytes, "encode", waiting)
    saying, embedder = Saying("a"), Ones()
    shell = Engine(MODEL, {"engine": "transformers"}, lambda fatal: None)
    generator = saying if path == COMPLETIONS else None
    await shell.start(
        lambda loop, on_death: ServedModel(generator, Bytes(None), embedder=None if generator else embedder)
    )
    body = [{"type": "http.request", "body": json.dumps({"model": MODEL} | said).encode()}]

    async def receive() -> Any:
        if body:
            return body.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    head = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    encoded.clear()
    await build_app(shell, None)(head, receive, send)
    going_on.set()
    await shell.encode("the codec's next", add_special_tokens=True)
    assert encoded == [2, len("the codec's next")]


class Ones(Embedder):
    """The same vector for everything."""

    limits = EmbedderLimits(
        max_input_tokens=CONTEXT, dimensions=1, max_batch_inputs=2, vocab_size=VOCAB_SIZE, matryoshka=False
    )

    async def embed(self, inputs: list[list[int]], computed: Callable[[int], object]) -> list[list[float]]:
        """One dimension of it."""
        computed(sum(map(len, inputs)))
        return [[1.0] for _ in inputs]


@pytest.mark.anyio
async def test_what_a_template_makes_too_long_is_not_tokenised(encoded: list[int]) -> None:
    """The messages are short, their rendering is not."""
    template = "{% for m in messages %}{{ m.content * 40000 }}{% endfor %}"
    async with serving(Saying("a"), template=template) as client:
        encoded.clear()
        error = await refused(client, CHAT, {"messages": HI})
    assert (error["code"], error["param"], encoded) == ("context_length_exceeded", "messages", [])


class PanicException(BaseException):
    """What Rust's panics look like in Python: no `Exception`, and of a class that nobody can import."""


SAID = "Onig: Regex search error: retry-limit-in-match over"


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [PanicException(SAID), ValueError(SAID)])
async def test_a_text_that_the_tokenizer_fails_on_is_refused_with_its_words(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """Everywhere the same: 400 in OpenAI's shape, with the parameter, the code and what the tokenizer said."""
    encode = Bytes.encode

    def failing(self: Bytes, text: str, *, add_special_tokens: bool) -> list[int]:
        if "xxx" in text:
            raise failure
        return encode(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(Bytes, "encode", failing)
    async with serving(Saying("a")) as client:
        for path, body, param in (
            (COMPLETIONS, {"prompt": "xxx"}, "prompt"),
            (CHAT, {"messages": [{"role": "user", "content": "xxx"}]}, "messages"),
            (CHAT, {"messages": [{"role": "user", "content": "xxx"}], "stream": True}, "messages"),
            ("/tokenize", {"prompt": "xxx"}, "prompt"),
            ("/tokenize", {"messages": [{"role": "user", "content": "xxx"}]}, "messages"),
        ):
            error = await refused(client, path, body)
            assert (error["code"], error["param"], SAID in error["message"]) == ("tokenizer_failed", param, True)
        await post(client, COMPLETIONS, {"prompt": "x"})


def _format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _tool(schema: Any) -> dict[str, Any]:
    return {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "tool_choice": "required",
    }


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


UNFOLLOWABLE: list[tuple[str, Any]] = [
    ("leads to itself", {"$ref": "#"}),
    ("leads to itself", {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    ("leads to itself", {"$defs": {"a~": {"allOf": [{}, {"$ref": "#/$defs/a~0"}]}}, "$ref": "#/$defs/a~0"}),
    ("leads to itself", {"anyOf": [{"$ref": "#"}]}),
    ("64 bits", {"type": "integer", "minimum": 10**30, "maximum": 10**31}),
    ("64 bits", {"type": ["integer", "null"], "minimum": 1e30}),
    ("64 bits", {"enum": [2**63]}),
    ("levels deep", _deep(200)),
    ("levels deep", _deep(440)),
    ("repetitions within", {"type": "string", "pattern": "^(x{1,1000}){1,1000}$"}),
    ("repetitions within", {"items": {"patternProperties": {"(x*y*){1,1000}": {}}}}),
    ("remainders", {"type": "integer", "multipleOf": 999_983}),
    ("remainders", {"properties": {"a": {"type": "number", "multipleOf": 0.999983}}}),
    ("remainders", {"prefixItems": [{"multipleOf": 9001}, {"multipleOf": 7001}]}),
    ("remainders", {"type": "integer", "multipleOf": 997, "allOf": [{"multipleOf": 991}]}),
    ("characters", {"enum": ["x" * GRAMMAR_MAX_CHARS]}),
    ("characters", {"enum": [1] * GRAMMAR_MAX_CHARS}),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("why", "schema"), UNFOLLOWABLE)
async def test_a_schema_that_no_engine_could_follow_is_refused_in_the_same_words(why: str, schema: Any) -> None:
    """However it is said: 400, `grammar_invalid`, the parameter, and the reason."""
    saying = Saying("a")
    async with serving(saying) as client:
        for said, param in (
            (_format(schema), "response_format"),
            ({"structured_outputs": {"json": schema}}, "structured_outputs"),
            ({"guided_json": json.dumps(schema)}, "guided_json"),
            (_tool(schema), "tools"),
        ):
            error = await refused(client, CHAT, {"messages": HI} | said)
            assert (error["code"], error["param"]) == ("grammar_invalid", param)
            assert why in error["message"]
    assert saying.requests == []


@pytest.mark.parametrize(
    ("pattern", "counted"),
    [
        ("(x{1,1000}){1,1000}", 1_000_000),
        ("((x{2}){3}){4,}", 24),
        ("(?:a|(b{1,5}c?)+){7}", 70),
        ("(x+){1,1000}", 10_000),
        ("(x{3,}){1,2}", 20),
        ("((x+)+)*", 1),
        ("[a-z]{1,10000}", 1),
        ("a{9}b{9}(c{9}){0,1}d{9}", 1),
        (r"(\(x{9}\)){9}[({9}){9}\]{9}]{9}", 81),
        (r"(x\{9}){9}", 1),
        ("(x{9}){,9}", 81),
        ("(x{9}){a}{1", 1),
        ("x{9})){9", 1),
        ("(" * 50_000, 1),
    ],
)
def test_repetitions_within_one_another_are_counted(pattern: str, counted: int) -> None:
    """Products of counts, however a pattern is written; what stands beside one another is not multiplied."""
    assert counted_repetitions(pattern) == counted


@settings(deadline=None)
@given(st.text(alphabet="x(){}[]\\,0159*+?|", max_size=60))
def test_any_pattern_can_be_counted(pattern: str) -> None:
    """However broken it is."""
    assert counted_repetitions(pattern) >= 1


@pytest.mark.anyio
async def test_a_pattern_that_counts_too_much_is_refused() -> None:
    """Before any engine sees it, as one that is too long."""
    async with serving(Saying("a")) as client:
        for said in ({"guided_regex": "(x{1,1000}){1,1000}"}, {"structured_outputs": {"regex": "(x*y*){1,1000}"}}):
            error = await refused(client, CHAT, {"messages": HI} | said)
            assert (error["code"], "repetitions within one another" in error["message"]) == ("grammar_invalid", True)


@pytest.mark.anyio
async def test_a_pattern_or_choice_that_is_too_long_is_refused() -> None:
    """As a schema is."""
    async with serving(Saying("a")) as client:
        for said in ({"guided_regex": "x" * 70_000}, {"guided_choice": ["x" * 70_000]}):
            assert (await refused(client, CHAT, {"messages": HI} | said))["code"] == "grammar_invalid"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"anyOf": [{"type": "string"}, {"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "allOf": [{"$ref": "#/$defs/t"}]},
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": "number", "maximum": 1e300},
        {"type": "number", "multipleOf": 0.01},
        {"type": "integer", "multipleOf": 1_000_000},
        {"type": "array", "prefixItems": [{}] * 10_500},
        {"type": "string", "pattern": r"^(\w{1,40} ){1,20}$"},
        {"properties": {"$ref": {"type": "string"}, "allOf": {"type": "string"}}},
        _deep(40),
    ],
)
async def test_a_schema_that_recurs_through_something_is_followed(schema: Any) -> None:
    """Trees and lists are what references are for."""
    async with serving(Saying("a")) as client:
        await post(client, CHAT, {"messages": HI} | _format(schema))


DEEP = '{"a":' * 3000 + "1" + "}" * 3000
"""JSON that a reader which recurses cannot read."""
LESS_DEEP = '{"a":' * 400 + "1" + "}" * 400
"""JSON that can be read, and at which what comes after fails."""


@pytest.mark.anyio
@pytest.mark.parametrize("deep", [DEEP, LESS_DEEP])
async def test_json_inside_a_text_that_is_nested_too_deeply_is_the_clients_mistake(deep: str) -> None:
    """400 with the parameter, wherever JSON comes as text; the engine goes on."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": deep}}
    calling = {"messages": [*HI, {"role": "assistant", "tool_calls": [call]}]}
    place = "messages[1].tool_calls[0].function.arguments"
    async with serving(Saying("a")) as client:
        for path, body, param, code in (
            (CHAT, {"messages": HI, "guided_json": deep}, "guided_json", "grammar_invalid"),
            (
                COMPLETIONS,
                {"prompt": "x", "structured_outputs": {"json": deep}},
                "structured_outputs",
                "grammar_invalid",
            ),
            (CHAT, calling, place, "invalid_value"),
            ("/tokenize", calling, place, "invalid_value"),
        ):
            error = await refused(client, path, body)
            assert (error["param"], error["code"]) == (param, code)
            assert "more than 128 levels deep" in error["message"]
        await post(client, CHAT, {"messages": HI})


@pytest.mark.anyio
async def test_a_body_as_deep_as_can_be_read_is_answered_or_refused() -> None:
    """Whatever is nested in it: what reads it further on recurses too."""
    for levels in range(100, 1000, 150):
        deep = json.loads('{"a":' * levels + "1" + "}" * levels)
        async with serving(Saying("a")) as client:
            for said in (
                {"chat_template_kwargs": {"mood": deep}},
                {"tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]},
                _tool(deep),
                _format(deep),
                {"metadata": deep},
                {"response_format": deep},
                {"tool_choice": deep},
            ):
                response = await client.post(CHAT, json={"model": MODEL, "messages": HI} | said)
                assert response.status_code in {200, 400}, response.text


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["self", "messages", "conversation", "add_generation_prompt", "truncation"])
async def test_what_renders_a_template_keeps_its_names(name: str) -> None:
    """A request cannot say them for the template; the refusal names them and does not blame the template."""
    async with serving(Saying("a")) as client:
        for path in (CHAT, "/tokenize"):
            error = await refused(client, path, {"messages": HI, "chat_template_kwargs": {name: 1}})
            assert (error["param"], error["code"]) == ("chat_template_kwargs", "invalid_value")
            assert error["message"].startswith(f"`chat_template_kwargs` cannot say {name}: ")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("part", "code", "message"),
    [
        ({"type": "text", "text": None}, "invalid_value", "messages[0].content[0].text must be text."),
        ({"type": {"a": 1}}, "unsupported_content", "content parts of type {'a': 1} are not supported"),
        ({"type": ["image_url"]}, "unsupported_content", "content parts of type ['image_url'] are not supported"),
        ("text", "invalid_value", "messages[0].content[0] must be a content part"),
    ],
)
async def test_a_part_of_no_kind_is_refused_for_what_it_is(part: Any, code: str, message: str) -> None:
    """With its place, whatever JSON its type is."""
    async with serving(Saying("a")) as client:
        error = await refused(client, CHAT, {"messages": [{"role": "user", "content": [part]}]})
    assert error["code"] == code
    assert message in error["message"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["text", "image_url", "user", "tool", "assistant", "function", "required", "json_schema", "f"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "function", "name", "json", "schema", "json_schema"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
FULL: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "n"},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "x", "tool_call_id": "1"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "structured_outputs": {"json": {"type": "object"}},
    "chat_template_kwargs": {"mood": 1},
    "logit_bias": {"5": 1.0},
    "stop": ["x"],
    "stream_options": {"include_usage": True},
    "max_tokens": 2,
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], junk)
    return copy


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FULL)), st.sampled_from(_places(FULL)[1:]), JSON, st.booleans())
def test_any_json_at_any_place_of_a_chat_is_answered_or_refused(
    dropped: str, place: tuple[Any, ...], junk: Any, stream: bool
) -> None:
    """200 or 4xx, never an exception. The transport raises what the shell does not catch."""

    async def asked() -> int:
        body = {
            key: value
            for key, value in FULL.items()
            if key == place[0] or (key != dropped and key in {"messages", "tools"})
        }
        async with serving(Saying("a")) as client:
            response = await client.post(
                CHAT, json={"model": MODEL} | _with(body, place, junk) | ({"stream": True} if stream else {})
            )
        return response.status_code

    status = asyncio.run(asked())
    assert status == 200 or 400 <= status < 500


@pytest.mark.anyio
@pytest.mark.parametrize("levels", [200, 900, 960, 2000])
async def test_a_body_of_many_levels_is_answered_or_refused(levels: int) -> None:
    """Wherever they are: what can be read can still be too deep for the next who reads it."""
    deep = "[" * levels + "]" * levels
    hi = '"messages":[{"role":"user","content":"x"}]'
    schema = '{"name":"x","schema":{"a":DEEP}}'
    tools = '"tools":[{"type":"function","function":{"name":"f","parameters":{"a":DEEP}}}]'
    places = (
        '"messages":[{"role":"user","content":DEEP}]',
        '"messages":[{"role":"user","content":"x","more":DEEP}]',
        f'{hi},"chat_template_kwargs":{{"mood":DEEP}}',
        f'{hi},"response_format":{{"type":"json_schema","json_schema":{schema}}}',
        f"{hi},{tools}",
        f'{hi},{tools},"tool_choice":"required"',
    )
    async with serving(Saying("a")) as client:
        for place in places:
            body = f'{{"model":"{MODEL}",{place}}}'.replace("DEEP", deep)
            response = await client.post(CHAT, content=body)
            assert response.status_code == 200 or 400 <= response.status_code < 500, (place, response.text)
