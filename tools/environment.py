"""The project's own virtual environment: made once, outside the clone, and refreshed when pyproject.toml changes.

Standard library only: this runs before anything is installed.

    python3 tools/environment.py [--dev] -- headrace quickstart
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLONE = "clone.path"
"""Names the machine and the clone in its environment: a cache may be shared with machines whose clones are not seen."""

PREFLIGHT = ROOT / "src" / "headrace" / "hardware" / "preflight.py"


def cache_dir() -> Path:
    """Where environments and weights are kept between clones: ``$HEADRACE_CACHE_DIR``, else the XDG cache folder."""
    configured = os.environ.get("HEADRACE_CACHE_DIR")
    if configured:
        return Path(configured).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def venv_dir() -> Path:
    """This clone's environment; keyed by the clone's path, because the package is installed editable."""
    key = hashlib.sha256(f"{ROOT}\0{sys.version}".encode()).hexdigest()[:12]
    return cache_dir() / "venvs" / key


def say(message: str) -> None:
    """Tell the person at the terminal how far things are."""
    print(f"▸ {message}", flush=True)


def ensure(*, dev: bool) -> Path:
    """The environment's python, with everything installed that this checkout asks for.

    Args:
        dev: Also what the tests and linters need.
    """
    home = venv_dir()
    python = home / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + (b"dev" if dev else b"")).hexdigest()
    stamp = home / ("dev.stamp" if dev else "run.stamp")
    with _lock(home):
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        _forget_lost_clones(home.parent)
        started = time.monotonic()
        say(f"making the environment {home} (about 20 s with pip's cache warm)")
        if not _has_pip(python):  # none yet, or one whose making was interrupted
            _quietly([sys.executable, "-m", "venv", "--clear", str(home)])
        packages = ["--editable", str(ROOT), *(project["dependency-groups"]["dev"] if dev else [])]
        _quietly([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *packages])
        (home / CLONE).write_text(f"{platform.node()}:{ROOT}")
        stamp.write_text(wanted)
        say(f"environment ready in {time.monotonic() - started:.0f} s")
    return python


def _forget_lost_clones(venvs: Path) -> None:
    """Remove environments of clones that are no longer there: each takes most of a gigabyte."""
    for note in venvs.glob(f"*/{CLONE}"):
        with contextlib.suppress(OSError):  # another run removes it too, or is making it anew
            node, _, clone = note.read_text().partition(":")
            with _lock(note.parent, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if node == platform.node() and not Path(clone).is_dir():
                    shutil.rmtree(note.parent, ignore_errors=True)


def _has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return asked.returncode == 0


@contextlib.contextmanager
def _lock(home: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as handle:
        fcntl.flock(handle, how)
        yield


def _quietly(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:])
        raise SystemExit(f"error: {' '.join(command[:6])} … ended with {done.returncode}")


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own options, and the command after the double dash."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def main() -> None:
    """Look at the machine, make the environment, become the command."""
    ours, command = _split(sys.argv[1:])
    if not command or ours not in ([], ["--dev"]):
        raise SystemExit(__doc__)
    preflight = runpy.run_path(str(PREFLIGHT))
    gaps = preflight["find_gaps"](cache_dir())
    if gaps:
        raise SystemExit(preflight["report"](gaps))
    python = ensure(dev=bool(ours))
    program = python.parent / command[0]
    os.execv(program, [str(program), *command[1:]])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run it again: it goes on from here.")
