"""JavaScript's clients, unmodified: OpenAI's before an endpoint's address, and Vertex AI's over its REST fallback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from vendor_client import run_client

from server_process import ServerProcess

HERE = Path(__file__).parent
NODE = "HEADRACE_TEST_NODE"
pytestmark = pytest.mark.needs_npm


def run_node(script: str, *arguments: str) -> Any:
    """What a script comes to, with the packages that npm installed."""
    return run_client(NODE, HERE / script, *arguments, env={"NODE_PATH": os.environ["HEADRACE_TEST_NODE_MODULES"]})


@pytest.fixture(scope="module")
def by_openai(shared_server: ServerProcess, endpoint: str) -> Any:
    """What OpenAI's client saw at the endpoint's own address."""
    return run_node("js_openai.cjs", f"{shared_server.url}/v1beta1/{endpoint}", shared_server.key)


@pytest.fixture(scope="module")
def by_vertex(shared_server: ServerProcess, endpoint: str) -> Any:
    """What Vertex AI's client saw."""
    url = urlsplit(shared_server.url)
    address = (str(url.hostname), str(url.port), url.scheme)
    return run_node("js_aiplatform.cjs", *address, shared_server.key, endpoint)


def test_openais_client(by_openai: Any) -> None:
    """A chat whole and streamed, the older completions, and the models of the endpoint."""
    assert "Tokyo" in by_openai["text"]
    assert by_openai["streamed"] == by_openai["text"]
    assert by_openai["chunks"] > 5
    assert by_openai["streamed_usage"] == by_openai["usage"]
    assert "Tokyo" in by_openai["completion"]
    assert by_openai["models"]


@pytest.mark.parametrize(("mistake", "status"), [("endpoint", 404), ("parameter", 400), ("key", 401)])
def test_openais_clients_errors(by_openai: Any, mistake: str, status: int) -> None:
    """Mistakes are the client's own errors."""
    assert (by_openai[mistake]["kind"], by_openai[mistake]["status"]) == (True, status)


def test_vertexs_client_predicts(by_vertex: Any) -> None:
    """Instances with a prompt and with messages, and parameters for both."""
    completion, chat = by_vertex["completion"], by_vertex["chat"]
    assert completion.startswith("Prompt:\nThe capital of Japan is\nOutput:\n")
    assert "Tokyo" in completion
    assert "Tokyo" in chat["choices"][0]["message"]["content"]
    assert by_vertex["deployed_model"]


def test_vertexs_client_generates(by_vertex: Any) -> None:
    """Gemini's method, whole and as a stream, which this client reads as a JSON array."""
    assert "Tokyo" in by_vertex["text"]
    assert by_vertex["streamed"] == by_vertex["text"]
    assert by_vertex["responses"] > 5
    assert by_vertex["usage"]["totalTokenCount"] > by_vertex["usage"]["promptTokenCount"]


def test_vertexs_clients_errors(by_vertex: Any) -> None:
    """Mistakes are errors of Google's libraries, with our code as the reason."""
    assert by_vertex["instance"]["reason"] == "BAD_FIELD"
    assert "12345" in by_vertex["endpoint"]["message"]
