"""Images and other media in a chat request: inside it, and for a model that takes them."""

from __future__ import annotations

from typing import Any

from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.messages import IMAGE_PARTS, ROLES

_MEDIA = ("image", "audio", "video")
"""How the types of parts begin that are not text, after ``input_``; the others of ``MM_PARSER_MAP``
(vllm/renderers/chat_utils.py:1647) are forms of text."""


def has_media(messages: list[dict[str, Any]]) -> bool:
    """Whether a chat has a part that is not text. Its tokens are more than its bytes tell."""
    return any(_kind(part) != "text" for message in messages for part in _parts(message))


def check_media(message: dict[str, Any], place: str, *, takes_media: bool) -> bool:
    """Refuse what vLLM would fetch, and media for a model of text.

    Returns:
        Whether the message has parts that are not text, which vLLM itself checks with what the model takes.

    Raises:
        BadRequest: It names the place.
    """
    if message.get("role") not in ROLES:
        raise BadRequest(
            f"{place}.role is {message.get('role')!r}; {', '.join(ROLES)} are supported.",
            param=f"{place}.role",
            code="invalid_value",
        )
    found = False
    for number, part in enumerate(_parts(message)):
        where = f"{place}.content[{number}]"
        _require_inside(part, where)
        kind = _kind(part)
        if not takes_media and kind.removeprefix("input_").startswith(_MEDIA):
            what = "images" if kind in IMAGE_PARTS else f"parts of type {kind!r}"
            raise BadRequest(
                f"{where}: this is not a multimodal model. It takes no {what}, only text; deploy one that does.",
                param=where,
                code="unsupported_content",
            )
        found |= kind != "text"
    return found


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _kind(part: dict[str, Any]) -> str:
    return str(part.get("type"))


def _require_inside(part: dict[str, Any], place: str) -> None:
    """Media come inside the request: vLLM would fetch any address from inside our network, and open files.

    It looks for one under every name that ends in ``_url``, and where a part has a ``uuid`` or no type whatever the
    type. A ``uuid`` also names what it keeps of a picture, for whoever says the same: another tenant's, then.
    """
    if not isinstance(part.get("type"), str):
        raise BadRequest(f"{place}.type must be text.", param=place, code="unsupported_content")
    if part.get("uuid") is not None:
        raise BadRequest(
            f"{place}.uuid: media are named by nothing but their content here.", param=place, code="unsupported_content"
        )
    for name, value in part.items():
        url = value.get("url") if isinstance(value, dict) else value
        addresses = name.endswith("_url") or (name == part["type"] != "text" and isinstance(url, str))
        if addresses and not (isinstance(url, str) and url.startswith("data:")):
            raise BadRequest(
                f"{place}: media must be inside the request, as a `data:` URL.", param=place, code="unsupported_content"
            )
