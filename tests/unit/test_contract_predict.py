"""The pure translations behind `:predict`, OpenAI's bodies, event streams and errors."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from gateway_serving import deployed
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.openai.errors import message_of, openai_error
from headrace.contracts.openai.events import MAX_EVENT_BYTES, WholeEvents, event, event_data
from headrace.contracts.openai.requests import for_engine, model_of, read_object, wants_stream
from headrace.contracts.openai.usage import Usage, UsageFinder
from headrace.contracts.vertex.errors import google_error
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH, Instance, predict_answer, read_instances
from headrace.resources.errors import CODES, BadField, BadJson, EngineTimeout, ModelNotFound, QueueFull, page_url


def instances(value: Any, parameters: Any = None) -> list[Instance]:
    """What is read of these instances and parameters."""
    return read_instances(msgspec.json.encode(value), msgspec.json.encode(parameters))


@pytest.mark.parametrize("key", ["prompt", "text", "inputs", "input"])
def test_prompts(key: str) -> None:
    """A prompt under each of its names becomes a completion with what the instance says beside it."""
    (instance,) = instances([{key: "Hi", "temperature": 0, "top_p": 1, "max_tokens": 154, "ignore_eos": True}])
    assert instance.path == COMPLETIONS_PATH
    assert msgspec.json.decode(instance.engine_body("served", stream=False)) == {
        "model": "served",
        "prompt": "Hi",
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 154,
        "ignore_eos": True,
    }
    assert instance.prediction({"choices": [{"text": " there"}]}) == "Prompt:\nHi\nOutput:\n there"


def test_parameters_hold_for_all_that_do_not_say_otherwise() -> None:
    """Google's names become the engine's, whole numbers become whole, and the instance's own word counts."""
    parameters = {"maxOutputTokens": 5.0, "topK": 3.0, "topP": 0.5, "stopSequences": ["x"], "candidateCount": 2}
    one, two = instances(["Hi", {"prompt": "Ho", "max_tokens": 7, "temperature": 1.0}], parameters)
    assert one.body == {"max_tokens": 5, "top_k": 3, "top_p": 0.5, "stop": ["x"], "n": 2, "prompt": "Hi"}
    assert isinstance(one.body["max_tokens"], int)
    assert (two.body["max_tokens"], two.body["temperature"]) == (7, 1.0)
    assert isinstance(two.body["temperature"], float)
    texts = one.prediction({"choices": [{"text": "a"}, {"text": "b"}]})
    assert texts == ["Prompt:\nHi\nOutput:\na", "Prompt:\nHi\nOutput:\nb"]


def test_chats() -> None:
    """An instance with messages is a chat, and its prediction the whole answer."""
    messages = [{"role": "user", "content": "hi"}]
    (instance,) = instances([{"@requestFormat": "chatCompletions", "messages": messages, "stream": True}])
    assert (instance.path, instance.body, instance.stream) == (CHAT_PATH, {"messages": messages}, True)
    assert instance.prediction({"id": "c"}) == {"id": "c"}
    assert instance.stream_line(b'{"id":"c"}') == b'{"predictions":[{"id":"c"}]}\n'


def test_streamed_lines() -> None:
    """A line holds the new text; the end and chunks without text give none."""
    (instance,) = instances([{"prompt": "Hi", "raw_response": True}])
    assert instance.stream_line(b'{"choices":[{"text":"a\\n"}]}') == b'{"predictions":["a\\n"]}\n'
    assert instance.stream_line(b'{"choices":[],"usage":{}}') == b""
    assert instance.stream_line(b"[DONE]") == b""
    assert instance.prediction({"choices": [{"text": "a"}]}) == "a"


@pytest.mark.parametrize(
    ("value", "parameters", "told"),
    [
        ([], None, "at least one"),
        ({}, None, "list"),
        (None, None, "list"),
        ([{}], None, r"instances\[0\]"),
        (["a", {"prompt": "a", "text": "b"}], None, r"instances\[1\]"),
        ([{"prompt": "a", "messages": []}], None, "exactly one"),
        ([{"prompt": 1}], None, r"instances\[0\].prompt"),
        ([1], None, r"instances\[0\]"),
        (["a"], [1], "parameters"),
        (["a"] * 1025, None, "1025; the limit is 1024"),
    ],
)
def test_what_is_no_instance(value: Any, parameters: Any, told: str) -> None:
    """What cannot be answered is told with its place."""
    with pytest.raises(BadField, match=told):
        instances(value, parameters)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(value=JSON, parameters=JSON)
