"""Bounds of what callers may write into rows: names that people read, labels, addresses."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.resources.errors import BadField

MAX_CHARACTERS = 128
"""Of a name or a label: as Vertex AI's display names."""

MAX_LABELS = 64
"""On one resource: as Vertex AI's."""

MAX_ADDRESS_CHARACTERS = 4096
"""Of an address: Linux' longest path."""

MAX_DESCRIPTION_CHARACTERS = 4096
"""Of what is said of a model or a version."""

_SHOWN = 60


def check_text(what: str, text: str) -> None:
    """Hold that a text can be shown on one line, in a terminal too.

    Args:
        what: What it is, as the beginning of a sentence, e.g. ``The key's name``.
        text: The text; it may be empty.

    Raises:
        BadField: It has more than `MAX_CHARACTERS`, or one that is not printable.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadField(
            f"{what} is too long.",
            evidence=f"It has {len(text):,} characters, where {MAX_CHARACTERS} are allowed: {text[:_SHOWN]!r}…",
        )
    unprintable = next((character for character in text if not character.isprintable()), None)
    if unprintable is not None:
        raise BadField(f"{what} has a character that is not printable.", evidence=f"It has {unprintable!r}.")


def check_description(what: str, text: str) -> None:
    """Hold that a text can be shown, on several lines.

    Args:
        what: What it is, as the beginning of a sentence.
        text: The text; it may be empty.

    Raises:
        BadField: It has more than `MAX_DESCRIPTION_CHARACTERS`, or one that is neither printable nor a break.
    """
    if len(text) > MAX_DESCRIPTION_CHARACTERS:
        raise BadField(
            f"{what} is too long.",
            evidence=f"It has {len(text):,} characters, where {MAX_DESCRIPTION_CHARACTERS:,} are allowed.",
        )
    unprintable = next((each for each in text if not (each.isprintable() or each in "\n\r\t")), None)
    if unprintable is not None:
        raise BadField(f"{what} has a character that is not printable.", evidence=f"It has {unprintable!r}.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Hold the bounds of labels.

    Raises:
        BadField: There are more than `MAX_LABELS`, or one is too long or not printable.
    """
    if len(labels) > MAX_LABELS:
        raise BadField("There are too many labels.", evidence=f"There are {len(labels):,}; {MAX_LABELS} are allowed.")
    for key, value in labels.items():
        check_text("A label's key", key)
        check_text(f"The label {key!r}", value)


def check_address(address: str) -> None:
    """Hold the bounds of an address.

    Raises:
        BadField: It is empty, has more than `MAX_ADDRESS_CHARACTERS`, or a NUL among them.
    """
    if not address:
        raise BadField("The request names no artifacts.", fix="Give the address of the folder that holds config.json.")
    if len(address) > MAX_ADDRESS_CHARACTERS:
        raise BadField(
            "The address of the artifacts is too long.",
            evidence=f"It has {len(address):,} characters and begins with {address[:_SHOWN]!r}; "
            f"{MAX_ADDRESS_CHARACTERS:,} are allowed.",
        )
    if "\0" in address:
        raise BadField("The address of the artifacts has a NUL character.", evidence=f"It is {address[:_SHOWN]!r}.")


def as_text(text: str) -> str:
    """The part of a text that `check_text` would take."""
    return "".join(character for character in text if character.isprintable())[:MAX_CHARACTERS]
