"""The slow part of a quickstart: the runtime's environment and the demonstration model, both at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from headrace.cli.output import size
from headrace.cli.progress import Steps
from headrace.hardware import find_gpus
from headrace.resources.errors import Cancelled
from headrace.resources.layout import Layout
from headrace.runtimes import Environments, MachineFacts, ModelFacts, Runtime, choose, find
from headrace.weights.demo import DEMO_MODEL, ORIGIN_FILE, demo_model_dir, fetch_demo_model

_DEMO_FACTS = ModelFacts(model_type="llama", stored="bfloat16")


def best_runtime() -> Runtime:
    """The runtime that this machine's node will choose for the demonstration model."""
    return find(choose(_DEMO_FACTS, MachineFacts(device="cuda" if find_gpus() else "cpu")).runtime)


def is_prepared(layout: Layout) -> bool:
    """Whether there is nothing left to prepare."""
    environment = Environments(layout.runtimes_dir).find(best_runtime())
    return environment is not None and (demo_model_dir() / ORIGIN_FILE).is_file()


def prepare(layout: Layout, steps: Steps) -> Path:
    """Have the runtime and the demonstration model; what is there already is not made again.

    Returns:
        The model's folder.

    Raises:
        RuntimeInstallFailed: The environment could not be made.
        HeadraceError: The model could not be had.
    """
    stopping = threading.Event()
    jobs: tuple[Callable[[], None], ...] = (
        lambda: _runtime(layout, steps, stopping),
        lambda: _model(steps, stopping),
    )
    with ThreadPoolExecutor(len(jobs)) as workers:
        futures = [workers.submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        finally:
            stopping.set()  # nobody is left to stop when all went well
    return demo_model_dir()


def _model(steps: Steps, stopping: threading.Event) -> None:
    folder = demo_model_dir()
    if (folder / ORIGIN_FILE).is_file():
        fetch_demo_model(folder)  # no work, unless an older converter made it
        steps.say(f"Model {DEMO_MODEL}: already there ({folder})")
        return
    with steps.step(f"Model {DEMO_MODEL}") as step:

        def progress(what: str, done: int, total: int) -> None:
            if stopping.is_set():
                raise Cancelled(f"{DEMO_MODEL} was not fetched to the end.")
            step.progress(f"{what} {size(done)} of {size(total)}")

        fetch_demo_model(folder, progress)
        step.result = str(folder)


def _runtime(layout: Layout, steps: Steps, stopping: threading.Event) -> None:
    environments, runtime = Environments(layout.runtimes_dir), best_runtime()
    found = environments.find(runtime)
    if found is not None:
        steps.say(f"Runtime {runtime.name}: already there ({found.path})")
        return
    with steps.step(f"Runtime {runtime.name}") as step:
        step.result = str(environments.install(runtime, step.progress, stopping.is_set).path)
