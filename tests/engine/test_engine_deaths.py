"""Each way an engine dies is named for what it is: by exit status 3 and by the last line of its log."""

import json
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_launch import MODEL_NAME
from engine_process import EngineProcess, run_in_engine_environment, start_engine

MIB = 2**20
LOST_TENSOR = b"model.layers.3.mlp.up_proj.weight"


@pytest.fixture
def copied_model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model to break."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of the configuration."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def truncate_weights(folder: Path) -> None:
    """Lose the second half of the file, as a broken copy does."""
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)


def drop_a_tensor(folder: Path) -> None:
    """Call one of the weights by another name of the same length, in the header."""
    with (folder / "model.safetensors").open("r+b") as file:
        header = file.read(MIB)
        file.seek(header.index(LOST_TENSOR))
        file.write(LOST_TENSOR.upper())


DEATHS = {
    "truncated": (truncate_weights, "ENGINE_BAD_TENSOR", ""),
    "wrong hidden size": (lambda folder: edit_config(folder, hidden_size=504), "ENGINE_BAD_TENSOR", "504"),
    "impossible hidden size": (lambda folder: edit_config(folder, hidden_size=512), "ENGINE_BAD_TENSOR", "512"),
    "missing tensor": (drop_a_tensor, "ENGINE_BAD_TENSOR", LOST_TENSOR.decode()),
    "unknown type": (
        lambda folder: edit_config(folder, model_type="no_such_model"),
        "ENGINE_UNSUPPORTED_ARCHITECTURE",
        "no_such_model",
    ),
    "remote code": (
        lambda folder: edit_config(folder, model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
        "ENGINE_UNSUPPORTED_ARCHITECTURE",
        "",
    ),
    "not a language model": (
        lambda folder: edit_config(folder, model_type="vit"),
        "ENGINE_UNSUPPORTED_ARCHITECTURE",
        "vit",
    ),
    "tokenizer no JSON": (
        lambda folder: (folder / "tokenizer.json").write_bytes(bytes(range(256)) * 100),
        "TOKENIZER_INVALID",
        "UnicodeDecodeError",
    ),
    "tokenizer incomplete": (
        lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}, "added_tokens": []}'),
        "TOKENIZER_INVALID",
        "",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "ENGINE_DIED", "no such file"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_broken_model_is_named_for_what_is_broken(copied_model: Path, name: str) -> None:
    """The code is right and the evidence shows the fault."""
    break_it, code, evidence = DEATHS[name]
    break_it(copied_model)
    with start_engine(copied_model) as engine:
        fatal = engine.fatal()
    assert fatal["code"] == code, fatal
    assert fatal["message"]
    assert evidence in fatal["evidence"]


def test_a_context_longer_than_the_model_has_is_refused(model_folder: Path) -> None:
    """An engine does not promise what its model cannot do."""
    with start_engine(model_folder, "--max-model-len", "9000") as engine:
        assert "8192" in engine.fatal()["message"]


def test_too_little_memory_for_the_weights_is_out_of_memory(model_folder: Path) -> None:
    """With room for the libraries and not for the weights, loading ends as out of memory."""
    program = Path(__file__).parent / "import_size.py"
    libraries_bytes = run_in_engine_environment(program)
    with start_engine(model_folder, memory_limit_bytes=libraries_bytes + 250 * MIB) as engine:
        assert engine.fatal()["code"] == "ENGINE_OUT_OF_MEMORY"


def test_a_request_that_needs_too_much_memory_fails_alone(model_folder: Path) -> None:
    """A prompt that does not fit gets a clear error; the engine goes on with the next."""
    with start_engine(model_folder) as engine:
        engine.wait_ready()
        engine.chat("Hi", max_tokens=2)
        limit_memory(engine, extra_bytes=128 * MIB)
        body = {"model": MODEL_NAME, "prompt": [5] * 8000, "max_tokens": 2}
        response = engine.client.post("/v1/completions", json=body)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "ENGINE_OUT_OF_MEMORY"
        assert engine.chat("Hi", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_an_engine_that_dies_at_work_tells_everyone_first(model_folder: Path) -> None:
    """The stream being read ends with an error, what waits is refused, and the log's last line says why."""
    program = (str(Path(__file__).parent / "dying_engine.py"),)
    with start_engine(model_folder, program=program) as engine:
        engine.wait_ready()
        body = {"model": MODEL_NAME, "prompt": "Hi", "max_tokens": 50}
        with (
            ThreadPoolExecutor(1) as pool,
            engine.client.stream("POST", "/v1/completions", json=body | {"stream": True}) as response,
        ):
            waiting = pool.submit(engine.new_client().post, "/v1/completions", json=body)
            *chunks, end = [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line]
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "aaa"
        assert end["error"]["code"] == "ENGINE_OUT_OF_MEMORY"
        assert engine.fatal()["code"] == "ENGINE_OUT_OF_MEMORY"
        refused = waiting.exception() or waiting.result()
        assert isinstance(refused, httpx.TransportError) or refused.status_code == 503


def limit_memory(engine: EngineProcess, *, extra_bytes: int) -> None:
    """Leave a running engine this much more address space than it has."""
    pages = int(Path(f"/proc/{engine.process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    resource.prlimit(engine.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
