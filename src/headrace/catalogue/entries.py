"""The entries, read from ``publishers/*.toml``, and how they are found by the names that people and clients use."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from headrace.capacity import unwritten
from headrace.resources.errors import BadField, ModelNotFound
from headrace.resources.models import Task
from headrace.weights.config import ModelConfig, parse_config
from headrace.weights.folder import ModelFolder

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""An owner and a model on the Hugging Face Hub; neither part begins with a dot, so that neither leads elsewhere in a
folder of that form."""

_NAME = re.compile(r"(?:publishers/)?(?P<publisher>[^/@]+)/(?:models/)?(?P<model>[^/@]+)(?:@(?P<version>[^/@]+))?")
_SHOWN = 80
"""Characters of a wrong name that are told back."""


class Licence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which terms weights may be used.

    Attributes:
        name: The licence's own name, or its SPDX identifier.
        url: Where it can be read.
        accept: Its publisher gives the weights only to those who accept it first.
    """

    name: str
    url: str
    accept: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a published model.

    Attributes:
        publisher: Identifier of who publishes it, such as ``google``.
        publisher_name: The same for a person.
        category: Vertex AI's ``OpenSourceCategory``.
        model: Identifier of the model among its publisher's, such as ``gemma3``.
        version: Identifier of this version, such as ``gemma-3-1b-it``.
        display_name: The version for a person.
        family: ``model_type`` of its architecture.
        task: What it is for.
        instruct: It was taught to follow instructions, and so has a chat template.
        licence: Of its weights.
        parameters: How many it has, as its publisher counts them.
        counted: Where that count stands.
        runtime: The runtime that serves it on the machines that are recommended.
        hub: Its name on the Hugging Face Hub.
        config: Of its ``config.json`` what its size depends on.
        demo: It is the demonstration model, whose weights need no hub (`headrace.weights.demo`).
    """

    publisher: str
    publisher_name: str
    category: str
    model: str
    version: str
    display_name: str
    family: str
    task: Task
    instruct: bool
    licence: Licence
    parameters: int
    counted: str
    runtime: str
    hub: str
    config: dict[str, Any]
    demo: bool = False

    @property
    def id(self) -> str:
        """``PUBLISHER/MODEL@VERSION``, as clients of Model Garden write it."""
        return f"{self.publisher}/{self.model}@{self.version}"

    @property
    def name(self) -> str:
        """The publisher model's resource name, with its version."""
        return f"publishers/{self.publisher}/models/{self.model}@{self.version}"

    @property
    def shape(self) -> ModelConfig:
        """Its sizes."""
        return parse_config(self.config)

    @property
    def folder(self) -> ModelFolder:
        """Its folder, as its publisher stored it; nothing is read."""
        return unwritten(self.shape)

    @property
    def context_tokens(self) -> int:
        """The longest sequence that it was made for."""
        return self.shape.max_positions or 0

    @property
    def images(self) -> bool:
        """It reads images, too."""
        return bool(self.shape.vision)


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    hub: str
    display_name: str
    instruct: bool = False
    demo: bool = False
    max_position_embeddings: int | None = None


class _Size(msgspec.Struct, forbid_unknown_fields=True):
    parameters: int
    counted: str
    versions: list[_Version]
    config: dict[str, Any]


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    display_name: str
    family: str
    licence: str
    sizes: list[_Size]
    task: Task = "generate"
    runtime: str = "vllm"


class _Publisher(msgspec.Struct, forbid_unknown_fields=True):
    publisher: str
    display_name: str
    category: str
    licences: dict[str, Licence]
    models: list[_Model]


@cache
def entries() -> tuple[Entry, ...]:
    """All of them: publishers in the order of their names, models and versions as their publisher's file has them."""
    found = sorted(files("headrace.catalogue").joinpath("publishers").iterdir(), key=lambda file: file.name)
    published = (
        msgspec.convert(tomllib.loads(file.read_text("utf-8")), _Publisher)
        for file in found
        if file.name.endswith(".toml")
    )
    return tuple(entry for publisher in published for entry in _entries(publisher))


def _entries(by: _Publisher) -> Iterator[Entry]:
    for model in by.models:
        for size in model.sizes:
            for version in size.versions:
                yield Entry(
                    publisher=by.publisher,
                    publisher_name=by.display_name,
                    category=by.category,
                    model=model.name,
                    version=version.id,
                    display_name=version.display_name,
                    family=model.family,
                    task=model.task,
                    instruct=version.instruct,
                    licence=by.licences[model.licence],
                    parameters=size.parameters,
                    counted=size.counted,
                    runtime=model.runtime,
                    hub=version.hub,
                    config=_config(size, version),
                    demo=version.demo,
                )


def _config(size: _Size, version: _Version) -> dict[str, Any]:
    """The size's, with the longest sequence of this version where it was made for another one."""
    if version.max_position_embeddings is None:
        return size.config
    own = {"max_position_embeddings": version.max_position_embeddings}
    text = size.config.get("text_config")
    return size.config | (own if text is None else {"text_config": text | own})


def find_entry(name: str) -> Entry:
    """The entry of a name: ``PUBLISHER/MODEL[@VERSION]`` or ``publishers/PUBLISHER/models/MODEL[@VERSION]``.

    Without a version it is the model's first one. ``publishers/hf-OWNER/models/NAME``, as Model Garden names models of
    the Hugging Face Hub, is found by its name there; so is a version's identifier alone. Case does not matter: the
    vendor's clients write all names small.

    Raises:
        ModelNotFound: There is none; the fix names those that are nearest.
    """
    wanted = name.strip().lower()
    by_version = [entry for entry in entries() if entry.version == wanted]
    if len(by_version) == 1:
        return by_version[0]
    match = _NAME.fullmatch(wanted)
    if match and match["publisher"].startswith("hf-"):
        on_hub = find_on_hub(f"{match['publisher'].removeprefix('hf-')}/{match['model']}")
        if on_hub is not None:
            return on_hub
    versions = [entry for entry in entries() if match and (entry.publisher, entry.model) == match.group(1, 2)]
    for entry in versions:
        if match and match["version"] in {None, "default", entry.version}:
            return entry
    raise _not_found(name, wanted)


def find_on_hub(name: str) -> Entry | None:
    """The entry of a model on the Hugging Face Hub, in whatever case; None for one that the catalogue does not have."""
    return next((entry for entry in entries() if entry.hub.lower() == name.strip().lower()), None)


def hub_id(name: str) -> str:
    """A name on the Hugging Face Hub as it is written there, as far as that is known; any other as it came.

    Raises:
        BadField: It cannot be one.
    """
    if not HUB_NAME.fullmatch(name.strip()):
        raise BadField(
            "A model on the Hugging Face Hub is named OWNER/NAME.",
            evidence=f"It is {name[:_SHOWN]!r}.",
            fix="Give it as its page on the Hub has it, such as Qwen/Qwen3-0.6B.",
        )
    entry = find_on_hub(name)
    return entry.hub if entry else name.strip()


def _not_found(name: str, wanted: str) -> ModelNotFound:
    bare = wanted.removeprefix("publishers/").replace("/models/", "/")
    known = {entry.id: entry for entry in entries()}
    near = difflib.get_close_matches(bare[:_SHOWN], known, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return ModelNotFound(
        f"The catalogue has no model {name[:_SHOWN]!r}.",
        evidence=f"It has {len(known)} versions of {len({(each.publisher, each.model) for each in known.values()})} "
        "models.",
        fix=f"{meant}`headrace garden` lists them; any other model of the Hugging Face Hub is deployed by its name "
        "there: hf:OWNER/NAME, or huggingFaceModelId.",
    )
