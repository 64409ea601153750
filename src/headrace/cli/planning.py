"""What `headrace plan` works out: machine shapes joined with what a model needs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec

from headrace.capacity import (
    PLANNED_SEQUENCES,
    Load,
    Plan,
    Tier,
    check_fit,
    context_tokens,
    next_tier,
    parameters_of,
    place_of,
    plan,
    require_tier,
    unwritten,
)
from headrace.capacity.memory import Dtype
from headrace.capacity.tiers import WITHOUT_TENSOR_PARALLEL
from headrace.hardware import (
    THIS_MACHINE,
    Shape,
    calibrated,
    cheapest_first,
    look,
    read_calibration,
    read_catalogue,
    shape_by_name,
    shape_of,
)
from headrace.resources.errors import BadField, DoesNotFit, Failure, HeadraceError, WeightsMissing, error_from
from headrace.resources.models import ServingSpec, Task
from headrace.runtimes import MachineFacts, choose, facts_of, find
from headrace.runtimes.device import Device
from headrace.storage import open_artifacts
from headrace.weights import ModelFolder, inspect, read_config, task_of
from headrace.weights.folder import saved_alone
from headrace.weights.quantisation import refused_quantisation


class Wish(msgspec.Struct, frozen=True):
    """What the command line asks for; what it leaves open is empty or None."""

    machine: str = ""
    context_tokens: int | None = None
    concurrency: int | None = None
    dtype: Dtype = "auto"
    tensor_parallel: int | None = None
    runtime: str = ""


class Answer(msgspec.Struct, frozen=True):
    """A plan, and how it came about.

    Attributes:
        plan: The plan.
        load: What it was made for.
        shape: The machine.
        number_format: What the model computes in there.
        parameters: The model's.
        active: Those that one token meets.
        reason: Why this machine.
        task: What the model is for; one that embeds writes nothing and keeps no cache between requests.
        longest_tokens: The longest sequence that the model was made for; None where that is not known.
        refusal: Why a deployment as planned would be refused, however much memory there is; None where it would not.
        notes: What else is to be known.
    """

    plan: Plan
    load: Load
    shape: Shape
    number_format: str
    parameters: int
    active: int
    reason: str
    task: Task = "generate"
    longest_tokens: int | None = None
    refusal: HeadraceError | None = None
    notes: tuple[str, ...] = ()

    @property
    def deployable(self) -> bool:
        """It fits, and nothing else is in its way."""
        return self.plan.fits and self.refusal is None


class TierAnswer(msgspec.Struct, frozen=True):
    """A size for a model.

    Attributes:
        tier: The one that was asked for, and takes it.
        parameters: The model's.
        next_up: What to try if it fails there; None after the largest.
        refusal: As an `Answer`'s.
    """

    tier: Tier
    parameters: int
    next_up: Tier | None
    refusal: HeadraceError | None = None


class Machines:
    """The shapes that there are: the catalogue's, the operator's, and this machine.

    Args:
        data_dir: Where the operator's file may be.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._catalogue = read_catalogue(data_dir)

    @cached_property
    def this(self) -> Shape:
        """This machine as found, with what `headrace calibrate` measured of it."""
        machine = look(self._data_dir)
        found = shape_of(machine, self._catalogue.accelerators)
        return calibrated(found, read_calibration(self._data_dir, machine))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All of them, this machine first."""
        return (self.this, *self._catalogue.shapes)

    def named(self, name: str) -> Shape:
        """The shape of a name.

        Raises:
            BadField: There is none, or it has no memory to plan for.
        """
        shape = self.this if name.lower() == THIS_MACHINE else shape_by_name(self._catalogue, name)
        if shape.kind == "timeseries":
            raise BadField(
                f"{shape.name} is a size for time-series models, which are small: it says how many users one carries.",
                evidence="`headrace plan --shapes` lists them.",
                fix="Name a machine type, WX-S, WX-M, WX-L or this-machine.",
            )
        return shape

    def tier(self, name: str) -> Tier | None:
        """The size in parameters of this name; None where the name is a machine's."""
        return next((tier for tier in self.tiers if tier.name.lower() == name.lower()), None)

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """All sizes in parameters."""
        return tuple(Tier(each.name, each.max_parameters) for each in self._catalogue.shapes if each.max_parameters)

    def cheap_to_dear(self) -> list[Shape]:
        """This machine, which is there already, and then all that have a price."""
        return [self.this, *cheapest_first(self._catalogue.shapes)]


