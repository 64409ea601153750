"""The size or machine type of a deployment: whether it takes the model, and what to ask for if its memory did not do.

Sizes are those in parameters, such as ``WX-S``.
"""

from __future__ import annotations

import msgspec

from headrace.capacity import Tier, next_tier, require_tier
from headrace.capacity.memory import Dtype
from headrace.capacity.tiers import WITHOUT_TENSOR_PARALLEL
from headrace.hardware import Catalogue, Shape, find_shape, next_up
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.errors import EngineKvCacheTooSmall, EngineOutOfMemory, Failure
from headrace.weights.folder import ModelFolder

WANT_OF_MEMORY = frozenset({EngineOutOfMemory.code, EngineKvCacheTooSmall.code})
"""How an engine ends that a larger machine would have served."""

_INSTEAD = "ask for a machine type instead (`headrace plan --shapes` lists them)"


def require_size(folder: ModelFolder, dtype: Dtype, machine: MachineSpec, catalogue: Catalogue) -> None:
    """Hold that a size in parameters, if one was asked for, takes the model.

    Raises:
        DoesNotFit: It does not; the fix names the one that does.
    """
    asked = _size(machine, _sizes(catalogue))
    if asked is not None:
        require_tier(folder, dtype, asked, _sizes(catalogue))


def if_too_small(folder: ModelFolder, machine: MachineSpec, devices: int, catalogue: Catalogue) -> str:
    """What to ask for should this machine's memory not do, as a sentence; empty where no machine was asked for.

    Raises:
        BadField: There is no such machine.
    """
    sizes, model_type = _sizes(catalogue), folder.config.model_type
    if (asked := _size(machine, sizes)) is not None:
        if model_type in WITHOUT_TENSOR_PARALLEL:
            return f"{asked.name} is the only size for {model_type} models: {_INSTEAD}."
        larger = next_tier(asked.name, sizes)
        if larger is None:
            return f"{asked.name} is the largest size: {_INSTEAD}."
        return f"Or ask for the next size up: --machine-type {larger.name}."
    shape = find_shape(catalogue, machine)
    if shape is None:
        return ""
    roomier = next_up(catalogue, shape, devices)
    if roomier is None:
        return f"No machine of the catalogue has more memory for the model than {shape.label}."
    return f"Or ask for the next machine up: {_options(roomier)}."


def advised(failure: Failure | None, deployment: Deployment) -> Failure | None:
    """A deployment's failure; where it was for want of memory, with the next size up in its fix."""
    said = deployment.predicted.if_too_small if deployment.predicted else ""
    if failure is None or not said or failure.code not in WANT_OF_MEMORY or failure.fix.endswith(said):
        return failure
    return msgspec.structs.replace(failure, fix=f"{failure.fix} {said}".strip())


def _sizes(catalogue: Catalogue) -> list[Tier]:
    return [Tier(each.name, each.max_parameters) for each in catalogue.shapes if each.max_parameters]


def _size(machine: MachineSpec, sizes: list[Tier]) -> Tier | None:
    return next((size for size in sizes if size.name.lower() == machine.machine_type.lower()), None)


def _options(shape: Shape) -> str:
    """The machine, as `headrace deploy` takes it."""
    if shape.accelerator is None:
        return f"--machine-type {shape.name}"
    devices = f"--accelerator-type {shape.accelerator.name} --accelerator-count {shape.accelerator_count}"
    return f"--machine-type {shape.name} {devices}"
