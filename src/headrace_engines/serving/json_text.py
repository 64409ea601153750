"""JSON that comes as text inside a request: the body's own reader has not seen how deep it is."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.followable import walk

JSON_MAX_DEPTH = 128
"""Levels of objects and lists, as of a schema. What reads and writes them further on recurses, a thousand times at
most."""


class NotAnObject(ValueError):
    """The text says no JSON object; the message says why."""


class TooDeep(NotAnObject):
    """It is nested too deeply."""


def object_in(text: str) -> dict[str, Any]:
    """The object that a text says.

    Raises:
        NotAnObject: It says none, or (`TooDeep`) one that is nested too deeply.
    """
    try:
        said = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise NotAnObject(str(error)) from error
    except RecursionError:
        said = None
    if said is None or any(depth > JSON_MAX_DEPTH for _, depth in walk(said)):
        raise TooDeep(f"it is more than {JSON_MAX_DEPTH} levels deep")
    return said
