"""What tests and benchmarks run on: the text runtime and the demo model, made once and kept in the cache folder."""

from __future__ import annotations

import os
import time

from environment import cache_dir, say

from headrace.runtimes import Environments, find
from headrace.weights.demo import fetch_demo_model

DEMO_MODEL = "SmolLM2-135M-Instruct"


def prepare() -> dict[str, str]:
    """Make what is missing; returns the process environment that tests and benchmarks read."""
    cache = cache_dir()
    say("text runtime and demo model")
    started = time.monotonic()
    runtime = Environments(cache / "runtimes").install(find("transformers"), progress=say)
    model = fetch_demo_model(cache / "demo" / DEMO_MODEL)
    say(f"there after {time.monotonic() - started:.0f} s")
    return os.environ | {
        "HEADRACE_CACHE_DIR": str(cache),
        "HEADRACE_RUNTIMES_DIR": str(cache / "runtimes"),
        "HEADRACE_TEST_ENGINE_PYTHON": str(runtime.python),
        "HEADRACE_TEST_MODEL": str(model),
    }
