"""What the timeline tells between moves."""

from __future__ import annotations

from headrace.resources.deployments import Deployment
from headrace.store import Transaction


def note(tx: Transaction, deployment: Deployment, detail: str) -> None:
    """Add a sentence to a deployment's timeline, unless it was the last one already."""
    if tx.timelines.newest("deployment", deployment.id).detail != detail:
        tx.move(deployment, deployment.state, detail=detail)


def entered_at(tx: Transaction, deployment: Deployment) -> float:
    """When a deployment came to its state."""
    return tx.timelines.entered_at("deployment", deployment.id, deployment.state)
