"""The environments that `tools/environment.py` keeps between clones."""

from __future__ import annotations

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "environment.py"))


def test_an_environment_goes_with_its_clone(tmp_path: Path) -> None:
    """Environments of clones that are gone are removed, others and those that name none stay."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name, of in (("living", clone), ("lost", tmp_path / "gone")):
        (tmp_path / "venvs" / name).mkdir(parents=True)
        (tmp_path / "venvs" / name / TOOL["CLONE"]).write_text(str(of))
    (tmp_path / "venvs" / "being-made").mkdir()

    TOOL["_forget_lost_clones"](tmp_path / "venvs")

    assert {each.name for each in (tmp_path / "venvs").iterdir()} == {"living", "being-made"}
