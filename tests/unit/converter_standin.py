"""A converter whose behaviour its source's file ``behaviour`` scripts; everything around it is the real program's."""

import os
import sys
import time
from pathlib import Path

from headrace_engines.convert.program import Progress, Stored, run
from headrace_engines.serving.fatal import FatalError


def convert(source: Path, target: Path, _stored: Stored, tell: Progress) -> None:
    """Leave a trace of having run, then do as told."""
    with (source.parent / "runs").open("a") as runs:
        runs.write(f"{os.getpid()}\n")
    (target / "half").write_bytes(b"x" * 1000)
    tell(f"at work as {os.getpid()}")
    behaviour = (source / "behaviour").read_text()
    if behaviour == "slow":
        time.sleep(1)  # long enough for a second one to find the lock taken
    if behaviour == "hang":
        time.sleep(3600)
    if behaviour == "refuse":
        raise FatalError("CONVERSION_FAILED", "Not this model.", evidence="lm_head")
    if behaviour == "full":
        raise OSError(28, "No space left on device")
    if behaviour == "memory":
        raise MemoryError
    if behaviour == "crash":
        sys.stderr.write("Segmentation fault\n")
        os.kill(os.getpid(), 11)
    if behaviour == "killed":
        os.kill(os.getpid(), 9)
    if behaviour == "defect":
        raise KeyError("weights")
    (target / "openvino_model.xml").write_text("whole")


run("standin", convert)
