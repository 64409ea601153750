"""What may stand in a chat request for vLLM. Its own templates render what they do not know as if it were not there."""

from __future__ import annotations

import msgspec

from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.followable import require_followable, require_schema
from headrace_engines.serving.generator import Grammar
from headrace_engines.serving.messages import chat_messages, place_of_tool_use
from headrace_engines.serving.parameters import ChatParameters
from headrace_engines.vllm.media import check_media
from headrace_engines.vllm.references import require_plain_references


def check_conversation(parameters: ChatParameters, *, reads_tool_calls: bool, takes_media: bool) -> None:
    """Refuse what our other engines refuse, in their words, and media that vLLM would fetch or this model not take.

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
    messages = parameters.messages
    with_media = [
        check_media(message, f"messages[{index}]", takes_media=takes_media) for index, message in enumerate(messages)
    ]
    chat_messages([message for message, has in zip(messages, with_media, strict=True) if not has])


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
