"""What is wrong with a value, in a sentence for whoever sent it: msgspec's messages, translated."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import msgspec

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_GOT = {"float": "a number with a fraction"}
_PLACED = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_KIND = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_BOUND = re.compile(r"Expected `(?:int|float)` (?P<order><=|>=|<|>) (?P<bound>\S+)")
_LENGTH = re.compile(r"Expected `(?P<kind>\w+)` of length (?P<order><=|>=) (?P<bound>\d+)")
_FIELD = re.compile(r"Object (?P<how>missing required|contains unknown) field `(?P<field>[^`]*)`")
_INVALID = re.compile(r"Invalid (?:enum )?value (?P<value>.+)", re.DOTALL)
_ORDERS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
_HOLD = {"str": "character", "array": "item", "object": "field"}

_SHOWN_MAX_CHARS = 64


def explain(error: msgspec.ValidationError, value: Any, place: str = "") -> tuple[str, str | None]:
    """A sentence, and the parameter that it is about; None for the body itself.

    Args:
        error: What msgspec said.
        value: What it was said of.
        place: Where that stands in the request; empty for the body.
    """
    placed = _PLACED.fullmatch(str(error))
    assert placed is not None  # it takes anything
    what, path = placed["what"], placed["path"] or ""
    param = f"{place}{'.' if place and path[:1] not in ('', '[') else ''}{path}".removesuffix("[...]")
    if found := _FIELD.fullmatch(what):
        return _about_field(param, found["field"], missing=found["how"] == "missing required")
    name = f"a key of `{param}`" if placed["key"] else f"`{param}`" if param else "the body"
    if found := _KIND.fullmatch(what):
        sentence = f"{name} must be {_kinds(found['wanted'])}, not {_GOT.get(found['got'], _kinds(found['got']))}."
    elif found := _BOUND.fullmatch(what):
        said = _at(value, path)
        short = f" is {said};" if isinstance(said, int | float) and abs(said) < 1e30 else ":"
        sentence = f"{name}{short} {_ORDERS[found['order']]} {found['bound']} is possible."
    elif found := _LENGTH.fullmatch(what):
        held = f"{found['bound']} {_HOLD.get(found['kind'], 'item')}{'' if found['bound'] == '1' else 's'}"
        sentence = f"{name} must have {_ORDERS[found['order']]} {held}."
    elif found := _INVALID.fullmatch(what):
        sentence = f"{name} cannot be {found['value'][:_SHOWN_MAX_CHARS]}."
    elif what.startswith("`"):  # a sentence of our own
        sentence = f"{what}."
    else:
        sentence = f"{name}: {what}."
    return sentence[0].upper() + sentence[1:], param or None


def unknown(name: str, known: Iterable[str]) -> str:
    """A sentence about a parameter that there is not, with the one that may be meant."""
    near = get_close_matches(name, known, 1, cutoff=0.75) if len(name) <= _SHOWN_MAX_CHARS else []
    shown = name if len(name) <= _SHOWN_MAX_CHARS else f"{name[:_SHOWN_MAX_CHARS]}…"
    return f"Unknown parameter: {shown!r}." + (f" Did you mean `{near[0]}`?" if near else "")


def _about_field(place: str, field: str, *, missing: bool) -> tuple[str, str | None]:
    if missing:
        return (f"`{place}` lacks `{field}`.", place) if place else (f"`{field}` is missing.", field)
    return (f"`{place}` has no field `{field}`.", place) if place else (unknown(field, ()), field)


def _kinds(names: str) -> str:
    """Kinds of values; that null is one, as the default of most, is not worth saying."""
    every = names.split(" | ")
    return " or ".join(_KINDS.get(name, name) for name in every if name != "null" or every == ["null"])


def _at(value: Any, path: str) -> Any:
    """The value at one of msgspec's paths; None where it does not say which."""
    for name, index in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", path):
        if isinstance(value, dict) and name:
            value = value.get(name)
        elif isinstance(value, list) and index.isdecimal():
            value = value[int(index)]
        else:
            return None
    return None if isinstance(value, bool) else value
