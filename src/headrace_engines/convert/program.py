"""A converter as a process: its arguments, what it tells on the way, and its end.

    python -P -m headrace_engines.convert.WAY SOURCE TARGET --parent PID [--weights own|bf16|f16]

It writes into TARGET, an empty folder, and ends with status 0 when that is whole. What it does is told in lines of
`PROGRESS_PREFIX` and a JSON object; a failure is the last line of its output, as with engines (`serving.fatal`).
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from headrace_engines.serving.fatal import EXIT_STATUS, FatalError, is_out_of_memory, write_last_line

PROGRESS_PREFIX = "HEADRACE_PROGRESS "

Stored = Literal["own", "bf16", "f16"]
"""How matrices are kept: as they lie in the checkpoint; or, those in float32, rounded to one of these."""

Progress = Callable[[str], None]
"""Takes a sentence for a person."""

Convert = Callable[[Path, Path, Stored, Progress], None]
"""Source, target, how matrices are kept, and where to tell."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_SMALL_FILE_BYTES = 64 * 1024 * 1024
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx")


def run(name: str, convert: Convert) -> None:
    """Convert as the command line says, and end. Never returns."""
    parser = argparse.ArgumentParser(prog=f"headrace_engines.convert.{name}")
    parser.add_argument("source", type=Path, help="the model's folder")
    parser.add_argument("target", type=Path, help="an empty folder")
    parser.add_argument("--parent", type=int, required=True, metavar="PID", help="the process whose end is ours too")
    parser.add_argument("--weights", choices=["own", "bf16", "f16"], default="own", help="how matrices are kept")
    arguments = parser.parse_args()
    _end_with(arguments.parent)
    status = 0
    try:
        convert(arguments.source, arguments.target, arguments.weights, tell)
        copy_small_files(arguments.source, arguments.target)
    except Exception as error:
        traceback.print_exc()
        write_last_line(fatal_from(error))
        status = EXIT_STATUS
    sys.stdout.flush()
    # Not sys.exit: what lies in a library's threads and arenas need not be taken apart in order.
    os._exit(status)


def tell(sentence: str) -> None:
    """A line of progress."""
    sys.stdout.write(f"{PROGRESS_PREFIX}{msgspec.json.encode({'detail': sentence}).decode()}\n")
    sys.stdout.flush()


def fatal_from(error: BaseException) -> FatalError:
    """What an exception means for a conversion."""
    if isinstance(error, FatalError):
        return error
    evidence = f"{type(error).__name__}: {error}"
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    if full or "No space left on device" in evidence:
        return FatalError("DISK_FULL", "The disk filled up while the model was converted.", evidence=evidence)
    if is_out_of_memory(error):
        return FatalError("ENGINE_OUT_OF_MEMORY", "The conversion ran out of memory.", evidence=evidence)
    return FatalError("CONVERSION_FAILED", "The converter met an error that it does not know.", evidence=evidence)


def copy_small_files(source: Path, target: Path) -> None:
    """Copy what stands beside the weights, unchanged: configuration, tokenizer, chat template, licence.

    A file that the converter wrote under the same name gives way to the source's.
    """
    for path in sorted(source.iterdir()):
        small = path.is_file() and path.stat().st_size <= _SMALL_FILE_BYTES
        if small and not path.name.endswith((*_WEIGHTS, ".index.json", ".py")):
            shutil.copyfile(path, target / path.name)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when the one that wants its result ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above took effect
        sys.exit(1)
