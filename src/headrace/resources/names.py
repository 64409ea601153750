"""Names and identifiers of resources: how they look, how they are made, how they are read back.

A resource's full name is Vertex AI's, which is this project's native one:
``projects/{project}/locations/{location}/endpoints/{id}``.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from headrace.resources.errors import BadName

DEFAULT_PROJECT = "default"
DEFAULT_LOCATION = "us-central1"
"""The SDK of Vertex AI accepts only names of real Google regions, so the local region borrows one."""

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MODEL_ID = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9:.-]{0,61}")


def new_id() -> str:
    """A fresh numeric identifier of 19 digits, as Vertex AI's are: fits a signed 64-bit integer."""
    return str(10**18 + secrets.randbelow(8 * 10**18))


def check_id(value: str, *, field: str) -> str:
    """An identifier chosen by a user, if it is one: lower-case letters, digits and inner hyphens, at most 63.

    Raises:
        BadName: It is not.
    """
    if not _ID.fullmatch(value):
        raise BadName(
            f"{field} {value[:64]!r} is not a valid identifier.",
            evidence="An identifier has 1 to 63 lower-case letters, digits and inner hyphens.",
            fix="Choose another, or leave it out to have one made.",
        )
    return value


def check_model_id(value: str, *, field: str) -> str:
    """An identifier of a model chosen by a user; Vertex AI's may have underscores, too, and end with a hyphen.

    Raises:
        BadName: It is none.
    """
    if not _MODEL_ID.fullmatch(value):
        raise BadName(
            f"{field} {value[:64]!r} is not a valid identifier.",
            evidence="A model's identifier has 1 to 63 lower-case letters, digits, underscores and hyphens, and does "
            "not begin with a hyphen.",
            fix="Choose another, or leave it out to have one made.",
        )
    return value


class Scope(msgspec.Struct, frozen=True, order=True):
    """Where a resource lives: a project and a location."""

    project: str
    location: str

    def __post_init__(self) -> None:
        for field, value in (("project", self.project), ("location", self.location)):
            if not _PROJECT.fullmatch(value):
                raise BadName(
                    f"{field} {value[:64]!r} is not a valid name.",
                    evidence="A name has 1 to 62 lower-case letters, digits, colons, dots and hyphens.",
                )

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"

    def name(self, collection: str, resource_id: str) -> str:
        """Full name of a resource here, e.g. ``projects/p/locations/l/endpoints/7``."""
        return f"{self}/{collection}/{resource_id}"


DEFAULT_SCOPE = Scope(DEFAULT_PROJECT, DEFAULT_LOCATION)
