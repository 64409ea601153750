"""Whether a model fits a place, on how many of its devices, what fits there at most, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from headrace.capacity.layers import layer_kinds
from headrace.capacity.memory import DEFAULT_CONTEXT_TOKENS, Dtype, MemoryNeed, estimate
from headrace.capacity.parameters import Parameters, count_parameters
from headrace.capacity.roofline import Place, Prediction, Work, predict
from headrace.capacity.tiers import WITHOUT_TENSOR_PARALLEL, Tier, tier_for
from headrace.resources.errors import BadField, DoesNotFit
from headrace.weights.config import ModelConfig
from headrace.weights.folder import ModelFolder

SHARING_RUNTIMES = frozenset({"vllm"})
"""Runtimes that share a model among devices (docs/engines.md)."""

MOST_DEVICES = 16
"""More devices than this are not suggested: no machine of the catalogue has more (a2-megagpu-16g)."""

PROMPT_TOKENS = 512
"""The prompt for which speeds are predicted, where the context has room for it."""


MOST_TOKENS = 2**40
"""More tokens, or sequences, than anybody can mean. Products of less stay numbers that can be divided and printed."""


class Load(msgspec.Struct, frozen=True):
    """What is asked for.

    Attributes:
        context_tokens: The longest sequence.
        concurrency: Sequences at once.
        dtype: The number format.
        runtime: Its name.
        tensor_parallel: Devices that are to share the model; None chooses the fewest that it fits on.
        on_cpu: The place has no devices, and the runtime may keep some of the weights twice.
    """

    context_tokens: int
    concurrency: int
    dtype: Dtype = "auto"
    runtime: str = ""
    tensor_parallel: int | None = None
    on_cpu: bool = False


class Plan(msgspec.Struct, frozen=True):
    """A model on a place.

    Attributes:
        place: Where.
        devices: How many of its devices share the model.
        need: What it needs there.
        available_bytes: What those devices have for it.
        context_that_fits: The longest context for as many sequences as were asked for; 0 where none fits.
        sequences_that_fit: How many sequences of the context that was asked for.
        tokens_that_fit: The largest context × concurrency.
        advice: What would make it fit; empty where it does.
        prediction: How fast it would be; None where rates are not known, or it does not fit.
    """

    place: Place
    devices: int
    need: MemoryNeed
    available_bytes: int
    context_that_fits: int
    sequences_that_fit: int
    tokens_that_fit: int
    advice: tuple[str, ...] = ()
    prediction: Prediction | None = None

    @property
    def margin_bytes(self) -> int:
        """What is left; below zero, what is missing."""
        return self.available_bytes - self.need.total_bytes

    @property
    def fits(self) -> bool:
        """Whether all that was asked for fits."""
        return self.margin_bytes >= 0


def degrees(config: ModelConfig, devices: int, runtime: str) -> tuple[int, ...]:
    """On how many devices a model can be shared, the fewest first; one only, where the runtime does not share.

    All attention heads divide by that, and the KV heads do, or it by them.
    """
    if runtime not in SHARING_RUNTIMES or not config.heads:
        return (1,)
    heads, kv_heads = config.heads, config.kv_heads or config.heads
    return tuple(
        count
        for count in range(1, devices + 1)
        if heads % count == 0 and (kv_heads % count == 0 or count % kv_heads == 0)
    )


def plan(folder: ModelFolder, load: Load, place: Place) -> Plan:
    """Plan a model on a place: on the fewest devices that it fits on, else on the most that can share it.

    Raises:
        BadField: It cannot be shared among as many devices as were asked for; the fix says among how many.
        ConfigInvalid: The configuration does not give the sizes that this takes.
    """
    possible = degrees(folder.config, place.devices, load.runtime)
    if load.tensor_parallel is not None:
        possible = (_wanted(load.tensor_parallel, possible, place, load.runtime),)
    for devices in possible:
        need, available = need_of(folder, load, devices), place.usable_bytes(devices)
        if need.total_bytes <= available:
            break
    fits = need.total_bytes <= available
    return Plan(
        place=place,
        devices=devices,
        need=need,
        available_bytes=available,
        context_that_fits=_within(folder.config, need.context_that_fits(available, load.concurrency)),
        sequences_that_fit=need.sequences_that_fit(available, load.context_tokens),
        tokens_that_fit=need.tokens_that_fit(available),
        advice=() if fits else tuple(_advice(folder, load, place, need, available)),
        prediction=predict(work_of(folder, load, need), place, devices, load.runtime) if fits else None,
    )


def context_tokens(config: ModelConfig, wanted: int | None) -> int:
    """The longest sequence, in tokens: what is wanted, else `DEFAULT_CONTEXT_TOKENS` or what the model has, if less.

    Raises:
        BadField: The model has no such context.
    """
    longest = config.max_positions
    most = longest or MOST_TOKENS
    if wanted is None:
        return min(DEFAULT_CONTEXT_TOKENS, longest or DEFAULT_CONTEXT_TOKENS)
    if not 1 <= wanted <= most:
        raise BadField(
            f"A context of {wanted:,} tokens is not one that this model has.",
            evidence=f"config.json, or the model's class where that says nothing, gives "
            f"{f'{longest:,}' if longest else 'no'} positions.",
            fix=f"Ask for 1 to {longest or DEFAULT_CONTEXT_TOKENS} tokens.",
        )
    return wanted


def parameters_of(folder: ModelFolder) -> Parameters:
    """By the configuration, which tells experts apart; else by the headers, else by the files' size in two bytes."""
    counted = count_parameters(folder.config)
    if counted is not None:
        return counted
    total = folder.parameters or max(1, folder.weight_bytes // 2)
    return Parameters(total=total, active=total)


def require_tier(folder: ModelFolder, dtype: Dtype, asked: Tier, tiers: Sequence[Tier]) -> None:
    """Hold that a size takes a model. A larger one than it needs is as good, where its kind may have it.

    Args:
        folder: The model.
        dtype: The number format that it is to be served in: of float32 half as many parameters fit.
        asked: The size.
        tiers: All sizes.

    Raises:
        DoesNotFit: It is too large for that one, or may not have it; the fix names the one that takes it.
    """
    parameters, model_type = parameters_of(folder).total, folder.config.model_type
    stored = folder.weight_bytes / parameters
    number_bytes = {"float32": 4.0, "auto": stored}.get(dtype, 2.0)
    # of fewer than two bytes, a parameter counts as one all the same
    least = tier_for(model_type, parameters, tiers, max(2.0, number_bytes))
    if least.max_parameters > asked.max_parameters:
        raise DoesNotFit(
            f"The model is too large for {asked.name}.",
            evidence=f"{parameters:,} parameters; {asked.name} takes {asked.max_parameters:,} of two bytes.",
            fix=f"Ask for {least.name}.",
        )
    if model_type in WITHOUT_TENSOR_PARALLEL and least != asked:
        raise DoesNotFit(
            f"{model_type} models cannot have {asked.name}.",
            evidence=f"The table gives {model_type} no tensor parallelism, so {least.name} is its only size.",
            fix=f"Ask for {least.name}.",
        )


def need_of(folder: ModelFolder, load: Load, devices: int) -> MemoryNeed:
    """What a model takes under a load, shared among so many devices.

    Raises:
        ConfigInvalid: The configuration does not give the sizes that this takes.
    """
    return estimate(
        folder,
        load.context_tokens,
        load.concurrency,
        load.dtype,
        runtime=load.runtime,
        tensor_parallel=devices,
        on_cpu=load.on_cpu,
    )


def work_of(folder: ModelFolder, load: Load, need: MemoryNeed) -> Work:
    """What there is to do for a model under a load, of which `need_of` says what it takes."""
    config = folder.config
    attending = sum(kind in {"full", "window", "both"} for kind in layer_kinds(config))
    return Work(
        parameters=parameters_of(folder),
        weights_bytes=need.weights_bytes,
        attention_width=(config.heads or 0) * (config.head_dim or 0) * attending,
        cache_bytes=need.sequence_bytes(max(1, load.context_tokens // 2)),
        prompt_tokens=min(PROMPT_TOKENS, load.context_tokens),
        concurrency=load.concurrency,
        layers=config.layers or 0,
    )


def _wanted(wanted: int, possible: tuple[int, ...], place: Place, runtime: str) -> int:
    if wanted in possible:
        return wanted
    why = f"runtime {runtime or '(none named)'} does not share" if possible == (1,) else "its heads do not divide so"
    raise BadField(
        f"The model cannot be shared among {wanted} devices of {place.name}.",
        evidence=f"It has {place.devices}" + ("." if wanted > place.devices else f"; {why}."),
        fix=f"Ask for a --tensor-parallel of {', '.join(map(str, possible))}.",
    )


def _within(config: ModelConfig, tokens: int) -> int:
    return min(tokens, config.max_positions or tokens)


def _advice(folder: ModelFolder, load: Load, place: Place, need: MemoryNeed, available: int) -> Iterable[str]:
    if context := need.context_that_fits(available, load.concurrency):
        yield f"--context {context}"
    sequences = need.sequences_that_fit(available, load.context_tokens)
    if sequences and sequences < load.concurrency:
        yield f"--concurrency {sequences}"
    stored_wide = load.dtype == "float32" or (load.dtype == "auto" and set(folder.bytes_by_dtype) == {"F32"})
    if stored_wide:
        half = need_of(folder, msgspec.structs.replace(load, dtype="bfloat16"), load.tensor_parallel or 1)
        if half.total_bytes <= available:
            yield "--dtype bfloat16"
    more = [each for each in degrees(folder.config, MOST_DEVICES, "vllm") if place.usable_bytes(each) > available]
    for devices in more:
        shared = need_of(folder, msgspec.structs.replace(load, runtime="vllm"), devices)
        if shared.total_bytes <= place.usable_bytes(devices):
            yield f"{devices} such devices with --runtime vllm"
            return
    yield f"a machine with {(need.total_bytes - available) / 1e9:.1f} GB more for the model"
