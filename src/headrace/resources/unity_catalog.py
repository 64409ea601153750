"""Names of three levels, as Unity Catalog has them: ``catalog.schema.model``; and what is known of the upper two.

A registered model is a `Model` whose display name is its full name. Catalogs and schemas are what full names begin
with; one that was made before anything is in it is a `Namespace`.
"""

from __future__ import annotations

import re

import msgspec

from headrace.resources.errors import BadName

SYSTEM_CATALOG = "system"
"""Of what the server itself brings; nobody makes anything in it."""

SYSTEM_SCHEMA = "ai"
"""In it are the models of the Model Garden."""

MAX_PART_CHARACTERS = 255
"""Of one level: Unity Catalog's own bound."""

_PART = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_PART_CHARACTERS}}}")


class FullName(msgspec.Struct, frozen=True, order=True):
    """A name of three levels, in lower case: case never tells two names apart."""

    catalog: str
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.catalog}.{self.schema}.{self.name}"

    @property
    def of_system(self) -> bool:
        """Whether it is the server's own."""
        return self.catalog == SYSTEM_CATALOG


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A catalog or a schema that was made by itself.

    Attributes:
        name: ``catalog`` or ``catalog.schema``.
        created_by: Id of the key that made it.
    """

    project: str
    name: str
    comment: str = ""
    created_by: str = ""
    created_at: float
    updated_at: float
    resource_version: int = 1


def read_full_name(text: str, *, field: str = "name") -> FullName:
    """A name of three levels.

    Raises:
        BadName: It is none.
    """
    parts = text.split(".")
    if len(parts) != 3:
        raise BadName(
            f"{field} {text[:80]!r} has to specify all three levels: catalog.schema.model.",
            evidence=f"It has {len(parts)}.",
            fix="Such as ml.llm.my_model.",
        )
    return FullName(*(read_part(part, field=field) for part in parts))


def read_part(text: str, *, field: str) -> str:
    """One level of a name, in lower case.

    Raises:
        BadName: It is none.
    """
    if not _PART.fullmatch(text):
        raise BadName(
            f"{field} has a level {text[:80]!r} that is no name.",
            evidence=f"A level has 1 to {MAX_PART_CHARACTERS} letters of ASCII, digits, underscores and hyphens.",
        )
    return text.lower()


def read_schema_name(text: str, *, field: str = "name") -> tuple[str, str]:
    """Catalog and schema of ``catalog.schema``.

    Raises:
        BadName: It is none.
    """
    parts = text.split(".")
    if len(parts) != 2:
        raise BadName(f"{field} {text[:80]!r} is not catalog.schema.", evidence=f"It has {len(parts)} levels.")
    return read_part(parts[0], field=field), read_part(parts[1], field=field)
