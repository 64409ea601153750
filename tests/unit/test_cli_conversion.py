"""What the command line shows of converted models: in a deployment's phases, and in what can be cleaned."""

from __future__ import annotations

from pathlib import Path

from headrace.cli.clean import Uses, find_items
from headrace.cli.phases import Phases
from headrace.resources.layout import Layout

CONVERTED = "Converted to OpenVINO IR (bf16) from safetensors, 269 MB, in 7.4 s."


def test_the_end_of_staging_says_what_was_chosen_and_what_its_conversion_cost() -> None:
    """While it converts, that is what is under way; its line at the end keeps the choice and adds the cost."""
    lines: list[str] = []
    phases = Phases(lines.append)
    moves = [
        {"state": "STAGING", "at": 1.0, "detail": "0.25 GiB of files; runtime openvino."},
        {"state": "STAGING", "at": 2.0, "detail": "Converting: OpenVINO IR (bf16) from safetensors, 269 MB."},
    ]
    phases.update(moves)
    assert phases.current == "STAGING: Converting: OpenVINO IR (bf16) from safetensors, 269 MB."
    more = "Converting: OpenVINO IR (bf16) from safetensors, 269 MB; writing. 0.10 GiB of 0.25 GiB."
    phases.update(
        [
            *moves,
            {"state": "STAGING", "at": 7.0, "detail": more},
            {"state": "STAGING", "at": 9.0, "detail": CONVERTED},
            {"state": "PLACING", "at": 9.0, "detail": ""},
        ]
    )
    assert lines == [f"STAGING      8.0 s  0.25 GiB of files; runtime openvino. {CONVERTED}"]


def test_clean_knows_converted_copies_by_their_source(tmp_path: Path) -> None:
    """Those of a deployed model stay, those of another go with it: a model and what was made of it are one item."""
    layout = Layout(tmp_path)
    for name in ("aaa", "aaa.openvino-own-1", "bbb", "bbb.openvino-own-1", ".bbb.openvino-f16-1.partial"):
        (layout.models_dir / name).mkdir(parents=True)
    found = find_items(layout, Uses(fingerprints=frozenset({"aaa"})), everything=False)
    assert [(Path(item.path).name, item.why.rpartition("; ")[2]) for item in found if item.kind == "model"] == [
        ("bbb", "copied again when needed")
    ]
