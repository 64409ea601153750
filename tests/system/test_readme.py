"""The README's commands, run as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.weights.demo import demo_model_dir
from server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.needs_curl


def commands() -> list[str]:
    """Every command that the README tells a newcomer to type, in order."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_first_and_the_last_command() -> None:
    """The README begins with `make quickstart` and ends with `make test`, which is what CI runs."""
    assert (commands()[0], commands()[-1]) == ("make quickstart", "make test")
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_quickstart(tmp_path: Path) -> None:
    """`make quickstart` streams a real answer from nothing, stops everything, and does nothing twice when run again."""
    environment = os.environ | {"HEADRACE_DATA_DIR": str(tmp_path / "data"), "NO_COLOR": "1"}
    for key in ("HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_CONFIG_DIR"):
        environment.pop(key, None)
    for again in (False, True):
        command = ["make", "-C", str(ROOT), "quickstart", "ONCE=1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "tokens/s" in done.stdout
        assert "nothing is left running" in done.stdout
        assert ("already there" in done.stdout.partition("Deployment")[2]) is again
        assert "\x1b" not in done.stdout, "no colours without a terminal"
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert not left.stdout, "it left processes behind"


def test_the_commands_between(shared_server: ServerProcess, demo_model: Path) -> None:
    """The commands on your own weights work in one shell, one after another, with the server's own login."""
    between = commands()[1:-1]
    assert between[0] == "MODEL=~/.cache/headrace/demo/SmolLM2-135M-Instruct"
    with_defaults = {"HEADRACE_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/home/newcomer"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in with_defaults.items():
            patch.setenv(name, value)
        assert demo_model_dir() == Path("/home/newcomer/.cache/headrace/demo/SmolLM2-135M-Instruct")
    script = "\n".join([f"MODEL={demo_model}", *between[1:]]).replace("http://127.0.0.1:8080", shared_server.url)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HEADRACE_DATA_DIR": str(shared_server.data_dir),
        "HEADRACE_CONFIG_DIR": str(shared_server.data_dir / "nobody"),
    }
    command = ["bash", "-eu", "-o", "pipefail", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tokyo" in done.stdout
    assert "data: [DONE]" in done.stdout
    assert "WARMING" in done.stdout
