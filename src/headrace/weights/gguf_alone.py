"""A folder whose only weights are a GGUF file: what it is told, and whether a conversion is a way out."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

from headrace.resources.errors import WeightsQuantised
from headrace.weights.reader import FolderReader, read_once

ARCHITECTURE = "llama"
"""The one that `headrace.weights.gguf` converts."""

_FIRST_LOOK_BYTES = 64 * 1024
_ARCHITECTURE_KEY = b"general.architecture"
"""Writers put this key first; behind it stand the type of its value, the value's length and the value."""

_STRING_TYPE = 8

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
"""How llama.cpp names the parts of a file that was split, which are not converted one by one."""


def gguf_error(reader: FolderReader, names: list[str]) -> WeightsQuantised:
    """A GGUF file where safetensors are expected, and the way out: the command itself, where it would succeed.

    It is not converted on the way to a deployment: what comes out is several times as long and has other numbers than
    the checkpoint, which is for a person to want.

    Args:
        reader: The folder.
        names: Its GGUF files, one at least.
    """
    architecture = _architecture(reader, names[0])
    known = "; ".join(filter(None, (names[0], f"general.architecture is {architecture!r}" if architecture else "")))
    checkpoint = "Import the 16-bit checkpoint that it was made from"
    if _PART.search(names[0]):
        whole = _PART.sub(".gguf", names[0])
        joined = f"join its parts (llama.cpp's `llama-gguf-split --merge {shlex.quote(names[0])} {shlex.quote(whole)}`)"
        fix = f"{checkpoint}; or {joined}, and convert that."
    elif architecture == ARCHITECTURE:
        address = read_once(reader).address
        file = address if address.endswith(f"/{names[0]}") else f"{address}/{names[0]}"
        folder = f"./{PurePosixPath(names[0]).stem}"
        fix = f"{checkpoint}; or convert it: `headrace convert {shlex.quote(file)} {shlex.quote(folder)}`."
    else:
        fix = f"{checkpoint}; only the {ARCHITECTURE} architecture can be converted (`headrace convert`)."
    return WeightsQuantised(
        "The weights are a GGUF file, which is llama.cpp's own, usually quantised format.",
        evidence=f"{known}; {len(names)} such files." if len(names) > 1 else f"{known}.",
        fix=fix,
    )


def _architecture(reader: FolderReader, name: str) -> str:
    """What the file says that it is; empty where its beginning does not say it."""
    content = reader.read_range(name, 0, _FIRST_LOOK_BYTES)
    at = content.find(_ARCHITECTURE_KEY) + len(_ARCHITECTURE_KEY)
    if not content.startswith(b"GGUF") or at < len(_ARCHITECTURE_KEY):
        return ""
    kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 12], "little")
    if kind != _STRING_TYPE.to_bytes(4, "little") or length > 80:
        return ""
    return content[at + 12 : at + 12 + length].decode(errors="replace")
