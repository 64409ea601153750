"""``readMask`` of the lists: which fields of each resource are told.

https://google.aip.dev/157
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from headrace.resources.errors import BadField

WHOLE = "*"
OURS = "headrace"
"""What each resource has beside the vendor's fields."""

_UNDERSCORED = re.compile(r"_([a-z0-9])")


class ReadMask:
    """What of a resource is asked for.

    Args:
        text: Names of fields with commas between them, in camelCase or snake_case; a dot leads into a field. Empty, or
            an asterisk: everything.
        message: The resource's message, which knows the names of its fields.

    Raises:
        BadField: One of them is no field of it.
    """

    def __init__(self, text: str, message: type[msgspec.Struct]) -> None:
        self._paths = [[_camel(part) for part in path.strip().split(".")] for path in text.split(",") if text.strip()]
        if [WHOLE] in self._paths:
            self._paths = []
        known = _fields(message)
        unknown = next((path[0] for path in self._paths if path[0] not in known), None)
        if unknown is not None:
            raise BadField(
                f"readMask names {unknown[:100]!r}, which is no field of what is listed.",
                evidence=f"These are: {', '.join(sorted(known))}.",
                fix="Leave it out, or leave out readMask for everything.",
            )

    def of(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        """The resource with the fields that are asked for; one that it has not is left out."""
        if not self._paths:
            return dict(resource)
        shown: dict[str, Any] = {}
        for path in self._paths:
            _copy(resource, shown, path)
        return shown


@cache
def _fields(message: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset({*(field.encode_name for field in msgspec.structs.fields(message)), OURS})


def _copy(source: Mapping[str, Any], target: dict[str, Any], path: list[str]) -> None:
    name, *rest = path
    if name not in source:
        return
    value = source[name]
    if not rest or not isinstance(value, Mapping):
        target[name] = value
        return
    within = target.setdefault(name, {})
    if within is not value:  # else all of it was asked for already
        _copy(value, within, rest)


def _camel(name: str) -> str:
    return _UNDERSCORED.sub(lambda letter: letter[1].upper(), name)
