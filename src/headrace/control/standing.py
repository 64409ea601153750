"""What a profile holds for: the runtime, the hardware and what the engine was started with, as they are now."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from headrace.capacity import PLANNED_SEQUENCES, context_tokens
from headrace.control.placement import home
from headrace.control.reading import Weights, staged_weights
from headrace.hardware import MachineShape, identity
from headrace.resources.deployments import Deployment
from headrace.resources.errors import HeadraceError
from headrace.resources.models import ModelVersion, ServingSpec
from headrace.resources.nodes import Node
from headrace.resources.profiles import Profile
from headrace.runtimes import RUNTIMES, MachineFacts, choose, facts_of, machine_of
from headrace.store import Order, Transaction

_NEWEST = (Order("created_at", descending=True), Order("id", descending=True))

_FIELDS = {"runtime": "runtime", "hardware": "machine", "engine": "arguments of its engine"}


class Standing(msgspec.Struct, frozen=True):
    """What decides whether a measurement of a version still holds.

    Attributes:
        runtime: Its name.
        hardware: The machine, as `hardware_name` has it.
        engine: As `engine_arguments` has it.
    """

    runtime: str
    hardware: str
    engine: str

    def differs(self, profile: Profile) -> str:
        """In what it is not what a profile was measured with, as a sentence; empty: it is the same."""
        for name, word in _FIELDS.items():
            then, now = getattr(profile, name), getattr(self, name)
            if then != now:
                return f"The {word} would be {now} now; it was {then}."
        return ""


def hardware_name(node: Node | None) -> str:
    """The machine, as a name that changes with what rates depend on: processor, cores, GPUs."""
    if node is None:
        return ""
    try:
        machine = msgspec.convert(node.hardware, MachineShape)
    except msgspec.ValidationError:  # a node that says nothing of its machine
        return f"node {node.id}"
    cores = f"{machine.cores:g} cores of {machine.cpu_model}"
    gpus = f"{len(machine.gpus)} × {machine.gpus[0].name}, " if machine.gpus else ""
    return f"{gpus}{cores} [{identity(machine)}]"


def engine_arguments(spec: ServingSpec, runtime: str, max_model_len: int) -> str:
    """What an engine is started with that changes what it carries, and the packages that it is made of."""
    made_of = RUNTIMES[runtime].requirements if runtime in RUNTIMES else ""
    arguments = {
        "dtype": spec.dtype,
        "max_model_len": max_model_len,
        "packages": hashlib.sha256(made_of.encode()).hexdigest()[:12],
        "prefix_caching": spec.prefix_caching,
        "sequences": PLANNED_SEQUENCES,
        "tensor_parallel": spec.tensor_parallel,
    }
    return msgspec.json.encode(arguments, order="sorted").decode()


def standing_of(deployment: Deployment, version: ModelVersion, node: Node | None) -> Standing:
    """What a deployment stands on, of which CHECKING has chosen the runtime and the context."""
    engine = engine_arguments(version.spec, deployment.runtime, deployment.max_model_len)
    return Standing(deployment.runtime, hardware_name(node), engine)


def version_of(tx: Transaction, deployment: Deployment) -> ModelVersion | None:
    """What a deployment serves; None once its model was deleted."""
    where = {"scope": deployment.scope, "model_id": deployment.model_id, "version": deployment.model_version}
    return tx.get(ModelVersion, **where)


def standing_now(
    tx: Transaction, version: ModelVersion, weights: Weights, facts: MachineFacts | None = None
) -> Standing:
    """What a deployment of this version would stand on, were it made now.

    Args:
        tx: Where nodes are.
        version: The version.
        weights: Its files.
        facts: Of the machine, where no node has told of its own.

    Raises:
        HeadraceError: Nothing would serve it, or its context is not one that it has.
    """
    node = home(tx)
    on = facts or (machine_of(node) if node is not None else MachineFacts())
    runtime = choose(facts_of(weights.folder, version.spec, weights.code), on, version.spec.runtime, spec=version.spec)
    context = context_tokens(weights.folder.config, version.spec.max_model_len)
    engine = engine_arguments(version.spec, runtime.runtime, context)
    return Standing(runtime.runtime, hardware_name(node), engine)


def newest_profile(tx: Transaction, version: ModelVersion, standing: Standing) -> Profile | None:
    """The newest measurement of a version that holds for this."""
    found = tx.page(
        Profile,
        limit=1,
        orders=_NEWEST,
        scope=version.scope,
        model_id=version.model_id,
        model_version=version.version,
        **msgspec.structs.asdict(standing),
    )
    return found[0] if found else None


def why_stale(tx: Transaction, profile: Profile, data_dir: Path | None) -> str:
    """Why a measurement does not hold for a deployment that would be made now, as a sentence; empty: it does.

    No store is asked: of a version that no node has staged here, the machine alone is compared.
    """
    version = tx.get(ModelVersion, scope=profile.scope, model_id=profile.model_id, version=profile.model_version)
    if version is None:
        return "The version was deleted."
    try:
        weights = staged_weights(version, data_dir)
        if weights is None:
            return Standing(profile.runtime, hardware_name(home(tx)), profile.engine).differs(profile)
        return standing_now(tx, version, weights).differs(profile)
    except HeadraceError as error:
        return f"Nothing would serve the version now: {error.message}"
