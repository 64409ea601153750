"""Bodies that would hold up everybody are refused before they are decoded; what takes long is done beside the loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fake import MODEL, Bytes, Saying, post, refused, serving

from headrace_engines.serving.body_size import MAX_BUILT, MAX_VALUES, require_decodable
from headrace_engines.serving.errors import BadRequest

pytestmark = pytest.mark.anyio
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONTEXT = 2000
"""`Saying`'s."""
BUILT, VALUES = MAX_BUILT + CONTEXT, MAX_VALUES + CONTEXT
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


def call(arguments: str) -> dict[str, Any]:
    """A call of a tool, as a chat repeats it."""
    return {"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    "held",
    [
        '"metadata":[' + ",".join(["[]"] * BUILT),
        '"metadata":[' + ",".join(["{}"] * BUILT),
        '"metadata":[' + ",".join(['""'] * BUILT),
        '"metadata":[' + ",".join([r'"\"[\\"'] * BUILT),
        '"metadata":["' + r"\\" * BUILT + '",' + ",".join(["[]"] * BUILT),
        '"tokens":[' + ",".join(["1"] * (VALUES + 2)),
        ",".join(f'"k{number}":null' for number in range(BUILT)),
        '"logit_bias":{' + ",".join(['"5":1'] * BUILT),
        '"messages":[{"role":"user","content":[' + ",".join(['{"type":"text","text":""}'] * BUILT),
        '"messages":[{"role":"assistant","tool_calls":[' + ",".join([json.dumps(call("{}"))] * (BUILT // 8)),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize", "/detokenize", "/v1/embeddings"])
async def test_a_body_of_more_values_than_anybody_means_is_not_even_decoded(path: str, held: str) -> None:
    """The fault at its end, which whoever decodes it meets, is not what it is refused for."""
    async with serving(Saying("a")) as client:
        response = await client.post(path, content=f'{{"model":"{MODEL}",{held} and no JSON from here on')
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "too_many_values"


async def test_a_long_text_is_no_number_of_values() -> None:
    """Whatever stands in it, quoted or not."""
    text = 'a[{,:"\\' * (CONTEXT * 4)
    async with serving(Saying("a")) as client:
        assert (await post(client, "/tokenize", {"prompt": text}))["count"] == len(text)
        await post(client, COMPLETIONS, {"prompt": "x", "metadata": text * 10})


JSON = st.recursive(
    st.integers(0, 9) | st.none() | st.text(alphabet='a"\\[{,:]}é', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='"\\,a[', max_size=3), inner),
)


def built(value: Any) -> int:
    """Objects, lists and texts in it, names among them."""
    if isinstance(value, dict):
        return 1 + sum(1 + built(each) for each in value.values())
    return 1 + sum(map(built, value)) if isinstance(value, list) else isinstance(value, str)


@settings(deadline=None)
@given(JSON)
def test_what_is_built_of_a_body_is_counted_exactly(value: Any) -> None:
    """However its texts look."""
    most = [value, *[""] * (MAX_BUILT - 1 - built(value))]
    for body in (json.dumps(most), json.dumps(most, ensure_ascii=False)):
        require_decodable(body.encode(), max_model_len=0)
    with pytest.raises(BadRequest):
        require_decodable(json.dumps([*most, ""]).encode(), max_model_len=0)


@pytest.mark.parametrize(
    ("said", "code", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * CONTEXT}]}, None, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [call("{}")] * CONTEXT}]}, None, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [call('{"a":"' + "x" * 64_000 + '"}')]}]}, None, "messages"),
        ({"messages": HI, "guided_json": '{"a":[' + "[]," * MAX_BUILT + "and no JSON"}, "too_many_values", None),
        (
            {"messages": HI, "structured_outputs": {"json": '{"a":[' + "[]," * MAX_BUILT + "and no JSON"}},
            "too_many_values",
            None,
        ),
    ],
)
async def test_what_hides_in_a_chat_counts(said: dict[str, Any], code: str | None, param: str | None) -> None:
    """Parts, calls, their arguments, and JSON that comes as text, which would be decoded too."""
    async with serving(Saying("a")) as client:
        error = await refused(client, CHAT, said)
    assert error["code"] == (code or "context_length_exceeded")
    assert error["param"] == (param or next(name for name in said if name != "messages"))


async def test_more_tokens_than_the_context_has_no_text() -> None:
    """Neither could the model have read them, nor written."""
    async with serving(Saying("a")) as client:
        assert (await post(client, "/detokenize", {"tokens": [97] * CONTEXT}))["prompt"] == "a" * CONTEXT
        error = await refused(client, "/detokenize", {"tokens": [97] * (CONTEXT + 1)})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "tokens")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/detokenize", {"tokens": [97] * 5}), (COMPLETIONS, {"prompt": [97] * 5, "echo": True, "max_tokens": 1})],
)
async def test_health_answers_while_tokens_become_text(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    """Those of a whole request are many, so that is not the event loop's work."""
    decode, begun, going_on = Bytes.decode, asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def waiting(self: Bytes, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        if len(token_ids) == 5 and not skip_special_tokens:
            loop.call_soon_threadsafe(begun.set)
            assert going_on.wait(60)
        return decode(self, token_ids, skip_special_tokens=skip_special_tokens)

    monkeypatch.setattr(Bytes, "decode", waiting)
    async with serving(Saying("b")) as client:
        answering = asyncio.create_task(post(client, path, body))
        await begun.wait()
        assert (await client.get("/health")).status_code == 200
        going_on.set()
        assert "aaaaa" in str(await answering)
