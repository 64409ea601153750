"""Request bodies as Google's JSON mapping of protocol buffers reads them, and with errors that name the field.

A message is described by a `msgspec.Struct` whose wire names are given by ``rename="camel"``. As the mapping says
(https://protobuf.dev/programming-guides/json): a field may come in camelCase or in snake_case, ``null`` is the same as
absent, integers may come as decimal strings or as floats without a fraction, and unknown fields are refused.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from headrace.resources.errors import BadField, BadJson

Int64 = NewType("Int64", str)
"""A 64-bit integer, which the mapping writes as a decimal string."""

Duration = NewType("Duration", str)
"""Seconds with a final ``s``, e.g. ``600s`` or ``1.5s``."""

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
# The closing quote is optional and nothing backtracks, so a broken body costs no more than a good one.
_STRINGS_OR_COMMAS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|,(?=\s*[}\]])', re.DOTALL)
_BITS = {int: 32, Int64: 64}

T = TypeVar("T", bound=msgspec.Struct)


def duration_s(duration: Duration) -> float:
    """A duration in seconds."""
    return float(duration.removesuffix("s"))


def duration(seconds: float) -> Duration:
    """Seconds as a duration, without an exponent.

    >>> duration(300.0), duration(1.5), duration(12_345_678.0)
    ('300s', '1.5s', '12345678s')
    """
    return Duration(f"{seconds:.9f}".rstrip("0").rstrip(".") + "s")


def parse_object(body: bytes, *, trailing_commas: bool = False) -> dict[str, Any]:
    """The JSON object in a request's body; an empty body is an empty object.

    Args:
        body: The body as it came.
        trailing_commas: Whether a comma before a closing bracket is forgiven, as in the curl commands of Vertex AI's
            document on custom weights.

    Raises:
        BadJson: It is not JSON, or not an object.
    """
    if not body.strip():
        return {}
    try:
        value = _decode(body, trailing_commas)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(
            "The body is not valid JSON.",
            evidence=str(error) or type(error).__name__,
            fix="Send one JSON object, encoded as UTF-8.",
        ) from error
    if not isinstance(value, dict):
        raise BadJson(f"The body is {_kind(value)}, not a JSON object.", fix="Send one JSON object: {…}.")
    return value


def _decode(body: bytes, trailing_commas: bool) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        without = _STRINGS_OR_COMMAS.sub(_keep_strings, body) if trailing_commas else body
        if without == body:
            raise
        return msgspec.json.decode(without)


def _keep_strings(match: re.Match[bytes]) -> bytes:
    return b" " if match[0] == b"," else match[0]


def read(message: type[T], value: object, path: str = "") -> T:
    """A message out of parsed JSON.

    Args:
        message: The message's description.
        value: What stands where the message should.
        path: Where that is, e.g. ``modelConfig.containerSpec``; empty for the whole body.

    Raises:
        BadField: A field is unknown, given twice, or of the wrong type.
    """
    if not isinstance(value, dict):
        raise _wrong_type(path, "an object", value)
    fields = _fields(message)
    arguments: dict[str, Any] = {}
    for key, item in value.items():
        field = fields.get(key)
        where = f"{path}.{key}" if path else key
        if field is None:
            raise _unknown(where, key, fields)
        name, hint = field
        if name in arguments:
            raise BadField(
                f"{where} is given twice.",
                evidence="snake_case and camelCase are two spellings of one field.",
                fix="Leave one of them out.",
            )
        if item is not None:
            arguments[name] = _value(hint, item, where)
    return message(**arguments)


@cache
def _fields(message: type[msgspec.Struct]) -> dict[str, tuple[str, Any]]:
    """Every spelling of every field: the attribute's name and its type."""
    hints = get_type_hints(message)
    spellings: dict[str, tuple[str, Any]] = {}
    for name, encoded in zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True):
        spellings[name] = spellings[encoded] = (name, hints[name])
    return spellings


def _value(hint: Any, value: Any, path: str) -> Any:  # noqa: PLR0911 - one line for each kind of field
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        hint = next(option for option in get_args(hint) if option is not type(None))
        origin = get_origin(hint)
    if hint in {Any, object}:
        return value
    if hint is bool:
        return _expect(isinstance(value, bool), value, path, "true or false")
    if hint is str:
        return _expect(isinstance(value, str), value, path, "a string")
    if hint is int or hint is Int64:
        number = _integer(value, path, _BITS[hint])
        return number if hint is int else str(number)
    if hint is float:
        return _float(value, path)
    if hint is Duration:
        good = isinstance(value, str) and _DURATION.fullmatch(value) is not None
        return _expect(good, value, path, "a duration such as 600s")
    if origin is tuple:
        _expect(isinstance(value, list), value, path, "an array")
        return tuple(_value(get_args(hint)[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), value, path, "an object")
        return {key: _value(get_args(hint)[1], item, f"{path}.{key}") for key, item in value.items()}
    return read(cast("type[msgspec.Struct]", hint), value, path)


def _expect(good: bool, value: Any, path: str, what: str) -> Any:
    if not good:
        raise _wrong_type(path, what, value)
    return value


def _integer(value: Any, path: str, bits: int) -> int:
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif value.is_integer() if isinstance(value, float) else isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    if number is None or not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise _wrong_type(path, f"an integer of {bits} bits", value)
    return number


def _float(value: Any, path: str) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise _wrong_type(path, "a number", value)
    return number


def _wrong_type(path: str, what: str, value: object) -> BadField:
    return BadField(f"{path or 'The body'} must be {what}.", evidence=f"It is {_kind(value)}.")


def _unknown(path: str, key: str, fields: Mapping[str, object]) -> BadField:
    near = difflib.get_close_matches(key, fields, n=1)
    known = ", ".join(sorted(name for name in fields if "_" not in name))
    return BadField(
        f'Invalid JSON payload received. Unknown name "{key}" at {path!r}: cannot find field.',
        evidence=f"The fields here are: {known}." if known else "There are no fields here.",
        fix=f"Did you mean {near[0]!r}?" if near else "Leave it out.",
    )


def _kind(value: object) -> str:
    """What a JSON value is, for a person; long ones are cut."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, str):
        return f"the string {value[:60]!r}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:60]}"
    return "an array" if isinstance(value, list) else "an object"
