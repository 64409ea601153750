"""A replica that was sold a throughput is measured before it is used, once; and what is sold goes by that."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from scripted import UP, World, failure
from test_deploy_version import endpoint, put, register

from headrace.capacity.measuring import grid_for
from headrace.capacity.units import chunk, tokens_per_s
from headrace.control.doubt import doubt
from headrace.control.profiling import BUDGET_S
from headrace.control.serving.view import view_of
from headrace.resources.assignments import ProfileReport
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import EngineDied, EngineTimeout
from headrace.resources.profiles import Carried, Cost, Grid, Point, Profile, Provision
from headrace.resources.states import ReplicaState

COST = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)
PREDICTED = Carried(cost=msgspec.structs.replace(COST, prompt=2e-3), concurrency=2, first_s=2.0, gap_s=0.2)
SOLD = Provision(min_tokens_per_s=0, max_tokens_per_s=100, chunk=50)
GRID = Grid(prompts=(32, 256, 768), outputs=(16, 64), concurrency=(1, 4, 16), between=(2, 8))


def points(*, noise: float = 0.0, first_s: float = 0.1) -> tuple[Point, ...]:
    """As a node would measure them of a replica that costs just this; every other one is off by so much."""
    combined = [(at, prompt, output) for at in GRID.concurrency for prompt in GRID.prompts for output in GRID.outputs]
    return tuple(
        Point(
            prompt_tokens=prompt,
            output_tokens=output,
            concurrency=at,
            requests=1.0,
            wall_s=COST.work_s(prompt, output, at) * (1 + noise * (place % 2)),
            first_s=first_s,
            gap_s=0.05,
        )
        for place, (at, prompt, output) in enumerate(combined)
    )


def sell(world: World, endpoint_id: str = "e", provision: Provision = SOLD) -> None:
    """Deploy version 1, and sell a throughput of it by a prediction, as a deploy that asks for one does."""
    if not world.bindings:
        register(world, "1")
    endpoint(world, endpoint_id)
    operation = put(world, endpoint_id, {"0": 100}, own=True)

    def work(tx: Any) -> None:
        targets = operation.targets
        deployed = tx.get(DeployedModel, scope=operation.scope, id=targets["deployed_model"])
        tx.update(msgspec.structs.replace(deployed, provision=provision))
        deployment = tx.get(Deployment, scope=operation.scope, id=targets["deployment"])
        tx.update(msgspec.structs.replace(deployment, carried=PREDICTED))

    world.write(work)


def told(world: World) -> str:
    """The newest deployment's timeline."""
    return "\n".join(move.detail for move in world.timeline(world.deployment.id))


def doubted(world: World) -> str:
    """Why what is sold of the newest deployment may not be kept, as Databricks' clients read it of their endpoint."""
    with world.store.transaction(read_only=True) as tx:
        (view,) = (view_of(tx, one).served[0].detail for one in tx.list(Endpoint))
        assert view == doubt(tx, world.deployment)
        return view


def test_it_is_measured_before_it_is_ready_and_kept(world: World) -> None:
    """Its node is told to, the deployment carries what came of it, a profile is stored, and the timeline says so."""
    world.node.measures = ProfileReport(points=points())
    sell(world)
    deployment = asyncio.run(world.until_state("READY"))
    (order,) = world.node.started
    assert order.profile is not None
    assert (order.profile.grid, order.profile.budget_s) == (grid_for(4096), BUDGET_S) == (GRID, BUDGET_S)
    assert order.profile.before_at == deployment.deadline_at
    (profile,) = world.rows(Profile)
    assert (profile.model_id, profile.model_version, profile.runtime) == ("m", "1", "transformers")
    assert profile.carried.cost.prompt == pytest.approx(COST.prompt, rel=1e-3)
    assert (profile.carried.concurrency, profile.points) == (16, points())
    assert profile.carried.cores == 2, "both of the node's: no other engine runs there"
    assert deployment.carried == msgspec.structs.replace(profile.carried, profile_id=profile.id)
    assert f"A replica carries {tokens_per_s(profile.carried):,.0f} tokens/s" in told(world)
    assert f"a chunk is {chunk(profile.carried):,}. The fit is 0% off on average." in told(world)
    assert doubted(world) == ""


