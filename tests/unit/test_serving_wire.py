"""The wire of the engines' shell: parameters, shapes, several sequences, refusals."""

import asyncio
import base64
import json
import re
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from serving_fake import (
    MARK,
    MODEL,
    PLAIN_TEMPLATE,
    VOCAB_SIZE,
    Bytes,
    Saying,
    post,
    refused,
    serving,
    stream,
)

from headrace_engines.serving.app import build_app
from headrace_engines.serving.capabilities import CAPABILITIES, EngineName, engines_that_honour
from headrace_engines.serving.embedder import Embedder, EmbedderLimits
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.generator import Generation, GenerationFailed, Grammar, Limits, Load, ServedModel
from headrace_engines.serving.images import sees
from headrace_engines.serving.metrics import Metrics, RequestMeter
from headrace_engines.serving.parameters import MAX_STOP_CHARS, MAX_STOP_TOKEN_IDS

pytestmark = pytest.mark.anyio
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


async def test_n_sequences_are_n_choices() -> None:
    """Each with its index and its seed; usage sums completions and counts the prompt once."""
    saying = Saying("abc")
    async with serving(saying) as client:
        answer = await post(client, COMPLETIONS, {"prompt": "Hello", "n": 3, "seed": 7})
    assert [(each["index"], each["text"], each["finish_reason"]) for each in answer["choices"]] == [
        (0, "abc", "stop"),
        (1, "abc", "stop"),
        (2, "abc", "stop"),
    ]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
    assert [request.sampling.seed for request in saying.requests] == [7, 8, 9]


async def test_a_seed_at_its_bound_wraps() -> None:
    """The seeds of several sequences stay within the 64 bits that a seed has."""
    saying = Saying("a")
    async with serving(saying) as client:
        await post(client, COMPLETIONS, {"prompt": "Hello", "n": 2, "seed": 2**63 - 1})
    assert [request.sampling.seed for request in saying.requests] == [2**63 - 1, -(2**63)]


async def test_prompts_times_n_are_choices_in_that_order() -> None:
    """Choice `prompt * n + sample`; text and token ids may be mixed; every prompt is counted once."""
    async with serving(Saying("z")) as client:
        body = {"prompt": ["ab", [99, 100, 101]], "n": 2, "echo": True}
        answer = await post(client, COMPLETIONS, body)
        chunks = await stream(client, COMPLETIONS, body | {"stream_options": {"include_usage": True}})
    assert [each["text"] for each in answer["choices"]] == ["abz", "abz", "cdez", "cdez"]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}
    assert texts_of(chunks[:-1], 4) == ["abz", "abz", "cdez", "cdez"]
    assert chunks[-1]["usage"] == answer["usage"]


class Spaced(Bytes):
    """As SentencePiece decodes: a space before the first word is none of the text's."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Without it."""
        return super().decode(token_ids, skip_special_tokens=skip_special_tokens).removeprefix(" ")


@pytest.mark.parametrize(("continues", "text"), [(True, " Das Haus."), (False, "Das Haus.")])
async def test_an_answer_begins_as_its_model_wrote_it(continues: bool, text: str) -> None:
    """A decoder's answer goes on with its prompt, after a space; an encoder-decoder's is a text of its own."""
    async with serving(Saying(" Das Haus."), codec=Spaced(None), continues=continues) as client:
        answer = await post(client, COMPLETIONS, {"prompt": "translate: The house.", "max_tokens": 20})
        chunks = await stream(client, COMPLETIONS, {"prompt": "translate: The house.", "max_tokens": 20})
    assert (answer["choices"][0]["text"], texts_of(chunks, 1)) == (text, [text])


