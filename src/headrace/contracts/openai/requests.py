"""Bodies of OpenAI's inference requests, read no deeper than routing needs.

Values stay the bytes that came, so that nothing a client said is rounded or reordered on its way to the engine.
"""

from __future__ import annotations

import msgspec

from headrace.resources.errors import BadField, BadJson

OpenAIBody = dict[str, msgspec.Raw]
"""A body with its top-level values unread."""

_DECODER = msgspec.json.Decoder(OpenAIBody)
_ENCODER = msgspec.json.Encoder()
_TRUE, _FALSE, _NULL = msgspec.Raw(b"true"), msgspec.Raw(b"false"), msgspec.Raw(b"null")


def read_object(body: bytes) -> OpenAIBody:
    """The body as a JSON object whose values are not yet decoded.

    Raises:
        BadJson: It is not one.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(
            "The body is not a JSON object.",
            evidence=f"{error}." if body else "It is empty.",
            fix="Send one JSON object, with `Content-Type: application/json`.",
        ) from error


def model_of(body: OpenAIBody) -> str:
    """The name under ``model``.

    Raises:
        BadField: It is missing, or no text.
    """
    try:
        return msgspec.json.decode(body["model"], type=str)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadField(
            "`model` must name an endpoint.",
            evidence="It is missing." if isinstance(error, KeyError) else f"{error}.",
            fix="`GET /v1/models` lists the names that this key reaches.",
        ) from error


def wants_stream(body: OpenAIBody) -> bool:
    """Whether ``stream`` is true; anything but a boolean is left for the engine to refuse."""
    return body.get("stream") == _TRUE


def require_no_stream(body: OpenAIBody) -> None:
    """Hold that ``stream`` is false or not there.

    Raises:
        BadField: It is neither that nor true. Some engines would take 1 for a yes, and nobody here would know.
    """
    given = body.get("stream")
    if given is not None and given not in (_FALSE, _NULL):
        raise BadField(
            "`stream` must be true or false.",
            evidence=f"It is {bytes(given)[:40].decode('utf-8', 'replace')}.",
            fix="Send a boolean.",
        )


def for_engine(body: OpenAIBody, served_name: str) -> bytes:
    """The same body for the engine, which knows its model by its own name."""
    body["model"] = msgspec.Raw(_ENCODER.encode(served_name))
    return _ENCODER.encode(body)
