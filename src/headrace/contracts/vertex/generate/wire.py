"""The messages of Gemini's requests, as `headrace.contracts.vertex.json_bodies` reads them.

Fields of type ``Any`` are known and not read deeper: some are refused by name where they are used, some make no
difference to an answer of text.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Blob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes in base64, with their type."""

    mime_type: str = ""
    data: str = ""
    display_name: str = ""


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a model wants to be called."""

    id: str = ""
    name: str = ""
    args: dict[str, Any] | None = None


class FunctionResponse(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a call came to."""

    id: str = ""
    name: str = ""
    response: dict[str, Any] | None = None
    parts: Any = None
    will_continue: Any = None
    scheduling: Any = None


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One piece of a turn; of `DATA` exactly one is set."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: Any = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    thought: bool = False
    thought_signature: Any = None
    video_metadata: Any = None
    media_resolution: Any = None


DATA = {
    "text": "text",
    "inline_data": "inlineData",
    "file_data": "fileData",
    "function_call": "functionCall",
    "function_response": "functionResponse",
    "executable_code": "executableCode",
    "code_execution_result": "codeExecutionResult",
}
"""What a part may hold: attribute and wire name."""


class Content(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One turn, or a part of it: history that was streamed comes in one content for each chunk."""

    role: str = ""
    parts: tuple[Part, ...] = ()


class FunctionDeclaration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A function that the model may call; its parameters in Google's form of a schema, or in JSON Schema."""

    name: str = ""
    description: str = ""
    parameters: Any = None
    parameters_json_schema: Any = None
    response: Any = None
    response_json_schema: Any = None
    behavior: Any = None


class Tool(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Functions, or a tool of Google's own, which there are none of here."""

    function_declarations: tuple[FunctionDeclaration, ...] = ()
    retrieval: Any = None
    google_search: Any = None
    google_search_retrieval: Any = None
    google_maps: Any = None
    enterprise_web_search: Any = None
    code_execution: Any = None
    url_context: Any = None
    computer_use: Any = None


GOOGLES_TOOLS = {
    "retrieval": "retrieval",
    "google_search": "googleSearch",
    "google_search_retrieval": "googleSearchRetrieval",
    "google_maps": "googleMaps",
    "enterprise_web_search": "enterpriseWebSearch",
    "code_execution": "codeExecution",
    "url_context": "urlContext",
    "computer_use": "computerUse",
}
"""Tools that run at Google: attribute and wire name."""


class FunctionCallingConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether functions must be called, and which; enums come by name or by number."""

    mode: Any = None
    allowed_function_names: tuple[str, ...] = ()
    stream_function_call_arguments: Any = None


class ToolConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What holds for all tools."""

    function_calling_config: FunctionCallingConfig | None = None
    retrieval_config: Any = None


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an answer is made."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str = ""
    response_schema: Any = None
    response_json_schema: Any = None
    response_logprobs: bool = False
    logprobs: int | None = None
    response_modalities: Any = None
    # What follows makes no difference to an answer of text.
    thinking_config: Any = None
    media_resolution: Any = None
    audio_timestamp: Any = None
    speech_config: Any = None
    image_config: Any = None
    routing_config: Any = None
    model_config: Any = None
    enable_affective_dialog: Any = None


class GenerateContentRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of ``:generateContent``, ``:streamGenerateContent`` and, with ``instances``, of ``:countTokens``."""

    contents: tuple[Content, ...] = ()
    system_instruction: Content | None = None
    generation_config: GenerationConfig | None = None
    tools: tuple[Tool, ...] = ()
    tool_config: ToolConfig | None = None
    service_tier: Any = None
    cached_content: Any = None
    model_armor_config: Any = None
    # What follows makes no difference: the path names the model, labels are for bills, and nothing is filtered.
    model: Any = None
    labels: Any = None
    safety_settings: Any = None
