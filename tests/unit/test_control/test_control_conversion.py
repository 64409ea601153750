"""What a deployment's timeline tells of a conversion."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from scripted import ScriptedNode, World

from headrace.resources.assignments import NodeReport
from headrace.resources.deployments import Deployment
from headrace.resources.models import ServingSpec

REASON = "OpenVINO IR (bf16) from safetensors, 269 MB"


class ConvertingNode(ScriptedNode):
    """Says of each stage that it converts for two turns, and then what that cost."""

    def __init__(self) -> None:
        super().__init__()
        self.staging = ("copying", "converting", "converting", "done")  # type: ignore[assignment]
        self.done_at: dict[str, float] = {}

    def report(self, now: float) -> NodeReport:
        """With the sentences that a stager adds."""
        said = {"converting": f"{REASON}; writing the tokenizer.", "done": f"Converted to {REASON}, in 7.4 s."}
        report = super().report(now)
        found = f"{REASON}, was there already: nothing to convert."
        formats = {order.fingerprint: order.dtype for order in self.orders.stages}
        stages = tuple(
            msgspec.structs.replace(
                one,
                detail=said.get(one.phase, ""),
                found=found if one.phase == "done" else "",
                done_at=self.done_at.setdefault(one.fingerprint, now) if one.phase == "done" else 0.0,
                dtype=formats.get(one.fingerprint, "auto"),
                total_bytes=0,
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


def test_a_deployment_that_comes_later_is_told_that_it_was_there(world: World) -> None:
    """What the first one's conversion took is not said of the second, for which nothing was converted."""
    world.deploy()
    asyncio.run(world.until_state("READY"))
    first = world.deployment.id
    world.deploy()
    asyncio.run(world.until(lambda: all(one.state == "READY" for one in world.rows(Deployment))))
    [second] = [one.id for one in world.rows(Deployment) if one.id != first]
    staging = [move.detail for move in world.timeline(second) if move.state == "STAGING"]
    assert staging[-1] == f"{REASON}, was there already: nothing to convert."
    assert not [detail for detail in staging if detail.startswith("Converted")]


def test_the_order_names_the_number_format_and_the_report_is_known_by_it(world: World) -> None:
    """A version that is served in float32 is staged as that, and its replicas start with it."""
    world.deploy(spec=ServingSpec(dtype="float32"))
    asyncio.run(world.until(lambda: world.node.orders.stages))
    assert [order.dtype for order in world.node.orders.stages] == ["float32"]
    asyncio.run(world.until_state("READY"))
    assert [order.dtype for order in world.node.started] == ["float32"]
