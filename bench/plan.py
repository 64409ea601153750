"""What the plan says a model takes beside what engines were seen to take: weights and cache, at their peak.

Each engine is started as a node starts it, with the cache that the plan gives it, and then holds as many sequences of
full length as were planned. What the runtime holds beside weights and cache (libraries, kernels, what a step computes,
its heap) is what it holds under the same load with the same architecture of one layer, beyond what is planned for that
one's weights and cache: so a fault in what is planned for embeddings and head would hide there. Both are looked at from
when all sequences write: what prompts take while they are read is there before the caches are full.

Of transformers, neither memory that was freed, which the C library keeps, nor the kernels that PyTorch keeps for each
shape of a product are weights or cache (bench/NOTES.md): for this comparison its engine gives large blocks back at once
and keeps few kernels, and what one takes as it is served stands in a row below, against all that is planned. Goal
(issue 4): within 10 %.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from process_memory import Memory, Watched, mapped_bytes
from report import Report

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "engine"), str(ROOT / "tests" / "unit")]

from assets import PYTHONS  # noqa: E402 - found by the path above
from engine_process import EngineProcess, completion_body, start_engine  # noqa: E402
from published_models import UNCHECKED, V2, WATSONX  # noqa: E402

from headrace.capacity import PLANNED_SEQUENCES, MemoryNeed, copied_bytes, count_parameters, estimate  # noqa: E402
from headrace.node.conversion import convert  # noqa: E402
from headrace.runtimes import Environment, Installable, find  # noqa: E402
from headrace.storage import open_artifacts  # noqa: E402
from headrace.weights import ModelFolder, inspect  # noqa: E402
from headrace.weights.config import parse_config  # noqa: E402

GOAL = 0.1
FILLING = {"openvino": 14}
"""Sequences that fill the cache, where that is not as many as planned: OpenVINO keeps keys and values in 8 bits."""
PACKING = frozenset({"openvino"})
"""Runtimes that map the weights' file, and compute with packed copies of what is in it."""
HEAP = {
    "transformers": {
        "MALLOC_MMAP_THRESHOLD_": "262144",
        "MALLOC_TRIM_THRESHOLD_": "262144",
        "LRU_CACHE_CAPACITY": "16",
    }
}
"""Runtimes whose freed blocks glibc would keep, and how it is told to give back those of 256 KiB and more at once; and
whose products are kept ready by ideep for the last 1,024 shapes: a model of one layer meets as many as one of 16."""
AS_SERVED = "as served"
CONTEXT = 1024
NEW_TOKENS = 192
"""More than the steps in which the prompts are read: the first sequence must still be there when the last is whole."""
FILL_TIMEOUT_S = 1800
VOCAB = 49_152
DEMO, ONE_LAYER = "SmolLM2-135M", "-1"
MODELS = (DEMO, "llama", "qwen2", "qwen3", "gemma", "gpt_neox", "opt", "falcon", "bloom", "mixtral")
"""`plan_models.py` makes more, for --models."""
MB = 1e6
COLUMNS = (
    *("runtime", "model", "predicted, MB", "measured", "error", "of it weights + cache"),
    *("runtime's, MB", "planned", "whole, MB", "planned", "peak while loading"),
)


class Seen(NamedTuple):
    """One engine with one model.

    Attributes:
        need: What the plan says.
        loading: The most from its start until it was ready.
        reading: The most from then on until every sequence wrote.
        writing: The most from then on.
        mapped_bytes: Files that it had mapped at the end.
        weights_bytes: What the plan says of the weights, copies included; without what is only in a mapped file.
        droppable: Mapped files are not counted: the runtime computes with packed copies of what is in them.
    """

    need: MemoryNeed
    loading: Memory
    reading: Memory
    writing: Memory
    mapped_bytes: int
    weights_bytes: int
    droppable: bool

    @property
    def predicted_bytes(self) -> int:
        """Weights and cache."""
        return self.weights_bytes + self.need.kv_bytes

    @property
    def beside_bytes(self) -> int:
        """What was needed beside that."""
        return self.needed_bytes - self.predicted_bytes

    @property
    def needed_bytes(self) -> int:
        """The most while writing that could not be taken back."""
        return self.writing.anonymous + (0 if self.droppable else self.mapped_bytes)

    @property
    def whole_bytes(self) -> int:
        """The most while serving."""
        return max(self.reading.anonymous, self.writing.anonymous) + self.mapped_bytes


