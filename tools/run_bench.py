"""``make bench-NAME``: runs ``bench/NAME.py`` with the same runtime and model as the tests have."""

from __future__ import annotations

import subprocess
import sys

from assets import prepare
from environment import ROOT

SUPPORT = {"report", "load"}


def main() -> int:
    """Run one benchmark; its exit status is ours."""
    program = ROOT / "bench" / f"{sys.argv[1]}.py"
    if not program.exists():
        known = ", ".join(sorted(path.stem for path in program.parent.glob("*.py") if path.stem not in SUPPORT))
        sys.exit(f"error: there is no benchmark {sys.argv[1]!r}. There are: {known}")
    return subprocess.run([sys.executable, program, *sys.argv[2:]], env=prepare(), check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
