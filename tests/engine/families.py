"""Tiny random models of families that the OpenVINO engine is given, each as a checkpoint and converted.

Made once for each state of what makes them, and kept in the tests' cache folder: optimum-intel takes its time.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engine_launch import engine_command, environment_of, in_the_form_of, required, source_root
from engine_process import remembered, run_in_engine_environment

from headrace.runtimes import Conversion, find

HERE = Path(__file__).parent
MODELS = HERE / "family_models.py"
EXPORTS = HERE / "family_exports.py"

DIRECT = ("granite", "llama", "qwen2", "qwen3", "smollm3")
"""Converted the direct way; `test_conversions` holds their numbers."""

GENERAL = ("bloom", "falcon", "gemma", "gpt2", "gpt_neox", "mistral", "opt", "phi", "phi3", "qwen3_moe")
"""Exported by optimum-intel; this mistral has a sliding window, which the direct way does not build, phi has fewer
heads for keys than for queries, and qwen3_moe's configuration is one that the converter's older transformers does not
read (both: `convert.amended`). The other 20 of `runtimes/conversions.py` were exported as these are, all in four
minutes of a busy machine, which is too long here."""

NEW_TOKENS = 16
_DICE = random.Random(2026)
PROMPTS = [[_DICE.randrange(256) for _ in range((3, 12, 24, 41)[number % 4])] for number in range(200)]
ROWS = [[_DICE.randrange(256) for _ in range(150)] for _ in range(2)]
GIVEN: dict[str, Any] = {"prompts": PROMPTS, "rows": ROWS, "new": NEW_TOKENS}


class Families(NamedTuple):
    """All of them.

    Attributes:
        folder: A checkpoint of each, by its name.
        said: What transformers says of each in float32 (`family_models`).
    """

    folder: Path
    said: dict[str, dict[str, Any]]

    def on_openvino(self) -> dict[str, Any]:
        """What the OpenVINO engine says of all, converted as a node converts them (`family_openvino`)."""
        folders = {name: str(in_the_form_of("openvino", self.folder / name)) for name in (*DIRECT, *GENERAL)}
        environment = environment_of("openvino")
        command = [str(environment.python), str(HERE / "family_openvino.py")]
        told: dict[str, Any] = json.loads(
            _output(command, {"PYTHONPATH": str(environment.engines_path)}, GIVEN | {"folders": folders})
        )
        return told

    def on_vllm(self, names: tuple[str, ...], scratch: Path) -> dict[str, Any]:
        """What vLLM says of some (`family_vllm`), in the surroundings that our adapter starts it in."""
        command = engine_command("vllm", self.folder / names[0], scratch / "unused")
        folders = {name: str(self.folder / name) for name in names}
        program = [command.argv[0], str(HERE / "family_vllm.py"), str(scratch / "told.json")]
        env = command.env | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        _output(program, env, GIVEN | {"folders": folders})
        told: dict[str, Any] = json.loads((scratch / "told.json").read_text())
        return told

    def score(self, answers: dict[str, list[list[int]]]) -> dict[str, float]:
        """The negative log-likelihood of each family's answers in float32, in nats a token."""
        given = {"prompts": PROMPTS, "answers": answers}
        told = remembered(MODELS, "score", str(self.folder), given=given)
        return {name: nats / (len(PROMPTS) * NEW_TOKENS) for name, nats in told.items()}


def families() -> Families:
    """Found, or made."""
    makers = [MODELS, EXPORTS, HERE / "tiny_models.py", *(source_root() / "headrace_engines/convert").glob("*.*")]
    digest = hashlib.sha256(
        json.dumps([GIVEN, DIRECT, GENERAL, str(_python("transformers")), str(_converter())]).encode()
    )
    for maker in sorted(makers):
        digest.update(maker.read_bytes())
    folder = required("HEADRACE_CACHE_DIR") / "references" / f"families-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        unfinished = folder.with_suffix(f".{os.getpid()}")
        try:
            _make(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Families(folder, json.loads((folder / "said.json").read_text()))


def _make(folder: Path) -> None:
    """Checkpoints, what is said of them, and the form of each that only optimum-intel makes, beside it."""
    given = GIVEN | {"names": [*DIRECT, *GENERAL]}
    said = run_in_engine_environment(MODELS, "make", str(folder), given=given)
    pairs = []
    for name in GENERAL:
        conversion: Conversion | None = find("openvino").conversion(folder / name, "auto")
        while conversion is not None and conversion.otherwise is not None:
            conversion = conversion.otherwise
        assert conversion is not None
        pairs.append((str(folder / name), str(folder / f"{name}.{conversion.key}")))
    env = {"PYTHONPATH": str(source_root()), "HF_HUB_OFFLINE": "1", "CI": "true"}
    failures = json.loads(_output([str(_converter()), str(EXPORTS)], env, pairs))
    if any(failures):
        pytest.fail("\n".join(f"{name}: {why}" for name, why in zip(GENERAL, failures, strict=True) if why))
    (folder / "said.json").write_text(json.dumps(said))


def _python(engine: str) -> Path:
    return environment_of(engine).python


def _converter() -> Path:
    return required("HEADRACE_TEST_CONVERTER_PYTHON")


def _output(command: list[str], env: dict[str, str], given: object) -> str:
    """The last line that a program prints."""
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, check=False, env=os.environ | env
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]
