"""Quotas: what a project's deployments take of its shares, and whether one more may."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import msgspec

from headrace.capacity import quota_admits
from headrace.hardware import Catalogue, find_shape, read_catalogue
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.errors import BadField, QuotaExceeded
from headrace.resources.names import DEFAULT_LOCATION, Scope
from headrace.resources.quotas import DEFAULT_SHARES, Quota
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

MOST_SHARES = 10_000.0

COUNTED = tuple(state for state in DeploymentState if state not in {DeploymentState.FAILED, DeploymentState.GONE})
"""Deployments in these states take their share; one that drains does until nothing of it runs."""


class Usage(msgspec.Struct, frozen=True):
    """How much of its quota a project takes.

    Attributes:
        shares: What it may take.
        used: What its deployments take together.
        deployments: Those that take something, by id, with their size and its share.
    """

    shares: float
    used: float
    deployments: dict[str, tuple[str, float]]


def share_of(machine_type: str, catalogue: Catalogue) -> Fraction:
    """The share that a deployment of this machine type takes; machine types other than sizes take none."""
    named = catalogue.named(machine_type) if machine_type else ()
    share = next((shape.quota_share for shape in named if shape.quota_share), None)
    return Fraction(str(share)) if share else Fraction(0)


def usage(tx: Transaction, project: str, catalogue: Catalogue) -> Usage:
    """How much of its quota a project takes, in all locations together."""
    taking = {
        one.id: (one.machine.machine_type, share)
        for one in tx.list(Deployment, project=project, state=COUNTED)
        if (share := share_of(one.machine.machine_type, catalogue))
    }
    return Usage(
        shares=shares_of(tx, project),
        used=float(sum((share for _, share in taking.values()), Fraction(0))),
        deployments={name: (size, float(share)) for name, (size, share) in taking.items()},
    )


def shares_of(tx: Transaction, project: str) -> float:
    """What a project may take: what an operator set, else what every project has."""
    quota = tx.get(Quota, project=project)
    return DEFAULT_SHARES if quota is None else quota.shares


def require_quota(tx: Transaction, project: str, machine: MachineSpec, data_dir: Path | None) -> None:
    """Hold that a project may have one deployment more of this machine, whose row is stored in the same transaction.

    Args:
        tx: That one.
        project: Whose.
        machine: What was asked for; nothing takes no share.
        data_dir: Where an operator's own machine types may be; None for the catalogue's alone.

    Raises:
        QuotaExceeded: It may not.
        BadField: There is no such machine.
        MachineSpecIncomplete: It is named in part.
    """
    if machine == MachineSpec():
        return
    catalogue = read_catalogue(data_dir)
    shape = find_shape(catalogue, machine)
    wanted = Fraction(0) if shape is None else share_of(shape.name, catalogue)
    if shape is None or not wanted:
        return
    now = usage(tx, project, catalogue)
    running = [Fraction(str(share)) for _, share in now.deployments.values()]
    if quota_admits(running, wanted, Fraction(str(now.shares))):
        return
    raise QuotaExceeded(
        f"The quota of project {project!r} has no room for another {shape.name}.",
        evidence=f"{len(running)} deployments take {now.used:g} of {now.shares:g} shares; "
        f"a {shape.name} takes {float(wanted):g}.",
        fix="Undeploy one (`headrace quota show` lists them), name a smaller size, or have an operator raise it: "
        "`headrace quota set SHARES`.",
    )


def set_quota(tx: Transaction, project: str, shares: float, *, now: float) -> Quota:
    """Change what a project may take. What it has already stays, even where that is more.

    Raises:
        BadField: It is no number from 0 to `MOST_SHARES`.
        BadName: The project's name is not well formed.
    """
    Scope(project, DEFAULT_LOCATION)  # raises where the name is not one
    if not (math.isfinite(shares) and 0 <= shares <= MOST_SHARES):
        raise BadField(
            "A quota is a number of shares.",
            evidence=f"It is {shares}.",
            fix=f"Give 0 to {MOST_SHARES:g}: a large deployment takes 1, a medium one 0.5, a small one 0.25.",
        )
    before = tx.get(Quota, project=project)
    if before is not None:
        return tx.update(msgspec.structs.replace(before, shares=shares))
    quota = Quota(project=project, shares=shares, created_at=now, updated_at=now)
    tx.insert(quota)
    return quota
