"""A model that only the code in its folder knows: refused, or served by that code where an admin allowed it."""

import subprocess
from pathlib import Path

import msgspec
import pytest
from engine_launch import environment_of
from engine_process import completion_body, start_engine
from own_code_folder import own_code_folder

from headrace.cli.app import run
from headrace.control import FolderChecker
from headrace.control.checking import Checked
from headrace.node.loadable import loadable
from headrace.resources.errors import ArchitectureUnsupported
from headrace.resources.models import ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node
from headrace.storage import open_artifacts, stage

TINY = Path(__file__).parent / "tiny_models.py"
CONTEXT = 128
PROMPT = list(range(40, 60))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of an architecture that every runtime knows."""
    out = tmp_path_factory.mktemp("tiny")
    python = environment_of("transformers").python
    subprocess.run([str(python), str(TINY), str(out), "llama"], capture_output=True, check=True)
    return out / "llama"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that is there once the model's code was run."""
    return tmp_path / "was_run"


@pytest.fixture
def river(llama: Path, tmp_path: Path, marker: Path) -> Path:
    """The same numbers under a name that only the folder's own code knows."""
    return own_code_folder(llama, tmp_path / "river", marker)


def answer(folder: Path, **wished: object) -> str:
    """What the engine makes of a prompt; the version's context, as CHECKING would give it."""
    with start_engine(folder, max_model_len=CONTEXT, **wished) as engine:
        engine.wait_ready()
        body = completion_body(PROMPT, max_tokens=24, ignore_eos=True)
        text: str = engine.post("/v1/completions", body)["choices"][0]["text"]
    return text


def test_what_was_allowed_answers_as_its_code_says(llama: Path, river: Path, marker: Path) -> None:
    """The engine runs the folder's code; the class in it is a Llama's, and so is the answer."""
    assert answer(river, allow_custom_code=True) == answer(llama) != ""
    assert marker.exists()


def test_nothing_runs_unless_it_was_allowed(river: Path, marker: Path) -> None:
    """The engine refuses the folder by itself, too, and names the code."""
    with start_engine(river, max_model_len=CONTEXT) as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "ENGINE_UNSUPPORTED_ARCHITECTURE"
    assert "modeling_river.RiverForCausalLM" in fatal["message"]
    assert not marker.exists()


def test_code_that_does_not_load_is_told_as_that(river: Path, marker: Path) -> None:
    """A package that the engine's environment has not, or a mistake in it: the engine ends with the exception."""
    (river / "modeling_river.py").write_text("import no_such_package_anywhere\n")
    with start_engine(river, max_model_len=CONTEXT, allow_custom_code=True) as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "ENGINE_UNSUPPORTED_ARCHITECTURE"
    assert "no_such_package_anywhere" in fatal["evidence"]
    assert not marker.exists()


def checked(folder: Path, **spec: object) -> Checked:
    """What CHECKING says of a folder on a machine of 4 GiB."""
    node = Node(id="local", boot_id="b", memory_bytes=4 << 30, cores=2, last_seen_at=0.0)
    wished = msgspec.convert(spec, ServingSpec)
    version = ModelVersion(
        scope=DEFAULT_SCOPE, model_id="m", version="1", artifact_uri=str(folder), spec=wished, created_at=1.0
    )
    return FolderChecker().check(version, node)


def test_the_doctor_runs_none_of_it(river: Path, marker: Path, capsys) -> None:
    """Refused with the flag as the fix; allowed, a warning names the files; read as text both times."""
    assert run(["doctor", str(river)]) == 1
    assert "headrace deploy --allow-custom-code" in capsys.readouterr().out
    assert run(["doctor", str(river), "--allow-custom-code"]) == 0
    shown = capsys.readouterr().out
    assert "warning CUSTOM_CODE_ALLOWED" in shown
    assert "This model's own code runs: configuration_river.py, modeling_river.py." in shown
    assert not marker.exists()


def test_no_check_and_no_copy_runs_it(river: Path, marker: Path, tmp_path: Path) -> None:
    """CHECKING refuses it, or passes it with what it planned; staging copies the code beside the weights."""
    with pytest.raises(ArchitectureUnsupported) as refused:
        checked(river)
    assert "--allow-custom-code" in refused.value.fix
    allowed = checked(river, allow_custom_code=True)
    assert allowed.runtime == "transformers"
    assert any("This model's own code runs" in warning for warning in allowed.warnings)
    # keys and values of 2 layers with 2 heads of 8 float32 numbers each
    assert any("256 bytes of cache a token" in warning for warning in allowed.warnings)
    (tmp_path / "models").mkdir()
    copied = stage(open_artifacts(str(river)), tmp_path / "models", lambda *_: None)
    ready = loadable(copied, lambda *_: None, lambda: False).folder
    assert {path.name for path in ready.glob("*.py")} == {"configuration_river.py", "modeling_river.py"}
    assert not marker.exists()
