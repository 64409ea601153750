"""`:generateContent` as a chat and back: what Gemini's clients send, and what they read."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.openai.events import event, event_data
from headrace.contracts.openai.requests import read_object
from headrace.contracts.vertex.alt import is_strict, wants_events
from headrace.contracts.vertex.generate import AnswerStream, chat_of, prompts_of, whole_answer
from headrace.contracts.vertex.generate.schemas import MAX_DEPTH, json_schema
from headrace.resources.errors import BadField, BadJson, EngineFailed, EngineStalled

HELLO = [{"role": "user", "parts": [{"text": "Hello"}]}]
SAID_HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}
PIXEL = bytes(range(240, 256))


def chat(request: dict[str, Any], *, stream: bool = False) -> dict[str, Any]:
    """The chat that a request is."""
    body = read_object(msgspec.json.encode(request))
    return {name: msgspec.json.decode(value) for name, value in chat_of(body, stream=stream).items()}


def messages(*contents: Any, **more: Any) -> Any:
    """The messages of a conversation."""
    return chat({"contents": contents, **more})["messages"]


def configured(**config: Any) -> dict[str, Any]:
    """What a generation config says to the engine."""
    made = chat({"contents": HELLO, "generationConfig": config})
    assert made.pop("messages") == SAID_HELLO
    return made


def test_a_conversation() -> None:
    """Roles become OpenAI's, the system instruction comes first, and a thought is not told again."""
    assert messages(
        *HELLO,
        {"role": "model", "parts": [{"text": "secret", "thought": True}, {"text": "Hi."}]},
        {"parts": [{"text": "How are you?"}]},
        systemInstruction={"parts": [{"text": "Be kind."}, {"text": "Be brief."}]},
    ) == [
        {"role": "system", "content": "Be kind.\nBe brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
    ]


def test_history_that_was_streamed_is_one_turn() -> None:
    """A client keeps a content for each chunk; together they are what the model said."""
    pieces = [{"role": "model", "parts": [{"text": text}]} for text in ("Hi", " there", "")]
    assert messages(*HELLO, *pieces, *HELLO)[1] == {"role": "assistant", "content": "Hi there"}


def test_both_spellings_and_one_thing_for_a_list() -> None:
    """snake_case, and an object where a list of them belongs, as Google's own curl commands have it."""
    request = {
        "contents": {"role": "user", "parts": {"text": "Hello"}},
        "system_instruction": {"parts": {"text": "Be brief."}},
        "generation_config": {"max_output_tokens": "5", "top_k": 3.0},
        "tools": {"function_declarations": WEATHER},
    }
    made = chat(request)
    assert made["messages"] == [{"role": "system", "content": "Be brief."}, *SAID_HELLO]
    assert (made["max_tokens"], made["top_k"]) == (5, 3)
    assert made["tools"][0]["function"]["name"] == "weather"


def test_parameters() -> None:
    """Every parameter goes to the engine under its own name; what was not said is the engine's default."""
    assert configured() == {}
    assert configured(
        temperature=0,
        topP=0.5,
        topK=40.0,
        candidateCount=2,
        maxOutputTokens=7,
        stopSequences=["a", "b"],
        seed=3,
        presencePenalty=0.25,
        frequencyPenalty=-0.25,
        responseLogprobs=True,
        logprobs=2,
        thinkingConfig={"thinkingBudget": 0},
        responseModalities=["TEXT"],
    ) == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 40,
        "n": 2,
        "max_tokens": 7,
        "stop": ["a", "b"],
        "seed": 3,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert chat({"contents": HELLO, "safetySettings": [{"category": 1, "threshold": 2}], "labels": {"a": "b"}}) == {
        "messages": SAID_HELLO
    }
    assert chat({"contents": HELLO, "serviceTier": "flex"}, stream=True) == {
        "messages": SAID_HELLO,
        "service_tier": "flex",
        "stream": True,
    }


def test_forms_of_answers() -> None:
    """JSON of any kind, by either form of schema, or one of some texts."""
    assert configured(responseMimeType="text/plain") == {}
    assert configured(responseMimeType="application/json") == {"response_format": {"type": "json_object"}}
    google = {"type": "OBJECT", "properties": {"b": {"type": "INTEGER"}, "a": {"type": 1}}, "propertyOrdering": ["a"]}
    made = configured(responseMimeType="application/json", responseSchema=google)["response_format"]
    assert made["type"] == "json_schema"
    assert list(made["json_schema"]["schema"]["properties"].items()) == [
        ("a", {"type": "string"}),
        ("b", {"type": "integer"}),
    ]
    assert made["json_schema"]["schema"]["additionalProperties"] is False
    own = {"type": "object", "patternProperties": {"x": {}}}
    made = configured(responseMimeType="application/json", responseJsonSchema=own)["response_format"]
    assert made["json_schema"]["schema"] == own
    chosen = configured(responseMimeType="text/x.enum", responseSchema={"type": "STRING", "enum": ["yes", "no"]})
    assert chosen == {"structured_outputs": {"choice": ["yes", "no"]}}


def test_schemas() -> None:
    """Google's words become JSON Schema's; what only OpenAPI knows is left out."""
    assert json_schema(
        {
            "type": "ARRAY",
            "min_items": "1",
            "maxItems": 3,
            "items": {
                "anyOf": [{"type": "STRING", "format": "date"}, {"type": "NUMBER", "format": "double"}],
                "nullable": True,
            },
            "example": ["x"],
            "title": "Days",
        },
        "s",
    ) == {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {"anyOf": [{"type": "string", "format": "date"}, {"type": "number"}, {"type": "null"}]},
        "title": "Days",
    }
    assert json_schema({"type": "STRING", "enum": ["a"], "nullable": True}, "s") == {
        "type": ["string", "null"],
        "enum": ["a", None],
    }
    assert json_schema({"type": 0, "additionalProperties": {"type": "string"}}, "s") == {
        "additionalProperties": {"type": "string"}
    }
    deep: dict[str, Any] = {"type": "STRING"}
    for _ in range(MAX_DEPTH):
        deep = {"items": deep}
    json_schema(deep, "s")
    with pytest.raises(BadField, match="too deep"):
        json_schema({"items": deep}, "s")


@pytest.mark.parametrize(
    ("config", "choice", "told"),
    [
        (None, None, ["weather", "time"]),
        ({"mode": "AUTO"}, None, ["weather", "time"]),
        ({"mode": 2}, "required", ["weather", "time"]),
        ({"mode": "any", "allowedFunctionNames": ["time"]}, "time", ["time"]),
        ({"mode": "VALIDATED", "allowed_function_names": ["time"]}, None, ["time"]),
        ({"mode": "NONE"}, None, []),
    ],
)
def test_functions(config: Any, choice: str | None, told: list[str]) -> None:
    """Declarations become tools, and the mode says whether and which: by name or by number."""
    own = {"name": "time", "parametersJsonSchema": {"type": "object"}, "response": {"type": "STRING"}}
    tools = [{"functionDeclarations": [WEATHER]}, {"functionDeclarations": [own]}]
    made = chat({"contents": HELLO, "tools": tools, "toolConfig": {"functionCallingConfig": config}})
    assert [tool["function"]["name"] for tool in made.get("tools", [])] == told
    wanted = {"type": "function", "function": {"name": choice}} if choice == "time" else choice
    assert made.get("tool_choice") == wanted
    if "weather" in told:
        function = made["tools"][0]["function"]
        assert function["description"] == "Of a city."
        assert function["parameters"]["properties"] == {"city": {"type": "string"}}


def test_calls_and_their_responses() -> None:
    """Each response finds its call: by its id, else the oldest of its name that has none yet."""
    calls = [{"name": "weather", "args": {"city": city}} for city in ("Bern", "Oslo")]
    named = {"id": "x7", "name": "time"}
    made = messages(
        *HELLO,
        {"role": "model", "parts": [{"text": "Let me see."}, *({"functionCall": call} for call in (*calls, named))]},
        {
            "role": "function",
            "parts": [
                {"functionResponse": {"id": "x7", "name": "time", "response": {"output": "noon"}}},
                {"functionResponse": {"name": "weather", "response": {"output": "rain"}}},
                {"functionResponse": {"name": "weather", "response": {"output": "snow"}}},
                {"text": "And now?"},
            ],
        },
    )
    said, *responses, asked = made[1:]
    assert said["content"] == "Let me see."
    assert [call["function"] for call in said["tool_calls"]] == [
        {"name": "weather", "arguments": '{"city":"Bern"}'},
        {"name": "weather", "arguments": '{"city":"Oslo"}'},
        {"name": "time", "arguments": "{}"},
    ]
    bern, oslo, time = (call["id"] for call in said["tool_calls"])
    assert (time, len({bern, oslo, time})) == ("x7", 3)
    assert [(each["tool_call_id"], each["content"]) for each in responses] == [
        (time, '{"output":"noon"}'),
        (bern, '{"output":"rain"}'),
        (oslo, '{"output":"snow"}'),
    ]
    assert asked == {"role": "user", "content": "And now?"}


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_pictures(encode: Any) -> None:
    """A picture's bytes become a data address, in whichever alphabet of base64 they come, padded or not."""
    data = encode(PIXEL).decode().rstrip("=")
    (message,) = messages({"parts": [{"text": "What?"}, {"inlineData": {"mimeType": "image/png", "data": data}}]})
    text, picture = message["content"]
    assert text == {"type": "text", "text": "What?"}
    head, _, shown = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(shown, validate=True) == PIXEL


PICTURE = {"mimeType": "image/png", "data": "AAAA"}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({}, "`contents`"),
        ({"contents": []}, "`contents`"),
        ({"contents": "hi"}, "contents must be an array"),
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, r"contents\[0\].role"),
        ({"contents": [{"role": "user"}]}, "says nothing"),
        ({"contents": [{"parts": [{}]}]}, r"parts\[0\] must have exactly one"),
        ({"contents": [{"parts": [{"text": "x", "inlineData": PICTURE}]}]}, "exactly one"),
        ({"contents": [{"parts": [{"text": 1}]}]}, r"contents\[0\].parts\[0\].text"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/x.png"}}]}]}, "fileData is not supported"),
        ({"contents": [{"parts": [{"executableCode": {}}]}]}, "executableCode"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav"}}]}]}, "mimeType"),
        ({"contents": [{"parts": [{"inlineData": PICTURE | {"data": "a"}}]}]}, "base64"),
        ({"contents": [{"parts": [{"inlineData": PICTURE | {"data": "äää"}}]}]}, "base64"),
        ({"contents": [{"role": "model", "parts": [{"inlineData": PICTURE}]}]}, "model's turn"),
        ({"contents": [{"parts": [{"functionCall": {"name": "f"}}]}]}, "role model"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f"}}]}]}, "answers no functionCall"),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f", "parts": [{"inlineData": {}}]}}]}]},
            r"parts\[0\].functionResponse.parts is not supported",
        ),
        ({"contents": HELLO, "systemInstruction": {"parts": [{"inlineData": PICTURE}]}}, "systemInstruction.parts"),
        ({"contents": HELLO, "sytemInstruction": {}}, 'Unknown name "sytemInstruction".*cannot find field'),
        ({"contents": HELLO, "cachedContent": "c"}, "cachedContent"),
        ({"contents": HELLO, "tools": [{"googleSearch": {}}]}, "googleSearch"),
        ({"contents": HELLO, "tools": [{"functionDeclarations": [{}]}]}, "name is missing"),
        ({"contents": HELLO, "tools": [{"functionDeclarations": [WEATHER, WEATHER]}]}, "same name"),
        ({"contents": HELLO, "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "declares no function"),
        ({"contents": HELLO, "toolConfig": {"functionCallingConfig": {"mode": 9}}}, "mode must be one of"),
        ({"contents": HELLO, "generationConfig": {"temperature": "hot"}}, "temperature must be a number"),
        ({"contents": HELLO, "generationConfig": {"temperature": True}}, "temperature must be a number"),
        ({"contents": HELLO, "generationConfig": {"topK": 1.5}}, "topK"),
        ({"contents": HELLO, "generationConfig": {"logprobs": 2}}, "responseLogprobs"),
        ({"contents": HELLO, "generationConfig": {"responseModalities": ["IMAGE"]}}, "responseModalities"),
        ({"contents": HELLO, "generationConfig": {"responseMimeType": "image/png"}}, "responseMimeType"),
        ({"contents": HELLO, "generationConfig": {"responseSchema": {"type": "STRING"}}}, "needs responseMimeType"),
        (
            {"contents": HELLO, "generationConfig": {"responseMimeType": "text/x.enum", "responseSchema": {"type": 1}}},
            "enum",
        ),
        (
            {
                "contents": HELLO,
                "generationConfig": {"responseMimeType": "application/json", "responseSchema": {"type": "BLOB"}},
            },
            "responseSchema.type must be one of STRING",
        ),
    ],
)
def test_what_is_refused(request_: dict[str, Any], told: str) -> None:
    """What is unknown, of the wrong type, or not to be had here is refused by name."""
    with pytest.raises(BadField, match=told):
        chat(request_)


