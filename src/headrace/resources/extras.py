"""How an extra of this package gets into the environment that runs."""

from __future__ import annotations

import shlex
import sys


def install(extra: str) -> str:
    """The command: with this environment's own pip, which is rarely the first on a ``PATH``.

    pip knows the package there already, so that it fetches only what the extra lists.
    """
    return f"{shlex.quote(sys.executable)} -m pip install 'headrace[{extra}]'"
