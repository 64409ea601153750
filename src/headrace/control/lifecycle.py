"""The life of a deployment, one state after another: what to do in each, decided from rows alone.

A step may be repeated at any time and in any process: what was done already is seen in the
rows, so that control can be killed between any two steps and go on from there.
"""

from __future__ import annotations

import msgspec

from headrace.control.checking import Checked
from headrace.control.deadlines import overdue
from headrace.control.draining import drain, stop_replicas
from headrace.control.external.life import LOOKED_AT
from headrace.control.external.life import advance as advance_external
from headrace.control.guarantees import follow, provisions_of
from headrace.control.operations import settle_operations
from headrace.control.placement import gib, home
from headrace.control.room import beyond, need_here
from headrace.control.sight import Sight
from headrace.control.timeline import entered_at, note
from headrace.control.zero import PLACED, rest_or_tend
from headrace.resources.assignments import StageReport
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.errors import Failure, InternalError
from headrace.resources.external import EXTERNAL
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope
from headrace.resources.nodes import Node
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

PROGRESS_EVERY_S = 5.0
"""How often the timeline tells of progress within a state."""


def advance(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    """Do what this deployment's state asks for; returns when to look again even if nothing is heard until then."""
    if deployment.runtime == EXTERNAL and deployment.state in LOOKED_AT:
        return advance_external(tx, deployment, sight)
    match deployment.state:
        case DeploymentState.ACCEPTED | DeploymentState.CHECKING:
            return _await_check(tx, tx.move(deployment, DeploymentState.CHECKING), sight)
        case DeploymentState.STAGING:
            return _stage(tx, deployment, sight)
        case state if state in PLACED:
            return rest_or_tend(tx, follow(tx, deployment), sight)
        case DeploymentState.DRAINING:
            return drain(tx, deployment, sight)
        case DeploymentState.FAILED:
            stop_replicas(tx, deployment)
    return None


def checkable(tx: Transaction, deployment: Deployment) -> tuple[ModelVersion, Node, MachineSpec] | None:
    """What a check of this deployment looks at; None unless it is to be checked and there is a node to check it for."""
    node = home(tx)
    if deployment.state is not DeploymentState.CHECKING or deployment.runtime == EXTERNAL or node is None:
        return None
    return version_of(tx, deployment), node, deployment.machine


def take_check(tx: Transaction, key: tuple[Scope, str], outcome: Checked | Failure) -> None:
    """Store what a check found, if the deployment still waits for it."""
    deployment = tx.get(Deployment, scope=key[0], id=key[1])
    if deployment is None or deployment.state is not DeploymentState.CHECKING:
        return
    if isinstance(outcome, Failure):
        tx.move(deployment, DeploymentState.FAILED, failure=outcome)
    else:
        _accept(tx, deployment, outcome)
    settle_operations(tx, deployment.scope)


def _accept(tx: Transaction, deployment: Deployment, outcome: Checked) -> None:
    version = version_of(tx, deployment)
    if version.fingerprint != outcome.fingerprint:
        tx.update(msgspec.structs.replace(version, fingerprint=outcome.fingerprint))
    chosen = (
        f"{gib(outcome.model_bytes)} of files; a context of {outcome.max_model_len:,} tokens, "
        f"{gib(outcome.memory_bytes)} of memory a replica."
    )
    too_high = _too_high(tx, deployment, outcome)
    if too_high is not None:
        tx.move(
            deployment,
            DeploymentState.FAILED,
            failure=too_high,
            runtime=outcome.runtime,
            memory_bytes=outcome.memory_bytes,
        )
        return
    staging = tx.move(
        deployment,
        DeploymentState.STAGING,
        detail=" ".join(part for part in (chosen, outcome.runtime_reason, *outcome.warnings) if part),
        runtime=outcome.runtime,
        max_model_len=outcome.max_model_len,
        memory_bytes=outcome.memory_bytes,
        model_bytes=outcome.model_bytes,
        predicted=outcome.predicted,
    )
    follow(tx, staging)  # how many have room is known now


def _too_high(tx: Transaction, deployment: Deployment, outcome: Checked) -> Failure | None:
    """Why the machine could never carry what a deployed model of it was sold, now that a replica's memory is known."""
    if deployment.carried is None:
        return None
    checked = msgspec.structs.replace(deployment, runtime=outcome.runtime, memory_bytes=outcome.memory_bytes)
    need = need_here(tx, checked)
    told = (beyond(tx, deployment.carried, one, need) for one in provisions_of(tx, deployment))
    return next((failure for failure in told if failure is not None), None)


def version_of(tx: Transaction, deployment: Deployment) -> ModelVersion:
    """The version that a deployment serves; it cannot be deleted before the deployment is GONE."""
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    assert version is not None, "a model in use is not deleted"
    return version


def _await_check(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    if sight.now >= deployment.deadline_at:
        tx.move(deployment, DeploymentState.FAILED, failure=overdue(tx, deployment))
        return None
    if home(tx) is None:
        note(tx, deployment, "Waiting for a serving node to report.")
    return deployment.deadline_at


def _stage(tx: Transaction, deployment: Deployment, sight: Sight) -> float | None:
    node = home(tx)
    assert node is not None, "CHECKING found one, and nodes are not forgotten"
    version = version_of(tx, deployment)
    report = sight.stages.get((node.id, version.fingerprint, deployment.runtime, version.spec.dtype))
    if report is not None and report.phase == "done":
        there_before = 0 < report.done_at < entered_at(tx, deployment)
        if not there_before:
            _tell_notes(tx, deployment, report)
        if said := report.found if there_before else report.detail:
            note(tx, deployment, said)  # of the phase that ends, so that its line shows what it cost
        tx.move(deployment, DeploymentState.PLACING)
        return sight.now
    if report is not None and report.phase == "failed":
        failure = report.failure or InternalError("The node could not stage the model.").failure
        tx.move(deployment, DeploymentState.FAILED, failure=failure)
        return None
    if sight.now >= deployment.deadline_at:
        tx.move(deployment, DeploymentState.FAILED, failure=overdue(tx, deployment))
        return None
    if report is not None:
        _tell_notes(tx, deployment, report)
        _tell_progress(tx, deployment, report, sight.now)
    return deployment.deadline_at


def _tell_notes(tx: Transaction, deployment: Deployment, report: StageReport) -> None:
    told = {move.detail for move in tx.timelines.shown("deployment", deployment.id)}
    for sentence in report.notes:
        if sentence not in told:
            note(tx, deployment, sentence)


def _tell_progress(tx: Transaction, deployment: Deployment, report: StageReport, now: float) -> None:
    phase = report.phase.capitalize()
    last = tx.timelines.newest("deployment", deployment.id)
    if last.detail.startswith(phase) and now - last.at < PROGRESS_EVERY_S:
        return
    known = " ".join(part for part in (report.detail, _progress(report)) if part)
    note(tx, deployment, f"{phase}: {known}" if known else f"{phase}.")


def _progress(report: StageReport) -> str:
    if not report.total_bytes:
        return ""
    pace = f", {report.bytes_per_s / 1024**2:.0f} MiB/s" if report.phase == "copying" and report.done_bytes else ""
    return f"{gib(report.done_bytes)} of {gib(report.total_bytes)}{pace}."
