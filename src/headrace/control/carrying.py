"""What a replica of a version would carry here: as it was measured, else as a roofline predicts it."""

from __future__ import annotations

from pathlib import Path

from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import NotOptimizable
from headrace.resources.models import ModelVersion
from headrace.resources.profiles import Carried
from headrace.store import Transaction


def carried_by(
    tx: Transaction, version: ModelVersion, machine: MachineSpec | None = None, *, data_dir: Path | None = None
) -> Carried:
    """What one replica of it carries within its latencies; its concurrency is above 0.

    Args:
        tx: Where profiles are.
        version: The version.
        machine: The machine asked for; None: whichever the platform picks.
        data_dir: Where an operator's own machine types may be.

    Raises:
        NotOptimizable: No throughput of it can be stated: it writes no text, is somebody else's server, its weights
            cannot be read, nothing is known of the machine's speed, or not even one request at a time keeps the
            latencies.
    """
    del tx, machine, data_dir  # nothing looks at them yet
    raise NotOptimizable(f"Nothing is known of version {version.version} of model {version.model_id!r} yet.")