def texts_of(chunks: list[dict[str, Any]], choices: int) -> list[str]:
    """The text of each choice of a stream."""
    texts = [""] * choices
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return texts


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_is_the_whole_in_pieces(path: str) -> None:
    """For several choices at once, with their finish reasons, ids, and usage fields as OpenAI sends them."""
    given = {"messages": HI} if path == CHAT else {"prompt": "Hi"}
    body = given | {"n": 2, "max_tokens": 6, "stream_options": {"include_usage": True}}
    async with serving(Saying('aé"\n😀z')) as client:
        whole = await post(client, path, {key: value for key, value in body.items() if key != "stream_options"})
        *chunks, last = await stream(client, path, body)
    expected = [each["text"] if "text" in each else each["message"]["content"] for each in whole["choices"]]
    assert texts_of(chunks, 2) == expected
    assert expected[0].startswith('aé"\n')
    ends = [each["choices"][0] for each in chunks if each["choices"][0]["finish_reason"]]
    assert sorted((each["index"], each["finish_reason"]) for each in ends) == [(0, "length"), (1, "length")]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1


async def test_a_full_engine_takes_all_sequences_or_none() -> None:
    """Where only some of n fit, the request is refused and the others' places are free again."""
    saying = Saying("abc")
    saying.open = 6
    async with serving(saying) as client:
        response = await client.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", "n": 3})
        assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
        assert saying.open == 6
        saying.open = 0
        error = await refused(client, COMPLETIONS, {"prompt": "a", "n": 9})
        assert (error["param"], saying.open) == ("n", 0)
        assert (await refused(client, COMPLETIONS, {"prompt": ["a"] * 9}))["param"] == "prompt"


async def test_the_failure_of_one_sequence_fails_the_request() -> None:
    """Streamed text ends with an error event; the other sequences are cancelled."""
    saying = Saying("abc")
    async with serving(saying) as client:
        saying.failure = GenerationFailed("ENGINE_OUT_OF_MEMORY", "No memory.")
        response = await client.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", "n": 2, "stream": True})
        *_, end, nothing = response.text.split("\n\n")
        assert nothing == ""
        assert json.loads(end.removeprefix("data: "))["error"]["code"] == "ENGINE_OUT_OF_MEMORY"
        whole = await client.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", "n": 2})
        assert whole.status_code == 503
    assert saying.open == 0


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_hangs_up_frees_every_place(streamed: bool) -> None:
    """All sequences of the request are cancelled, whether anything was sent or not."""
    saying = Saying("abc")
    saying.hold = True
    shell = Engine(MODEL, {"engine": "transformers"}, lambda fatal: None)
    await shell.start(lambda loop, on_death: ServedModel(saying, Bytes(None)))
    body = json.dumps({"model": MODEL, "prompt": "a", "n": 3, "stream": streamed}).encode()
    gone = asyncio.Event()
    told = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        for message in told:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            gone.set()

    head = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": [], "query_string": b""}
    serving_it = asyncio.create_task(build_app(shell, None)(head, receive, send))
    await saying.all_held(3)
    if not streamed:
        gone.set()
    await serving_it
    assert (saying.open, saying.cancelled) == (0, 3)


async def test_log_probabilities_of_a_completion() -> None:
    """OpenAI's four lists, one entry a token; minus infinity is a number; the end token is not of the text."""
    async with serving(Saying("abc")) as client:
        answer = await post(client, COMPLETIONS, {"prompt": "x", "logprobs": 2})
        none = await post(client, COMPLETIONS, {"prompt": "x"})
    assert none["choices"][0]["logprobs"] is None
    assert answer["choices"][0]["logprobs"] == {
        "text_offset": [0, 1, 2],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "tokens": ["a", "b", "c"],
        "top_logprobs": [{"a": -0.5, "b": -9999.0}, {"b": -0.5, "c": -9999.0}, {"c": -0.5, "d": -9999.0}],
    }


async def test_log_probabilities_of_a_chat() -> None:
    """OpenAI's content list with tokens, their bytes and the likeliest ones."""
    async with serving(Saying("a")) as client:
        answer = await post(client, CHAT, {"messages": HI, "logprobs": True, "top_logprobs": 1})
        bare = await post(client, CHAT, {"messages": HI, "logprobs": True})
    token = {"token": "a", "logprob": -0.5, "bytes": [97]}
    assert answer["choices"][0]["logprobs"] == {"content": [token | {"top_logprobs": [token]}], "refusal": None}
    assert bare["choices"][0]["logprobs"]["content"] == [token | {"top_logprobs": []}]


