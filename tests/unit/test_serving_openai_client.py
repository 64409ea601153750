"""OpenAI's own client, unmodified, reads what the engines' shell answers."""

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError
from serving_fake import MODEL, Saying, serving
from test_serving_tools import LONDON, LONDON_CALL
from test_serving_wire import Lengths

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The shell runs on asyncio."""
    return "asyncio"


def client_over(http: httpx.AsyncClient) -> AsyncOpenAI:
    """OpenAI's client over the shell's transport."""
    return AsyncOpenAI(base_url="http://engine/v1", api_key="none", http_client=http, max_retries=0)


async def test_streamed_tool_calls_are_put_together() -> None:
    """Its accumulator of streams makes one call with its name, id and arguments, and the usage."""
    async with serving(Saying(f"Hm.<tool_call>{LONDON_CALL}</tool_call>")) as http:
        stream = client_over(http).chat.completions.stream(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            tools=[{"type": "function", "function": {"name": "get_weather", "parameters": {}}}],
            stream_options={"include_usage": True},
        )
        async with stream as events:
            answer = await events.get_final_completion()
    message = answer.choices[0].message
    assert message.content == "Hm."
    assert message.tool_calls
    assert message.tool_calls[0].function.name == "get_weather"
    assert message.tool_calls[0].function.arguments == LONDON
    assert message.tool_calls[0].id.startswith("call_")
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage
    assert answer.usage.completion_tokens > 10


async def test_log_probabilities_have_its_types() -> None:
    """Both routes."""
    async with serving(Saying("ab")) as http:
        client = client_over(http)
        chat = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], logprobs=True, top_logprobs=2, n=2
        )
        text = await client.completions.create(model=MODEL, prompt=["x", "y"], logprobs=1, echo=False)
    assert chat.choices[1].logprobs
    assert chat.choices[1].logprobs.content
    assert [token.token for token in chat.choices[1].logprobs.content] == ["a", "b"]
    assert chat.choices[1].logprobs.content[0].top_logprobs[1].bytes == [98]
    assert text.choices[1].logprobs
    assert text.choices[1].logprobs.tokens == ["a", "b"]
    assert text.choices[1].logprobs.text_offset == [0, 1]


async def test_embeddings_come_as_numbers() -> None:
    """It asks for base64 by itself and decodes it."""
    async with serving(None, embedder=Lengths()) as http:
        answer = await client_over(http).embeddings.create(model=MODEL, input=["abc", "b"])
    assert [item.embedding for item in answer.data] == [[3.0, 97.0, 0.5], [1.0, 98.0, 0.5]]
    assert answer.usage.total_tokens == 4


async def test_a_refusal_is_its_error() -> None:
    """With the parameter and the code."""
    async with serving(Saying("a"), engine="openvino") as http:
        with pytest.raises(BadRequestError) as refusal:
            await client_over(http).completions.create(model=MODEL, prompt="x", logit_bias={"5": 1})
    assert (refusal.value.param, refusal.value.code) == ("logit_bias", "unsupported_parameter")
