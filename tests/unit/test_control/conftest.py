"""A scripted world for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Fresh, and closed afterwards."""
    world = World(tmp_path)
    yield world
    world.store.close()
