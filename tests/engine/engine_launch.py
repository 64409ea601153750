"""How the tests start each engine: with the command and environment that its runtime's own adapter makes.

So what is tested is what is deployed; nothing of it is copied by hand. The folders and interpreters come from the
set-up of ``make test`` through the process environment.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from headrace.node.conversion import convert
from headrace.runtimes import EngineCommand, Environment, Launch, find

ENGINES = ("openvino", "transformers", "vllm")
OURS = ("openvino", "transformers")
"""Those that run behind our own HTTP shell; vLLM brings its own."""

MODEL_NAME = "smol"
TOKEN = "a-test-s-own-nonce"
THREADS = 2
MAX_MODEL_LEN = 8192
KV_CACHE_BYTES = 512 * 2**20
"""Some 23,000 tokens of SmolLM2 (30 layers of 3 key-value heads of 64, bfloat16): 2.7 contexts."""

_PYTHONS = {
    "openvino": "HEADRACE_TEST_OPENVINO_PYTHON",
    "transformers": "HEADRACE_TEST_ENGINE_PYTHON",
    "vllm": "HEADRACE_TEST_VLLM_PYTHON",
}
_MODELS = {"openvino": "HEADRACE_TEST_OPENVINO_MODEL"}


def required(variable: str) -> Path:
    """A path that the set-up of the tests provides."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set. `make test` prepares the engine's environment and model, and sets it.")
    return Path(value)


def source_root() -> Path:
    """The folder that holds headrace_engines, for the engine's environment to import from."""
    spec = find_spec("headrace_engines")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def environment_of(engine: str) -> Environment:
    """The engine's environment, with the engines' code of this checkout instead of a placed copy."""
    python = required(_PYTHONS[engine])
    return Environment(python.parents[1], source_root())


def folder_for(engine: str) -> Path:
    """The demo model in the form that an engine loads."""
    return required(_MODELS.get(engine, "HEADRACE_TEST_MODEL"))


def in_the_form_of(engine: str, folder: Path) -> Path:
    """A checkpoint in the form that an engine loads, converted as a node converts it."""
    conversion = find(engine).conversion(folder, "auto")
    if conversion is None:
        return folder
    return convert(conversion, folder, lambda _: environment_of(engine), lambda *_: None, lambda: False)[0]


def engine_command(engine: str, model: Path, socket: Path, *, token: str = TOKEN, **wished: Any) -> EngineCommand:
    """How a node would start this engine on this machine, with what else a version wishes of it."""
    usual: dict[str, Any] = {
        "max_model_len": MAX_MODEL_LEN,
        "dtype": "auto",
        "threads": THREADS,
        "cores": tuple(sorted(os.sched_getaffinity(0)))[:THREADS],
        "kv_cache_bytes": KV_CACHE_BYTES,
    }
    launch = Launch(model_dir=model, served_name=MODEL_NAME, nonce=token, socket=socket, **(usual | wished))
    return find(engine).command(launch, environment_of(engine))