@pytest.mark.parametrize("tokens_per_event", [1, 3, 50])
async def test_streamed_log_probabilities_come_with_their_text(tokens_per_event: int) -> None:
    """A character's tokens wait for its last; their bytes make the text; nothing of the stop string is told."""
    body = {"messages": HI, "logprobs": True, "stop": "zzz"}
    async with serving(Saying("é😀zz!zzzmore", tokens_per_event=tokens_per_event)) as client:
        whole = await post(client, CHAT, body)
        chunks = await stream(client, CHAT, body)
    assert whole["choices"][0]["message"]["content"] == "é😀zz!"
    text, raw = "", b""
    for chunk in chunks:
        choice = chunk["choices"][0]
        text += choice["delta"].get("content", "")
        raw += b"".join(bytes(token["bytes"]) for token in (choice["logprobs"] or {"content": []})["content"])
        assert raw.decode() == text
    assert text == "é😀zz!"
    told = [token for chunk in chunks for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert told == whole["choices"][0]["logprobs"]["content"]
    assert told[0]["token"] == "bytes:\\xc3"


async def test_offsets_count_what_is_echoed() -> None:
    """`text_offset` is a place in the choice's text; vLLM alone has the prompt's own log probabilities."""
    async with serving(Saying("aéb")) as client:
        answer = await post(client, COMPLETIONS, {"prompt": "x", "logprobs": 0})
        assert answer["choices"][0]["logprobs"]["text_offset"] == [0, 1, 1, 2]
        error = await refused(client, COMPLETIONS, {"prompt": "x", "logprobs": 0, "echo": True})
    assert (error["param"], "vllm does" in error["message"]) == ("echo", True)


async def test_parameters_reach_the_engine() -> None:
    """What only the engine can do is handed to it, in its own types."""
    saying = Saying("a")
    asked = {"logit_bias": {"5": -100, "97": 2.5}, "stop_token_ids": [3, 4], "min_tokens": 1, "ignore_eos": True}
    async with serving(saying) as client:
        await post(client, COMPLETIONS, {"prompt": "x", "min_p": 0.1, "top_k": -1, "logprobs": 3} | asked)
        await post(client, CHAT, {"messages": HI, "max_completion_tokens": 9, "max_tokens": 5})
    first, second = saying.requests
    assert first.sampling.logit_bias == {5: -100.0, 97: 2.5}
    assert first.stop_token_ids == frozenset({3, 4})
    assert (first.min_tokens, first.ignore_eos, first.top_logprobs) == (1, True, 3)
    assert (first.sampling.min_p, first.sampling.top_k) == (0.1, 0)
    assert (second.max_tokens, second.top_logprobs) == (9, None)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_stop_string_may_be_shown(streamed: bool) -> None:
    """`include_stop_str_in_output` ends the text after it instead of before."""
    body = {"prompt": "x", "stop": ["lo,"], "include_stop_str_in_output": True, "max_tokens": 40}
    async with serving(Saying("hello, world")) as client:
        if streamed:
            assert texts_of(await stream(client, COMPLETIONS, body), 1) == ["hello,"]
        else:
            assert (await post(client, COMPLETIONS, body))["choices"][0]["text"] == "hello,"


@pytest.mark.parametrize(
    "said",
    [
        {"stop": list("abcde")},
        {"stop": [f"q{number:06x}" for number in range(50_000)]},
        {"stop": "x" * (MAX_STOP_CHARS + 1)},
        {"stop": ["x" * MAX_STOP_CHARS, "y"]},
        {"stop_token_ids": [1] * (MAX_STOP_TOKEN_IDS + 1)},
    ],
)
async def test_there_are_only_so_many_ends_of_an_answer(said: dict[str, Any]) -> None:
    """Each is looked for at every token: more of them than anybody means are refused, on every engine alike."""
    saying = Saying("hello")
    async with serving(saying) as client:
        for path, body in ((CHAT, {"messages": HI}), (COMPLETIONS, {"prompt": "Hi"})):
            error = await refused(client, path, body | said)
            assert (error["param"], error["code"]) == (next(iter(said)), "invalid_value")
        assert saying.requests == []
        most = {"stop": ["x" * (MAX_STOP_CHARS - 6), "ll", "yy", "zz"], "stop_token_ids": [1] * MAX_STOP_TOKEN_IDS}
        assert (await post(client, COMPLETIONS, {"prompt": "Hi"} | most))["choices"][0]["text"] == "he"


async def test_special_tokens_are_hidden_unless_wanted() -> None:
    """`skip_special_tokens: false` shows them, but never the one that ended the sequence."""
    saying = Saying("a")
    saying.ending = (MARK, 256)
    async with serving(saying) as client:
        hidden = await post(client, COMPLETIONS, {"prompt": "x"})
        shown = await post(client, COMPLETIONS, {"prompt": "x", "skip_special_tokens": False})
    assert hidden["choices"][0]["text"] == "a"
    assert shown["choices"][0]["text"] == "a<mark>"


async def test_the_template_gets_what_the_request_says() -> None:
    """Variables, an open last message and its absence; what the template strips is not put back."""

    async def rendered(client: Any, **said: Any) -> str:
        tokens = (await post(client, "/tokenize", {"messages": [{"role": "user", "content": "Hi "}]} | said))["tokens"]
        text: str = (await post(client, "/detokenize", {"tokens": tokens}))["prompt"]
        return text

    async with serving(Saying("a"), template=PLAIN_TEMPLATE) as client:
        assert await rendered(client) == "[user]Hi|"
        assert await rendered(client, chat_template_kwargs={"mood": "glad"}) == "[user]Hi|glad"
        assert await rendered(client, continue_final_message=True) == "[user]Hi"
        error = await refused(client, CHAT, {"messages": HI, "chat_template_kwargs": {"messages": []}})
        assert error["param"] == "chat_template_kwargs"
        both = {"messages": HI, "continue_final_message": True, "add_generation_prompt": True}
        assert (await refused(client, CHAT, both))["param"] == "continue_final_message"
    async with serving(Saying("a")) as client:
        assert await rendered(client, add_generation_prompt=False) == "[user]Hi "
        assert await rendered(client, continue_final_message=True) == "[user]Hi "


GRAMMARS: list[tuple[dict[str, Any], Grammar | None]] = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, Grammar(kind="json_schema", text='{"type":"object"}')),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}},
        Grammar(kind="json_schema", text=json.dumps(SCHEMA, separators=(",", ":"))),
    ),
    ({"guided_regex": "[ab]+"}, Grammar(kind="regex", text="[ab]+")),
    ({"guided_json": json.dumps(SCHEMA)}, Grammar(kind="json_schema", text=json.dumps(SCHEMA, separators=(",", ":")))),
    ({"guided_choice": ["a.", "b"]}, Grammar(kind="regex", text=r"a\.|b")),
    ({"structured_outputs": {"regex": "x"}}, Grammar(kind="regex", text="x")),
    ({"structured_outputs": {"json_object": True}}, Grammar(kind="json_schema", text='{"type":"object"}')),
]


