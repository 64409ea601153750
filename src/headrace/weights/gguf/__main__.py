"""``python -m headrace.weights.gguf FILE.gguf NEW_FOLDER``: convert one file."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.resources.errors import HeadraceError
from headrace.weights.gguf.convert import convert_gguf


def main(arguments: list[str]) -> int:
    """Convert, and answer 0, or 1 with the reason on standard error."""
    if len(arguments) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        sys.stdout.write(f"{convert_gguf(Path(arguments[0]), Path(arguments[1]))}\n")
    except HeadraceError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
