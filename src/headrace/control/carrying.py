"""What a replica of a version would carry here: as it was measured, else as a roofline predicts it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.capacity import PLANNED_SEQUENCES, Load, context_tokens, place_of
from headrace.capacity.carried import predicted
from headrace.control.placement import home
from headrace.control.predicting import computes_in, shape_at
from headrace.control.reading import Weights, weights_of
from headrace.control.standing import newest_profile, standing_now
from headrace.hardware import Shape, find_shape, read_catalogue
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import HeadraceError, NotOptimizable
from headrace.resources.models import ModelVersion
from headrace.resources.profiles import Carried, Profile
from headrace.runtimes import MachineFacts
from headrace.store import Transaction
from headrace.weights import task_of


def carried_by(
    tx: Transaction, version: ModelVersion, machine: MachineSpec | None = None, *, data_dir: Path | None = None
) -> Carried:
    """What one replica of it carries within its latencies; its concurrency is above 0.

    It is of the node that a deployment goes to; the machine that is asked for counts where no node has told of its own,
    because it does not decide where replicas run.

    Args:
        tx: Where profiles are.
        version: The version.
        machine: The machine asked for; None: whichever the platform picks.
        data_dir: Where an operator's own machine types may be, and what nodes of this machine staged.

    Raises:
        NotOptimizable: No throughput of it can be stated: it writes no text, is somebody else's server, its weights
            cannot be read, nothing is known of the machine's speed, or not even one request at a time keeps the
            latencies.
        Unread: Its weights are to be read first; `with_weights` does, and begins again.
        BadField: There is no such machine.
        MachineSpecIncomplete: The machine is named in part.
    """
    weights = weights_of(version, data_dir)
    _require_text(version, weights)
    shape, facts = _where(tx, machine, data_dir)
    try:
        standing = standing_now(tx, version, weights, facts)
        profile = newest_profile(tx, version, standing)
        if profile is None:
            return _predicted(version, weights, standing.runtime, shape)
    except NotOptimizable:
        raise
    except HeadraceError as error:
        raise NotOptimizable(
            "What the model's replica carries cannot be told: nothing here serves it.",
            evidence=f"{error.code}: {error.message} {error.evidence}".rstrip(),
            fix=error.fix,
        ) from error
    return kept(profile)


def kept(profile: Profile) -> Carried:
    """What was measured, with where it is from.

    Raises:
        NotOptimizable: Not even one request at a time kept the latencies.
    """
    carried = msgspec.structs.replace(profile.carried, profile_id=profile.id)
    return _require_some(carried, f"So it was measured (profile {profile.id}).")


def _require_text(version: ModelVersion, weights: Weights) -> None:
    task = task_of(weights.folder.config, weights.folder.files)
    if task != "generate":
        raise NotOptimizable(
            "The model writes no text, so it has no tokens a second.",
            evidence=f"The files of version {version.version} of model {version.model_id!r} say that it is for "
            f"{'embeddings' if task == 'embed' else task}.",
        )


def _where(
    tx: Transaction, machine: MachineSpec | None, data_dir: Path | None
) -> tuple[Shape | None, MachineFacts | None]:
    """The machine that a replica would run on; what it is to a runtime, where no node tells that."""
    asked = find_shape(read_catalogue(data_dir), machine) if machine is not None else None
    node = home(tx)
    if node is not None:
        try:
            return shape_at(node, data_dir), None
        except msgspec.ValidationError:
            return asked, None
    if asked is None:
        return None, None
    return asked, MachineFacts(device="cuda" if asked.accelerator else "cpu", gpus=asked.accelerator_count)


def _predicted(version: ModelVersion, weights: Weights, runtime: str, shape: Shape | None) -> Carried:
    if shape is None:
        raise _unknown("No node has told what machine it is, and none of the catalogue was asked for.")
    spec, folder = version.spec, weights.folder
    load = Load(
        context_tokens(folder.config, spec.max_model_len),
        PLANNED_SEQUENCES,
        spec.dtype,
        runtime,
        spec.tensor_parallel,
        on_cpu=shape.accelerator is None,
    )
    number_format = computes_in(folder, spec.dtype)
    carried = predicted(folder, load, place_of(shape, number_format))
    if carried is None:
        raise _unknown(f"{shape.label} is not known to compute in {number_format}, or how fast its memory is.")
    if shape.accelerator is None:
        carried = msgspec.structs.replace(carried, cores=int(shape.cores))
    return _require_some(carried, f"So it is predicted of {shape.label}, by its rates ({shape.rates}).")


def _require_some(carried: Carried, evidence: str) -> Carried:
    if carried.concurrency:
        return carried
    raise NotOptimizable(
        f"Not even one request at a time has its first token within {carried.first_s:g} s and then one every "
        f"{carried.gap_s:g} s.",
        evidence=evidence,
        fix="If the machine was busy when it was measured, measure again (`headrace profile ENDPOINT`, `headrace "
        "calibrate`). Else deploy it on a faster machine, or without a throughput.",
    )


def _unknown(evidence: str) -> NotOptimizable:
    return NotOptimizable(
        "What the model's replica carries cannot be told: the machine's speed is not known.",
        evidence=evidence,
        fix="`headrace calibrate` measures this machine; `headrace profile ENDPOINT` measures a replica that runs.",
    )
