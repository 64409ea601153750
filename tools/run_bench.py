"""``make bench-NAME``: runs ``bench/NAME.py`` with the same runtimes and model as the tests have."""

from __future__ import annotations

import subprocess
import sys

from assets import DEFAULT_ENGINES, PYTHONS, ServingExtras, install, prepare
from environment import ROOT


def main() -> int:
    """Run one benchmark; its exit status is ours."""
    program = ROOT / "bench" / f"{sys.argv[1]}.py"
    programs = sorted(path for path in program.parent.glob("*.py") if "def main()" in path.read_text())
    if program not in programs:
        known = ", ".join(path.stem for path in programs)
        sys.exit(f"error: there is no benchmark {sys.argv[1]!r}. There are: {known}")
    every_engine = program.stem == "engine"
    environment = prepare(PYTHONS if every_engine else DEFAULT_ENGINES)
    if every_engine:
        environment["HEADRACE_BENCH_SERVE_PYTHON"] = str(install(ServingExtras()).python)
    return subprocess.run([sys.executable, program, *sys.argv[2:]], env=environment, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
