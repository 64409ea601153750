"""Patterns that a text can be told apart into in too many ways are refused; ordinary ones are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fake import Saying, post, refused, serving

from headrace_engines.serving.ambiguity import MAX_ENDLESS, why_too_ambiguous

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]

COSTLY = [
    "((x*)*)*" * 100,
    "(.+)+" * 500,
    "((x*)*)*",
    "((x+)+)+",
    "(x*)*x*",
    "(x*)*,",
    "((?i)x*)*,",
    "((?=,)x*)*,",
    "(x*)*(x*)*",
    r"(\w+\s*)*(\w+\s*)*",
    "(x+,?)*(x+,?)*",
    "([a-z]?){1,40}",
    "([a-z]+ ?){1,5}",
    "[a-z]?" * 20,
    "(.{1,3})+",
    "(.{1,3}){1,30}",
    "(.{1,30}|ab)*",
    "((.){1,3}){1,30}",
    "(((x)**)*)*,",
    "x*" * (MAX_ENDLESS + 1),
    r"x*\w*.*[^y]*[a-z]*(x|y)*",
    "(" + "|".join(["x+"] * 100) + ")*",
    r"(\x78*)*,",
    "(" * 1000 + "x" + ")" * 1000,
    "(x{1,1000}){1," + "0" * 40 + "1000}",
    "(x{1,1000}){1, 1000}",
    "(x{" + "9" * 5000 + "}){2}",
]
"""Each takes an engine tens of milliseconds a token or more; the docstring of `ambiguity` has measurements."""

ORDINARY = [
    r"(\w+\s*)*",
    r"([a-z]+,)*[a-z]+",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"https?://(www\.)?[a-z]+(\.[a-z]+)?(/\S*)?(\?\S*)?(#\S*)?",
    r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})?)?",
    r"-?\d+(\.\d+)?([eE][+-]?\d+)?",
    r"(\+?\d{1,3}[- ]?)?\(?\d{3}\)?[- ]?\d{3}[- ]?\d{4}",
    r'"([^"\\]|\\.)*"',
    r"\[(\d+(, \d+)*)?\]",
    r"\s*a\s*:\s*\w+\s*," * 20,
    r"((\d+|[a-z]+),)*",
    r"((x+,)*x+;)*",
    r"(\w{1,40} ){1,20}",
    "(foo|bar|baz)+",
    r"(\d{1,3}\.){3}\d{1,3}",
    "(.|\n)*",
    ".*a.*a.*a.*a",
    "|".join(["x+"] * 100),
    "|".join(["answer"] * 8000),
]


def _pattern(pattern: str) -> list[tuple[dict[str, Any], str]]:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return [
        ({"guided_regex": pattern}, "guided_regex"),
        ({"structured_outputs": {"regex": pattern}}, "structured_outputs"),
        ({"guided_json": schema}, "guided_json"),
        ({"response_format": form}, "response_format"),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("pattern", COSTLY)
async def test_a_pattern_that_would_hold_up_everybody_is_refused(pattern: str) -> None:
    """400, `grammar_invalid` and the parameter, however it is said, and before any engine sees it."""
    saying = Saying("a")
    async with serving(saying) as client:
        for said, param in _pattern(pattern):
            error = await refused(client, CHAT, {"messages": HI} | said)
            assert (error["code"], error["param"]) == ("grammar_invalid", param)
    assert saying.requests == []


@pytest.mark.anyio
@pytest.mark.parametrize("pattern", ORDINARY)
async def test_an_ordinary_pattern_is_followed(pattern: str) -> None:
    """What people write has something between its repetitions, or few of them."""
    async with serving(Saying("a")) as client:
        for said, _ in _pattern(pattern):
            await post(client, CHAT, {"messages": HI} | said)


@pytest.mark.anyio
async def test_grammars_in_other_languages_are_taken_nowhere() -> None:
    """An EBNF grammar could nest what a pattern may not; no engine is given one."""
    async with serving(Saying("a")) as client:
        for said in ({"guided_grammar": "root ::= (x*)*"}, {"structured_outputs": {"grammar": "root ::= (x*)*"}}):
            assert (await refused(client, CHAT, {"messages": HI} | said))["code"] in {
                "unknown_parameter",
                "invalid_value",
            }


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


@settings(deadline=None)
@given(st.text(alphabet="x(){}[]\\,015*+?|^-:=!<>P&~wbdu", max_size=80))
def test_any_pattern_can_be_judged(pattern: str) -> None:
    """However broken it is; and what is refused is so within a group, and among others."""
    if why_too_ambiguous(pattern):
        assert why_too_ambiguous(pattern + "|y")
    assert isinstance(why_too_ambiguous(pattern), str)


ATOMS = st.sampled_from(["x", "y", ",", "[xy]", r"\w", "."])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}"])).map(
            lambda both: f"(?:{both[0]}){both[1]}"
        ),
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: f"({'|'.join(each)})"),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(PATTERNS)
def test_nothing_that_is_refused_becomes_followable_by_what_stands_around_it(pattern: str) -> None:
    """More before, after, beside or around it is never less work."""
    if why_too_ambiguous(pattern):
        for larger in (f"{pattern}y", f"y{pattern}", f"({pattern})", f"(?:{pattern})*", f"({pattern}|y)", pattern * 2):
            assert why_too_ambiguous(larger)
