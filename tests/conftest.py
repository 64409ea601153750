"""What every folder of tests may use: the demo model as the set-up of `make test` made it, and servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_process import ServerProcess, running_server


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder."""
    folder = os.environ.get("HEADRACE_TEST_MODEL")
    assert folder, "HEADRACE_TEST_MODEL is not set: run the tests through `make test`, or see CONTRIBUTING.md"
    return Path(folder)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A fresh server, gone afterwards with everything it started."""
    with running_server(tmp_path / "data") as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for a whole module of tests."""
    with running_server(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def endpoint(shared_server: ServerProcess, demo_model: Path) -> str:
    """Name of an endpoint of `shared_server` that serves the demo model."""
    return shared_server.deployed(demo_model, modelConfig={"modelDisplayName": "smollm2"})
