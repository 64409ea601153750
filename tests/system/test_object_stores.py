"""Weights from object stores: the vendors' own drivers against stores on this machine, over good and bad networks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from safetensors.numpy import save

from headrace.cli.app import run
from headrace.node.stager import Stager
from headrace.resources.assignments import RuntimeReport, StageOrder
from headrace.resources.errors import ArtifactsChanged, ArtifactsCorrupt, ArtifactsNotFound, Cancelled
from headrace.runtimes import Environment, Installable
from headrace.runtimes.openvino import OpenVinoRuntime
from headrace.storage import Artifacts, ModelCache, download, fingerprint, open_artifacts, remote, stage
from headrace.storage.download import PART_BYTES
from object_stores import BUCKET, STORES, Store, network, running
from server_process import running_server

pytestmark = [pytest.mark.needs_node, pytest.mark.needs_npm]
BIG = 3 * PART_BYTES + 12345
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": random.Random(1).randbytes(BIG),
    "sub/notes.txt": b"a",
    "empty.txt": b"",
}


def ignore(_done: int, _total: int) -> None:
    """No progress."""


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Each store in turn, with `FILES` as ``model``."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as store:
        store.put("model", FILES)
        yield store


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """S3 alone, for what does not depend on the driver."""
    with running("s3", tmp_path_factory.mktemp("s3")) as store:
        yield store


def reach(store: Store, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let drivers of this process look for the store at this port."""
    for name, value in store.variables(port).items():
        monkeypatch.setenv(name, value)


HOLDER = """
import os, signal, sys
from pathlib import Path
from object_stores import running
with running("s3", Path(sys.argv[1])):
    print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
    signal.pause()
"""


def test_a_store_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also where that is ended by a signal, and cleans up nothing."""
    path = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], env=path, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        emulator = os.pidfd_open(int(holder.stdout.readline()))
        holder.terminate()
        assert select.select([emulator], [], [], 30)[0]
        os.close(emulator)


def opened(store: Store, port: int, monkeypatch: pytest.MonkeyPatch, model: str = "model") -> Artifacts:
    """A model's files, through a port."""
    reach(store, port, monkeypatch)
    return open_artifacts(store.address(model))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(cache: Path) -> list[str]:
    """Unfinished folders."""
    return [path.name for path in cache.glob(".*.partial")]