def checkpoints(names: list[str]) -> dict[str, Path]:
    """The folders of the models and of each one's sibling of one layer, made where they are not there."""
    folder, demo = Path(os.environ["HEADRACE_CACHE_DIR"]) / "plan", Path(os.environ["HEADRACE_TEST_MODEL"])
    made = [*(name for name in names if name != DEMO), *(name + ONE_LAYER for name in names)]
    program = [os.environ[PYTHONS["transformers"]], ROOT / "bench" / "plan_models.py"]
    subprocess.run([*program, folder, demo, *made], check=True)
    return {DEMO: demo} | {name: folder / name for name in made}


def form_for(runtime: str, folder: Path) -> Path:
    """The folder as a runtime loads it, converted as a node converts it."""
    conversion = find(runtime).conversion(folder, "auto")
    if conversion is None:
        return folder
    if str(folder) == os.environ["HEADRACE_TEST_MODEL"]:
        return Path(os.environ["HEADRACE_TEST_OPENVINO_MODEL"])
    return convert(conversion, folder, environment_for, lambda *_: None, lambda: False).folder


def environment_for(what: Installable) -> Environment:
    """A runtime's, or the converter's, with the engines' code of this checkout."""
    variable = PYTHONS.get(what.name, "HEADRACE_TEST_CONVERTER_PYTHON")
    return Environment(Path(os.environ[variable]).parents[1], ROOT / "src")


def look(runtime: str, folder: Path, *, as_served: bool = False) -> Seen:
    """Start an engine, fill its cache, and tell what it took; as it is served, or without freed memory that is kept."""
    model = inspect(open_artifacts(str(folder)))
    need = estimate(model, CONTEXT, PLANNED_SEQUENCES, runtime=runtime, on_cpu=True)
    weights_bytes = need.weights_bytes + copied_bytes(model, "auto", runtime)
    if runtime in PACKING:
        weights_bytes -= looked_up_bytes(model)
    replaced_bytes = sum(bytes_of(model) for bytes_of in REPLACED.get(runtime, ()))
    wished = {"max_model_len": CONTEXT, "kv_cache_bytes": need.kv_bytes, "prefix_caching": False}
    heap = {} if as_served else HEAP.get(runtime, {})
    with (
        start_engine(form_for(runtime, folder), engine=runtime, variables=heap, **wished) as engine,
        Watched(engine.process.pid) as watched,
    ):
        engine.wait_ready()
        loading = watched.restarted_peak()
        reading: list[Memory] = []
        fill(engine, FILLING.get(runtime, PLANNED_SEQUENCES), lambda: reading.append(watched.restarted_peak()))
        mapped = mapped_bytes(psutil.Process(engine.process.pid)) - replaced_bytes
        return Seen(need, loading, *reading, watched.peak, mapped, weights_bytes, droppable=runtime in PACKING)


def looked_up_bytes(model: ModelFolder) -> int:
    """The table of embeddings, where a head stands beside it: its rows are read where the file is mapped."""
    shape = (model.config.vocab, model.config.hidden)
    tables = [tensor.size_bytes for tensor in model.tensors if tensor.shape == shape]
    return tables[0] if len(tables) > 1 else 0


def experts_bytes(model: ModelFolder) -> int:
    """Of experts that the checkpoint has one by one.

    transformers puts those of a layer together in memory of its own, and what the file has the kernel takes back.
    """
    return sum(tensor.size_bytes for tensor in model.tensors if ".experts." in tensor.name)


def packed_bytes(model: ModelFolder) -> int:
    """Of matrices that this engine of transformers computes with packed copies of; what the file has can go, too."""
    matrices = [tensor for tensor in model.tensors if len(tensor.shape) == 2 and "embed" not in tensor.name]
    return sum(tensor.size_bytes for tensor in matrices if ".experts." not in tensor.name)


REPLACED = {"transformers": (experts_bytes, packed_bytes)}


def fill(engine: EngineProcess, sequences: int, when_all_write: Callable[[], object]) -> None:
    """So many sequences of full length at once, each of other tokens."""
    dice = random.Random(1)
    prompts = [[dice.randrange(3, VOCAB) for _ in range(CONTEXT - NEW_TOKENS)] for _ in range(sequences)]
    wishes = {"max_tokens": NEW_TOKENS, "ignore_eos": True, "stream_options": {"include_usage": True}}
    engine.client = engine.new_client(FILL_TIMEOUT_S)
    writing = itertools.count(1)

    def one(prompt: list[int]) -> dict[str, int]:
        usage: dict[str, int] = {}
        for number, event in enumerate(engine.stream("/v1/completions", completion_body(prompt, **wishes))):
            if not number and next(writing) == sequences:
                when_all_write()
            usage = event.get("usage") or usage
        return usage

    with ThreadPoolExecutor(sequences) as pool:
        for usage in pool.map(one, prompts):
            assert usage["total_tokens"] == CONTEXT, usage


