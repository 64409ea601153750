"""How `headrace plan` shows what it worked out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.capacity import PROMPT_TOKENS, Prediction
from headrace.cli.output import Output, duration, size
from headrace.cli.planning import Answer, TierAnswer
from headrace.hardware import Shape


def show(output: Output, answer: Answer) -> None:
    """Show a plan, whether it fits or not."""
    output.document(_document(answer))
    output.line(f"{answer.plan.place.name}: {answer.reason}.")
    output.table(("PART", "MEMORY", ""), list(_memory_rows(answer)), empty="")
    if prediction := answer.plan.prediction:
        output.line()
        output.table(("PREDICTED", "", ""), list(_speed_rows(answer, prediction)), empty="")
        output.line(f"Rates of the machine: {answer.shape.rates}.")
    for note in answer.notes:
        output.line(f"note: {note}")
    output.line(_verdict(answer))


def _verdict(answer: Answer) -> str:
    if not answer.plan.fits:
        return "It does not fit."
    return "It fits." if answer.refusal is None else "There is room for it, and a deployment of it would be refused."


def show_tier(output: Output, answer: TierAnswer) -> None:
    """Show the size for a model."""
    output.document(
        {
            "tier": msgspec.to_builtins(answer.tier),
            "parameters": answer.parameters,
            "next_up": msgspec.to_builtins(answer.next_up),
            "fits": True,
            "refusal": answer.refusal.code if answer.refusal else None,
        }
    )
    output.line(
        f"{answer.tier.name} takes it: {answer.parameters:,} parameters of at most {answer.tier.max_parameters:,}."
    )
    if answer.next_up:
        output.line(f"If it fails there, try the next size up: {answer.next_up.name}.")


def show_shapes(output: Output, shapes: Iterable[Shape]) -> None:
    """List machine shapes."""
    listed = list(shapes)
    output.document({"shapes": [msgspec.to_builtins(shape) for shape in listed]})
    rows = [(shape.name, shape.kind, _cores(shape), _memory(shape), _devices(shape), _price(shape)) for shape in listed]
    output.table(
        ("SHAPE", "KIND", "CORES", "MEMORY", "WHAT IT HAS", "ABOUT"), rows, empty="No shapes.", spare=("KIND",)
    )


def _document(answer: Answer) -> dict[str, Any]:
    plan = answer.plan
    prediction = msgspec.to_builtins(plan.prediction)
    if prediction and answer.task == "embed":
        prediction = {"load_s": prediction["load_s"]}
    return {
        "fits": plan.fits,
        "task": answer.task,
        "refusal": answer.refusal.code if answer.refusal else None,
        "shape": plan.place.name,
        "reason": answer.reason,
        "runtime": answer.load.runtime,
        "number_format": answer.number_format,
        "tensor_parallel": plan.devices,
        "context_tokens": answer.load.context_tokens,
        "concurrency": answer.load.concurrency,
        "parameters": answer.parameters,
        "active_parameters": answer.active,
        "weights_bytes": plan.need.weights_bytes,
        "cache_bytes_per_token": plan.need.kv_bytes_per_token,
        "cache_bytes_per_sequence": plan.need.bytes_per_sequence,
        "cache_bytes": plan.need.kv_bytes,
        "overhead_bytes": plan.need.overhead_bytes,
        "total_bytes": plan.need.total_bytes,
        "available_bytes": plan.available_bytes,
        "margin_bytes": plan.margin_bytes,
        "context_that_fits": plan.context_that_fits,
        "sequences_that_fit": plan.sequences_that_fit,
        "tokens_that_fit": plan.tokens_that_fit,
        "advice": list(plan.advice),
        "prediction": prediction,
        "rates": answer.shape.rates,
        "notes": list(answer.notes),
    }


def _memory_rows(answer: Answer) -> Iterator[tuple[str, str, str]]:
    need, load = answer.plan.need, answer.load
    active = f", {_count(answer.active)} of them at work on a token" if answer.active < 0.8 * answer.parameters else ""
    yield "weights", size(need.weights_bytes), f"{_count(answer.parameters)} parameters{active}"
    if answer.task == "embed":  # the deployment sets as much aside, for the texts that are under way
        at_work = (
            f"texts of {load.context_tokens:,} tokens × {load.concurrency} at once, and processes of {load.runtime}"
        )
        yield "at work", size(need.kv_bytes + need.overhead_bytes), at_work
        yield from _total_rows(answer)
        return
    states = f" and {size(need.bytes_per_sequence)} a sequence" if need.bytes_per_sequence else ""
    each = f"{need.kv_bytes_per_token:,} bytes a token{states}"
    yield "cache", size(need.kv_bytes), f"{each}; {load.context_tokens:,} tokens × {load.concurrency} at once"
    yield "overhead", size(need.overhead_bytes), f"activations and processes of {load.runtime or 'a runtime'}"
    yield from _total_rows(answer)
    yield "fits at most", "", _most(answer)


def _total_rows(answer: Answer) -> Iterator[tuple[str, str, str]]:
    plan, need = answer.plan, answer.plan.need
    of_devices = f" on {plan.devices} of {plan.place.devices} devices" if plan.place.devices > 1 else ""
    yield "total", size(need.total_bytes), f"of {size(plan.available_bytes)}{of_devices}"
    yield ("left" if plan.fits else "missing"), size(abs(plan.margin_bytes)), ""


def _most(answer: Answer) -> str:
    plan, load = answer.plan, answer.load
    if not plan.context_that_fits and not plan.sequences_that_fit:
        return "nothing of this kind"
    most = f"{plan.context_that_fits:,} tokens × {load.concurrency} at once"
    if load.context_tokens > (answer.longest_tokens or load.context_tokens):
        return f"{most}; the model was made for {answer.longest_tokens:,} tokens"
    return f"{most}, or {load.context_tokens:,} tokens × {plan.sequences_that_fit:,}"


def _speed_rows(answer: Answer, found: Prediction) -> Iterator[tuple[str, str, str]]:
    yield "ready after", f"{found.load_s:.0f} s", "from a local disk"
    if answer.task == "embed":
        return
    prompt = f"a prompt of {min(PROMPT_TOKENS, answer.load.context_tokens):,} tokens"
    yield "reading prompts", f"{found.prefill_tokens_per_s:,.0f} tokens/s", f"of {prompt}"
    yield "first token", duration(found.time_to_first_token_s), f"of {prompt}, nothing else under way"
    yield "writing, one", f"{found.decode_tokens_per_s:,.0f} tokens/s", ""
    together = f"{found.decode_tokens_per_s_at_once:,.0f} tokens/s"
    yield f"writing, {answer.load.concurrency} at once", together, f"limited by {found.bound_by}"


def _cores(shape: Shape) -> str:
    return f"{shape.cores:g}" if shape.cores else ""


def _memory(shape: Shape) -> str:
    return size(shape.memory_bytes) if shape.memory_bytes else ""


def _devices(shape: Shape) -> str:
    if shape.accelerator:
        return f"{shape.accelerator_count} × {shape.accelerator.name}, {size(shape.accelerator.memory_bytes)} each"
    if shape.max_parameters:
        return f"models of up to {_count(shape.max_parameters)} two-byte parameters"
    if shape.users:
        counts = [users for *_request, users in shape.users]
        return f"time series for {min(counts)} to {max(counts)} concurrent users"
    return "its processors"


def _price(shape: Shape) -> str:
    return f"{shape.usd_per_h:.2f} USD/h" if shape.usd_per_h is not None else ""


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 10**9 else f"{parameters / 1e6:.0f}M"
