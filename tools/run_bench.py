"""``make bench-NAME``: runs ``bench/NAME.py`` with the same runtimes and model as the tests have."""

from __future__ import annotations

import os
import sys

from assets import DEFAULT_ENGINES, PYTHONS, ServingExtras, install, prepare
from environment import ROOT


def main() -> None:
    """Become one benchmark: a Ctrl-C is then its own, and nobody kills it while it stops what it started."""
    program = ROOT / "bench" / f"{sys.argv[1]}.py"
    programs = sorted(path for path in program.parent.glob("*.py") if "def main()" in path.read_text())
    if program not in programs:
        known = ", ".join(path.stem for path in programs)
        sys.exit(f"error: there is no benchmark {sys.argv[1]!r}. There are: {known}")
    every_engine = program.stem in {"engine", "plan", "prefix"}
    environment = prepare(PYTHONS if every_engine else DEFAULT_ENGINES, stores=program.stem == "staging")
    if program.stem == "engine":
        environment["HEADRACE_BENCH_SERVE_PYTHON"] = str(install(ServingExtras()).python)
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, str(program), *sys.argv[2:]], environment)


if __name__ == "__main__":
    main()
