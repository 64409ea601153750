"""Where a published model's weights are found: a hub and folders that are really asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.catalogue import read_mirror
from headrace.control.garden import Garden, Wanted, make_ready
from headrace.resources.errors import ArtifactsNotFound, BadField, LicenceNotAccepted, ModelNotFound
from headrace.storage import Credentials
from headrace.weights.demo import ORIGIN_FILE, demo_model_dir
from hub_server import Hub

TOKEN = "hf_of_the_test"
QWEN = "Qwen/Qwen3-0.6B"
GEMMA = "google/gemma-3-1b-it"


def put(root: Path, *names: str) -> None:
    """A model of each name below a folder."""
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text("{}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the server's environment names, with two models that everybody may see, and one for a token."""
    put(tmp_path / "hub", QWEN, GEMMA, "acme/private-river")
    with Hub(tmp_path / "hub", token=TOKEN) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        hub.shutdown()
        thread.join()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the hub should be."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")


@pytest.mark.usefixtures("hub")
def test_the_hub_comes_first(tmp_path: Path) -> None:
    """What the Hub gives is taken from there, though a mirror has it, too; whatever case a client writes."""
    put(tmp_path / "mirror", QWEN)
    garden = Garden([read_mirror(str(tmp_path / "mirror"))])
    for wanted in (Wanted(catalogue="qwen/qwen3@qwen3-0.6b"), Wanted(hub=QWEN.lower())):
        located = garden.locate(wanted, "default")
        assert located.address == f"hf://{QWEN}"
        assert located.publisher_model == "publishers/qwen/models/qwen3@qwen3-0.6b"


@pytest.mark.usefixtures("no_hub")
def test_a_mirror_takes_its_place(tmp_path: Path) -> None:
    """Where the Hub is not to be reached, the first mirror that has the model gives it."""
    put(tmp_path / "second", QWEN, "acme/river")
    (tmp_path / "first" / QWEN).mkdir(parents=True)  # there, and without a model in it
    garden = Garden([read_mirror(str(tmp_path / name)) for name in ("first", "second")])
    located = garden.locate(Wanted(catalogue="qwen/qwen3@qwen3-0.6b"), "default")
    assert located.address == f"file://{tmp_path}/second/{QWEN}"
    unknown = garden.locate(Wanted(hub="acme/river"), "default")
    assert (unknown.address, unknown.title, unknown.publisher_model) == (
        f"file://{tmp_path}/second/acme/river",
        "river",
        "",
    )


@pytest.mark.usefixtures("no_hub")
def test_neither_is_told_with_both(tmp_path: Path) -> None:
    """Where neither has it, the error names both addresses, why not, and how to give the server either."""
    garden = Garden([read_mirror(str(tmp_path))])
    with pytest.raises(ArtifactsNotFound) as told:
        garden.locate(Wanted(catalogue="qwen/qwen3@qwen3-0.6b"), "default")
    assert f"hf://{QWEN}: " in told.value.evidence
    assert f"file://{tmp_path}/{QWEN}: " in told.value.evidence
    assert "--model-mirror" in told.value.fix
    with pytest.raises(ArtifactsNotFound) as told:
        Garden().locate(Wanted(hub="acme/river"), "default")
    assert "none is configured" in told.value.evidence


def test_a_hub_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that takes the connection and never answers holds a request for as long as is allowed, and no longer."""
    put(tmp_path, QWEN)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        garden = Garden([read_mirror(str(tmp_path))], hub_timeout_s=0.2)
        assert garden.locate(Wanted(hub=QWEN), "default").address == f"file://{tmp_path}/{QWEN}"
        with pytest.raises(ArtifactsNotFound) as told:
            Garden(hub_timeout_s=0.2).locate(Wanted(hub=QWEN), "default")
        assert "no answer within 0.2 s" in told.value.evidence


@pytest.mark.usefixtures("hub")
def test_a_licence_is_accepted_first() -> None:
    """A model whose publisher asks for acceptance is refused without, with the licence's name and address."""
    name = "google/gemma3@gemma-3-1b-it"
    with pytest.raises(LicenceNotAccepted) as told:
        Garden().locate(Wanted(catalogue=name), "default")
    assert "Gemma Terms of Use" in told.value.message
    assert "https://ai.google.dev/gemma/terms" in told.value.evidence
    assert Garden().locate(Wanted(catalogue=name, accepted=True), "default").address == f"hf://{GEMMA}"


def test_the_hub_asks_for_itself(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name on the Hub a model needs no acceptance here when the Hub gives it, and does when a mirror would."""
    assert Garden().locate(Wanted(hub=GEMMA), "default").address == f"hf://{GEMMA}"
    put(tmp_path / "mirror", GEMMA)
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/nowhere")
    garden = Garden([read_mirror(str(tmp_path / "mirror"))])
    with pytest.raises(LicenceNotAccepted):
        garden.locate(Wanted(hub=GEMMA), "default")
    assert garden.locate(Wanted(hub=GEMMA, accepted=True), "default").address.startswith("file://")


@pytest.mark.usefixtures("hub")
def test_a_token_is_kept_for_its_model_alone(tmp_path: Path) -> None:
    """A token that opened a model serves that model's later reads in its project, and nothing else."""
    credentials = Credentials(tmp_path / "credentials.json")
    garden, address = Garden(credentials=credentials), "hf://acme/private-river"
    with pytest.raises(ArtifactsNotFound):
        garden.locate(Wanted(hub="acme/private-river"), "red")
    with pytest.raises(ArtifactsNotFound):
        garden.locate(Wanted(hub="acme/private-river", hub_token="hf_wrong"), "red")
    assert credentials.list() == []
    wanted = Wanted(hub="acme/private-river", hub_token=TOKEN)
    assert TOKEN not in repr(wanted)
    assert garden.locate(wanted, "red").address == address
    assert credentials.options("red", address) == {"token": TOKEN}
    assert credentials.options("red", "hf://acme/other") == credentials.options("blue", address) == {}
    assert garden.locate(Wanted(hub="acme/private-river"), "red").address == address


def test_the_demo_model_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration model is at its own folder, which is not fetched again; other addresses are left alone."""
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path))
    located = Garden().locate(Wanted(catalogue="huggingfacetb/smollm2"), "default")
    assert located.address == str(demo_model_dir())
    make_ready("gs://bucket/model")
    assert not demo_model_dir().exists()
    demo_model_dir().mkdir(parents=True)
    (demo_model_dir() / ORIGIN_FILE).write_text("{}")
    make_ready(located.address)
    assert [path.name for path in demo_model_dir().iterdir()] == [ORIGIN_FILE]


@pytest.mark.parametrize("name", ["qwen", "../etc/passwd", "a/../b", ".x/y", "a/.b", "a/b/c", "", "a b/c", "a/b?c"])
def test_a_name_that_cannot_be_one_of_the_hub_is_refused(name: str) -> None:
    """No name leads to another path of the Hub or out of a mirror."""
    with pytest.raises(BadField):
        Garden().locate(Wanted(hub=name), "default")


def test_a_model_that_the_catalogue_does_not_have() -> None:
    """An unknown name is a model that was not found."""
    with pytest.raises(ModelNotFound):
        Garden().locate(Wanted(catalogue="google/gemini"), "default")
