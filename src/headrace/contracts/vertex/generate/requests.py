"""The body of ``:generateContent`` as a chat in OpenAI's wire, and what ``:countTokens`` counts.

Both spellings of a field are taken, and one thing where a list of things belongs, as the vendor does. A field that
nobody knows is refused in the vendor's words. Refused by name is also what would change the answer and is not to be had
here (`_REFUSED`, files, Google's own tools); what cannot change it (`safetySettings`, `labels`) is taken and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.contracts.openai.need import need_of
from headrace.contracts.openai.requests import OpenAIBody, read_object
from headrace.contracts.vertex.generate.contents import messages_of
from headrace.contracts.vertex.generate.functions import tool_fields
from headrace.contracts.vertex.generate.schemas import json_schema
from headrace.contracts.vertex.generate.wire import GenerateContentRequest, GenerationConfig
from headrace.contracts.vertex.json_bodies import read
from headrace.contracts.vertex.predict import CHAT_PATH, read_instances
from headrace.resources.errors import BadField, BadJson

_REFUSED = {
    "cached_content": ("cachedContent", "No contents are kept here under a name. Engines keep prefixes by themselves."),
    "model_armor_config": ("modelArmorConfig", "Nothing is filtered here."),
}
"""Fields that would change the answer: why they are not to be had."""

_LISTS = frozenset({"contents", "tools", "parts", "function_declarations"})
_CAPITAL = re.compile(r"(?<=[a-z])([A-Z])")

_TIERS = {"flex": "flex", "priority": "priority"}
"""What has a name of the same meaning in OpenAI's wire."""

_TEXT_MODALITIES = ("TEXT", 1)
_TEXT, _JSON, _ENUM = "text/plain", "application/json", "text/x.enum"
_SCHEMA_NAME = "response"


def chat_of(body: OpenAIBody, *, stream: bool) -> OpenAIBody:
    """The chat that a request is, without its model.

    Args:
        body: Of the request.
        stream: Whether the answer is to come as it is made.

    Raises:
        BadJson: It cannot be read after all, or cannot be written again.
        BadField: Something in it is unknown, of the wrong type, or not to be had here.
    """
    request = read(GenerateContentRequest, _listed(_decoded(body)))
    for attribute, (name, why) in _REFUSED.items():
        if getattr(request, attribute) is not None:
            raise BadField(f"`{name}` is not supported.", evidence=why, fix="Leave it out.")
    try:
        chat: dict[str, Any] = {"messages": messages_of(request.contents, request.system_instruction)}
        chat |= tool_fields(request.tools, request.tool_config)
        chat |= _parameters(request.generation_config or GenerationConfig())
        chat |= _tier(request.service_tier)
        if stream:
            chat["stream"] = True
        return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in chat.items()}
    except (RecursionError, OverflowError, UnicodeEncodeError, msgspec.EncodeError) as error:
        raise BadJson(
            "The request holds values that cannot be passed on.", evidence=f"{type(error).__name__}: {error}"
        ) from error


def prompts_of(body: OpenAIBody) -> tuple[OpenAIBody, ...]:
    """Bodies for ``/tokenize``, without the model: one for each prompt that ``:countTokens`` is asked about.

    That is the conversation as ``:generateContent`` would have the engine read it, or each of the ``instances`` of a
    ``:predict``.

    Raises:
        BadJson: As `chat_of`.
        BadField: As `chat_of`; or both, or an instance that is no text.
    """
    if "instances" not in body:
        return need_of(CHAT_PATH, chat_of(body, stream=False)).questions
    if "contents" in body:
        raise BadField("The body has both `instances` and `contents`.", fix="Leave one of them out.")
    questions: list[OpenAIBody] = []
    for instance in read_instances(body["instances"]):
        questions += need_of(instance.path, read_object(msgspec.json.encode(instance.body))).questions
    return tuple(questions)