@pytest.mark.parametrize(("said", "grammar"), GRAMMARS)
async def test_a_form_of_answer_is_a_grammar(said: dict[str, Any], grammar: Grammar | None) -> None:
    """OpenAI's response formats and vLLM's names for the same."""
    saying = Saying("a")
    async with serving(saying) as client:
        await post(client, CHAT, {"messages": HI} | said)
        await post(client, COMPLETIONS, {"prompt": "x"} | said)
    assert [request.grammar for request in saying.requests] == [grammar, grammar]


MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"response_format": {"type": "xml"}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format"),
    (CHAT, {"response_format": "json_object"}, "response_format"),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "impossible"}}}},
        "response_format",
    ),
    (CHAT, {"guided_json": "{"}, "guided_json"),
    (CHAT, {"guided_json": {"type": "impossible"}}, "guided_json"),
    (CHAT, {"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"grammar": "a"}}, "structured_outputs"),
    (CHAT, {"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    (CHAT, {"n": 0}, "n"),
    (CHAT, {"n": 129}, "n"),
    (CHAT, {"logit_bias": {"a": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias"),
    (CHAT, {"logit_bias": {str(VOCAB_SIZE): 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"-1": 1}}, "logit_bias"),
    (CHAT, {"stop_token_ids": [VOCAB_SIZE]}, "stop_token_ids"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"logprobs": 1}, "logprobs"),
    (COMPLETIONS, {"logprobs": True}, "logprobs"),
    (COMPLETIONS, {"logprobs": 21}, "logprobs"),
    (CHAT, {"echo": True}, "echo"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools[0]"),
    (CHAT, {"tools": [{"type": "web"}]}, "tools[0]"),
    (CHAT, {"tools": [TOOL, TOOL]}, "tools"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    (CHAT, {"tool_choice": "required"}, "tools"),
    (CHAT, {"tools": [TOOL], "tool_choice": "always"}, "tool_choice"),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
    (CHAT, {"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
    (CHAT, {"messages": [{"role": "tool", "content": "4"}]}, "messages[0].tool_call_id"),
    (CHAT, {"messages": [{"role": "robot", "content": "4"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0]"),
    (
        CHAT,
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "["}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "said", "param"), MALFORMED)
async def test_what_is_malformed_is_refused_by_name(path: str, said: dict[str, Any], param: str) -> None:
    """400 in OpenAI's shape, with the parameter at fault."""
    given = {"messages": HI} if path == CHAT else {"prompt": "x"}
    async with serving(Saying("a")) as client:
        assert (await refused(client, path, given | said))["param"] == param


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ASKING: dict[str, tuple[str, dict[str, Any], str]] = {
    "temperature": (CHAT, {"temperature": 0.5}, "temperature"),
    "top_p": (CHAT, {"top_p": 0.5}, "top_p"),
    "top_k": (CHAT, {"top_k": 5}, "top_k"),
    "min_p": (CHAT, {"min_p": 0.5}, "min_p"),
    "seed": (CHAT, {"seed": 5}, "seed"),
    "repetition_penalty": (CHAT, {"repetition_penalty": 1.5}, "repetition_penalty"),
    "presence_penalty": (CHAT, {"presence_penalty": 0.5}, "presence_penalty"),
    "frequency_penalty": (CHAT, {"frequency_penalty": 0.5}, "frequency_penalty"),
    "min_tokens": (CHAT, {"min_tokens": 1}, "min_tokens"),
    "ignore_eos": (CHAT, {"ignore_eos": True}, "ignore_eos"),
    "stop": (CHAT, {"stop": "x"}, "stop"),
    "stop_token_ids": (CHAT, {"stop_token_ids": [5]}, "stop_token_ids"),
    "n": (CHAT, {"n": 2}, "n"),
    "echo": (COMPLETIONS, {"echo": True}, "echo"),
    "logprobs": (CHAT, {"logprobs": True}, "logprobs"),
    "top_logprobs": (COMPLETIONS, {"logprobs": 2}, "logprobs"),
    "logit_bias": (CHAT, {"logit_bias": {"5": 1}}, "logit_bias"),
    "response_format": (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
    "tools": (CHAT, {"tools": [TOOL]}, "tools"),
    "tool_choice": (CHAT, {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    "prompt_logprobs": (COMPLETIONS, {"prompt_logprobs": 1}, "prompt_logprobs"),
    "continuous_usage_stats": (
        CHAT,
        {"stream": True, "stream_options": {"continuous_usage_stats": True}},
        "stream_options",
    ),
    "images": (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
}
"""A request that needs each row of the table, and the parameter that it is refused under."""
OURS: tuple[EngineName, ...] = ("openvino", "transformers")


@pytest.mark.parametrize("engine", OURS)
@pytest.mark.parametrize("row", CAPABILITIES)
async def test_each_cell_of_the_table_is_kept(engine: EngineName, row: str) -> None:
    """A parameter is taken where the table says so; elsewhere it is a 400 that names the engines that take it."""
    path, said, param = ASKING[row]
    given = {"messages": HI} if path == CHAT else {"prompt": "x"}
    async with serving(Saying("a"), engine=engine) as client:
        if engine in CAPABILITIES[row]:
            await post(client, path, given | said)
            return
        error = await refused(client, path, given | said)
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")
    if row == "images":
        assert f"is not honoured by {engine}, and this model takes text alone, on every engine" in error["message"]
    else:
        assert f"is not honoured by {engine}; {' and '.join(engines_that_honour(row))} do" in error["message"]
        assert f"deploy with `--runtime {engines_that_honour(row)[0]}`" in error["message"]


async def test_an_image_for_a_model_that_sees_is_refused_with_the_engine_that_takes_it() -> None:
    """Its text is served here; what to do to have the rest is said."""
    async with serving(Saying("a"), sees=True) as client:
        error = await refused(client, CHAT, ASKING["images"][1])
    assert (error["param"], error["code"]) == ("messages[0].content[0]", "unsupported_parameter")
    assert "transformers, which serves the text of this model alone; vllm takes its images" in error["message"]


@pytest.mark.parametrize(
    ("model_type", "architectures", "seeing"),
    [
        ("gemma3", ["Gemma3ForConditionalGeneration"], True),
        ("gemma3", None, True),
        ("llama4", ["Llama4ForCausalLM"], False),
        ("gemma3_text", ["Gemma3ForCausalLM"], False),
        ("llama", ["LlamaForCausalLM"], False),
    ],
)
def test_whether_a_model_sees_is_told_by_its_configuration(
    model_type: str, architectures: list[str] | None, seeing: bool
) -> None:
    """Its family reads images, and the folder has more of it than the text part."""
    assert sees(model_type, architectures) == seeing


async def test_a_model_that_takes_no_images_says_so() -> None:
    """An engine that could have them refuses them where the model has no use for them."""
    async with serving(Saying("a"), engine="vllm") as client:
        error = await refused(client, CHAT, ASKING["images"][1])
    assert (error["param"], error["code"]) == ("messages[0].content[0]", "unsupported_content")


class Lengths(Embedder):
    """An input's vector tells its length, and its first token."""

    def __init__(self, *, matryoshka: bool = False) -> None:
        self.limits = EmbedderLimits(
            max_input_tokens=10, dimensions=3, max_batch_inputs=2, vocab_size=VOCAB_SIZE, matryoshka=matryoshka
        )
        self.batches: list[int] = []

    async def embed(self, inputs: list[list[int]], computed: Callable[[int], object]) -> list[list[float]]:
        """Not what a model would say."""
        self.batches.append(len(inputs))
        for each in inputs:
            computed(len(each))
        return [[float(len(each)), float(each[0]), 0.5] for each in inputs]


@pytest.mark.parametrize(
    ("given", "vectors"),
    [
        ("abc", [[3, 97, 0.5]]),
        (["abc", "b", "a"], [[3, 97, 0.5], [1, 98, 0.5], [1, 97, 0.5]]),
        ([97, 98], [[2, 97, 0.5]]),
        ([[97], [98, 99]], [[1, 97, 0.5], [2, 98, 0.5]]),
    ],
)
async def test_embeddings_of_every_form_of_input(given: Any, vectors: list[list[float]]) -> None:
    """Text and token ids, one and many, as numbers and as base64; larger requests are computed in batches."""
    lengths = Lengths()
    async with serving(None, embedder=lengths) as client:
        answer = await post(client, EMBEDDINGS, {"input": given})
        packed = await post(client, EMBEDDINGS, {"input": given, "encoding_format": "base64"})
    assert [each["embedding"] for each in answer["data"]] == vectors
    assert [(each["object"], each["index"]) for each in answer["data"]] == [
        ("embedding", index) for index in range(len(vectors))
    ]
    tokens = sum(int(vector[0]) for vector in vectors)
    assert (answer["object"], answer["usage"]) == ("list", {"prompt_tokens": tokens, "total_tokens": tokens})
    decoded = [list(struct.unpack("<3f", base64.b64decode(each["embedding"]))) for each in packed["data"]]
    assert decoded == vectors
    assert max(lengths.batches) <= 2


async def test_vectors_are_cut_only_of_models_made_for_it() -> None:
    """A Matryoshka model's vector is cut and has length 1 again; any other model's is not cut."""
    async with serving(None, embedder=Lengths(matryoshka=True)) as client:
        answer = await post(client, EMBEDDINGS, {"input": [3, 3, 3, 3], "dimensions": 2})
        assert answer["data"][0]["embedding"] == [0.8, 0.6]
        assert (await refused(client, EMBEDDINGS, {"input": "a", "dimensions": 4}))["param"] == "dimensions"
    async with serving(None, embedder=Lengths()) as client:
        await post(client, EMBEDDINGS, {"input": "a", "dimensions": 3})
        assert (await refused(client, EMBEDDINGS, {"input": "a", "dimensions": 2}))["param"] == "dimensions"


@pytest.mark.parametrize("given", ["", [], [[]], [VOCAB_SIZE], [1.5], ["a"] * 2049, {"a": 1}])
async def test_inputs_that_cannot_be_embedded_are_refused(given: Any) -> None:
    """Nothing, ids that do not exist, too many inputs."""
    async with serving(None, embedder=Lengths()) as client:
        assert (await refused(client, EMBEDDINGS, {"input": given}))["param"] == "input"


async def test_an_input_that_is_too_long_says_by_how_much() -> None:
    """Ten tokens are taken, thirteen came."""
    async with serving(None, embedder=Lengths()) as client:
        error = await refused(client, EMBEDDINGS, {"input": ["a", "a" * 13]})
    assert error["code"] == "context_length_exceeded"
    assert "3 too many" in error["message"]


async def test_models_answer_for_what_they_were_made_for() -> None:
    """A model that generates refuses embeddings and the other way round; the model's card says which it is."""
    async with serving(Saying("a")) as client:
        error = await refused(client, EMBEDDINGS, {"input": "a"})
        assert (error["code"], "deploy an embedding model" in error["message"]) == ("unsupported_task", True)
        assert (await client.get("/v1/models")).json()["data"][0]["task"] == "generate"
    async with serving(None, embedder=Lengths()) as client:
        for path, body in ((COMPLETIONS, {"prompt": "a"}), (CHAT, {"messages": HI})):
            error = await refused(client, path, body)
            assert (error["code"], "/v1/embeddings" in error["message"]) == ("unsupported_task", True)
        card = (await client.get("/v1/models")).json()["data"][0]
        assert (card["task"], card["dimensions"], card["max_model_len"]) == ("embed", 3, 10)
        assert (await post(client, "/tokenize", {"prompt": "abc"}))["count"] == 3


async def test_tokens_and_text_are_turned_into_each_other() -> None:
    """vLLM's two routes; ids that do not exist are refused."""
    async with serving(Saying("a")) as client:
        answer = await post(client, "/tokenize", {"prompt": "hé", "return_token_strs": True})
        assert answer == {
            "count": 3,
            "max_model_len": 2000,
            "tokens": [104, 195, 169],
            "token_strs": ["h", "<0xC3>", "<0xA9>"],
        }
        assert await post(client, "/detokenize", {"tokens": [104, 195, 169, MARK]}) == {"prompt": "hé<mark>"}
        assert (await refused(client, "/detokenize", {"tokens": [1, VOCAB_SIZE]}))["param"] == "tokens[1]"


async def test_metrics_have_vllms_names() -> None:
    """What a dashboard made for vLLM asks for is there."""
    async with serving(Saying("abc")) as client:
        await post(client, COMPLETIONS, {"prompt": "xy", "n": 2})
        text = (await client.get("/metrics")).text
    for line in (
        'vllm:num_requests_running{model_name="fake"} 0.0',
        'vllm:num_requests_waiting{model_name="fake"} 0.0',
        'vllm:kv_cache_usage_perc{model_name="fake"} 0.25',
        'vllm:time_to_first_token_seconds_count{model_name="fake"} 2.0',
        'vllm:e2e_request_latency_seconds_count{model_name="fake"} 2.0',
        'vllm:request_queue_time_seconds_count{model_name="fake"} 2.0',
        'vllm:request_prefill_time_seconds_count{model_name="fake"} 2.0',
        'vllm:request_prompt_tokens_sum{model_name="fake"} 4.0',
        'vllm:request_generation_tokens_sum{model_name="fake"} 8.0',
        'vllm:prompt_tokens_total{model_name="fake"} 2.0',
        'vllm:generation_tokens_total{model_name="fake"} 8.0',
        'vllm:request_success_total{finished_reason="stop",model_name="fake"} 2.0',
    ):
        assert line in text, line


async def test_a_prompt_counts_once_it_was_computed() -> None:
    """What was only accepted is no work: an engine that hangs would seem to go on for as long as somebody asks it."""
    metrics = Metrics("m", lambda: Load(0, 0))
    first, second = (
        RequestMeter(metrics, arrived_s=time.monotonic(), prompt_tokens=7, computes_prompt=computes)
        for computes in (True, False)
    )
    counted = 'vllm:prompt_tokens_total{model_name="m"} '
    assert f"{counted}0.0" in metrics.render().decode()
    for meter in (first, second):
        meter.tokens(1)
        meter.tokens(2)
    assert f"{counted}7.0" in metrics.render().decode()


async def test_the_time_in_the_queue_is_counted_to_the_first_computation() -> None:
    """From submission on, as the engine tells it; a sequence that nobody began to compute has none."""
    generation = Generation(lambda: None)
    assert generation.queued_s is None
    metrics = Metrics("m", lambda: Load(0, 0))
    for began in (True, False):
        meter = RequestMeter(metrics, arrived_s=time.monotonic(), prompt_tokens=1)
        if began:
            generation.began(time.monotonic() + 5)
            generation.began(time.monotonic() + 50)  # computed anew
            meter.began(generation.began_s, generation.queued_s)
            meter.tokens(1)
        meter.ended("stop" if began else "abort")
    (count, total) = (
        float(re.findall(rf"request_queue_time_seconds_{what}.* (.+)", metrics.render().decode())[0])
        for what in ("count", "sum")
    )
    assert count == 1
    assert 5 <= total < 50


async def test_text_that_becomes_a_token_without_weights_is_refused() -> None:
    """Some tokenisers have special tokens behind the model's last; on a GPU one such index ends the engine for all."""
    limits = Limits(max_model_len=100, max_running=4, max_waiting=4, vocab_size=128)
    async with serving(Saying("a", limits=limits)) as client:
        assert await post(client, COMPLETIONS, {"prompt": "e", "ignore_eos": True, "max_tokens": 1})
        error = await refused(client, COMPLETIONS, {"prompt": "ab\u00e9"})
        assert (error["param"], error["code"]) == ("prompt", "invalid_value")
        assert "token 195" in error["message"]
        chat = {"messages": [{"role": "user", "content": "\u00e9"}]}
        assert (await refused(client, CHAT, chat))["param"] == "messages"


async def test_limits_of_the_engine_are_kept() -> None:
    """An overflow says by how many tokens, for every prompt of several."""
    limits = Limits(max_model_len=10, max_running=4, max_waiting=4, vocab_size=VOCAB_SIZE)
    async with serving(Saying("a", limits=limits)) as client:
        error = await refused(client, COMPLETIONS, {"prompt": ["a", "abcdefgh"], "max_tokens": 5})
    assert (error["code"], "3 too many" in error["message"]) == ("context_length_exceeded", True)
