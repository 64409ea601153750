"""OpenAI's own Python client, unmodified, at the whole server and at one endpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from server_process import ServerProcess

MESSAGES = [{"role": "user", "content": "What is the capital of Japan?"}]


@pytest.fixture(scope="module")
def client(shared_server: ServerProcess, endpoint: str) -> openai.OpenAI:
    """A client of the whole server; an endpoint stands behind it."""
    return openai.OpenAI(base_url=f"{shared_server.url}/v1", api_key=shared_server.key, max_retries=0)


def test_models_lists_endpoints(client: openai.OpenAI, endpoint: str) -> None:
    """`models.list` names what `model` may name, and `retrieve` finds it."""
    names = [model.id for model in client.models.list()]
    assert names
    assert client.models.retrieve(names[0]).id == names[0]


@pytest.mark.parametrize("called", ["id", "full name", "display name"])
def test_model_names_an_endpoint(
    client: openai.OpenAI, shared_server: ServerProcess, endpoint: str, called: str
) -> None:
    """`model` may be the endpoint's id, its full resource name, or the model's display name."""
    model = {"id": endpoint.rpartition("/")[2], "full name": endpoint, "display name": "smollm2"}[called]
    answer = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=16)  # type: ignore[arg-type]
    assert "Tokyo" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 16


def test_a_stream_comes_in_chunks(client: openai.OpenAI, endpoint: str) -> None:
    """A streamed chat comes in many chunks and ends with its usage."""
    stream = client.chat.completions.create(
        model=endpoint,
        messages=MESSAGES,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Tokyo" in text
    assert len(chunks) > 5
    assert chunks[-1].usage is not None


def test_completions(client: openai.OpenAI, endpoint: str) -> None:
    """The older completions API answers too."""
    answer = client.completions.create(model=endpoint, prompt="The capital of Japan is", temperature=0, max_tokens=4)
    assert "Tokyo" in answer.choices[0].text


def test_the_endpoints_own_address(shared_server: ServerProcess, endpoint: str) -> None:
    """An endpoint's address is a base URL of its own, where `model` may be anything."""
    own = openai.OpenAI(base_url=f"{shared_server.url}/v1beta1/{endpoint}", api_key=shared_server.key)
    answer = own.chat.completions.create(model="whatever", messages=MESSAGES, max_tokens=4)  # type: ignore[arg-type]
    assert answer.choices[0].message.content
    assert [model.id for model in own.models.list()]


async def _texts(base_url: str, key: str) -> list[str]:
    """What the asynchronous client is told at an address: a chat in one piece, streamed, and a completion."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        asked: dict[str, Any] = {"model": "whatever", "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
        whole = await client.chat.completions.create(**asked)
        stream = await client.chat.completions.create(**asked, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        prompt = "The capital of Japan is"
        completion = await client.completions.create(model="whatever", prompt=prompt, temperature=0, max_tokens=4)
        return [whole.choices[0].message.content or "", "".join(pieces), completion.choices[0].text]


@pytest.mark.parametrize("way", ["", "/invoke", "/deployedModels/{id}/invoke", "/deployedModels/{id}/invoke/v1"])
def test_other_addresses_of_an_endpoint(shared_server: ServerProcess, endpoint: str, way: str) -> None:
    """The model server's own routes below an endpoint, and below one deployed model, are base URLs as well."""
    with shared_server.client() as client:
        [deployed] = client.get(f"/v1/{endpoint}").json()["deployedModels"]
    base_url = f"{shared_server.url}/v1/{endpoint}{way.format(id=deployed['id'])}"
    whole, streamed, completion = asyncio.run(_texts(base_url, shared_server.key))
    assert "Tokyo" in whole
    assert streamed == whole
    assert "Tokyo" in completion


def test_errors_are_the_clients_own(client: openai.OpenAI, shared_server: ServerProcess, demo_model: Path) -> None:
    """Mistakes raise the client's own exceptions, with our code: unknown model, bad parameter, bad key."""
    with pytest.raises(openai.NotFoundError, match="nothing-here"):
        client.chat.completions.create(model="nothing-here", messages=MESSAGES)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="smollm2", messages=MESSAGES, temperature=-3)  # type: ignore[arg-type]
    stranger = openai.OpenAI(base_url=f"{shared_server.url}/v1", api_key="hr-unknown", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