def _decoded(body: OpenAIBody) -> dict[str, Any]:
    try:
        return {name: msgspec.json.decode(value) for name, value in body.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson("The body cannot be read.", evidence=f"{error}.") from error


def _listed(request: Mapping[str, Any], depth: int = 1) -> dict[str, Any]:
    """The request with lists where one thing stood in the place of a list: Google's own documents have it so.

    Args:
        request: It, or an object in it.
        depth: How far below there may be more of them.
    """
    listed = {}
    for name, value in request.items():
        snake = _CAPITAL.sub(lambda found: f"_{found[1].lower()}", name)
        made = [value] if snake in _LISTS and isinstance(value, dict) else value
        if depth and snake in _LISTS and isinstance(made, list):
            made = [_listed(item, depth - 1) if isinstance(item, dict) else item for item in made]
        elif depth and snake == "system_instruction" and isinstance(value, dict):
            made = _listed(value, depth - 1)
        listed[name] = made
    return listed


def _parameters(config: GenerationConfig) -> dict[str, Any]:
    """The parameters of a chat that are said; those of no value are the engine's defaults."""
    top_k = config.top_k
    if top_k is not None and not top_k.is_integer():
        raise BadField("generationConfig.topK must be a whole number.", evidence=f"It is {top_k}.")
    logprobs = config.response_logprobs
    if config.logprobs is not None and not logprobs:
        raise BadField("generationConfig.logprobs needs responseLogprobs to be true.")
    modalities = config.response_modalities
    if modalities and not (isinstance(modalities, list) and all(each in _TEXT_MODALITIES for each in modalities)):
        raise BadField(
            "generationConfig.responseModalities must be TEXT.", evidence="Models make nothing but text here."
        )
    said = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": None if top_k is None else int(top_k),
        "n": config.candidate_count,
        "max_tokens": config.max_output_tokens,
        "stop": list(config.stop_sequences) or None,
        "seed": config.seed,
        "presence_penalty": config.presence_penalty,
        "frequency_penalty": config.frequency_penalty,
        "logprobs": logprobs or None,
        "top_logprobs": config.logprobs,
    }
    return {name: value for name, value in said.items() if value is not None} | _form(config)


def _form(config: GenerationConfig) -> dict[str, Any]:
    """What the answer has to look like."""
    place, mime_type = "generationConfig", config.response_mime_type or _TEXT
    if mime_type not in (_TEXT, _JSON, _ENUM):
        raise BadField(
            f"{place}.responseMimeType must be {_TEXT}, {_JSON} or {_ENUM}.", evidence=f"It is {mime_type[:60]!r}."
        )
    schema = _schema(config, place)
    if schema is None:
        return {"response_format": {"type": "json_object"}} if mime_type == _JSON else {}
    if mime_type == _ENUM:
        values = schema.get("enum")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values) or not values:
            raise BadField(f"{place}.responseSchema.enum must list the texts that {_ENUM} chooses from.")
        return {"structured_outputs": {"choice": values}}
    if mime_type == _TEXT:
        raise BadField(f"{place}.responseSchema needs responseMimeType to be {_JSON} or {_ENUM}.")
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": _SCHEMA_NAME, "schema": schema}},
    }


def _schema(config: GenerationConfig, place: str) -> dict[str, Any] | None:
    if config.response_schema is not None and config.response_json_schema is not None:
        raise BadField(f"{place} has both responseSchema and responseJsonSchema.", fix="Leave one of them out.")
    if config.response_schema is not None:
        return json_schema(config.response_schema, f"{place}.responseSchema", closed=True)
    schema = config.response_json_schema
    if schema is not None and not isinstance(schema, dict):
        raise BadField(f"{place}.responseJsonSchema must be an object.")
    return schema


def _tier(tier: Any) -> dict[str, Any]:
    """The class in which it waits, as chats name it; what is neither flex nor priority is as if it were not said."""
    known = _TIERS.get(tier.lower().removeprefix("service_tier_")) if isinstance(tier, str) else None
    return {} if known is None else {"service_tier": known}
