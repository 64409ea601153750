"""Tests on both event loops: the standard library's, and the one that a gateway runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

Loop = Callable[[], asyncio.AbstractEventLoop]

on_both_loops = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def run(main: Coroutine[Any, Any, None], loop: Loop) -> None:
    """As `asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main)
