"""Who may do what with an endpoint: ``/api/2.0/permissions/serving-endpoints/{id}``.

Keys stand for users (``user_name``), service accounts for service principals (``service_principal_name``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from headrace.contracts.databricks.reading import SHOWN
from headrace.resources.errors import BadField, NotSupported

Level = Literal["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]

LEVELS: dict[Level, str] = {
    "CAN_VIEW": "See the endpoint, its metrics and its permissions.",
    "CAN_QUERY": "Also query the endpoint.",
    "CAN_MANAGE": "Also change and delete the endpoint, and say who may do what with it.",
}
"""From the least to the most: each has what those before it have."""

MOST_ENTRIES = 1000


class AccessEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a request's list."""

    permission_level: Level
    user_name: str | None = None
    service_principal_name: str | None = None
    group_name: str | None = None

    @property
    def is_service(self) -> bool:
        """Whether it names a service account."""
        return bool(self.service_principal_name)

    @property
    def who(self) -> str:
        """The name or the id of a key, or of a service account."""
        return self.service_principal_name or self.user_name or ""


class PermissionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole list (PUT), or those of it that change (PATCH). Left out with PUT: there is no list any more."""

    access_control_list: tuple[AccessEntry, ...] | None = None


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list, as it is kept.

    Attributes:
        key_id: Whose.
        name: As whoever wrote the list said it.
        service: Whether it was named as a service account.
    """

    key_id: str
    name: str
    level: Level
    service: bool = False


def check_entries(entries: Sequence[AccessEntry]) -> None:
    """Hold that each names one whom there can be.

    Raises:
        NotSupported: One is a group.
        BadField: They are too many, or one names nobody, several, or somebody twice.
    """
    if len(entries) > MOST_ENTRIES:
        raise BadField("The list is too long.", evidence=f"It has {len(entries)}; {MOST_ENTRIES} are allowed.")
    seen: set[tuple[bool, str]] = set()
    for entry in entries:
        if entry.group_name is not None:
            raise NotSupported(
                "group_name is not supported.",
                evidence=f"There are no groups here; the list names {entry.group_name[:SHOWN]!r}.",
                fix="Name keys by user_name, and service accounts by service_principal_name.",
            )
        if bool(entry.user_name) == bool(entry.service_principal_name):
            raise BadField("Each entry of access_control_list names one user_name or one service_principal_name.")
        if (entry.is_service, entry.who) in seen:
            raise BadField("access_control_list names somebody twice.", evidence=f"It is {entry.who[:SHOWN]!r}.")
        seen.add((entry.is_service, entry.who))


def granted_in(kept: Any) -> list[Granted] | None:
    """The list that is kept; None where there is none. What cannot be read is a list of nobody."""
    if kept is None:
        return None
    try:
        return msgspec.convert(kept, list[Granted])
    except msgspec.ValidationError:
        return []


def granted_json(granted: Iterable[Granted]) -> list[dict[str, Any]]:
    """As it is kept."""
    return [dict(msgspec.to_builtins(one)) for one in granted]


def allows(level: Level, wanted: Level) -> bool:
    """Whether somebody with one level may do what takes the other.

    >>> allows("CAN_MANAGE", "CAN_QUERY"), allows("CAN_VIEW", "CAN_QUERY")
    (True, False)
    """
    order = list(LEVELS)
    return order.index(level) >= order.index(wanted)


def permissions_json(endpoint_id: str, granted: Iterable[Granted] | None) -> dict[str, Any]:
    """The answer of all three methods.

    Args:
        endpoint_id: As the vendor's API has it, not the endpoint's name.
        granted: The list; None: there is none, and roles alone decide.
    """
    lines: dict[tuple[bool, str], dict[str, Any]] = {}
    for one in granted or ():
        field = "service_principal_name" if one.service else "user_name"
        permissions = [{"permission_level": one.level, "inherited": False}]
        lines[one.service, one.name] = {field: one.name, "all_permissions": permissions}
    return {
        "object_id": f"/serving-endpoints/{endpoint_id}",
        "object_type": "serving-endpoint",
        "access_control_list": list(lines.values()),
    }


def levels_json() -> dict[str, Any]:
    """The levels that there are."""
    return {"permission_levels": [{"permission_level": level, "description": text} for level, text in LEVELS.items()]}
