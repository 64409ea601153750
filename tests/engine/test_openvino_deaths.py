"""Each way a converted folder can be broken is named for what it is."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from engine_launch import folder_for
from engine_process import EngineProcess, completion_body, start_engine

MIB = 2**20
WORKER = "headrace_engines.openvino.worker"


@pytest.fixture
def copied_model(tmp_path: Path) -> Path:
    """A copy of the model to break; weights are linked."""
    target = tmp_path / "model"
    target.mkdir()
    for path in folder_for("openvino").iterdir():
        if path.name == "openvino_model.bin":
            (target / path.name).symlink_to(path.resolve())
        else:
            shutil.copyfile(path, target / path.name)
    return target


def lose(name: str) -> Callable[[Path], None]:
    """Without one of the files."""
    return lambda folder: (folder / name).unlink()


def garble(name: str) -> Callable[[Path], None]:
    """With something else in one of the files."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).write_bytes(b"<?xml version='1.0'?><net")

    return change


def truncate(folder: Path) -> None:
    """With half of the weights, as after a copy that broke off."""
    weights = (folder / "openvino_model.bin").resolve()
    (folder / "openvino_model.bin").unlink()
    with weights.open("rb") as source, (folder / "openvino_model.bin").open("wb") as target:
        os.sendfile(target.fileno(), source.fileno(), 0, weights.stat().st_size // 2)


DEATHS: dict[str, tuple[Callable[[Path], None], str]] = {
    "not converted": (lose("openvino_model.xml"), "ENGINE_BAD_TENSOR"),
    "no weights": (lose("openvino_model.bin"), "ENGINE_BAD_TENSOR"),
    "half of the weights": (truncate, "ENGINE_BAD_TENSOR"),
    "not a graph": (garble("openvino_model.xml"), "ENGINE_BAD_TENSOR"),
    "no tokenizer": (lose("tokenizer.json"), "TOKENIZER_INVALID"),
    "not a tokenizer": (garble("tokenizer.json"), "TOKENIZER_INVALID"),
    "no converted tokenizer": (lose("openvino_tokenizer.xml"), "TOKENIZER_INVALID"),
    "no configuration": (lose("config.json"), "ENGINE_DIED"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_broken_folder_is_named_for_what_is_broken(copied_model: Path, name: str) -> None:
    """Exit status 3, and a last line with the code."""
    change, code = DEATHS[name]
    change(copied_model)
    with start_engine(copied_model, engine="openvino") as engine:
        assert engine.fatal()["code"] == code


def test_a_model_that_is_no_decoder_is_unsupported(copied_model: Path) -> None:
    """A graph that remembers nothing, such as the tokenizer's own."""
    shutil.copyfile(copied_model / "openvino_tokenizer.xml", copied_model / "openvino_model.xml")
    (copied_model / "openvino_model.bin").unlink()
    shutil.copyfile(copied_model / "openvino_tokenizer.bin", copied_model / "openvino_model.bin")
    with start_engine(copied_model, engine="openvino") as engine:
        assert engine.fatal()["code"] in {"ENGINE_UNSUPPORTED_ARCHITECTURE", "ENGINE_BAD_TENSOR"}


def test_a_cache_for_less_than_one_context_is_refused(copied_model: Path) -> None:
    """With both numbers: a request that fits the context would otherwise wait for ever."""
    with start_engine(copied_model, "--kv-cache-bytes", str(50 * MIB), engine="openvino") as engine:
        fatal = engine.fatal()
    assert fatal["code"] == "ENGINE_OUT_OF_MEMORY"
    assert "52,428,800 bytes hold 3,808 tokens" in fatal["evidence"]


def test_too_little_memory_is_out_of_memory(copied_model: Path) -> None:
    """Address space for the program and not for the weights."""
    with start_engine(copied_model, engine="openvino", memory_limit_bytes=700 * MIB) as engine:
        assert engine.fatal()["code"] == "ENGINE_OUT_OF_MEMORY"


def test_a_process_that_computes_no_more_is_told_to_everyone(copied_model: Path) -> None:
    """When native code crashes: an error event at the end of the stream, and the engine's last line."""
    with start_engine(copied_model, engine="openvino") as engine:
        engine.wait_ready()
        [worker] = [each for each in psutil.Process(engine.process.pid).children() if WORKER in each.cmdline()]
        body = completion_body("Once upon a time", max_tokens=2000, ignore_eos=True) | {"stream": True}
        with engine.client.stream("POST", "/v1/completions", json=body) as response:
            lines = (line for line in response.iter_lines() if line)
            assert next(lines)
            worker.send_signal(signal.SIGSEGV)
            last = json.loads(list(lines)[-1].removeprefix("data: "))
        assert last["error"]["code"] == "ENGINE_DIED"
        fatal = engine.fatal()
    assert (fatal["code"], fatal["evidence"]) == ("ENGINE_DIED", f"exit status {-signal.SIGSEGV}")


def test_a_process_that_computes_and_is_stopped_makes_the_engine_unhealthy_until_it_goes_on(
    copied_model: Path,
) -> None:
    """Only while requests wait for it: the node routes around the engine, and kills it when it stays so."""

    def health(engine: EngineProcess, wanted: str) -> str:
        until = time.monotonic() + 20
        while (said := engine.client.get("/health").json()["status"]) != wanted and time.monotonic() < until:
            time.sleep(0.1)
        return str(said)

    with start_engine(copied_model, "--frozen-after", "2", engine="openvino") as engine:
        engine.wait_ready()
        [worker] = [each for each in psutil.Process(engine.process.pid).children() if WORKER in each.cmdline()]
        worker.suspend()
        time.sleep(3)
        assert health(engine, "ready") == "ready"  # nobody waits
        worker.resume()
        body = completion_body("Once upon a time", max_tokens=2000, ignore_eos=True) | {"stream": True}
        with engine.client.stream("POST", "/v1/completions", json=body) as response:
            lines = (line for line in response.iter_lines() if line)
            assert next(lines)
            worker.suspend()
            assert health(engine, "frozen") == "frozen"
            worker.resume()
            assert health(engine, "ready") == "ready"
            assert next(lines)
