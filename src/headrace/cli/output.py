"""What a command writes to stdout: tables and sentences for people, or JSON and nothing else.

Rich honours ``NO_COLOR``; where stdout is no terminal, lines are plain and never cut to a width.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 100_000
"""Columns of a pipe: nothing is wrapped for a reader that is a program."""


_WIDE = 100
"""Columns from which on a table has all of its own."""

_SHORTEST_PATH = 16

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
_BREAKS = re.compile(r"[\t\r\n]")
_CONTROLS_IN_JSON = re.compile(r"[\x7f-\x9f]")
"""JSON escapes the others by itself."""


class Output:
    """Writes the answer of one command.

    Args:
        as_json: Whether stdout is to carry JSON only.
        width: Columns; else those of the terminal, and no end of them elsewhere.
    """

    def __init__(self, *, as_json: bool, width: int | None = None) -> None:
        self.as_json = as_json
        self._width = width

    def document(self, value: Any) -> None:
        """The command's one JSON document; nothing without ``--json``."""
        if self.as_json:
            print(_json(msgspec.json.format(msgspec.json.encode(value), indent=2)))

    def event(self, value: Any) -> None:
        """One line of a stream of JSON documents; nothing without ``--json``."""
        if self.as_json:
            print(_json(msgspec.json.encode(value)), flush=True)

    def line(self, text: str = "") -> None:
        """A line for a person; nothing with ``--json``."""
        self.piece(f"{text}\n")

    def piece(self, text: str) -> None:
        """A piece of a text that comes bit by bit, shown at once; nothing with ``--json``."""
        if not self.as_json:
            print(visible(text), end="", flush=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        empty: str,
        spare: Sequence[str] = (),
        paths: Sequence[str] = (),
    ) -> None:
        """Rows under headings for a person, or the sentence that says why there are none; nothing with ``--json``.

        The first column is never broken, because people copy from it. Headings that are all empty are left out.

        Args:
            columns: The headings.
            rows: A cell for each.
            empty: What to say without rows.
            spare: Headings of columns that a narrow terminal goes without.
            paths: Headings of columns that are shortened in the middle where the terminal is too narrow for them.
        """
        if self.as_json:
            return
        if not rows:
            print(empty)
            return
        from rich.table import Table  # noqa: PLC0415  # `headrace version` starts without Rich

        console = stdout_console(self._width)
        cells = [tuple(in_one_line(str(cell)) for cell in row) for row in rows]
        if console.width < _WIDE:
            cells = [tuple(cell for name, cell in zip(columns, row, strict=True) if name not in spare) for row in cells]
            columns = [name for name in columns if name not in spare]
        cells = _fitting(columns, cells, paths, console.width)
        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
        for number, column in enumerate(columns):
            table.add_column(column, overflow="fold", no_wrap=number == 0)
        for row in cells:
            table.add_row(*row)
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


def _fitting(
    columns: Sequence[str], rows: list[tuple[str, ...]], paths: Sequence[str], width: int
) -> list[tuple[str, ...]]:
    """The rows with their paths cut down to what the other columns leave of the width."""
    wide = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    shown_as_paths = [number for number, name in enumerate(columns) if name in paths]
    if not shown_as_paths or sum(wide) + 2 * len(wide) <= width:
        return rows
    others = sum(cells for number, cells in enumerate(wide) if number not in shown_as_paths)
    room = max(_SHORTEST_PATH, (width - others - 2 * len(wide)) // len(shown_as_paths))
    return [
        tuple(shortened(cell, room) if number in shown_as_paths else cell for number, cell in enumerate(row))
        for row in rows
    ]


def visible(text: str) -> str:
    r"""The text with its control characters shown instead of obeyed, but for line breaks and tabs.

    Whoever named a model, or made it speak, is not to colour, clear or retitle the terminal of those who look.

    >>> print(visible("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _CONTROLS.sub(_escaped, text)


def in_one_line(text: str) -> str:
    r"""The same with line breaks and tabs shown, too: a name is not to look like a line of ours.

    >>> print(in_one_line("a\nerror NO_CONFIG"))
    a\x0aerror NO_CONFIG
    """
    return _BREAKS.sub(_escaped, visible(text))


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def _json(document: bytes) -> str:
    return _CONTROLS_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document.decode())


def shortened(path: str, width: int) -> str:
    """A path in at most ``width`` columns: its beginning and, more of it, its end.

    >>> shortened("/root/.cache/models/river", 13)
    '/roo…ls/river'
    """
    if len(path) <= width:
        return path
    head = (width - 1) // 3
    return f"{path[:head]}…{path[len(path) - (width - 1 - head) :]}"


def stdout_console(width: int | None = None) -> Console:
    """A Rich console on stdout, markup off: names from outside are text."""
    from rich.console import Console  # noqa: PLC0415  # see above

    if width is None and not sys.stdout.isatty():
        width = _PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def size(size_bytes: float) -> str:
    """A size for a person, in powers of ten as disks are sold: ``269 MB``."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def duration(seconds: float) -> str:
    """How long something takes, for a person: ``120 ms``, ``2.5 s``, ``39 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def age(seconds: float) -> str:
    """A span for a person: ``42s``, ``7m``, ``3h``, ``12d``."""
    for limit_s, unit_s, letter in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{max(0, seconds) // unit_s:.0f}{letter}"
    return f"{seconds // 86_400:.0f}d"
