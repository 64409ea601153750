"""``POST /v1/chat/completions``."""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple

from starlette.requests import Request

from headrace_engines.serving.answering import Answer
from headrace_engines.serving.answers import ChatShape
from headrace_engines.serving.capabilities import engines_that_honour
from headrace_engines.serving.chat_prompt import ChatPrompt, require_free
from headrace_engines.serving.choices import CallingChoice, Choice
from headrace_engines.serving.codec import ChatRefused
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.followable import require_followable, require_schema
from headrace_engines.serving.generator import Grammar
from headrace_engines.serving.images import ImagesNotHonoured
from headrace_engines.serving.messages import chat_messages, place_of_image, place_of_tool_use
from headrace_engines.serving.parameters import ChatParameters, read_json, read_parameters
from headrace_engines.serving.submission import Submission, submit
from headrace_engines.serving.text_size import require_readable_chat
from headrace_engines.serving.tools.formats import CONSTRAINED, FORMATS, ToolFormat, format_of, knows_tools
from headrace_engines.serving.tools.grammar import grammar_of
from headrace_engines.serving.tools.reader import ForcedCall
from headrace_engines.serving.tools.readers import call_reader
from headrace_engines.serving.tools.request import ToolChoice, read_tool_choice


class ToolUse(NamedTuple):
    """How one answer may call tools: which, and how the model writes a call."""

    choice: ToolChoice
    form: ToolFormat

    def new_choice(self) -> Choice:
        """What reads one of the answer's texts."""
        if self.choice.mode == "named":
            (name,) = self.choice.names
            return CallingChoice(ForcedCall(name), self.form.new_call_id, parallel=True)
        form = self.form if self.choice.mode == "auto" else CONSTRAINED
        reader = call_reader(form, self.choice.schemas, only_one=not self.choice.parallel)
        return CallingChoice(reader, self.form.new_call_id, parallel=self.choice.parallel)


async def chat_completions(request: Request) -> Answer:
    """A conversation, continued `n` times by the assistant."""
    arrived_s = time.monotonic()
    engine: Engine = request.app.state.engine
    fields = read_json(await request.body(), max_model_len=engine.max_model_len)
    parameters = read_parameters(fields, ChatParameters, engine.name)
    engine.check_model(parameters.model)
    engine.require_generator()  # before its chat template is looked for, which an embedding model has not
    tools = _tool_use(engine, parameters)
    grammar, grammar_param = _grammar(parameters, tools)
    prompt = chat_prompt(
        engine,
        parameters.messages,
        tools=None if tools is None else tools.choice.tools,
        add_generation_prompt=parameters.add_generation_prompt,
        continue_final_message=parameters.continue_final_message,
        variables=parameters.chat_template_kwargs,
    )
    prompt_ids = await engine.encode_chat(prompt, add_special_tokens=bool(parameters.add_special_tokens))
    sequences = submit(
        engine,
        parameters,
        Submission(
            prompts=[prompt_ids],
            prompt_param="messages",
            default_max_tokens=None,
            grammar=grammar,
            grammar_param=grammar_param,
            # Marks like <tool_call> are special tokens in some vocabularies, and would not be seen.
            keep_special_tokens=parameters.skip_special_tokens is False or tools is not None,
            arrived_s=arrived_s,
        ),
    )
    shape = ChatShape(
        f"chatcmpl-{uuid.uuid4().hex}",
        engine.model_name,
        logprobs=bool(parameters.logprobs),
        include_usage=parameters.include_usage,
    )
    return Answer(
        shape,
        sequences,
        [Choice() if tools is None else tools.new_choice() for _ in range(parameters.n or 1)],
        prompt_tokens=len(prompt_ids),
        stream=bool(parameters.stream),
        grammar_param=grammar_param,
    )


def chat_prompt(
    engine: Engine,
    messages: list[dict[str, Any]],
    *,
    tools: list[dict[str, Any]] | None,
    add_generation_prompt: bool | None,
    continue_final_message: bool | None,
    variables: dict[str, Any] | None,
) -> ChatPrompt:
    """A conversation as a request gives it, checked.

    Raises:
        BadRequest: Something in it is wrong, or cannot be rendered by this model's template.
    """
    require_readable_chat(messages, max_model_len=engine.max_model_len)
    if (place := place_of_image(messages)) and engine.name not in engines_that_honour("images"):
        raise ImagesNotHonoured(param=place, engine=engine.name, sees=engine.served.sees)
    if place := place_of_tool_use(messages):
        _tools_template(engine, place)
    if continue_final_message and add_generation_prompt:
        raise BadRequest(
            "`continue_final_message` leaves the last message open, `add_generation_prompt` begins a new one.",
            param="continue_final_message",
            code="invalid_value",
        )
    require_free(variables or {})
    return ChatPrompt(
        messages=chat_messages(messages),
        tools=tools,
        add_generation_prompt=not continue_final_message if add_generation_prompt is None else add_generation_prompt,
        continue_final_message=bool(continue_final_message),
        variables=variables or {},
    )


def _tool_use(engine: Engine, parameters: ChatParameters) -> ToolUse | None:
    choice = read_tool_choice(parameters.tools, parameters.tool_choice, parallel=parameters.parallel_tool_calls)
    if choice is None:
        return None
    form = format_for(engine)
    if form is None:
        raise BadRequest(
            "How this model writes tool calls is not known here: none of "
            f"{', '.join(FORMATS)} is the format that its chat template shows. Start the engine with --tool-parser.",
            param="tools",
            code="tools_not_supported",
        )
    return ToolUse(choice, form)


def format_for(engine: Engine) -> ToolFormat | None:
    """How the model writes tool calls: as the engine was told, else as its chat template shows.

    Raises:
        BadRequest: The template does not know tools at all.
    """
    template = _tools_template(engine, "tools")
    return format_of(template) if engine.tool_parser is None else FORMATS[engine.tool_parser]


def _tools_template(engine: Engine, param: str) -> str:
    """The chat template, which knows tools."""
    try:
        template = engine.served.codec.chat_template(tools=True)
    except ChatRefused as error:
        raise BadRequest(str(error), param=param, code="chat_template_error") from error
    if template is None or not knows_tools(template):
        raise BadRequest(
            f"{param}: the chat template of {engine.model_name!r} does not know tools, so the model would not see "
            "them; deploy a model that was trained to call tools.",
            param=param,
            code="tools_not_supported",
        )
    return template


def _grammar(parameters: ChatParameters, tools: ToolUse | None) -> tuple[Grammar | None, str | None]:
    """What the answer has to match, and the parameter that says so."""
    said, said_param = parameters.grammar() or (None, None)
    forced = None if tools is None else _forced_call(tools.choice)
    if said is not None and forced is not None:
        raise BadRequest(
            f"`tool_choice` wants a call and `{said_param}` another form of answer; give one.",
            param="tool_choice",
            code="invalid_value",
        )
    return (said, said_param) if forced is None else (forced, "tools")


def _forced_call(choice: ToolChoice) -> Grammar | None:
    """The grammar of a call that has to be made; None where the model is free.

    Raises:
        BadRequest: No engine could follow it.
    """
    if choice.mode != "auto":
        for function in choice.callable:
            require_schema(function.get("parameters"), "tools")
    grammar = grammar_of(choice)
    return None if grammar is None else require_followable(grammar, "tools")
