"""Floor 8: the command line, a user of the API like any other.

Whatever takes long to import (httpx, Rich, uvicorn, the converter's NumPy) is imported by the command that needs it.
"""

from __future__ import annotations

import sys

from headrace.cli.app import run


def main() -> None:
    """The ``headrace`` command."""
    sys.exit(run(sys.argv[1:]))
