"""The command: which lengths, how many at a time, and what they come to."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import EndpointArgument, bindings, find_endpoint, short_id
from headrace.cli.exits import WrongUsage
from headrace.cli.invocation import Invocation
from headrace.cli.output import duration
from headrace.cli.paths import segment
from headrace.cli.progress import Steps
from headrace.resources.errors import EngineTimeout, NotReady, ProfileTooSmall
from headrace.resources.profiles import Carried
from headrace.resources.states import DeploymentState

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.cli.profile.load import Replica
    from headrace.resources.profiles import Point


def profile(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    prompts: Annotated[str, typer.Option(metavar="N,N,…", help="Lengths of prompts, in tokens.")] = "32,256,1024",
    outputs: Annotated[str, typer.Option(metavar="N,N,…", help="Lengths of answers, in tokens.")] = "16,64",
    at: Annotated[str, typer.Option(metavar="N,N,…", help="How many requests at a time.")] = "1,4,16",
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each of them is looked at, at least.")] = 3.0,
    first_token: Annotated[
        float, typer.Option(min=0.001, help="Seconds to the first token that 95 of 100 requests keep.")
    ] = 2.0,
    inter_token: Annotated[
        float, typer.Option(min=0.001, help="Seconds between two tokens that 95 of 100 keep.")
    ] = 0.2,
) -> None:
    """Measure what one replica carries, and what a request costs it; leave it to itself meanwhile.

    The endpoint's deployed model must have one replica. Requests go to it as anybody's do, and count as usage.
    """
    from headrace.capacity.cost import fit, most_at_once  # noqa: PLC0415  # brings numpy
    from headrace.cli.profile.load import Replica  # noqa: PLC0415  # brings the HTTP client
    from headrace.cli.profile.report import show  # noqa: PLC0415

    lengths = [_numbers(each, name) for each, name in ((prompts, "prompts"), (outputs, "outputs"), (at, "at"))]
    for name, numbers in zip(("--prompts", "--outputs", "--at"), lengths, strict=True):
        if len(numbers) < 2:
            raise ProfileTooSmall(
                "A replica's cost cannot be told from so little.",
                evidence=f"{name} has one number.",
                fix="Give at least two; three are better, for a third of what is measured tests the fit.",
            )
    steps = Steps(invocation.output, silent=invocation.as_json)
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        deployed, context = _single(client, found)
        path = f"/v1/{found['name']}/deployedModels/{segment(deployed)}/invoke/completions"
        replica = Replica(client.login, path, endpoint)
        try:
            points = _measure(replica, lengths, context, steps, seconds=seconds)
        finally:
            replica.close()
    fitted = fit(points)
    most = most_at_once(points, first_s=first_token, gap_s=inter_token)
    carried = Carried(cost=fitted.cost, concurrency=most, first_s=first_token, gap_s=inter_token, measured=True)
    show(invocation.output, points, fitted, carried)


def _numbers(text: str, name: str) -> list[int]:
    """Numbers with commas between them.

    Raises:
        WrongUsage: They are none, or not above zero.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 10**7 for part in parts):
        raise WrongUsage(
            f"--{name} takes whole numbers above zero, with commas between them.",
            evidence=f"It was {text!r}.",
            fix=f"Write --{name} 16,64.",
        )
    return sorted({int(part) for part in parts})


def _single(client: Client, endpoint: dict[str, Any]) -> tuple[str, int]:
    """The endpoint's one deployed model that is READY, and its context length.

    Raises:
        NotReady: There is none, or its deployment has not exactly one replica.
    """
    ready = bindings(endpoint, state=DeploymentState.READY)
    name = short_id(str(endpoint["name"]))
    if len(ready) != 1:
        raise NotReady(
            f"Endpoint {name} has {len(ready)} deployed models that are READY; a profile is of one.",
            fix="Deploy the model on an endpoint of its own: `headrace deploy FOLDER --name NAME`.",
        )
    deployment_id = short_id(str(ready[0]["headrace"]["deployment"]))
    found = client.get(f"{ROOT}/deployments/{segment(deployment_id)}", **in_scope(client))
    serving = [each for each in found["replicas"] if each["state"] == DeploymentState.READY]
    if len(serving) != 1:
        raise NotReady(
            f"Deployment {deployment_id} has {len(serving)} replicas; a profile is of one.",
            fix=f"`headrace deployments update {deployment_id} --replicas 1`, or deploy the model once more.",
        )
    return str(ready[0]["id"]), int(found["max_model_len"])


def _measure(replica: Replica, lengths: list[list[int]], context: int, steps: Steps, *, seconds: float) -> list[Point]:
    """Every combination that the context has room for.

    Raises:
        EngineTimeout: One takes too long.
    """
    from headrace.cli.profile.load import LONGEST_S, TooSlow  # noqa: PLC0415  # see above

    points = []
    for prompt, output, concurrency in product(*lengths):
        if prompt + output > context:
            continue
        with steps.step(f"{prompt} tokens read, {output} written, {concurrency} at a time") as step:
            try:
                point = replica.measure(prompt, output, concurrency, seconds=seconds)
            except TooSlow:
                raise EngineTimeout(
                    f"Not one request of {prompt} and {output} tokens was whole after {LONGEST_S:.0f} s.",
                    evidence=f"{concurrency} were asked at a time.",
                    fix="Ask for shorter ones, or fewer at a time.",
                ) from None
            rate = (point.prompt_tokens + point.output_tokens) / point.request_s
            step.result = f"{rate:,.0f} tokens/s, first token {duration(point.first_s)}"
        points.append(point)
    return points