def compare(runtime: str, folders: dict[str, Path], report: Report) -> Iterator[tuple[str, float]]:
    """A row for each model that the runtime serves; yields each one's error."""
    for name, folder in folders.items():
        if name.endswith(ONE_LAYER) or (name != DEMO and name not in find(runtime).model_types):
            continue
        began = time.monotonic()
        try:
            beside_bytes = look(runtime, folders[name + ONE_LAYER]).beside_bytes
            seen = look(runtime, folder)
        except (Exception, pytest.fail.Exception) as error:  # one that fails is no reason to lose the others
            report.row(runtime, name, f"failed: {str(error)[-200:]}", *[""] * (len(COLUMNS) - 3))
            print(report.rows[-1], flush=True)
            continue
        error = add_row(report, runtime, name, seen, beside_bytes)
        print(f"{report.rows[-1]} {seen.writing} {time.monotonic() - began:.0f} s", flush=True)
        yield name, error
    if runtime in HEAP and DEMO in folders:
        seen = look(runtime, folders[DEMO], as_served=True)
        whole = (seen.whole_bytes / MB, seen.need.total_bytes / MB, seen.loading.total / MB)
        own = (seen.beside_bytes / MB, seen.need.overhead_bytes / MB)
        report.row(runtime, f"{DEMO}, {AS_SERVED}", seen.predicted_bytes / MB, "", "", "", *own, *whole)


def add_row(report: Report, runtime: str, name: str, seen: Seen, beside_bytes: int) -> float:
    """One model's row; returns by what share of what was measured too much was predicted."""
    measured = seen.needed_bytes - beside_bytes
    error = seen.predicted_bytes / measured - 1
    whole: tuple[object, ...] = ("", "", seen.loading.total / MB)
    if runtime not in HEAP:
        whole = (seen.whole_bytes / MB, seen.need.total_bytes / MB, seen.loading.total / MB)
    report.row(
        runtime,
        name,
        seen.predicted_bytes / MB,
        measured / MB,
        f"{100 * error:+.1f} %",
        f"{seen.weights_bytes / MB:.0f} + {seen.need.kv_bytes / MB:.0f}",
        beside_bytes / MB,
        (seen.need.total_bytes - seen.predicted_bytes) / MB,
        *whole,
    )
    return error


def measure(runtime: str, folders: dict[str, Path], *, keep: bool) -> None:
    """One runtime's part of the report, kept when it is done: what interrupts the next one's must not lose it."""
    report = Report("plan", COLUMNS)
    errors = dict(compare(runtime, folders, report))
    report.take_over(lambda part: part in PYTHONS and part != runtime)  # now: another part may have ended meanwhile
    beyond = [f"{name} {100 * error:+.0f} %" for name, error in errors.items() if abs(error) > GOAL]
    said = f"{len(errors) - len(beyond)} of {len(errors)}" + (f"; beyond: {', '.join(beyond)}" if beyond else "")
    report.goal(f"{runtime}: weights and cache within {GOAL:.0%} of what was predicted", said, not beyond)
    counts(report)
    report.finish(keep=keep)


def counts(report: Report) -> None:
    """How far the parameters counted from configurations are from those that were published."""
    errors = {}
    for name, published in (V2 | WATSONX).items():
        if name not in UNCHECKED:
            counted = count_parameters(parse_config(published.config))
            assert counted is not None, name
            errors[name] = counted.total / published.parameters - 1
    worst = max(errors, key=lambda name: abs(errors[name]))
    said = (
        f"{sum(error == 0 for error in errors.values())} of {len(errors)} exactly; worst {worst} {errors[worst]:+.2%}"
    )
    report.goal("parameters within 1 % of those published", said, abs(errors[worst]) <= 0.01)


def main() -> None:
    """Measure all, or parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtimes", default=",".join(PYTHONS))
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    names, runtimes = arguments.models.split(","), arguments.runtimes.split(",")
    folders = {name: folder for name, folder in checkpoints(names).items() if name.removesuffix(ONE_LAYER) in names}
    for runtime in runtimes:
        measure(runtime, folders, keep=len(names) >= len(MODELS))


if __name__ == "__main__":
    main()