def test_a_bad_fit_is_told_with_what_to_do(world: World) -> None:
    """More than a tenth off: it is kept, and nobody is left to believe it."""
    world.node.measures = ProfileReport(points=points(noise=1.0))
    sell(world)
    asyncio.run(world.until_state("READY"))
    assert "more than 10%: measure again on an idle machine" in told(world)
    assert doubted(world) == "", "less than a quarter: what a node measures beside others is"
    (profile,) = world.rows(Profile)
    world.write(lambda tx: tx.update(msgspec.structs.replace(profile, mean_error=0.6)))
    assert "whose fit is 60% off on average. Measure on an idle machine" in doubted(world)


@pytest.mark.parametrize(
    ("report", "word"),
    [
        (ProfileReport(failure=failure(EngineTimeout)), "It went wrong. A scripted failure."),
        (ProfileReport(points=points()[:2]), "A replica's cost cannot be told"),
        (None, "was not measured."),
    ],
    ids=["failed", "too little", "nothing"],
)
def test_a_measurement_that_fails_fails_nothing_else(world: World, report: ProfileReport | None, word: str) -> None:
    """The deployment is READY, sold by its prediction as before, and says why."""
    world.node.measures = report
    sell(world)
    assert asyncio.run(world.until_state("READY")).carried == PREDICTED
    assert world.rows(Profile) == []
    assert word in told(world)
    assert f"It stays sold by the prediction, {tokens_per_s(PREDICTED):,.0f} tokens/s a replica." in told(world)
    assert doubted(world).startswith("What a replica carries was not measured. It stays sold by the prediction")


def test_latencies_that_nothing_keeps_are_known_and_not_sold_by(world: World) -> None:
    """The profile says the truth; what was sold before stays sold by its prediction."""
    world.node.measures = ProfileReport(points=points(first_s=9.0))
    sell(world)
    assert asyncio.run(world.until_state("READY")).carried == PREDICTED
    assert world.rows(Profile)[0].carried.concurrency == 0
    assert "Measured, not even one request at a time keeps 2 s" in told(world)
    assert "It stays sold by the prediction" in told(world)
    assert doubted(world).startswith("Measured, not even one request at a time keeps 2 s")
    assert "and may not be kept. Measure on an idle machine" in doubted(world)


def test_only_what_is_sold_and_unknown_is_measured(world: World) -> None:
    """Not a deployment without a throughput, not one of which a profile holds, and of several replicas one."""
    world.node.measures = ProfileReport(points=points())
    register(world, "1")
    endpoint(world, "free")
    put(world, "free", {"0": 100}, own=True)
    asyncio.run(world.until_state("READY"))
    sell(world, "two", Provision(min_tokens_per_s=300, max_tokens_per_s=400, chunk=50))  # by the prediction two
    asyncio.run(world.until(lambda: len(world.node.started) == 3 and world.deployment.state == "READY"))
    sell(world, "later")
    asyncio.run(world.until(lambda: len(world.node.started) == 4 and world.deployment.state == "READY"))
    free, *two, later = [order.profile is not None for order in world.node.started]
    assert (free, sorted(two), later) == (False, [False, True], False)
    assert len(world.rows(Profile)) == 1


def test_a_replica_that_died_being_measured_is_replaced_by_one_that_is_not(world: World) -> None:
    """It may be the measurement that killed it; the deployment gets on without."""
    world.node.ladder = (ReplicaState.STARTING, ReplicaState.WARMING, failure(EngineDied))
    sell(world)
    asyncio.run(world.until(lambda: any(one.state == "FAILED" for one in world.replicas)))
    world.node.ladder = UP
    asyncio.run(world.until_state("READY", at_most=120))
    assert [order.profile is not None for order in world.node.started] == [True, False]
    assert "was not measured" in told(world)
