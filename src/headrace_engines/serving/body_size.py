"""How much a request's body may hold: what would hold up everybody is refused before it is decoded.

A list of nothing takes two bytes, and a microsecond and 64 bytes once it is decoded; its brackets are counted in a
thousandth of that. Long texts cost nothing here: `text_size` and `images` say what is made of them.
"""

from __future__ import annotations

from headrace_engines.serving.errors import BadRequest

MAX_BUILT = 2**16
"""Objects, lists and texts of a body, beside one for each token of the context. A chat of a thousand messages has five
thousand, a hundred tools some ten thousand."""

MAX_VALUES = 2**20
"""Values of a body, whatever they are, beside one for each token of the context: as many as 2,048 inputs of 512 token
ids."""


def require_decodable(body: bytes, *, max_model_len: int, param: str | None = None) -> None:
    """Refuse JSON by what would have to be built of it. It need not be valid: what stands before its fault counts.

    Args:
        body: The JSON.
        max_model_len: Tokens of context.
        param: The parameter whose text it is; None for a whole body.

    Raises:
        BadRequest: It holds too much, ``too_many_values``.
    """
    most_built, most_values = MAX_BUILT + max_model_len, MAX_VALUES + max_model_len
    if len(body) <= most_built:
        return  # each takes a byte at least
    what = "The body" if param is None else f"`{param}`"
    unescaped = _unescaped(body)
    built = unescaped.count(b'"') // 2
    if built <= most_built:
        outside = _outside(unescaped)
        built += outside.count(b"[") + outside.count(b"{")
        if outside.count(b",") > most_values:
            raise BadRequest(
                f"{what} holds more than {most_values:,} values, the most that are read here.",
                param=param,
                code="too_many_values",
            )
    if built > most_built:
        raise BadRequest(
            f"{what} holds more than {most_built:,} objects, lists and texts, the most that are read here.",
            param=param,
            code="too_many_values",
        )


def outside_texts(body: bytes) -> bytes:
    """JSON without its texts: brackets, commas, numbers."""
    return _outside(_unescaped(body))


def _unescaped(body: bytes) -> bytes:
    """JSON whose texts have no quotes inside."""
    return body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body


def _outside(unescaped: bytes) -> bytes:
    return b"".join(unescaped.split(b'"')[::2])