def test_what_count_tokens_counts() -> None:
    """The conversation with its functions, or the instances of a prediction; both at once are refused."""

    def prompts(request: dict[str, Any]) -> list[Any]:
        asked = prompts_of(read_object(msgspec.json.encode(request)))
        return [{name: msgspec.json.decode(value) for name, value in one.items()} for one in asked]

    (one,) = prompts(
        {"contents": HELLO, "tools": [{"functionDeclarations": [WEATHER]}], "generationConfig": {"seed": 1}}
    )
    assert (one["messages"], one["tools"][0]["type"], set(one)) == (SAID_HELLO, "function", {"messages", "tools"})
    assert prompts({"instances": [{"prompt": "a"}, {"messages": SAID_HELLO}]}) == [
        {"prompt": "a"},
        {"messages": SAID_HELLO},
    ]
    with pytest.raises(BadField, match="both"):
        prompts({"instances": ["a"], "contents": HELLO})


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_NAMES = """
contents parts text role tools toolConfig functionDeclarations functionCallingConfig mode generationConfig
responseSchema responseJsonSchema responseMimeType type properties items enum anyOf nullable minItems system_instruction
functionCall
functionResponse inlineData mimeType data name args response id instances parameters allowedFunctionNames topK
temperature stopSequences thought thoughtSignature serviceTier
"""
NAMES = st.sampled_from(_NAMES.split())
WORDS = st.sampled_from(
    ["user", "model", "f", "ANY", "STRING", "OBJECT", "application/json", "text/x.enum", "image/png"]
)
JSON = st.recursive(
    LEAVES | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=5),
    max_leaves=30,
)
PARTS = st.fixed_dictionaries({}, optional=dict.fromkeys(("text", "functionCall", "functionResponse"), JSON))
CONTENTS = st.fixed_dictionaries({"parts": st.lists(PARTS, max_size=3)}, optional={"role": WORDS})
REQUESTS = st.dictionaries(NAMES | st.text(max_size=4), JSON, max_size=6) | st.fixed_dictionaries(
    {"contents": st.lists(CONTENTS, max_size=3)},
    optional=dict.fromkeys(("tools", "toolConfig", "generationConfig", "systemInstruction"), JSON),
)


