"""The environments that `tools/environment.py` keeps between clones."""

from __future__ import annotations

import platform
import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "environment.py"))


def test_an_environment_goes_with_its_clone(tmp_path: Path) -> None:
    """Environments of clones that are gone are removed; others, other machines' and those that name none stay."""
    clone = tmp_path / "clone"
    clone.mkdir()
    here, gone = platform.node(), tmp_path / "gone"
    for name, of in (("living", f"{here}:{clone}"), ("lost", f"{here}:{gone}"), ("elsewhere", f"not-{here}:{gone}")):
        (tmp_path / "venvs" / name).mkdir(parents=True)
        (tmp_path / "venvs" / name / TOOL["CLONE"]).write_text(of)
    (tmp_path / "venvs" / "being-made").mkdir()

    TOOL["_forget_lost_clones"](tmp_path / "venvs")

    left = {each.name for each in (tmp_path / "venvs").iterdir() if each.is_dir()}
    assert left == {"living", "elsewhere", "being-made"}
