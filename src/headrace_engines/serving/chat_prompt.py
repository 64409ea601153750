"""The prompt of a conversation: what the model's chat template makes of messages and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace_engines.serving.codec import ChatMessage, ChatRefused, TextCodec
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.template_process import TemplateProcess

_OF_THE_REQUEST = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
_OF_RENDERING = {
    "self",  # of jinja2's ``render``
    # The rest is of transformers' ``apply_chat_template``, to which vLLM hands them.
    "conversation",
    "chat_template",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
}
RESERVED_VARIABLES = frozenset(_OF_THE_REQUEST | _OF_RENDERING)
"""What the request's own fields say, and what whoever renders a template takes for itself; `ChatPrompt.variables`
cannot."""

# Ends in a space, as transformers' own mark does, to see whether the template strips what it is given.
_MARK = "HEADRACE_CONTINUES_HERE "


def require_free(variables: Mapping[str, Any]) -> None:
    """Refuse variables for the template that are not the request's to name.

    Raises:
        BadRequest: It names them.
    """
    if taken := RESERVED_VARIABLES & variables.keys():
        raise BadRequest(
            f"`chat_template_kwargs` cannot say {', '.join(sorted(taken))}: the request's own fields do, or whoever "
            "renders the template.",
            param="chat_template_kwargs",
            code="invalid_value",
        )


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be rendered.

    Attributes:
        messages: Its turns, at least one.
        tools: Function definitions in OpenAI's shape, for the template; None for none.
        add_generation_prompt: End with the words that open the assistant's turn.
        continue_final_message: Leave the last message open, for the model to go on with it.
        variables: More names for the template, such as ``enable_thinking``.
    """

    messages: Sequence[ChatMessage]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: dict[str, Any] = {}


def render_chat(codec: TextCodec, templates: TemplateProcess, prompt: ChatPrompt) -> str:
    """The prompt that ``apply_chat_template`` of transformers would make, special tokens included. Blocks.

    Raises:
        ChatRefused: There is no template, it refused, or it took too long or too much.
    """
    template = codec.chat_template(tools=prompt.tools is not None)
    if not template:
        raise ChatRefused("This model has no chat template; use /v1/completions.")
    messages = list(prompt.messages)
    if prompt.continue_final_message:
        last = messages[-1]
        messages[-1] = ChatMessage(**last | {"content": last["content"] + _MARK})
    text = templates.render(
        template,
        {
            "documents": None,
            **prompt.variables,
            "messages": messages,
            "tools": prompt.tools,
            "add_generation_prompt": prompt.add_generation_prompt,
            **codec.special_tokens,
        },
    )
    return _up_to_mark(text) if prompt.continue_final_message else text


def _up_to_mark(text: str) -> str:
    """The text before the mark; without the spaces there if the template strips messages."""
    place = text.rfind(_MARK.rstrip())
    if place < 0:
        raise ChatRefused("The model's chat template does not show the final message, so it cannot be continued.")
    return text[:place] if text.startswith(_MARK, place) else text[:place].rstrip()
