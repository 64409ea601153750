"""Logs of a served model: what its engines wrote, and how its deployment came about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from headrace.resources.deployments import Transition


def logs_json(tails: Iterable[tuple[str, Sequence[str]]]) -> dict[str, Any]:
    """The last lines of several replicas, one after the other.

    Args:
        tails: Of each replica its id and its lines.
    """
    parts = ["\n".join((f"==> replica {replica_id} <==", *lines)) for replica_id, lines in tails]
    return {"logs": "\n\n".join(parts)}


def build_logs_json(timeline: Iterable[Transition]) -> dict[str, Any]:
    """A deployment's moves between states, a line for each, oldest first: checking, staging, conversion, starting."""
    return {"logs": "\n".join(_line(move) for move in timeline)}


def _line(move: Transition) -> str:
    at = datetime.fromtimestamp(move.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    failure = "" if move.failure is None else f"{move.failure.code}: {move.failure.message}"
    return " ".join(part for part in (at, move.state, move.detail, failure) if part)
