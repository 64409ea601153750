"""`tools/gcloud.sh` with a stand-in for gcloud (`tests/clients/test_gcloud.py` has the real one)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "gcloud.sh"
GCLOUD = """#!/bin/sh
echo "$*" >> "$STEPS"
case "$*" in
    *"$FAILS"*) exit 1 ;;
    *"models list --region"*) echo 9 ;;
    *"endpoints list"*) echo 7 ;;
    *"endpoints describe"*) echo 70 ;;
esac
"""
HEADRACE = "#!/bin/sh\necho export CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM=http://127.0.0.1:9/\n"
PROGRAMS = ("bash", "sh", "realpath", "mktemp", "rm")
"""All that it runs besides: a gcloud of the machine's own is not to be found."""


def ran(folder: Path, *arguments: str, gcloud: bool = True, fails: str = "nothing fails") -> tuple[int, str, list[str]]:
    """How the script ends, what it says, and what gcloud was asked."""
    programs, steps = folder / "bin", folder / "steps"
    programs.mkdir()
    for name, text in {"headrace": HEADRACE, **({"gcloud": GCLOUD} if gcloud else {})}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in PROGRAMS:
        (programs / name).symlink_to(shutil.which(name) or name)
    environment = {"PATH": str(programs), "STEPS": str(steps), "FAILS": fails, "HOME": os.environ["HOME"]}
    done = subprocess.run(
        [str(programs / "bash"), str(SCRIPT), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr, steps.read_text().splitlines() if steps.exists() else []


def test_every_step_is_done_and_undone(tmp_path: Path) -> None:
    """A model is registered, deployed and asked in three ways; at the end nothing of it is left."""
    status, said, steps = ran(tmp_path, str(tmp_path))
    assert (status, said.splitlines()[-1]) == (0, "Every command of gcloud did what it says.")
    done = [" ".join(step.split()[1:3]) for step in steps]
    assert done == [
        "model-garden models",
        *("models upload", "models list", "models describe"),
        *("endpoints create", "endpoints list", "endpoints deploy-model", "endpoints describe"),
        *("endpoints predict", "endpoints raw-predict", "endpoints stream-raw-predict"),
        *("endpoints undeploy-model", "endpoints delete", "models delete"),
    ]
    assert f"--artifact-uri={tmp_path}" in steps[1]


@pytest.mark.parametrize(
    ("fails", "last"),
    [("endpoints deploy-model", "models delete 9"), ("raw-predict", "models delete 9"), ("models upload", "upload")],
)
def test_a_step_that_fails_fails_all_and_leaves_nothing(tmp_path: Path, fails: str, last: str) -> None:
    """The status tells it, and what was made until then is taken away."""
    status, said, steps = ran(tmp_path, str(tmp_path), fails=fails)
    assert (status, "did what it says" in said) == (1, False)
    assert last in steps[-1]


@pytest.mark.parametrize(("arguments", "says"), [([], "usage: "), (["."], "gcloud is not installed")])
def test_what_is_missing_is_said(tmp_path: Path, arguments: list[str], says: str) -> None:
    """Without a folder, or without gcloud, nothing is done."""
    status, said, _ = ran(tmp_path, *arguments, gcloud=False)
    assert (status, says in said) == (2, True)