@settings(deadline=None)
@given(request=REQUESTS)
def test_any_json_is_a_chat_or_refused(request: dict[str, Any]) -> None:
    """Whatever JSON comes, it is a chat with messages or a bad field; never another exception."""
    body = read_object(_encoded(request))
    for read in (lambda: chat_of(body, stream=False), lambda: prompts_of(body)):
        try:
            made = read()
        except (BadField, BadJson):
            continue
        assert made


def _encoded(value: dict[str, Any]) -> bytes:
    """By the standard library, which writes whole numbers of any size."""
    return json.dumps(value).encode()


ASKING_JSON = b'{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"responseMimeType":"application/json",%s}}'


@pytest.mark.parametrize("depth", [40, 400, 4000, 40_000])
@pytest.mark.parametrize(
    "around",
    [
        b'{"contents":%s}',
        b'{"contents":[{"parts":%s}]}',
        ASKING_JSON % b'"responseSchema":%s',
        ASKING_JSON % b'"responseJsonSchema":%s',
        b'{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":{"a":%s}}}]}]}',
    ],
)
def test_any_depth_is_a_chat_or_refused(around: bytes, depth: int) -> None:
    """However deep objects stand in each other, nothing but a refusal comes of it."""
    for unit in (b'{"contents":[', b'{"items":', b'{"a":['):
        deep = unit * depth + b"1" + (b"]}" if unit.endswith(b"[") else b"}") * depth
        try:
            chat_of(read_object(around % deep), stream=False)
        except (BadField, BadJson):
            continue


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COUNTS = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}


