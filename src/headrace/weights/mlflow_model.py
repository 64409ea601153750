"""MLflow models: what the file ``MLmodel`` says, and which of the folder's files make one Hugging Face folder.

The format is that of https://mlflow.org/docs/latest/ml/model/: a folder with ``MLmodel`` (YAML) in it, which names the
flavours in which the model was saved. ``transformers`` keeps the model in one folder and each component of its
pipeline (the tokenizer, a processor) in another; an engine wants them side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec
import yaml

from headrace.resources.errors import ConfigInvalid, FlavourNotSupported, WeightsMissing
from headrace.weights.config import CONFIG_FILE
from headrace.weights.reader import FolderReader

MLMODEL_FILE = "MLmodel"
MAX_MLMODEL_BYTES = 1 << 20
"""It names flavours and a signature, and may hold the example of an input."""

TRANSFORMERS = "transformers"
PYFUNC = "python_function"

_COMPONENTS = "components"
_SHOWN = 80


class MlflowModel(msgspec.Struct, frozen=True):
    """What ``MLmodel`` says.

    Attributes:
        flavours: Each with its own settings, as they are.
    """

    flavours: Mapping[str, Mapping[str, Any]]

    @property
    def named(self) -> tuple[str, ...]:
        """The flavours as people call them: the Python function, which nearly all have, only where it is alone."""
        others = tuple(sorted(name for name in self.flavours if name != PYFUNC))
        return others or ("pyfunc",)


def read_mlflow_model(reader: FolderReader) -> MlflowModel | None:
    """What a folder's ``MLmodel`` says; None for a folder without one.

    Raises:
        ConfigInvalid: It is too long, or not what MLflow writes.
    """
    size = reader.sizes().get(MLMODEL_FILE)
    if size is None:
        return None
    if size > MAX_MLMODEL_BYTES:
        raise ConfigInvalid(f"{MLMODEL_FILE} is too long.", evidence=f"It has {size:,} bytes.")
    return parse_mlflow_model(reader.read_range(MLMODEL_FILE, 0, size))


def parse_mlflow_model(content: bytes) -> MlflowModel:
    """What the bytes of an ``MLmodel`` say. Nothing in it is executed.

    Raises:
        ConfigInvalid: They are not what MLflow writes.
    """
    try:
        said = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _invalid(str(error).replace("\n", " ")[:200]) from error
    flavours = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavours, dict) or not flavours:
        raise _invalid("It has no `flavors`.")
    read: dict[str, dict[str, Any]] = {}
    for name, settings in flavours.items():
        if not isinstance(name, str) or not isinstance(settings, dict | None):
            raise _invalid(f"The flavour {name!r:.{_SHOWN}} is not a name with settings.")
        read[name[:_SHOWN]] = settings or {}
    return MlflowModel(read)


def served_files(reader: FolderReader, model: MlflowModel | None) -> dict[str, str]:
    """The files of a folder that an engine is to have: their names there, each with its name in the folder.

    Args:
        reader: The folder.
        model: What its ``MLmodel`` says; None: it is a Hugging Face folder, whose files stay where they are.

    Raises:
        FlavourNotSupported: It has no flavour that is served here, or is an adapter.
        ConfigInvalid: A path in its ``MLmodel`` is none.
        WeightsMissing: It was saved without its weights.
    """
    names = tuple(reader.sizes())
    if model is None:
        return {name: name for name in names}
    settings = model.flavours.get(TRANSFORMERS)
    if settings is None:
        raise _not_served(model)
    if settings.get("peft_adaptor"):
        raise FlavourNotSupported(
            "The MLflow model is an adapter (PEFT) of the flavour 'transformers'; only whole models are served.",
            evidence=f"{MLMODEL_FILE} names peft_adaptor {str(settings['peft_adaptor'])[:_SHOWN]!r}.",
            fix="Merge it into its base model (`merge_and_unload`) and log that.",
        )
    binary = settings.get("model_binary") or settings.get("pipeline")
    if binary is None:
        raise WeightsMissing(
            "The MLflow model was saved without its weights.",
            evidence=f"{MLMODEL_FILE} names no model_binary"
            + (f", only {str(settings['source_model_name'])[:_SHOWN]!r}." if "source_model_name" in settings else "."),
            fix="Save it with save_pretrained=True, or mlflow.transformers.persist_pretrained_model(…) first.",
        )
    return _merged(names, [_folder(binary), *_components(settings)])


def _merged(names: tuple[str, ...], folders: list[PurePosixPath]) -> dict[str, str]:
    """What lies in several folders, as if in one; where two have a file, the first one's is taken."""
    files: dict[str, str] = {}
    for folder in folders:
        prefix = f"{folder}/"
        for name in names:
            if name.startswith(prefix):
                files.setdefault(name.removeprefix(prefix), name)
    if CONFIG_FILE not in files:
        raise WeightsMissing(
            f"The MLflow model has no {folders[0]}/{CONFIG_FILE}.",
            evidence=f"{MLMODEL_FILE} says that the model is in {folders[0]}; the folder has {len(names)} files.",
            fix="Upload the whole folder that MLflow saved.",
        )
    return files


def _components(settings: Mapping[str, Any]) -> list[PurePosixPath]:
    listed = settings.get(_COMPONENTS) or []
    if not isinstance(listed, list):
        raise _invalid(f"{_COMPONENTS} is no list.")
    return [_folder(f"{_COMPONENTS}/{each}") for each in listed]


def _folder(value: Any) -> PurePosixPath:
    path = PurePosixPath(value) if isinstance(value, str) and "\0" not in value else None
    if path is None or path.is_absolute() or ".." in path.parts or not path.parts:
        raise _invalid(f"{str(value)[:_SHOWN]!r} is no folder of the model.")
    return path


def _not_served(model: MlflowModel) -> FlavourNotSupported:
    names = " and ".join(repr(name) for name in model.named)
    return FlavourNotSupported(
        f"MLflow models of the flavour {names} are not served here; those of 'transformers' are.",
        evidence=f"{MLMODEL_FILE} has the flavours {', '.join(sorted(model.flavours))}.",
        fix="Log the model with mlflow.transformers, or upload its Hugging Face folder as it is.",
    )


def _invalid(evidence: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"{MLMODEL_FILE} is not what MLflow writes.", evidence=evidence, fix="Save the model with MLflow again."
    )
