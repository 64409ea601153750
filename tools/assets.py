"""What tests and benchmarks run on: the runtimes' environments, the demo model, and the form of it that engines load.

Everything is made once, by the product's own installer and converters, and kept in the cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from environment import ROOT, cache_dir, say

from headrace.resources.errors import HeadraceError
from headrace.runtimes import Conversion, Environment, Environments, Installable, find
from headrace.runtimes.conversions import Converter
from headrace.weights.demo import fetch_demo_model

DEMO_MODEL = "SmolLM2-135M-Instruct"
PYTHONS = {
    "openvino": "HEADRACE_TEST_OPENVINO_PYTHON",
    "transformers": "HEADRACE_TEST_ENGINE_PYTHON",
    "vllm": "HEADRACE_TEST_VLLM_PYTHON",
}
"""The engines, and the variables that tell the tests their interpreters."""

DEFAULT_ENGINES = ("openvino", "transformers")
"""What a server chooses on a CPU; vLLM's 3.5 GB are only installed where every engine runs."""

AZURITE = "3.35.0"

JAVASCRIPT_CLIENTS = ("openai@7.55.0", "@google-cloud/aiplatform@7.4.0")
"""Vendors' own clients for Node, unmodified."""

CONVERTERS = ROOT / "src" / "headrace_engines" / "convert"


def prepare(engines: Iterable[str] = PYTHONS, *, stores: bool = False, clients: bool = False) -> dict[str, str]:
    """Make what is missing; returns the process environment that tests and benchmarks read.

    Args:
        engines: The engines that will be run.
        stores: Whether object stores will be run, and whatever else a whole server is tried with.
        clients: Whether the vendors' clients will be run, too.
    """
    cache = cache_dir()
    with _timed("demo model"):
        model = fetch_demo_model(cache / "demo" / DEMO_MODEL)
    variables = {
        "HEADRACE_CACHE_DIR": str(cache),
        "HEADRACE_RUNTIMES_DIR": str(cache / "runtimes"),
        "HEADRACE_TEST_MODEL": str(model),
    }
    if "vllm" in engines:  # every engine, so also the converter that a server needs for few architectures
        variables["HEADRACE_TEST_CONVERTER_PYTHON"] = str(install(Converter()).python)
    for engine in engines:
        runtime = find(engine)
        variables[PYTHONS[engine]] = str(install(runtime).python)
        if conversion := runtime.conversion(model, "auto"):
            converter = install(conversion.converter)
            folder = converted(model, conversion, converter, cache / "converted")
            variables[f"HEADRACE_TEST_{engine.upper()}_MODEL"] = str(folder)
    if stores:
        variables["HEADRACE_TEST_EMULATORS_PYTHON"] = str(install(StoreEmulators()).python)
        variables["HEADRACE_TEST_SCHEMATHESIS_PYTHON"] = str(install(ApiFuzzer()).python)
        if shutil.which("npm"):
            variables["HEADRACE_TEST_AZURITE"] = str(_azurite(cache))
    if clients:
        variables |= {client.variable: str(install(client).python) for client in VENDOR_CLIENTS}
        if (node := shutil.which("node")) and shutil.which("npm"):
            variables["HEADRACE_TEST_NODE"] = node
            variables["HEADRACE_TEST_NODE_MODULES"] = str(_javascript_clients(cache))
    return os.environ | variables


def _azurite(cache: Path) -> Path:
    """Microsoft's own emulator of Azure's blobs: the program that Node runs."""
    modules = _node_modules(cache / f"azurite-{AZURITE}", f"azurite@{AZURITE}")
    return modules / "azurite" / "dist" / "src" / "blob" / "main.js"


def _javascript_clients(cache: Path) -> Path:
    """The folder in which Node finds them."""
    digest = hashlib.sha256("\0".join(JAVASCRIPT_CLIENTS).encode()).hexdigest()
    return _node_modules(cache / f"javascript-clients-{digest[:12]}", *JAVASCRIPT_CLIENTS)


def _node_modules(folder: Path, *packages: str) -> Path:
    """What npm installs of these, once; its list of packages is what it writes last."""
    if not (folder / "package.json").is_file():
        with _timed(folder.name):
            quiet = ["--silent", "--no-fund", "--no-audit", "--ignore-scripts"]
            command = ["npm", "install", *quiet, "--prefix", str(folder), *packages]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "node_modules"