def read_model(address: str) -> ModelFolder:
    """What there is at an address; with a configuration alone, as its publisher would have stored it.

    Raises:
        HeadraceError: As `inspect`, and where the size cannot be told.
    """
    artifacts = open_artifacts(address)
    sizes = artifacts.sizes()
    if saved_alone(sizes) or any(
        name.endswith((".safetensors", ".bin", ".gguf")) or ".index." in name for name in sizes
    ):
        return inspect(artifacts)
    config = read_config(artifacts)
    try:
        return unwritten(config)
    except HeadraceError as error:
        raise WeightsMissing(error.message, evidence=error.evidence, fix=error.fix) from error


def plan_model(folder: ModelFolder, wish: Wish, machines: Machines) -> Answer:
    """Plan a model on the machine that was named; else on this one, or on the cheapest with room for it.

    Raises:
        HeadraceError: As `plan`; and there is no machine, or no runtime, of that name.
    """
    if wish.runtime:
        find(wish.runtime)
    if wish.machine:
        return _planned(folder, wish, machines.named(wish.machine), "as asked for")
    shared_by, number_format = wish.tensor_parallel or 1, _number_format(folder, wish)
    here, *others = machines.cheap_to_dear()
    candidates = [here] if shared_by <= max(1, here.accelerator_count) else []
    enough = (each for each in others if max(1, each.accelerator_count) >= shared_by)
    candidates += [each for each in enough if each.flops_per_s(number_format)]
    answers = (_planned(folder, wish, shape, "it is here, and has room") for shape in candidates)
    first = next(answers, None)
    if first is None:
        raise BadField(
            f"No shape with a price has {shared_by} devices that compute in {number_format}.",
            evidence=f"The most are {max(each.accelerator_count for each in others)}.",
            fix="Ask for fewer, or name a shape of your own with --machine.",
        )
    anywhere = _refusal(folder, wish, None) is None  # else the machine makes no difference, but for the room

    def does(answer: Answer) -> bool:
        return answer.deployable if anywhere else answer.plan.fits

    if does(first) and first.shape == here:
        return first
    roomy = next((answer for answer in (first, *answers) if does(answer)), None)
    if roomy is None:
        none = "it has room, and no shape of the catalogue serves it either"
        reason = none if first.plan.fits else "it has no room, and no shape of the catalogue has"
        return msgspec.structs.replace(first, reason=reason)
    return msgspec.structs.replace(roomy, reason=f"the cheapest with room for it; {_why_not(first, here)}")


def _why_not(first: Answer, here: Shape) -> str:
    """What keeps a model from this machine, by the first plan, which is of it where it has enough devices."""
    if first.shape != here:
        return "this machine has fewer devices"
    if first.plan.fits:
        return "this machine has no runtime for it"
    return f"this machine lacks {-first.plan.margin_bytes / 1e9:.1f} GB"


def plan_tier(folder: ModelFolder, wish: Wish, asked: Tier, tiers: tuple[Tier, ...]) -> TierAnswer:
    """Hold a model against a size in parameters. A larger one than it needs is as good, where its kind may have it.

    Raises:
        DoesNotFit: It is too large for that one, or may not have it; the fix names the one that takes it.
    """
    require_tier(folder, wish.dtype, asked, tiers)
    alone = folder.config.model_type in WITHOUT_TENSOR_PARALLEL
    _runtime_name, unserved = _runtime(folder, wish, "cuda", wish.tensor_parallel or 1)
    refusal = _refusal(folder, wish, unserved)
    return TierAnswer(asked, parameters_of(folder).total, None if alone else next_tier(asked.name, tiers), refusal)


