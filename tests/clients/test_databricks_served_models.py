"""Entities of `system.ai` and embedding models behind Databricks' serving endpoints, by its SDK, on real engines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from databricks_models import CLIENT, environment, register
from vendor_client import run_client

from server_process import ServerProcess, running_server
from small_models import write_encoder

PROGRAM = Path(__file__).parent / "programs" / "databricks_served_models.py"
FOUNDATION, IN_MIRROR = "system.ai.qwen3_0_6b", "Qwen/Qwen3-0.6B"
ENCODER = "ml.models.encoder"


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[ServerProcess]:
    """A server whose mirror has a model of the catalogue (the demonstration one, in truth), and an encoder."""
    root = tmp_path_factory.mktemp("served")
    shutil.copytree(demo_model, root / "mirror" / IN_MIRROR)
    with running_server(root / "data", "--model-mirror", str(root / "mirror")) as server:
        register(server, write_encoder(root / "encoder"), ENCODER)
        yield server


@pytest.fixture(scope="module")
def told(mirrored: ServerProcess) -> dict[str, Any]:
    """What the SDK's user was told."""
    answer: dict[str, Any] = run_client(CLIENT, PROGRAM, FOUNDATION, ENCODER, env=environment(mirrored))
    return answer


def test_a_foundation_model_comes_from_the_mirror(told: dict[str, Any]) -> None:
    """An entity of `system.ai` is deployed as any other: its weights come from where the operator has them."""
    assert told["foundation"] == FOUNDATION
    assert "Tokyo" in told["answer"]


def test_embeddings(told: dict[str, Any]) -> None:
    """Invocations with ``input`` and OpenAI's client get the same vectors, of length one, of an encoder."""
    assert told["object"] == "list"
    for vector in told["sdk"]:
        assert len(vector) == 32
        assert sum(value**2 for value in vector) == pytest.approx(1.0)
    assert told["openai"] == [pytest.approx(vector, abs=1e-6) for vector in told["sdk"]]
    assert told["tokens"] == len("Hello") + len("What is it?")


def test_embeddings_by_vertex_ais_address(mirrored: ServerProcess, tmp_path: Path) -> None:
    """An endpoint on Vertex AI answers ``/embeddings``, too; who chats with an encoder is told what it is."""
    endpoint = mirrored.deployed(write_encoder(tmp_path / "encoder"))
    with mirrored.client() as client:
        asked = client.post(f"/v1/{endpoint}/embeddings", json={"model": "", "input": "Hello"})
        assert asked.status_code == httpx.codes.OK, asked.text
        assert len(asked.json()["data"][0]["embedding"]) == 32
        chat = {"model": "", "messages": [{"role": "user", "content": "Hello"}]}
        refused = client.post(f"/v1/{endpoint}/chat/completions", json=chat)
    assert 400 <= refused.status_code < 500
    assert "embed" in refused.text
