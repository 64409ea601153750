"""MLflow's folders: what `MLmodel` says, and what an engine gets of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.resources.errors import ConfigInvalid, FlavourNotSupported, HeadraceError, WeightsMissing
from headrace.storage import open_artifacts
from headrace.weights.mlflow_model import parse_mlflow_model, read_mlflow_model, served_files
from mlflow_folders import MLMODEL, PYFUNC_ONLY, files_of, hugging_face, mlflow


class Listing:
    """Files that have names only, and an `MLmodel`."""

    def __init__(self, *names: str, said: bytes = b"") -> None:
        self.names, self.said = (*names, "MLmodel"), said

    def sizes(self) -> dict[str, int]:
        """Every file."""
        return {name: len(self.said) if name == "MLmodel" else 1 for name in self.names}

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Of the one that can be read."""
        return self.said[start : start + length]


def files(said: bytes, *names: str) -> dict[str, str]:
    """What is served of files with this `MLmodel`."""
    listing = Listing(*names, said=said)
    return served_files(listing, read_mlflow_model(listing))


def transformers(**settings: Any) -> bytes:
    """An `MLmodel` of that flavour; JSON is YAML."""
    import json

    return json.dumps({"flavors": {"transformers": settings, "python_function": {}}}).encode()


def test_the_flavour_transformers_becomes_one_folder(tmp_path: Path) -> None:
    """Model and tokenizer side by side, nothing of what MLflow itself needs."""
    reader = open_artifacts(str(mlflow(tmp_path / "m")))
    model = read_mlflow_model(reader)
    assert model is not None
    assert model.named == ("transformers",)
    assert served_files(reader, model) == {
        "config.json": "model/config.json",
        "model.safetensors": "model/model.safetensors",
        "tokenizer.json": "components/tokenizer/tokenizer.json",
        "tokenizer_config.json": "components/tokenizer/tokenizer_config.json",
    }
    assert parse_mlflow_model(MLMODEL.encode()) == model


def test_a_hugging_face_folder_stays_as_it_is(tmp_path: Path) -> None:
    """Without `MLmodel` every file is where it was."""
    folder = hugging_face(tmp_path / "m")
    reader = open_artifacts(str(folder))
    assert read_mlflow_model(reader) is None
    assert served_files(reader, None) == {name: name for name in files_of(folder)}


def test_of_two_files_of_a_name_the_models_is_taken() -> None:
    """A component's configuration does not take the place of the model's."""
    names = ("model/config.json", "components/p/config.json", "components/p/preprocessor_config.json")
    served = files(transformers(model_binary="model", components=["p"]), *names)
    assert served["config.json"] == "model/config.json"
    assert served["preprocessor_config.json"] == "components/p/preprocessor_config.json"


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (PYFUNC_ONLY, "'pyfunc'"),
        (b"flavors: {sklearn: {}, python_function: {}}", "'sklearn'"),
        (b"flavors: {langchain: {}, openai: {}, python_function: {}}", "'langchain' and 'openai'"),
    ],
)
def test_other_flavours_are_refused_by_name(said: bytes, named: str) -> None:
    """The Python function is named only where nothing else is there."""
    with pytest.raises(FlavourNotSupported, match=named):
        files(said, "model.pkl")


def test_what_lacks_its_weights_is_refused() -> None:
    """Adapters, references to a hub, and folders of which not all came."""
    with pytest.raises(FlavourNotSupported, match="adapter"):
        files(transformers(model_binary="model", peft_adaptor="peft"), "model/config.json")
    with pytest.raises(WeightsMissing, match="without its weights") as reference:
        files(transformers(source_model_name="meta/x"))
    assert "meta/x" in reference.value.evidence
    with pytest.raises(WeightsMissing, match=r"model/config\.json"):
        files(transformers(model_binary="model"), "model/model.safetensors")


@pytest.mark.parametrize("binary", ["..", "/etc", "a/../..", "", 7, ["x"], "\0"])
def test_no_path_leads_out_of_the_folder(binary: Any) -> None:
    """What names the model's folder is a folder of it, or is refused."""
    with pytest.raises((ConfigInvalid, WeightsMissing)):
        files(transformers(model_binary=binary), "model/config.json")
    with pytest.raises(ConfigInvalid):
        files(transformers(model_binary="model", components=["../../x"]), "model/config.json")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_it_says_it_is_read_or_refused(said: bytes) -> None:
    """Nothing is executed, and nothing but an error of ours is raised."""
    try:
        files(said, "model/config.json")
    except HeadraceError:
        return


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"flavors:",
        b"flavors: []",
        b"flavors: {1: {}}",
        b"flavors: {a: 1}",
        b"[" * 5000,
        b"!!python/object/apply:os.system ['true']",
        b"a: &a [x]\nflavors: *b",
        b"\xff\xfe",
        b"flavors: {t: 2001-99-99}",
    ],
)
def test_what_mlflow_never_writes(said: bytes) -> None:
    """It is told apart from a flavour that is not served."""
    with pytest.raises(ConfigInvalid):
        parse_mlflow_model(said)
