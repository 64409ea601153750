"""A look at the machine that names all its gaps at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.hardware.preflight import Gap, find_gaps
from headrace.resources.errors import MachineGaps


def require_no_gaps(data_dir: Path, look: Callable[[Path], Sequence[Gap]] = find_gaps) -> None:
    """Go on only if this machine has all that is needed.

    Args:
        data_dir: Where everything will be written.
        look: Finds what is missing.

    Raises:
        MachineGaps: With a line per gap in its evidence, and one per fix.
    """
    gaps = look(data_dir)
    if not gaps:
        return
    raise MachineGaps(
        f"This machine lacks {len(gaps)} thing{'s' if len(gaps) > 1 else ''} that Headrace needs.",
        evidence="\n".join(f"{gap.what}: {gap.found}" for gap in gaps),
        fix="\n".join(f"{gap.what}: {gap.fix}" for gap in gaps),
    )
