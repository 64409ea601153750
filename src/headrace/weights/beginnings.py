"""What stands in a file's place where it was not fetched: a pointer, or a page; both are told by how they begin."""

from __future__ import annotations

from typing import NamedTuple

from headrace.resources.errors import HeadraceError, WeightsCorrupt, WeightsTruncated

BEGINNING_BYTES = 256
"""As much of a file's beginning as this takes."""

_GIT_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error")
"""How web pages begin, and the answers in XML with which stores refuse."""


class InPlace(NamedTuple):
    """What stands in a file's place, as the parts of an error."""

    message: str
    evidence: str
    fix: str


def instead_of(name: str, beginning: bytes, size_bytes: int) -> InPlace | None:
    """What stands in a file's place; None where nothing is known to.

    Args:
        name: The file.
        beginning: Its first bytes, `BEGINNING_BYTES` of them or more.
        size_bytes: Its length.
    """
    if beginning.startswith(_GIT_LFS):
        return InPlace(
            f"{name} is a Git LFS pointer, not the file itself.",
            f"{name} has {size_bytes:,} bytes and begins with {_GIT_LFS.decode()!r}.",
            "Run `git lfs pull` in the repository that the folder was cloned from.",
        )
    text = beginning[:BEGINNING_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.lower().startswith(_PAGES):
        return None
    tag = text.partition(b">")[0][:40].decode("ascii", "replace") + ">"
    return InPlace(
        f"{name} is a web page that was saved in the file's place.",
        f"{name} has {size_bytes:,} bytes and begins with {tag!r}: a page, such as one that asks for a login.",
        "Fetch the file again. For a gated model, first accept its terms and log in: `hf auth login`, or HF_TOKEN.",
    )


def not_weights(name: str, beginning: bytes, size_bytes: int) -> HeadraceError | None:
    """The same as an error of a file of weights."""
    other = instead_of(name, beginning, size_bytes)
    if other is None:
        return None
    error = WeightsTruncated if beginning.startswith(_GIT_LFS) else WeightsCorrupt
    return error(other.message, evidence=other.evidence, fix=other.fix)