def test_any_json_is_read_or_refused(value: Any, parameters: Any) -> None:
    """Whatever JSON comes, it is instances or a bad field; never another exception."""
    try:
        found = instances(value, parameters)
    except BadField:
        return
    assert len(found) == len(value)


@settings(deadline=None)
@given(noise=st.binary(max_size=40), before=st.sampled_from([b"", b'["', b'[{"prompt":"', b'{"a":"']))
def test_noise_in_instances_is_bad_json(noise: bytes, before: bytes) -> None:
    """Whatever bytes come, they are instances, a bad field or no JSON; text that is not UTF-8 too."""
    for body, parameters in ((before + noise, None), (b'["a"]', before + noise)):
        with contextlib.suppress(BadField, BadJson):
            read_instances(body, parameters)


@pytest.mark.parametrize(("body", "parameters"), [(b'["\xff"]', None), (b'["a"]', b'{"stop":"\xff"}')])
def test_text_that_is_not_utf_8(body: bytes, parameters: bytes | None) -> None:
    """Bytes that are not UTF-8 are no JSON, and said to be so."""
    with pytest.raises(BadJson, match="utf-8"):
        read_instances(body, parameters)


def test_predict_answer_is_vertex_ais() -> None:
    """The answer has the fields that Vertex AI's clients read."""
    answer = predict_answer(["x"], deployed(), prompt_tokens=1, completion_tokens=2)
    assert answer == {
        "predictions": ["x"],
        "deployedModelId": "d1",
        "model": "projects/default/locations/us-central1/models/m-d1",
        "modelDisplayName": "custom-model",
        "modelVersionId": "1",
        "metadata": {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    }


@settings(deadline=None)
@given(body=st.dictionaries(st.text(), JSON, max_size=5))
def test_bodies_go_on_as_they_came(body: dict[str, Any]) -> None:
    """Only `model` changes on the way to the engine; numbers keep every digit."""
    sent = msgspec.json.decode(for_engine(read_object(msgspec.json.encode(body)), "served"))
    assert sent == body | {"model": "served"}


def test_numbers_keep_their_digits() -> None:
    """No value is read and written again."""
    digits = b'{"seed": 123456789012345678901234567890, "p": 0.10000000000000000001, "u": "\\u00e9"}'
    assert for_engine(read_object(digits), "m").startswith(
        b'{"seed":123456789012345678901234567890,"p":0.10000000000000000001,"u":"\\u00e9"'
    )


@pytest.mark.parametrize(("stream", "wanted"), [("true", True), ("false", False), ("null", False), ('"true"', False)])
def test_only_true_asks_for_a_stream(stream: str, wanted: bool) -> None:
    """Anything else is for the engine to judge."""
    assert wants_stream(read_object(f'{{"stream": {stream}}}'.encode())) is wanted


def test_model_must_be_a_name() -> None:
    """A missing or unusual `model` is told by the field's name."""
    assert model_of(read_object(b'{"model": "m"}')) == "m"
    for body in (b"{}", b'{"model": 1}', b'{"model": null}', b'{"model": "\xff"}'):
        with pytest.raises(BadField, match="model"):
            model_of(read_object(body))


@settings(deadline=None)
@given(noise=st.binary(max_size=100))
def test_noise_is_bad_json(noise: bytes) -> None:
    """Bytes are an object or BAD_JSON."""
    with contextlib.suppress(BadJson):
        assert isinstance(read_object(noise), dict)


EVENTS = st.lists(st.text("abc:{}é \\", max_size=20), max_size=8)


@settings(deadline=None)
@given(texts=EVENTS, cuts=st.sets(st.integers(0, 200)), newline=st.sampled_from([b"\n", b"\r\n"]))
def test_whole_events_only(texts: list[str], cuts: set[int], newline: bytes) -> None:
    """Wherever a stream is cut, nothing is lost, and each piece that is passed on ends where an event does."""
    stream = b"".join(b"data: " + text.encode() + newline * 2 for text in texts)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(stream)), len(stream)]
    events, passed_on = WholeEvents(), b""
    for start, stop in pairwise(edges):
        piece = events.feed(stream[start:stop])
        assert piece == b"" or piece.endswith(newline * 2)
        passed_on += piece
    assert passed_on + events.rest() == stream
    assert events.rest() == b""
    assert event_data(stream) == [text.lstrip(" ").encode() for text in texts]