def whole(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What becomes of an answer with these choices."""
    body = {"id": "c1", "model": "m", "choices": list(choices), "usage": USAGE, **more}
    return whole_answer(msgspec.json.encode(body), model_version="m@1")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", "STOP"),
        ("length", "MAX_TOKENS"),
        ("tool_calls", "STOP"),
        ("content_filter", "SAFETY"),
        ("abort", "OTHER"),
        (None, "OTHER"),
    ],
)
def test_a_whole_answer(reason: str | None, told: str) -> None:
    """Text, the reason why it ended, the engine's own counts, and which model it was."""
    message = {"role": "assistant", "content": "Hi"}
    assert whole({"index": 0, "message": message, "finish_reason": reason, "logprobs": None}) == {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": told}],
        "usageMetadata": COUNTS,
        "modelVersion": "m@1",
        "responseId": "c1",
    }


def test_calls_in_a_whole_answer() -> None:
    """Arguments are an object; where they are none, the answer says that the call is malformed."""
    good = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    bad = {"id": "y", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    (candidate,) = whole({"message": {"content": None, "tool_calls": [good]}, "finish_reason": "tool_calls"})[
        "candidates"
    ]
    assert candidate["content"]["parts"] == [{"functionCall": {"id": "x", "name": "f", "args": {"a": 1}}}]
    assert candidate["finishReason"] == "STOP"
    (candidate,) = whole({"message": {"content": None, "tool_calls": [good, bad]}, "finish_reason": "length"})[
        "candidates"
    ]
    assert (len(candidate["content"]["parts"]), candidate["finishReason"]) == (1, "MALFORMED_FUNCTION_CALL")


def test_log_probabilities() -> None:
    """Those of the chosen tokens and of the likeliest, and their mean."""
    token = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -0.5}]}
    other = {"token": "c", "logprob": -2.0, "top_logprobs": []}
    logprobs = {"content": [token, other], "refusal": None}
    (candidate,) = whole({"message": {"content": "ac"}, "finish_reason": "stop", "logprobs": logprobs})["candidates"]
    assert candidate["avgLogprobs"] == -1.5
    assert candidate["logprobsResult"] == {
        "chosenCandidates": [{"token": "a", "logProbability": -1.0}, {"token": "c", "logProbability": -2.0}],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -0.5}]}, {"candidates": []}],
    }


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    """One event of a streamed chat."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
    return event(msgspec.json.encode({"id": "c1", "choices": [choice], "usage": None}))


LAST = event(msgspec.json.encode({"id": "c1", "choices": [], "usage": USAGE})) + b"data: [DONE]\n\n"


def parts_of(response: dict[str, Any]) -> Any:
    """Of its only candidate."""
    (candidate,) = response["candidates"]
    return candidate["content"]["parts"]


def test_a_stream_says_each_text_at_once() -> None:
    """A piece of text is a response; the first empty words are none; reason and usage come with the last one."""
    stream = AnswerStream(model_version="m@1", sse=True)
    assert stream.feed(chunk({"role": "assistant", "content": ""})) == b""
    (first,) = event_data(stream.feed(chunk({"content": " Hi"})))
    assert msgspec.json.decode(first) == {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": " Hi"}]}}],
        "modelVersion": "m@1",
        "responseId": "c1",
    }
    assert stream.feed(chunk({}, "length")) == b""
    (last,) = event_data(stream.feed(LAST))
    told = msgspec.json.decode(last)
    assert (parts_of(told), told["candidates"][0]["finishReason"]) == ([{"text": ""}], "MAX_TOKENS")
    assert told["usageMetadata"] == COUNTS
    assert stream.end() == b""


def test_a_stream_puts_calls_together() -> None:
    """Arguments that come in parts are one call, in the last response."""
    stream = AnswerStream(model_version="m@1", sse=True)
    begun = {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    events = chunk({"tool_calls": [begun]}) + chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})
    assert stream.feed(events + chunk({}, "tool_calls")) == b""
    (last,) = event_data(stream.feed(LAST))
    assert parts_of(msgspec.json.decode(last)) == [{"functionCall": {"id": "x", "name": "f", "args": {"a": 1}}}]


def test_a_stream_as_an_array() -> None:
    """Without `alt=sse` the responses are one JSON array, of which each piece is sent at once."""
    stream = AnswerStream(model_version="m@1", sse=False)
    pieces = [stream.feed(chunk({"content": text}, index=index)) for text, index in (("a", 0), ("b", 1))]
    pieces += [stream.feed(chunk({}, "stop") + chunk({}, "stop", 1)), stream.feed(LAST)]
    assert pieces[0].startswith(b'[{"candidates"')
    one, other, last = msgspec.json.decode(b"".join(pieces))
    assert (parts_of(one), parts_of(other)) == ([{"text": "a"}], [{"text": "b"}])
    assert [candidate["finishReason"] for candidate in last["candidates"]] == ["STOP", "STOP"]
    assert stream.end() == b""


def test_a_stream_without_its_last_event() -> None:
    """One that ends without `[DONE]` has its last response all the same, and its array an end."""
    stream = AnswerStream(model_version="m@1", sse=False)
    whole_stream = stream.feed(chunk({"content": "a"}, "stop")) + stream.end()
    assert msgspec.json.decode(whole_stream)[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("sse", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_the_last_words_of_a_stream(sse: bool, begun: bool) -> None:
    """A stream that broke off ends with Google's error where a response would stand."""
    stream = AnswerStream(model_version="m@1", sse=sse)
    sent = stream.feed(chunk({"content": "a"})) if begun else b""
    sent += stream.broken(EngineStalled("It stood still."))
    responses = [msgspec.json.decode(data) for data in event_data(sent)] if sse else msgspec.json.decode(sent)
    assert responses[-1]["error"]["details"][0]["reason"] == "ENGINE_STALLED"
    assert len(responses) == 1 + begun


