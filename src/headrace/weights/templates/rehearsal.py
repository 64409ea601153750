"""Has a template tried by a process that may not take more time or memory than any template needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from headrace.weights.templates.source import Template

TIMEOUT_S = 30.0
"""Until it is given up. What is limited is processor time (`trial.CPU_S`), which takes longer on a busy machine."""

_TRIAL = Path(__file__).with_name("trial.py")
_INHERITED = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
"""No more: a key in the environment is nothing for a model folder's program."""


class Outcome(msgspec.Struct, frozen=True):
    """How a trial ended.

    Attributes:
        syntax: Line and reason where it does not parse.
        lost: What cannot be said, of ``everything``, ``system``, ``turns``, ``tools``, ``memory``; each with why.
        turn: Its output ends where the model speaks next.
        endless: It was stopped because it took too much processor time.
        unknown: Why nothing is known: the trial itself failed.
    """

    syntax: tuple[int, str] | None = None
    lost: tuple[tuple[str, str], ...] = ()
    turn: bool = True
    endless: bool = False
    unknown: str = ""


def rehearse(template: Template) -> Outcome:
    """Let a process try a template. It ends within `TIMEOUT_S`."""
    question = {"template": template.text, "for_tools": template.for_tools, "tokens": template.tokens}
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    try:
        trial = subprocess.run(
            [sys.executable, "-I", str(_TRIAL)],
            input=msgspec.json.encode(question),
            capture_output=True,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(unknown=f"it was not done after {TIMEOUT_S:.0f} s")
    except OSError as error:
        return Outcome(unknown=f"its process did not start: {error}")
    if trial.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        return Outcome(endless=True)
    try:
        return msgspec.json.decode(trial.stdout, type=Outcome)
    except msgspec.DecodeError:
        last = trial.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
        return Outcome(unknown=f"its process ended with {trial.returncode}: {last[0][:200]}")
