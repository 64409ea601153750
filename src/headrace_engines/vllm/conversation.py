"""What may stand in a chat request for vLLM. Its own templates render what they do not know as if it were not there."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.chat_prompt import require_free
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.followable import require_followable, require_schema
from headrace_engines.serving.generator import Grammar
from headrace_engines.serving.messages import chat_message, place_of_tool_use
from headrace_engines.serving.parameters import ChatParameters
from headrace_engines.vllm.media import check_media
from headrace_engines.vllm.references import require_plain_references


def check_chat(parameters: ChatParameters, *, reads_tool_calls: bool, takes_media: bool) -> None:
    """Check a chat that is to be answered.

    Raises:
        BadRequest: As `check_conversation`, or no engine could follow the schemas of its tools.
    """
    check_conversation(
        parameters.messages,
        tools=parameters.tools if parameters.tool_choice != "none" else None,
        variables=parameters.chat_template_kwargs,
        reads_tool_calls=reads_tool_calls,
        takes_media=takes_media,
    )
    _check_schemas_of_calls(parameters)


def check_conversation(
    messages: list[dict[str, Any]],
    *,
    tools: list[Any] | None,
    variables: dict[str, Any] | None,
    reads_tool_calls: bool,
    takes_media: bool,
) -> None:
    """Refuse what our other engines refuse, in their words, and media that vLLM would fetch or this model not take.

    Args:
        messages: The conversation.
        tools: What the template is to show of tools.
        variables: More names for the template.
        reads_tool_calls: Whether vLLM was started with a parser of this model's tool calls.
        takes_media: Whether the model takes anything but text.

    Raises:
        BadRequest: It names the place.
    """
    require_free(variables or {})
    if not reads_tool_calls and (place := "tools" if tools else place_of_tool_use(messages)):
        raise BadRequest(
            f"{place}: this model's chat template shows no form of tool calls that is read here, so the model would "
            "not see them; deploy a model that was trained to call tools.",
            param=place,
            code="tools_not_supported",
        )
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        has_media = check_media(message, place, takes_media=takes_media)
        chat_message(message | {"content": ""} if has_media else message, place)


def _check_schemas_of_calls(parameters: ChatParameters) -> None:
    """Check the tools together, of which vLLM makes a grammar where a call has to be made or one of them is strict."""
    tools = parameters.tools or []
    functions = [each for tool in tools if isinstance(tool, dict) and isinstance(each := tool.get("function"), dict)]
    forced = parameters.tool_choice not in (None, "auto", "none")
    if forced or any(function.get("strict") for function in functions):
        schemas = [function.get("parameters") for function in functions]
        for schema in schemas:
            require_schema(schema, "tools")
        together = Grammar(kind="json_schema", text=msgspec.json.encode(schemas).decode())
        require_plain_references(require_followable(together, "tools"), "tools")
