"""What may stand in a chat request for vLLM. Its own templates render what they do not know as if it were not there."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.followable import require_followable, require_schema
from headrace_engines.serving.generator import Grammar
from headrace_engines.serving.messages import ROLES, chat_messages, place_of_tool_use
from headrace_engines.serving.parameters import ChatParameters


def check_conversation(parameters: ChatParameters, *, reads_tool_calls: bool) -> None:
    """Refuse what our other engines refuse, in their words, and media that vLLM would fetch.

    Raises:
        BadRequest: It names the place.
    """
    asked = parameters.tools and parameters.tool_choice != "none"
    if not reads_tool_calls and (place := "tools" if asked else place_of_tool_use(parameters.messages)):
        raise BadRequest(
            f"{place}: this model's chat template shows no form of tool calls that is read here, so the model would "
            "not see them; deploy a model that was trained to call tools.",
            param=place,
            code="tools_not_supported",
        )
    _check_schemas_of_calls(parameters)
    has_media = [_check_media(message, f"messages[{index}]") for index, message in enumerate(parameters.messages)]
    chat_messages([message for message, has in zip(parameters.messages, has_media, strict=True) if not has])


def _check_schemas_of_calls(parameters: ChatParameters) -> None:
    """Check the tools together, of which vLLM makes a grammar where a call has to be made or one of them is strict."""
    tools = parameters.tools or []
    functions = [each for tool in tools if isinstance(tool, dict) and isinstance(each := tool.get("function"), dict)]
    forced = parameters.tool_choice not in (None, "auto", "none")
    if forced or any(function.get("strict") for function in functions):
        schemas = [function.get("parameters") for function in functions]
        for schema in schemas:
            require_schema(schema, "tools")
        require_followable(Grammar(kind="json_schema", text=msgspec.json.encode(schemas).decode()), "tools")


def _check_media(message: dict[str, Any], place: str) -> bool:
    """Whether a message has parts that are not text, which vLLM itself checks with what the model takes."""
    if message.get("role") not in ROLES:
        raise BadRequest(
            f"{place}.role is {message.get('role')!r}; {', '.join(ROLES)} are supported.",
            param=f"{place}.role",
            code="invalid_value",
        )
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    media = [_is_medium(part, f"{place}.content[{number}]") for number, part in enumerate(parts)]
    return any(media)


def _is_medium(part: object, place: str) -> bool:
    """Media come inside the request: vLLM would fetch any address from inside our network, and open files."""
    if not isinstance(part, dict) or part.get("type") == "text":
        return False
    media = part.get(str(part.get("type")))
    url = media.get("url") if isinstance(media, dict) else media
    if isinstance(url, str) and not url.startswith("data:"):
        raise BadRequest(
            f"{place}: media must be inside the request, as a `data:` URL.", param=place, code="unsupported_content"
        )
    return True