def require_deployable(answer: Answer | TierAnswer) -> None:
    """Hold that a deployment as planned would not be refused.

    Raises:
        HeadraceError: It would be, with the code that it would end with.
    """
    if answer.refusal:
        raise answer.refusal
    if isinstance(answer, Answer):
        require_fit(answer)


def require_fit(answer: Answer) -> None:
    """Hold that all that was asked for fits.

    Raises:
        DoesNotFit: It does not; the fix says what would.
    """
    if answer.plan.fits:
        return
    try:
        check_fit(answer.plan.need, answer.plan.available_bytes)
    except DoesNotFit as error:
        advice = f" Or: {'; '.join(answer.plan.advice)}." if answer.plan.advice else ""
        raise DoesNotFit(error.message, evidence=error.evidence, fix=error.fix + advice) from error


def _planned(folder: ModelFolder, wish: Wish, shape: Shape, reason: str) -> Answer:
    """The plan on one machine."""
    runtime, unserved = _runtime(folder, wish, "cuda" if shape.accelerator else "cpu", shape.accelerator_count)
    refusal = _refusal(folder, wish, unserved)
    number_format = _number_format(folder, wish)
    load = Load(
        context_tokens=wish.context_tokens or context_tokens(folder.config, None),
        concurrency=wish.concurrency or PLANNED_SEQUENCES,
        dtype=wish.dtype,
        runtime=runtime,
        tensor_parallel=wish.tensor_parallel,
        on_cpu=shape.accelerator is None,
    )
    place = place_of(shape, number_format)
    notes: tuple[str, ...] = ()
    if not place.flops_per_s:
        notes = (f"{shape.label} is not known to compute in {number_format}: no speeds are predicted.",)
    counted = parameters_of(folder)
    try:
        planned = plan(folder, load, place)
    except HeadraceError as error:
        raise refusal or error from error
    return Answer(
        plan=planned,
        load=load,
        shape=shape,
        number_format=number_format,
        parameters=counted.total,
        active=counted.active,
        reason=reason,
        task=task_of(folder.config, folder.files),
        longest_tokens=folder.config.max_positions,
        refusal=refusal,
        notes=notes,
    )


def _refusal(folder: ModelFolder, wish: Wish, unserved: HeadraceError | None) -> HeadraceError | None:
    """The first of what would refuse it whatever memory there is, in CHECKING's order; None where nothing would."""
    if found := refused_quantisation(folder.config, folder.tensors):
        return error_from(Failure(found.code, found.message, found.evidence, found.fix))
    if unserved:
        return unserved
    try:
        context_tokens(folder.config, wish.context_tokens)
    except HeadraceError as error:
        return error
    return None


def _runtime(folder: ModelFolder, wish: Wish, device: Device, gpus: int) -> tuple[str, HeadraceError | None]:
    """The runtime that would serve it there; where none would, the one whose memory is planned for, and why."""
    spec = ServingSpec(dtype=wish.dtype, tensor_parallel=wish.tensor_parallel or 1)
    facts = facts_of(folder, spec)
    try:
        return choose(facts, MachineFacts(device=device, gpus=gpus), wish.runtime, spec=spec).runtime, None
    except HeadraceError as error:
        return wish.runtime or ("vllm" if device == "cuda" else ""), error


def _number_format(folder: ModelFolder, wish: Wish) -> str:
    """What it computes in: what is asked for or stored, and 16 bits for what is stored in fewer."""
    if wish.dtype != "auto":
        return wish.dtype
    most = max(folder.bytes_by_dtype, key=folder.bytes_by_dtype.__getitem__, default="BF16")
    return {"F32": "float32", "F16": "float16"}.get(most, "bfloat16")