@pytest.mark.parametrize("data", [b"nothing", b'{"choices":[{"delta":{"content":1}}]}', b'{"error":{"message":"m"}}'])
def test_what_is_no_answer(data: bytes) -> None:
    """An engine that answers with something else, or with an error, has failed."""
    with pytest.raises(EngineFailed):
        AnswerStream(model_version="", sse=True).feed(event(data))
    with pytest.raises(EngineFailed):
        whole_answer(data.replace(b"delta", b"message"), model_version="")


@settings(deadline=None)
@given(data=st.binary(max_size=40) | JSON.map(lambda value: _encoded({"choices": value, "usage": value, "id": "x"})))
def test_any_answer_is_read_or_has_failed(data: bytes) -> None:
    """Whatever an engine says, it is responses or a failure; never another exception."""
    stream = AnswerStream(model_version="", sse=True)
    try:
        responses = event_data(stream.feed(event(data.replace(b"\n", b" "))) + stream.end())
        whole_answer(data, model_version="")
    except EngineFailed:
        return
    assert all(isinstance(msgspec.json.decode(response), dict) for response in responses)


def test_what_the_query_says() -> None:
    """`alt`, with or without the dollar sign, and nothing else."""
    assert wants_events(b"alt=sse")
    assert wants_events(b"key=x&%24alt=sse")
    assert not wants_events(b"%24alt=json%3Benum-encoding%3Dint")
    assert not wants_events(b"alternative=sse")
    assert is_strict(b"%24alt=json%3Benum-encoding%3Dint")
    assert not is_strict(b"alt=sse")
    assert not is_strict(b"")