def converted(model: Path, conversion: Conversion, environment: Environment, root: Path) -> Path:
    """What a conversion makes of a folder; made once for each content of the folder and of the converters' code."""
    digest = hashlib.sha256(conversion.key.encode())
    for folder in (model, CONVERTERS):
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    target = root / f"{model.name}-{conversion.key}-{digest.hexdigest()[:12]}"
    if target.is_dir():
        return target
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        command = conversion.command(model, unfinished, environment)
        with _timed(f"{conversion.key} form of {model.name}"):
            done = subprocess.run(command.argv, env=command.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"error: the conversion ended with {done.returncode}:\n{done.stderr[-4000:]}")
        with contextlib.suppress(OSError):  # another process made the same first
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


class ServingExtras:
    """``transformers serve``, for comparison: the engine's own pins and what that server needs besides."""

    name = "transformers-serve"
    complete = False
    disk_bytes = 2_700_000_000

    @property
    def requirements(self) -> str:
        """The versions of the engine, with the extra of that server."""
        pins = find("transformers").requirements.replace("transformers==", "transformers[serving]==").splitlines()
        return "".join(f"{pin}\n" for pin in pins if pin.startswith(("torch==", "transformers[serving]==")))


class OtherGateway(NamedTuple):
    """A gateway that ours is compared with, in an environment of its own, and the variable that tells where it is."""

    name: str
    requirements: str
    variable: str
    disk_bytes: int
    complete: bool = False


OTHER_GATEWAYS = (
    OtherGateway("vllm-router", "vllm-router==0.1.17\n", "HEADRACE_BENCH_VLLM_ROUTER", 300_000_000),
    OtherGateway("litellm", "litellm[proxy]==1.106.2\n", "HEADRACE_BENCH_LITELLM", 1_500_000_000),
)
"""Pinned exactly: some releases of litellm on PyPI were tampered with (1.82.7, 1.82.8, and 1.107.0 is said to be)."""


def other_gateways(only: str = "") -> dict[str, str]:
    """Their interpreters by variable, or the one of this name; in place of one that cannot be installed, why."""
    found = {}
    for gateway in (each for each in OTHER_GATEWAYS if only in ("", each.name)):
        try:
            found[gateway.variable] = str(install(gateway).python)
        except HeadraceError as error:
            say(f"{gateway.name}: {error}")
            found[gateway.variable] = f"{error}"
    return found


class VendorClient(NamedTuple):
    """A vendor's own client, unmodified, in an environment of its own, and the variable that tells its interpreter."""

    name: str
    requirements: str
    variable: str
    disk_bytes: int = 500_000_000
    complete: bool = False


VENDOR_CLIENTS = (
    VendorClient(
        "vertex-sdk-2",
        "google-cloud-aiplatform==2.7.0\nipykernel==7.4.0\nnbclient==0.11.0\n",
        "HEADRACE_TEST_VERTEX_SDK_2_PYTHON",
    ),
    VendorClient("vertex-sdk-1", "google-cloud-aiplatform==1.165.1\n", "HEADRACE_TEST_VERTEX_SDK_1_PYTHON"),
    VendorClient("google-genai", "google-genai==3.4.0\n", "HEADRACE_TEST_GENAI_PYTHON"),
    VendorClient(
        "databricks",
        "databricks-sdk==0.162.0\nmlflow-skinny==3.17.2\nopenai==3.57.0\nhttpx\nnumpy\npandas\nsqlalchemy\nalembic\n",
        "HEADRACE_TEST_DATABRICKS_PYTHON",
    ),
)
"""Vertex AI's: the newest, with what executes the catalogue's notebooks, and the last of the generation before; and the
one for generateContent. Databricks': its SDK, MLflow's clients, and the `openai` that the SDK makes clients of."""


class ApiFuzzer:
    """Schemathesis: asks a server whatever its OpenAPI document allows, and what it does not; pytest would load it."""

    name = "schemathesis"
    complete = False
    disk_bytes = 200_000_000
    requirements = "schemathesis==4.32.5\n"


class StoreEmulators:
    """Servers that speak S3 and Google Cloud Storage; apart from our own environment, whose pins they dislike."""

    name = "store-emulators"
    complete = False
    disk_bytes = 400_000_000
    requirements = "moto[server]==5.2.5\ngcp-storage-emulator==2026.7.19\n"


def install(what: Installable) -> Environment:
    """An environment in the cache folder."""
    with _timed(f"environment of {what.name}"):
        return Environments(cache_dir() / "runtimes").install(what, progress=say)


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    say(f"{what}: there after {time.monotonic() - started:.0f} s")