def test_endless_event_is_not_held_for_ever() -> None:
    """An event over the limit is passed on in parts, so memory is bounded."""
    events = WholeEvents()
    passed_on = sum(len(events.feed(b"x" * 100_000)) for _ in range(50))
    assert passed_on >= 50 * 100_000 - MAX_EVENT_BYTES - 100_000
    assert events.feed(b"\n\n").endswith(b"\n\n")


@settings(deadline=None)
@given(prompt=st.integers(0, 10**9), made=st.integers(0, 10**9), text=st.text(max_size=50), size=st.integers(1, 60))
def test_usage_is_found(prompt: int, made: int, text: str, size: int) -> None:
    """Usage at an answer's end is found in pieces of any size, whatever the model's text imitates."""
    imitation = text + '"usage":{"prompt_tokens":666,"completion_tokens":666}'
    answer = {"choices": [{"text": imitation}], "usage": {"prompt_tokens": prompt, "completion_tokens": made}}
    encoded, finder = event(msgspec.json.encode(answer)), UsageFinder()
    for start in range(0, len(encoded), size):
        finder.feed(encoded[start : start + size])
    assert finder.usage() == Usage(prompt, made)


@pytest.mark.parametrize(
    "answer", [b"", b"data: [DONE]", b'{"usage":null}', b'{"t":"\\"usage\\":{\\"prompt_tokens\\":1}"}']
)
def test_no_usage(answer: bytes) -> None:
    """Where the engine says nothing, nothing is found."""
    finder = UsageFinder()
    finder.feed(answer)
    assert finder.usage() is None


def test_google_errors() -> None:
    """Message for people, reason for programs, RetryInfo where another try makes sense, and the code's page."""
    error = QueueFull("Full.", evidence="9 wait.", fix="Come back.", retry_after_s=1.2)
    page = {"description": "What QUEUE_FULL means, and what to do.", "url": page_url("QUEUE_FULL")}
    assert google_error(error) == (
        429,
        {
            "error": {
                "code": 429,
                "message": "Full. Evidence: 9 wait. Fix: Come back.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "QUEUE_FULL",
                        "domain": "headrace",
                        "metadata": {"evidence": "9 wait.", "fix": "Come back."},
                    },
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"},
                    {"@type": "type.googleapis.com/google.rpc.Help", "links": [page]},
                ],
            }
        },
    )


def test_openai_errors() -> None:
    """OpenAI's shape, with our stable code, and OpenAI's own for an unknown model."""
    body = {"message": "Late.", "type": "server_error", "param": None, "code": "ENGINE_TIMEOUT"}
    assert openai_error(EngineTimeout("Late.")) == (504, {"error": body})
    unknown = openai_error(ModelNotFound("No."))[1]["error"]
    assert (unknown["code"], unknown["param"]) == ("model_not_found", "model")
    named = openai_error(BadField("`messages[0].role` must be a role."))[1]["error"]
    assert (named["code"], named["param"]) == ("BAD_FIELD", "messages[0].role")
    assert openai_error(BadField("The request must say `max_tokens`."))[1]["error"]["param"] is None


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_has_both_shapes(code: str) -> None:
    """Each leaf of the tree can be told on both wires with the same HTTP status."""
    error = CODES[code]("What.", evidence="Why.", fix="How.")
    assert google_error(error)[0] == openai_error(error)[0] == error.http_status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"m","code":400}}', "m"),
        (b'{"object":"error","message":"m"}', "m"),
        (b'{"detail":"m"}', "m"),
        (b'{"error":"m"}', "m"),
        (b'{"detail":[{"loc":["x"]}]}', '{"detail":[{"loc":["x"]}]}'),
        (b"oops\n", "oops"),
        (b"[1]", "[1]"),
    ],
)
def test_engines_sentences(body: bytes, message: str) -> None:
    """An engine's reason is found in each of the usual shapes."""
    assert message_of(body) == message
