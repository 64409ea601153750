"""Python files in a model's folder: which they are, and whether an operator lets them run. Nothing here runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from reprlib import repr as brief
from typing import Any

import msgspec

from headrace.resources.errors import (
    ConfigInvalid,
    CustomCodeAllowed,
    CustomCodeIgnored,
    CustomCodeMissing,
    HeadraceError,
)
from headrace.resources.models import Task
from headrace.weights.config import CONFIG_FILE
from headrace.weights.finding import Finding, finding_of
from headrace.weights.reader import FolderReader, read_json_object

_NAMING = (CONFIG_FILE, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
"""The files whose ``auto_map`` transformers follows."""

_CLASSES: Mapping[Task, str] = {"generate": "AutoModelForCausalLM", "embed": "AutoModel"}
"""The key of ``auto_map`` under which the engine looks for the class that does a task."""

_SHOWN = 6


class OwnCode(msgspec.Struct, frozen=True):
    """What a folder's ``auto_map`` asks for.

    Attributes:
        classes: Of transformers, those in whose place ``config.json`` names one of its own.
        files: The Python files of the folder, the named ones first; any of them may import the others.
        missing: What is named and not in the folder, with where it would be.
    """

    classes: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def serves(self, task: Task) -> bool:
        """Whether it brings the class that does this, so that no runtime needs to know the architecture."""
        return _CLASSES[task] in self.classes

    @property
    def shown(self) -> str:
        """Its files, for a person."""
        return f"{', '.join(self.files[:_SHOWN])}{' …' if len(self.files) > _SHOWN else ''}"


def own_code(reader: FolderReader) -> OwnCode | None:
    """The code that a folder asks for; None where it asks for none."""
    maps = {name: _auto_map(reader, name) for name in _NAMING if name in reader.sizes()}
    references = {text for each in maps.values() for value in each.values() for text in _texts(value)}
    if not references:
        return None  # files that nothing asks for are nobody's to execute: examples, conversions
    named = {text: f"{text.rpartition('.')[0]}.py" for text in references}
    there = sorted({file for file in named.values() if file in reader.sizes()})
    others = sorted(name for name in reader.sizes() if name.endswith(".py") and name not in there)
    missing = sorted(f"{text[:80]} ({_absent(text)})" for text, file in named.items() if file not in there)
    classes = frozenset(key for key, value in maps.get(CONFIG_FILE, {}).items() if any(_texts(value)))
    return OwnCode(classes, (*there, *others), tuple(missing))


def check_custom_code(reader: FolderReader, *, allowed: bool) -> Iterator[Finding]:
    """Say which code of the folder's own runs, or would run elsewhere (``trust_remote_code``) and does not here.

    Args:
        reader: The folder.
        allowed: An operator lets it run.
    """
    code = own_code(reader)
    if code is None:
        if allowed:
            yield _nothing_to_allow()
    elif not allowed:
        yield _ignored(code)
    elif code.missing:
        yield _missing(code)
    else:
        yield _runs(code)


def _ignored(code: OwnCode) -> Finding:
    ignored = CustomCodeIgnored(
        "The model brings Python code of its own, which is not executed: nobody allowed it.",
        evidence=f"An auto_map asks for it; *.py files: {code.shown or 'none in the folder'}.",
        fix="It works if the runtime has this architecture itself; else use a checkpoint in its native form. "
        "Or an admin who trusts its author lets it run: `headrace deploy --allow-custom-code`.",
    )
    return finding_of(ignored, CONFIG_FILE, "warning")


def _runs(code: OwnCode) -> Finding:
    classes = f", for {', '.join(sorted(code.classes))[:200]}" if code.classes else ""
    allowed = CustomCodeAllowed(
        f"This model's own code runs: {code.shown}.",
        evidence=f"--allow-custom-code allows it; an auto_map asks for it{classes}.",
        fix="Read it, or trust its author: it runs in the engine, with the server's rights. "
        "Without --allow-custom-code none of it runs.",
    )
    return finding_of(allowed, CONFIG_FILE, "warning")


def _missing(code: OwnCode) -> Finding:
    missing = CustomCodeMissing(
        "The model asks for Python code that is not in its folder.",
        evidence=f"auto_map names {', '.join(code.missing[:3])}.",
        fix="Copy the model's *.py files beside its config.json, and write auto_map without a repository's name: "
        "nothing is fetched. Or leave out --allow-custom-code.",
    )
    return finding_of(missing, CONFIG_FILE)


def _nothing_to_allow() -> Finding:
    missing = CustomCodeMissing(
        "The model asks for no code of its own, so there is none to allow.",
        evidence="No configuration of the folder has an auto_map.",
        fix="Leave out --allow-custom-code.",
    )
    return finding_of(missing, CONFIG_FILE, "warning")


def _auto_map(reader: FolderReader, name: str) -> Mapping[str, Any]:
    try:
        found = read_json_object(reader, name, ConfigInvalid).get("auto_map")
    except HeadraceError:
        return {}  # told by its own finding
    if isinstance(found, dict):
        return found
    return {"auto_map": brief(found)} if found else {}


def _texts(value: object) -> tuple[str, ...]:
    """A reference, or a pair of them: of a tokenizer's slow and its fast class, one of which may be None."""
    values = value if isinstance(value, list) else [value]
    return tuple(each for each in values if isinstance(each, str) and each)


def _absent(reference: str) -> str:
    if "--" in reference:
        return "in another repository"
    return f"no {reference.rpartition('.')[0][:80]}.py"
