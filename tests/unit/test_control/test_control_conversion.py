"""What a deployment's timeline tells of a conversion."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from scripted import ScriptedNode, World

from headrace.resources.assignments import NodeReport
from headrace.resources.models import ServingSpec

REASON = "OpenVINO IR (bf16) from safetensors, 269 MB"


class ConvertingNode(ScriptedNode):
    """Says of each stage that it converts for two turns, and then what that cost."""

    def __init__(self) -> None:
        super().__init__()
        self.staging = ("copying", "converting", "converting", "done")  # type: ignore[assignment]

    def report(self, now: float) -> NodeReport:
        """With the sentences that a stager adds."""
        said = {"converting": f"{REASON}; writing the tokenizer.", "done": f"Converted to {REASON}, in 7.4 s."}
        report = super().report(now)
        formats = {order.fingerprint: order.dtype for order in self.orders.stages}
        stages = tuple(
            msgspec.structs.replace(
                one, detail=said.get(one.phase, ""), dtype=formats.get(one.fingerprint, "auto"), total_bytes=0
            )
            for one in report.stages
        )
        return msgspec.structs.replace(report, stages=stages)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With a node that converts."""
    world = World(tmp_path)
    world.node = ConvertingNode()
    return world


def test_the_timeline_says_what_is_converted_and_what_it_took(world: World) -> None:
    """Both while it lasts and once it is over, as part of STAGING; the next phase begins without it."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    staging = [move.detail for move in world.timeline(world.deployment.id) if move.state == "STAGING"]
    assert f"Converting: {REASON}; writing the tokenizer." in staging
    assert staging[-1] == f"Converted to {REASON}, in 7.4 s."
    placing = next(move for move in world.timeline(world.deployment.id) if move.state == "PLACING")
    assert placing.detail == ""


def test_the_order_names_the_number_format_and_the_report_is_known_by_it(world: World) -> None:
    """A version that is served in float32 is staged as that, and its replicas start with it."""
    world.deploy(spec=ServingSpec(dtype="float32"))
    asyncio.run(world.until(lambda: world.node.orders.stages))
    assert [order.dtype for order in world.node.orders.stages] == ["float32"]
    asyncio.run(world.until_state("READY"))
    assert [order.dtype for order in world.node.started] == ["float32"]
