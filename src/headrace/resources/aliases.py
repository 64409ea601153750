"""Aliases of a model's versions: names that move from one version to another, each at one version at a time.

Their form and the rules are those of Vertex AI's ``Model.versionAliases`` and ``mergeVersionAliases``
(https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models/mergeVersionAliases).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from headrace.resources.errors import BadField, StillInUse
from headrace.resources.models import ModelVersion

DEFAULT_ALIAS = "default"
"""The version that is meant where none is named. Exactly one version of a model has it, always."""

MAX_ALIASES = 128
"""On one version, and in one change: more than people can tell apart."""

_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_CATALOG_ALIAS = re.compile(r"(?!(?i:latest|v?[0-9]+)$)[A-Za-z0-9_-]{1,128}")


class AliasChange(msgspec.Struct, frozen=True):
    """What a version's aliases are to be changed by."""

    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


def check_aliases(aliases: Iterable[str], *, field: str) -> None:
    """Hold the form of aliases: 2 to 128 letters, digits and hyphens; no number, which would read as a version.

    Raises:
        BadField: One is none, or there are too many.
    """
    listed = list(aliases)
    for alias in listed:
        if not _ALIAS.fullmatch(alias):
            raise BadField(
                f"{field} has {alias[:140]!r}, which is no alias.",
                evidence="An alias has 2 to 128 letters, digits and hyphens; it begins with a lower-case letter and "
                "ends with one or with a digit.",
            )
    _check_number(len(listed), field=field)


def check_catalog_alias(alias: str) -> None:
    """Hold the form of an alias of Unity Catalog, which is wider than that of the others.

    https://mlflow.org/docs/latest/ml/model-registry/: no ``latest``, and nothing that reads as a version.

    Raises:
        BadField: It is none.
    """
    if not _CATALOG_ALIAS.fullmatch(alias):
        raise BadField(
            f"{alias[:140]!r} is no alias.",
            evidence="An alias has 1 to 128 letters, digits, underscores and hyphens, and is neither `latest` nor a "
            "version such as 3 or v3.",
        )


def _check_number(number: int, *, field: str) -> None:
    if number > MAX_ALIASES:
        raise BadField(f"{field} has too many aliases.", evidence=f"{number:,}; {MAX_ALIASES} are allowed.")


def read_change(aliases: Sequence[str], *, field: str) -> AliasChange:
    """What a list of aliases asks for: those with a hyphen in front go. One that comes and goes is left alone.

    Raises:
        BadField: The list is empty, or one of it is no alias.
    """
    if not aliases:
        raise BadField(f"{field} is empty.", fix="Name aliases to add, or with a hyphen in front, to remove.")
    added = {alias for alias in aliases if not alias.startswith("-")}
    removed = {alias[1:] for alias in aliases if alias.startswith("-")}
    check_aliases(sorted(added | removed), field=field)
    return AliasChange(frozenset(added - removed), frozenset(removed - added))


def merged(versions: Iterable[ModelVersion], number: str, change: AliasChange) -> list[ModelVersion]:
    """The versions of a model that are different after the change, as they are then.

    An alias that comes to a version leaves the one that had it. To remove one that the version has not is no error.

    Args:
        versions: All versions of the model.
        number: The version whose aliases are changed.
        change: How.

    Raises:
        StillInUse: The model would have no default version any more.
        BadField: The version would have too many.
    """
    changed: list[ModelVersion] = []
    for one in versions:
        if one.version == number:
            if DEFAULT_ALIAS in change.removed & set(one.aliases):
                raise StillInUse(
                    f"Version {number} has the alias {DEFAULT_ALIAS!r}, which one version of a model always has.",
                    fix=f"Give {DEFAULT_ALIAS!r} to another version instead: it moves.",
                )
            kept = tuple(alias for alias in one.aliases if alias not in change.removed)
            aliases = (*kept, *sorted(change.added - set(kept)))
            _check_number(len(aliases), field="The version")
        else:
            aliases = tuple(alias for alias in one.aliases if alias not in change.added)
        if aliases != one.aliases:
            changed.append(msgspec.structs.replace(one, aliases=aliases))
    return changed
