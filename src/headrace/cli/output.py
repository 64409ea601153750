"""What a command writes to stdout: tables and sentences for people, or JSON and nothing else.

Rich honours ``NO_COLOR``; where stdout is no terminal, lines are plain and never cut to a width.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 100_000
"""Columns of a pipe: nothing is wrapped for a reader that is a program."""


class Output:
    """Writes the answer of one command.

    Args:
        as_json: Whether stdout is to carry JSON only.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, value: Any) -> None:
        """The command's one JSON document; nothing without ``--json``."""
        if self.as_json:
            print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

    def event(self, value: Any) -> None:
        """One line of a stream of JSON documents; nothing without ``--json``."""
        if self.as_json:
            print(msgspec.json.encode(value).decode(), flush=True)

    def line(self, text: str = "") -> None:
        """A line for a person; nothing with ``--json``."""
        if not self.as_json:
            print(text, flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
        """Rows under headings for a person, or the sentence that says why there are none; nothing with ``--json``.

        Headings that are all empty are left out.
        """
        if self.as_json:
            return
        if not rows:
            print(empty)
            return
        from rich.table import Table  # noqa: PLC0415  # `headrace version` starts without Rich

        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        console = stdout_console()
        if console.is_terminal:
            console.print(table)
            return
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))

    def markdown(self, text: str) -> None:
        """Markdown: rendered on a terminal, as it is elsewhere."""
        if not sys.stdout.isatty():
            print(text.rstrip())
            return
        from rich.markdown import Markdown  # noqa: PLC0415  # see above

        stdout_console().print(Markdown(text))


def stdout_console() -> Console:
    """A Rich console on stdout, markup off: names from outside are text."""
    from rich.console import Console  # noqa: PLC0415  # see above

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def size(size_bytes: float) -> str:
    """A size for a person, in powers of ten as disks are sold: ``269 MB``."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def age(seconds: float) -> str:
    """A span for a person: ``42s``, ``7m``, ``3h``, ``12d``."""
    for limit_s, unit_s, letter in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{max(0, seconds) // unit_s:.0f}{letter}"
    return f"{seconds // 86_400:.0f}d"
