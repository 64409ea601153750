"""Bodies of Databricks' API: JSON objects whose fields are snake_case; unknown ones are refused by name."""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from headrace.resources.errors import BadField, BadJson, NotSupported

T = TypeVar("T")

SHOWN = 80
"""Characters of what a caller sent that a message repeats."""


def read_message(body: bytes, shape: type[T]) -> T:
    """A body as its shape; an empty one is an empty object.

    Raises:
        BadJson: It is not JSON.
        BadField: A field is missing, unknown or of the wrong type.
    """
    try:
        return msgspec.json.decode(body.strip() or b"{}", type=shape)
    except msgspec.ValidationError as error:
        raise wrong_field(error, shape) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson("The body is not valid JSON.", evidence=str(error)[:SHOWN]) from error


def wrong_field(error: msgspec.ValidationError, shape: Any) -> BadField:
    """What is wrong with a body, and the fields of that object of it in which msgspec found it."""
    told = str(error)
    inside, found = [], _struct_in(shape)
    for name in re.findall(r"\.(\w+)", told.rpartition(" - at `$")[2] if " - at `$" in told else ""):
        below = _struct_in(get_type_hints(found).get(name))
        if below is None:
            break
        found = below
        inside.append(name)
    of = f" of {'.'.join(inside)}" if inside else ""
    fix = f"The fields{of} are: {', '.join(found.__struct_fields__)}." if found is not None else ""
    return BadField("The body has a wrong field.", evidence=f"{told}.", fix=fix)


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """The message in a field's type, such as that of ``tuple[RouteBody, ...] | None``."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next((found for each in get_args(hint) if (found := _struct_in(each)) is not None), None)


def require_unset(name: str, value: Any, *, why: str, fix: str) -> None:
    """Hold that a field of the vendor's that nothing here does is left out, or says nothing.

    Args:
        name: Of the field.
        value: What the caller sent; false, empty, or an object whose values are, says nothing.
        why: What there is not.
        fix: What to do.

    Raises:
        NotSupported: It says something.
    """
    if _says_something(value):
        raise NotSupported(f"{name} is not supported.", evidence=why, fix=fix)


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_says_something(each) for each in value.values())
    return bool(value)
