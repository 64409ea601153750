"""Tags of an endpoint: ``PATCH /api/2.0/serving-endpoints/{name}/tags``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.contracts.databricks.reading import SHOWN
from headrace.resources.errors import BadField

MOST_TAGS = 64
"""On one endpoint, as many as labels of Vertex AI's."""

MOST_CHARACTERS = 256
"""Of a key or a value."""


class Tag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key, with a value or without."""

    key: str
    value: str = ""


class TagsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different about the tags; a key that is there gets the new value."""

    add_tags: tuple[Tag, ...] | None = None
    delete_tags: tuple[str, ...] | None = None


def check_tags(tags: Sequence[Tag]) -> None:
    """Hold that an endpoint can have these.

    Raises:
        BadField: They are too many, one has no key, one is too long or cannot be shown, or a key is there twice.
    """
    if len(tags) > MOST_TAGS:
        raise BadField(
            "An endpoint has too many tags.", evidence=f"They would be {len(tags)}; {MOST_TAGS} are allowed."
        )
    for tag in tags:
        if not tag.key.strip():
            raise BadField("A tag needs a key.", evidence=f"Its value is {tag.value[:SHOWN]!r}.")
        for what, text in (("key", tag.key), ("value", tag.value)):
            if len(text) > MOST_CHARACTERS:
                raise BadField(
                    f"A tag's {what} is too long.",
                    evidence=f"It has {len(text):,} characters, where {MOST_CHARACTERS} are allowed: {text[:SHOWN]!r}…",
                )
            if not text.isprintable():
                raise BadField(f"A tag's {what} has a character that cannot be shown.", evidence=ascii(text[:SHOWN]))
    if twice := _twice(tag.key for tag in tags):
        raise BadField("A tag is there twice.", evidence=f"Its key is {twice[:SHOWN]!r}.", fix="Name each key once.")


def patched(tags: Sequence[Tag], patch: TagsPatch) -> list[Tag]:
    """The tags after a change. To delete what is not there changes nothing.

    Raises:
        BadField: The change contradicts itself, or what it comes to cannot be.
    """
    added, deleted = patch.add_tags or (), patch.delete_tags or ()
    check_tags(added)
    if twice := _twice(deleted):
        raise BadField("delete_tags names a key twice.", evidence=f"It is {twice[:SHOWN]!r}.")
    if both := sorted({tag.key for tag in added} & set(deleted)):
        raise BadField(
            "A tag is to be added and to be deleted.",
            evidence=f"Its key is {both[0][:SHOWN]!r}.",
            fix="A tag that is there gets its new value by add_tags alone.",
        )
    values = {tag.key: tag for tag in tags if tag.key not in deleted} | {tag.key: tag for tag in added}
    result = list(values.values())
    check_tags(result)
    return result


def tags_json(tags: Iterable[Tag]) -> list[dict[str, Any]]:
    """As they are kept, and as they are told."""
    return [{"key": tag.key, "value": tag.value} for tag in tags]


def tags_in(kept: Any) -> list[Tag]:
    """Those that are kept; anything else that stands there is none."""
    try:
        return msgspec.convert(kept or [], list[Tag])
    except msgspec.ValidationError:
        return []


def _twice(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return ""