def test_a_model_is_listed_read_and_staged(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files, sizes and ranges by every driver; each file has a checksum that its store vouches for."""
    artifacts = opened(store, store.port, monkeypatch)
    assert artifacts.sizes() == {name: len(data) for name, data in FILES.items()}
    assert artifacts.read_range("model.safetensors", BIG - 7, 100) == FILES["model.safetensors"][-7:]
    assert isinstance(artifacts, remote.RemoteArtifacts)
    assert all(artifacts.checksum(file) for file in artifacts.files)
    assert content(stage(artifacts, tmp_path / "cache", ignore)) == FILES
    assert artifacts.by_plain_requests
    assert fingerprint(artifacts) == fingerprint(artifacts.list_again())


def test_what_a_plain_request_does_not_get_is_read_by_the_driver(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here an object that is said to be encoded; its bytes come as they are kept."""
    reach(s3, s3.port, monkeypatch)
    s3.put("encoded", FILES)
    driver = fsspec.filesystem("s3", skip_instance_cache=True)
    driver.pipe_file(f"{BUCKET}/encoded/model.safetensors", FILES["model.safetensors"], ContentEncoding="gzip")
    artifacts = open_artifacts(s3.address("encoded"))
    assert content(stage(artifacts, tmp_path, ignore)) == FILES
    assert isinstance(artifacts, remote.RemoteArtifacts)
    assert not artifacts.by_plain_requests


def test_a_network_that_breaks_is_survived(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are cut in the middle of ranges cost those ranges, not the download."""
    with network(store) as between:
        artifacts = opened(store, between.port, monkeypatch)
        cuts = iter(range(4))

        def cut(piece: bytes, passed: int) -> bytes | None:
            return None if passed > BIG // 3 and next(cuts, None) is not None else piece

        between.on_bytes = cut
        assert content(stage(artifacts, tmp_path / "cache", ignore)) == FILES
        assert next(cuts, None) is None


def test_what_arrives_changed_is_not_believed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that changes on the way costs one file's second download; one that always changes is an error."""
    with network(store) as between:
        artifacts = opened(store, between.port, monkeypatch)
        seen = {"bad": 0}

        def spoil_once(piece: bytes, _: int) -> bytes:
            if len(piece) < 20_000 or seen["bad"]:
                return piece
            seen["bad"] = 1
            return piece[:-1] + bytes([piece[-1] ^ 1])

        between.on_bytes = spoil_once
        assert content(stage(artifacts, tmp_path / "once", ignore)) == FILES
        assert seen["bad"]
        between.on_bytes = lambda piece, _: piece if len(piece) < 20_000 else piece[:-1] + bytes([piece[-1] ^ 1])
        with pytest.raises((ArtifactsCorrupt, ArtifactsNotFound)):  # some drivers notice by themselves
            stage(artifacts, tmp_path / "always", ignore)
        assert not [path for path in (tmp_path / "always").iterdir() if not path.name.startswith(".")]


STAGER = """
import os, signal, sys
from pathlib import Path
from headrace.storage import open_artifacts, stage
def die(done, _):
    if done > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
stage(open_artifacts(sys.argv[1]), Path(sys.argv[2]), die)
"""


def test_a_killed_download_is_gone_on_with(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process fetches only what is missing, after it has looked at what is there."""
    cache = tmp_path / "cache"
    with network(store) as between:
        variables = os.environ | store.variables(between.port)
        command = [sys.executable, "-c", STAGER, store.address("model"), str(cache), str(PART_BYTES)]
        killed = subprocess.run(command, env=variables, check=False, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        (partial,) = cache.glob(".*.partial")
        before = between.passed
        artifacts = opened(store, between.port, monkeypatch)
        staged = stage(artifacts, cache, ignore)
        assert content(staged) == FILES
        assert not partial.exists()
        assert between.passed - before < BIG - PART_BYTES // 2


def test_what_was_spoilt_on_the_disk_is_fetched_again(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal is not believed about ranges that are not on the disk as it says, nor where it is no journal."""
    s3.put("model", FILES)
    cache = tmp_path / "cache"
    artifacts = opened(s3, s3.port, monkeypatch)
    variables = os.environ | s3.variables(s3.port)
    command = [sys.executable, "-c", STAGER, s3.address("model"), str(cache), str(PART_BYTES)]
    subprocess.run(command, env=variables, check=False)
    (partial,) = cache.glob(".*.partial")
    weights = partial / "model.safetensors"
    weights.write_bytes(bytes(BIG))
    with (partial / ".parts").open("ab") as journal:
        journal.write(b'[{"name": "../../../etc/passwd", "start": 0, "length": 1}, "00"]\nnonsense\n[')
    assert content(stage(artifacts, cache, ignore)) == FILES


class AsItIs(OpenVinoRuntime):
    """A runtime that loads what was staged."""

    def conversion(self, model_dir: Path, dtype: str) -> None:
        """None."""


class NothingToInstall:
    """Makes no environment: nothing is started from it."""

    def install(self, runtime: Installable, *_: object) -> Environment:
        """This interpreter's."""
        return Environment(Path(sys.prefix), Path(sys.prefix))

    def inspect(self, runtime: Installable) -> RuntimeReport:
        """Always there."""
        return RuntimeReport(name=runtime.name, installed=True)


def test_an_object_without_a_checksum_is_told(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 object that was uploaded in parts has no digest of the whole: the timeline says so, and names it."""
    reach(s3, s3.port, monkeypatch)
    s3.put("parts", FILES)
    with fsspec.filesystem("s3", skip_instance_cache=True).open(f"{BUCKET}/parts/model.safetensors", "wb") as file:
        file.blocksize = PART_BYTES
        file.write(FILES["model.safetensors"])
    artifacts = open_artifacts(s3.address("parts"))
    order = StageOrder(artifact_uri=s3.address("parts"), fingerprint=fingerprint(artifacts), runtime="openvino")

    async def stage_it() -> tuple[str, ...]:
        stager = Stager(ModelCache(tmp_path), {"openvino": AsItIs()}, NothingToInstall(), lambda: None)
        await stager.staged(order)
        (report,) = stager.reports
        await stager.close()
        return report.notes

    said = "The store has no checksum for 1 of 4 files, so only their lengths were checked: model.safetensors."
    assert asyncio.run(stage_it()) == (said,)


def test_a_store_that_is_gone_leaves_what_came(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error names the file; what is there waits, under no name that anybody takes for a model."""
    s3.put("model", FILES)
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    with network(s3) as between:
        artifacts = opened(s3, between.port, monkeypatch)
        between.on_bytes = lambda piece, passed: None if passed > BIG // 2 else piece
        with pytest.raises(ArtifactsNotFound):
            stage(artifacts, tmp_path / "cache", ignore)
        assert len(left(tmp_path / "cache")) == 1
        between.on_bytes = lambda piece, _: piece
        assert content(stage(artifacts, tmp_path / "cache", ignore)) == FILES
        assert left(tmp_path / "cache") == []


def test_a_store_that_stalls_is_asked_again(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that does not come within its time is asked for on another connection."""
    s3.put("model", FILES)
    monkeypatch.setattr(remote, "READ_TIMEOUT_S", 2.0)
    stalls = iter([True])
    with network(s3) as between:
        artifacts = opened(s3, between.port, monkeypatch)

        def stall(piece: bytes, passed: int) -> bytes:
            return b"" if passed > BIG // 2 and next(stalls, False) else piece

        between.on_bytes = stall
        assert content(stage(artifacts, tmp_path / "cache", ignore)) == FILES


def test_an_object_that_changes_meanwhile_is_noticed(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it becomes shorter, or other bytes of the same length: nothing is named."""
    for number, after in enumerate((FILES["model.safetensors"][:-9], bytes(BIG))):
        name = f"changing{number}"
        s3.put(name, FILES)
        artifacts = opened(s3, s3.port, monkeypatch, name)
        once = iter([True])

        def change(done: int, _: int, name: str = name, after: bytes = after, once: Iterator[bool] = once) -> None:
            if done and next(once, False):
                s3.put(name, {"model.safetensors": after})

        with pytest.raises((ArtifactsChanged, ArtifactsCorrupt)):
            stage(artifacts, tmp_path / name, change)
        assert left(tmp_path / name) == []


def test_a_cancelled_download_leaves_nothing(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither bytes nor threads that write some."""
    s3.put("model", FILES)
    artifacts = opened(s3, s3.port, monkeypatch)
    seen: list[int] = []
    with pytest.raises(Cancelled):
        stage(artifacts, tmp_path / "cache", lambda done, _: seen.append(done), lambda: bool(seen and seen[-1]))
    assert left(tmp_path / "cache") == []


def test_a_bucket_that_is_not_there_and_a_key_that_is_wrong(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with the address and the store's words, never with the key."""
    reach(s3, s3.port, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")
    with pytest.raises(ArtifactsNotFound) as refused:
        open_artifacts("s3://no-such-bucket/model")
    said = f"{refused.value.message} {refused.value.evidence} {refused.value.fix}"
    assert "s3://no-such-bucket/model" in said
    assert "a-secret-of-mine" not in said


CONVERTIBLE = {
    "config.json": json.dumps(
        {"architectures": ["TurbineForCausalLM"], "model_type": "turbine", "num_hidden_layers": 1}
        | {"num_attention_heads": 4, "hidden_size": 8, "vocab_size": 10, "max_position_embeddings": 64}
    ).encode(),
    "tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
    "tokenizer_config.json": b"{}",
    "model.safetensors": save({"gate": np.random.default_rng(1).standard_normal(BIG // 4).astype(np.float32)}),
}
"""Whose only fault is that its format is not noted."""


def convert(address: str, target: Path, *options: str) -> int:
    """`headrace convert`, as in a shell."""
    return run(["convert", address, str(target), "--json", *options])


def test_an_address_is_converted_as_a_folder_is(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes by every driver, after a network that broke; nothing else is left beside them."""
    store.put("unnoted", CONVERTIBLE)
    (tmp_path / "here").mkdir()
    for name, data in CONVERTIBLE.items():
        (tmp_path / "here" / name).write_bytes(data)
    assert convert(str(tmp_path / "here"), tmp_path / "from here") == 0
    with network(store) as between:
        reach(store, between.port, monkeypatch)
        cuts = iter(range(3))
        between.on_bytes = lambda piece, passed: None if passed > BIG // 2 and next(cuts, None) is not None else piece
        assert convert(store.address("unnoted"), tmp_path / "new") == 0
    assert content(tmp_path / "new") == content(tmp_path / "from here")
    assert sorted(os.listdir(tmp_path)) == ["from here", "here", "new"]


def test_a_store_that_is_lost_is_gone_on_with_by_the_same_command(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came waits beside the name, which nobody takes for a model; the next attempt fetches only the rest."""
    s3.put("unnoted", CONVERTIBLE)
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    monkeypatch.setattr(download, "STREAMS", 1)  # else all ranges may be under way at the cut, and none complete
    with network(s3) as between:
        reach(s3, between.port, monkeypatch)
        between.on_bytes = lambda piece, passed: None if passed > 2 * PART_BYTES else piece
        assert convert(s3.address("unnoted"), tmp_path / "new") == 3
        assert json.loads(capsys.readouterr().err)["error"]["code"] == "ARTIFACTS_NOT_FOUND"
        assert os.listdir(tmp_path) == [".new.source"]
        between.on_bytes = lambda piece, _: piece
        before = between.passed
        assert convert(s3.address("unnoted"), tmp_path / "new") == 0
        assert between.passed - before < BIG - PART_BYTES // 2
        assert os.listdir(tmp_path) == ["new"]


def test_what_cannot_be_converted_is_refused_before_it_is_fetched(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By headers and small files; and a name that is taken before any of it."""
    good = dict(CONVERTIBLE, **{"model.safetensors": save({"n": np.arange(BIG)}, metadata={"format": "pt"})})
    s3.put("good", good)
    s3.put("no-tokenizer", {name: data for name, data in CONVERTIBLE.items() if "tokenizer" not in name})
    (tmp_path / "taken").write_text("mine")
    with network(s3) as between:
        reach(s3, between.port, monkeypatch)
        for model, target, code in (
            ("good", "new", "NOTHING_TO_CONVERT"),
            ("no-tokenizer", "new", "TOKENIZER_MISSING"),
            ("no-such-model", "new", "ARTIFACTS_NOT_FOUND"),
            ("unnoted", "taken", "DESTINATION_NOT_EMPTY"),
        ):
            s3.put("unnoted", CONVERTIBLE)
            before = between.passed
            assert convert(s3.address(model), tmp_path / target) != 0
            assert json.loads(capsys.readouterr().err)["error"]["code"] == code
            assert between.passed - before < PART_BYTES
        assert os.listdir(tmp_path) == ["taken"]


def test_a_gguf_file_alone_is_an_address(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fetched by itself, without what lies beside it, and looked into once it is here."""
    store.put("quantised", {"a.Q4.gguf": b"GGUF, it says", "b.Q8.gguf": bytes(100)})
    reach(store, store.port, monkeypatch)
    opened = open_artifacts(f"{store.address('quantised')}/a.Q4.gguf")
    assert opened.sizes() == opened.list_again().sizes() == {"a.Q4.gguf": 13}
    assert content(stage(opened, tmp_path / "cache", ignore)) == {"a.Q4.gguf": b"GGUF, it says"}
    assert convert(opened.address, tmp_path / "new") == 1  # it is none
    assert os.listdir(tmp_path) == ["cache"]


def test_a_model_is_served_from_the_hub(tmp_path: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor by ranges, deploy, staging, a greedy answer: through the whole product, and no token in any log."""
    (tmp_path / "hub" / BUCKET).mkdir(parents=True)
    shutil.copytree(demo_model, tmp_path / "hub" / BUCKET / "smollm2")
    secret = "hf_SecretOfTheTest"
    with running("hf", tmp_path / "hub") as hub:
        reach(hub, hub.port, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", secret)
        doctor = [sys.executable, "-m", "headrace.cli", "doctor", hub.address("smollm2"), "--json"]
        found = subprocess.run(doctor, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        assert json.loads(found.stdout)["findings"] == []
        with running_server(tmp_path / "data") as server:
            server.cli("deploy", hub.address("smollm2"), "--name", "smol", "--wait")
            with server.client() as client:
                question = {"model": "smol", "prompt": "The capital of Japan is", "max_tokens": 4, "temperature": 0}
                answer = client.post("/v1/completions", json=question).json()
            assert "Tokyo" in answer["choices"][0]["text"]
            logs = [path.read_text(errors="replace") for path in server.data_dir.rglob("*.log")]
            assert not [log for log in [*logs, server.output] if secret in log or "signature=of-the-hub" in log]
