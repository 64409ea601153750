"""The project's own virtual environment: made once, outside the clone, and refreshed when pyproject.toml changes.

Standard library only: this runs before anything is installed.

    python3 tools/environment.py run [--dev] -- headrace quickstart
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import runpy
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
        started = time.monotonic()
        say(f"making the environment {home}")
        if not python.exists():
            _quietly([sys.executable, "-m", "venv", str(home)])
        packages = ["--editable", str(ROOT), *(project["dependency-groups"]["dev"] if dev else [])]
        _quietly([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *packages])
        stamp.write_text(wanted)
        say(f"environment ready in {time.monotonic() - started:.0f} s")
    return python


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _quietly(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:])
        raise SystemExit(f"error: {' '.join(command[:6])} … ended with {done.returncode}")


def main() -> None:
    """Look at the machine, make the environment, become the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run"])
    parser.add_argument("--dev", action="store_true", help="with what the tests and linters need")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    preflight = runpy.run_path(str(PREFLIGHT))
    gaps = preflight["find_gaps"](cache_dir())
    if gaps:
        raise SystemExit(preflight["report"](gaps))
    python = ensure(dev=arguments.dev)
    command = [part for part in arguments.command if part != "--"]
    program = python.parent / command[0]
    os.execv(program, [str(program), *command[1:]])


if __name__ == "__main__":
    main()
