"""The promise that a machine which makes engines slow is told of at the server's start."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.server.huge_pages import sentence


@pytest.mark.parametrize("switch", ["always [madvise] never\n", "[always] madvise never\n", "", None])
def test_nothing_is_said_where_there_is_nothing_to_do(tmp_path: Path, switch: str | None) -> None:
    """Huge pages are given to who asks, or there is no such switch."""
    enabled = tmp_path / "enabled"
    if switch is not None:
        enabled.write_text(switch)
    assert not sentence(enabled)


def test_an_operator_hears_what_to_do(tmp_path: Path) -> None:
    """What it costs, and the command that mends it."""
    enabled = tmp_path / "enabled"
    enabled.write_text("always madvise [never]\n")
    assert sentence(enabled).endswith(f"echo madvise > {enabled}")
