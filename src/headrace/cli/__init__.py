"""Floor 8: the command line, a user of the API like any other.

Whatever takes long to import (httpx, Rich, uvicorn, the converter's NumPy) is imported by the command that needs it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The ``headrace`` command."""
    from headrace.cli.app import run  # noqa: PLC0415  # importing a part of this package should not bring all commands

    sys.exit(run(sys.argv[1:]))
