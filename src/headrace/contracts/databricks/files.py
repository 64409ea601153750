"""Paths of the files API: below ``/Models/catalog/schema/model/version`` and ``/Volumes/catalog/schema/volume``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.contracts.databricks.registry_bodies import PageQuery
from headrace.resources.errors import BadName
from headrace.resources.unity_catalog import FullName, read_part

MAX_DEPTH = 24
"""Folders within folders: what is deeper is refused when it is read, so it may not be written."""

MAX_NAME_BYTES = 255
"""Of a file or folder: as much as Linux' file systems take."""

MAX_PATH_BYTES = 3072
"""Of all below a version or a volume: Linux takes 4,096 of a whole path, of which the server's folders have some."""

Kind = Literal["Models", "Volumes"]


class AbortBody(msgspec.Struct, frozen=True, kw_only=True):
    """Asks where to say that no parts will be sent."""

    path: str
    session_token: str = ""


class UploadPath(msgspec.Struct, frozen=True):
    """A path, taken apart.

    Attributes:
        name: The model's, or the volume's.
        version: Of a model; empty for a volume.
        below: What follows, by names that lead nowhere else: none is empty, a dot or two, or has a slash.
    """

    kind: Kind
    name: FullName
    version: str
    below: tuple[str, ...]

    def __str__(self) -> str:
        levels = (self.name.catalog, self.name.schema, self.name.name, *([self.version] if self.version else []))
        return "/" + "/".join((self.kind, *levels, *self.below))


class ListQuery(PageQuery, frozen=True, kw_only=True):
    """Which part of a folder's listing; this API calls the number ``page_size``."""

    page_size: int = 0


def read_path(text: str) -> UploadPath:
    """A path as clients write it, percent-decoded; slashes at its end count for nothing.

    Raises:
        BadName: It is none, or a part of it could lead out of its folder.
    """
    parts = text.strip("/").split("/")
    root = parts[0]
    if root not in ("Models", "Volumes") or len(parts) < (levels := 5 if root == "Models" else 4):
        raise BadName(
            f"There are no files at {text[:120]!r}.",
            evidence="Paths begin with /Models/CATALOG/SCHEMA/MODEL/VERSION or /Volumes/CATALOG/SCHEMA/VOLUME.",
        )
    name = FullName(*(read_part(part, field="The path") for part in parts[1:4]))
    below = tuple(_checked(part) for part in parts[levels:])
    if len(below) > MAX_DEPTH:
        raise BadName(f"The path has more than {MAX_DEPTH} folders within each other.", evidence=f"{text[:120]!r}…")
    if (size := len("/".join(below).encode())) > MAX_PATH_BYTES:
        raise BadName("The path is too long.", evidence=f"It has {size:,} bytes; {MAX_PATH_BYTES:,} are allowed.")
    if root == "Volumes":
        return UploadPath("Volumes", name, "", below)
    version = parts[4]
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise BadName(f"{version[:80]!r} is no version.", evidence=f"The path is {text[:120]!r}.")
    return UploadPath("Models", name, version, below)


def entry_json(folder: str, name: str, *, is_folder: bool, size_bytes: int, modified_at: float) -> dict[str, Any]:
    """``DirectoryEntry``."""
    size = {} if is_folder else {"file_size": size_bytes}
    return {
        "path": f"{folder}/{name}",
        "name": name,
        "is_directory": is_folder,
        "last_modified": int(modified_at * 1000),
        **size,
    }


def _checked(part: str) -> str:
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        size = 0
    if part in ("", ".", "..") or not part.isprintable() or not 0 < size <= MAX_NAME_BYTES:
        raise BadName(
            f"The path has a part {part[:80]!r} that is no name of a file.",
            evidence=f"A name has 1 to {MAX_NAME_BYTES} bytes of printable UTF-8, and is neither `.` nor `..`.",
        )
    return part
