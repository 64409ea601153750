"""What a person names as a model, as the address of it: a folder of this machine, or of a store."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from headrace.resources.errors import ArtifactsNotFound

SCHEMES = "gs://… s3://… az://… hf://… file://…"
"""For the commands' help."""

PUBLISHED = ("garden:", "hf:")
"""What a published model's name begins with: in the catalogue, and on the Hugging Face Hub."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CONFIG_FILE = "config.json"
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_LOOKED_AT = 2000
"""Folders that are looked into for a model below the one that was named: enough for a Hub cache, an instant's work."""


def artifact_uri(text: str, command: str = "deploy") -> str:
    """What is to be read: an address as it is, a local folder as an absolute path that exists.

    What is to be deployed may be a published model's name, too, which the server knows (`PUBLISHED`).

    Args:
        text: As a person wrote it.
        command: The one that was given, for the fixes; ``deploy`` alone may mean a folder of the server's machine.

    Raises:
        ArtifactsNotFound: There is no such folder on this machine.
    """
    if "://" in text or (command == "deploy" and text.startswith(PUBLISHED)):
        return text
    folder = Path(text).expanduser().absolute()
    if text.startswith(PUBLISHED) and not folder.exists():
        raise _published(text, command)
    if folder.is_dir():
        _require_model(folder, text, command)
        return str(folder.resolve())
    if folder.exists():
        raise ArtifactsNotFound(
            f"{folder} is not a folder.",
            evidence="A model is a folder with config.json, weights (*.safetensors) and a tokenizer.",
            fix=_folder_of(folder, command),
        )
    if _HUB_NAME.fullmatch(text) and not Path(text).parent.is_dir():
        raise ArtifactsNotFound(
            f"There is no folder {text} here.",
            evidence="It looks like a name on the Hugging Face Hub, whose addresses begin with hf://.",
            fix=f"If that is meant: `{_command(command, f'hf://{text}')}`."
            + " Models of the catalogue: `headrace garden`." * (command == "deploy"),
        )
    nearest = next(parent for parent in folder.parents if parent.exists())
    elsewhere = " For a folder that only the server's machine has: file:///absolute/path." * (command == "deploy")
    raise ArtifactsNotFound(
        f"There is no folder {folder} on this machine.",
        evidence=f"{nearest} exists, {folder.relative_to(nearest).parts[0]!r} in it does not.",
        fix=f"Check the path.{elsewhere}",
    )


def _published(text: str, command: str) -> ArtifactsNotFound:
    """What ``deploy`` alone takes, in the way of another command."""
    kind, _, name = text.partition(":")
    if kind == "hf":
        return ArtifactsNotFound(
            f"{text!r} is how `headrace deploy` names a model of the Hugging Face Hub.",
            evidence=f"`headrace {command}` takes a folder, or an address: of the Hub it begins with hf://.",
            fix=f"`{_command(command, f'hf://{name}')}`.",
        )
    return ArtifactsNotFound(
        f"{text!r} is how `headrace deploy` names a model of the catalogue.",
        evidence=f"`headrace {command}` takes a folder, or an address.",
        fix=f"`headrace garden options {name}` tells where it has room.",
    )


def _require_model(folder: Path, text: str, command: str) -> None:
    """Where a folder holds nothing of a model, but one below it does, say which: what a Hub cache leaves.

    Raises:
        ArtifactsNotFound: That is so.
    """
    if any(each.name == _CONFIG_FILE or each.suffix.lower() in _WEIGHTS for each in folder.iterdir()):
        return
    found = []
    for number, (parent, folders, names) in enumerate(os.walk(folder)):
        folders.sort()
        if _CONFIG_FILE in names:
            found.append(os.path.join(text, os.path.relpath(parent, folder)))
        if number >= _LOOKED_AT or len(found) == 3:
            break
    if found:
        raise ArtifactsNotFound(
            f"{folder} holds no model itself.",
            evidence=f"Neither {_CONFIG_FILE} nor weights are in it; {_CONFIG_FILE} is in {', '.join(found)}.",
            fix=f"Name that folder: `{_command(command, found[0])}`.",
        )


def _folder_of(file: Path, command: str) -> str:
    """How to come to a folder from a file."""
    if file.suffix.lower() != ".gguf":
        return f"Name the folder: `{_command(command, str(file.parent))}`, if it is the one that it lies in."
    made = f"./{file.stem}"
    return f"Make one of it: `{_command('convert', str(file), made)}`, then `{_command(command, made)}`."


def _command(command: str, *arguments: str) -> str:
    rest = " NEW_FOLDER" if command == "convert" and len(arguments) == 1 else ""
    return f"headrace {command} {shlex.join(arguments)}{rest}"
