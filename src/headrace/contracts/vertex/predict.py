r"""``:predict`` and its raw twins: instances in, predictions out, each instance one request in OpenAI's wire.

Answers look as Vertex AI's own vLLM container gives them: ``"Prompt:\n{prompt}\nOutput:\n{text}"`` for an instance
with a prompt, the chat completion object for one with messages. An instance with ``content`` is embedded, as in Vertex
AI's API for text embeddings
(https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.contracts.openai.need import EMBEDDINGS_PATH
from headrace.resources.errors import BadField, BadJson
from headrace.resources.snapshot import DeployedRoute

PROMPT_KEYS = ("prompt", "text", "inputs", "input")
"""Where an instance may keep its prompt. Google's documents use the first two, Hugging Face containers the others."""

EMBEDDED_KEY = "content"
"""Where an instance has the text that is to be embedded."""

MAX_INSTANCES = 1024
"""Of one request. What they bring with them is held until the last one is answered."""

CHAT_PATH, COMPLETIONS_PATH = "/v1/chat/completions", "/v1/completions"

_ALIASES = {
    "max_output_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
    "candidate_count": "n",
    "output_dimensionality": "dimensions",
}
_INTEGERS = frozenset(
    {"max_tokens", "min_tokens", "top_k", "n", "best_of", "seed", "logprobs", "top_logprobs", "dimensions"}
)
"""Google's clients send every number as a double (``google.protobuf.Value``)."""

_FORMAT, _CHATS = "@request_format", "chatCompletions"
_NOT_FOR_ENGINES = frozenset({"model", "stream", "stream_options", "raw_response", _FORMAT})
_NOT_FOR_EMBEDDERS = frozenset({EMBEDDED_KEY, "task_type", "title", "auto_truncate"})
"""Of Vertex AI's own embedding models: other models have no tasks and no titles, and cut nothing off."""

_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as a request to an engine.

    Attributes:
        path: Of the engine's route.
        body: For the engine, without ``model`` and ``stream``.
        prompt: What the prediction repeats before the output; None for a chat.
        stream: Whether the instance asks for its answer piece by piece.
        raw: Whether it asks for the output alone (``raw_response``, as the vLLM container has it).
        whole: Whether, alone in its request, it is answered by the chat itself in the place of a list of predictions:
            ``"@requestFormat": "chatCompletions"``, as the vLLM container of Model Garden has it.
    """

    path: str
    body: dict[str, Any]
    prompt: str | None = None
    stream: bool = False
    raw: bool = False
    whole: bool = False

    @property
    def streams(self) -> bool:
        """Whether its answer can come piece by piece."""
        return self.path != EMBEDDINGS_PATH

    def engine_body(self, served_name: str, *, stream: bool, usage: bool = False) -> bytes:
        """The request's body for the engine of this model; ``usage`` is whether a stream is to end with its usage."""
        extra: dict[str, Any] = {"model": served_name}
        if stream:
            extra["stream"] = True
        if usage:
            extra["stream_options"] = {"include_usage": True}
        return msgspec.json.encode(self.body | extra)

    def prediction(self, answer: dict[str, Any]) -> Any:
        """What goes into ``predictions`` for the engine's answer; a list of texts if several choices were asked for."""
        if self.path == EMBEDDINGS_PATH:
            vector = answer["data"][0]
            statistics = {"truncated": False, "token_count": answer["usage"]["prompt_tokens"]}
            return {"embeddings": {"values": vector["embedding"], "statistics": statistics}}
        if self.prompt is None:
            return answer
        texts = [choice["text"] for choice in answer["choices"]]
        if not self.raw:
            texts = [f"Prompt:\n{self.prompt}\nOutput:\n{text}" for text in texts]
        return texts[0] if len(texts) == 1 else texts

    def stream_line(self, event: bytes) -> bytes:
        """One line of a streamed raw answer: the new text, or the chunk of a chat.

        Args:
            event: The ``data`` of one server-sent event. ``[DONE]`` and chunks without text give an empty line.
        """
        if event == b"[DONE]":
            return b""
        chunk = msgspec.json.decode(event)
        piece = chunk if self.prompt is None else "".join(choice.get("text", "") for choice in chunk.get("choices", ()))
        return msgspec.json.encode({"predictions": [piece]}) + b"\n" if piece else b""


def read_instances(body: msgspec.Raw | bytes, parameters: msgspec.Raw | bytes | None = None) -> list[Instance]:
    """The instances of a request, in order.

    Args:
        body: The JSON under ``instances``.
        parameters: The JSON under ``parameters``: what holds for each instance that does not say otherwise.

    Raises:
        BadJson: One of the two is no JSON, after all.
        BadField: There is no instance, or more than `MAX_INSTANCES`, or one has not exactly one of a prompt, messages
            and a text to embed.
    """
    try:
        instances = msgspec.json.decode(body)
        shared = {} if parameters is None else msgspec.json.decode(parameters) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson("`instances` or `parameters` cannot be read.", evidence=f"{error}.") from error
    if not isinstance(instances, list) or not instances:
        raise BadField(
            "`instances` must be a list with at least one instance.",
            fix='For example {"instances": [{"prompt": "Hello", "max_tokens": 64}]}.',
        )
    if len(instances) > MAX_INSTANCES:
        raise BadField(
            "`instances` has too many instances.",
            evidence=f"It has {len(instances)}; the limit is {MAX_INSTANCES}.",
            fix="Send them in several requests.",
        )
    if not isinstance(shared, dict):
        raise BadField("`parameters` must be an object.", evidence=f"It is a {type(shared).__name__}.")
    defaults = _engine_parameters(shared)
    return [_instance(instance, defaults, f"instances[{index}]") for index, instance in enumerate(instances)]


def _instance(given: Any, defaults: dict[str, Any], place: str) -> Instance:
    fields = _engine_parameters({"prompt": given} if isinstance(given, str) else given, place)
    prompts = [key for key in (*PROMPT_KEYS, EMBEDDED_KEY) if key in fields]
    if len(prompts) + ("messages" in fields) != 1:
        raise BadField(
            f"`{place}` must have exactly one of {', '.join(PROMPT_KEYS)}, messages and {EMBEDDED_KEY}.",
            evidence=f"It has {', '.join(sorted(fields)) or 'nothing'}.",
        )
    merged = defaults | fields
    stream, raw = merged.get("stream") is True, merged.get("raw_response") is True
    body = {key: value for key, value in merged.items() if key not in _NOT_FOR_ENGINES and key not in PROMPT_KEYS}
    if not prompts:
        return Instance(path=CHAT_PATH, body=body, stream=stream, raw=raw, whole=merged.get(_FORMAT) == _CHATS)
    prompt = fields[prompts[0]]
    if not isinstance(prompt, str):
        raise BadField(f"`{place}.{prompts[0]}` must be text.", evidence=f"It is a {type(prompt).__name__}.")
    if prompts[0] == EMBEDDED_KEY:
        others = {key: value for key, value in body.items() if key not in _NOT_FOR_EMBEDDERS}
        return Instance(path=EMBEDDINGS_PATH, body=others | {"input": prompt}, stream=stream)
    return Instance(path=COMPLETIONS_PATH, body=body | {"prompt": prompt}, prompt=prompt, stream=stream, raw=raw)


def _engine_parameters(fields: Any, place: str = "parameters") -> dict[str, Any]:
    """The fields under the engine's names: snake_case, aliases resolved, whole numbers whole."""
    if not isinstance(fields, dict):
        raise BadField(f"`{place}` must be text or an object.", evidence=f"It is a {type(fields).__name__}.")
    named = {}
    for key, value in fields.items():
        snake = _CAPITAL.sub(lambda capital: f"_{capital[1].lower()}", key)
        name = _ALIASES.get(snake, snake)
        whole = name in _INTEGERS and isinstance(value, float) and value.is_integer()
        named[name] = int(value) if whole else value
    return named


def shown_predictions(instances: Sequence[Instance], predictions: list[Any], *, strict: bool) -> Any:
    """What stands under ``predictions``: a list, but for one chat that is told of whole.

    Args:
        instances: Of the request.
        predictions: One for each.
        strict: Whether the client reads the answer as a protocol buffer's JSON, in which it is always a list.
    """
    return predictions[0] if len(instances) == 1 and instances[0].whole and not strict else predictions


def predict_answer(
    predictions: Any, deployed: DeployedRoute, *, prompt_tokens: int, completion_tokens: int
) -> dict[str, Any]:
    """The body of a ``:predict`` answer; token counts over all instances go into ``metadata``."""
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return {
        "predictions": predictions,
        "deployedModelId": deployed.id,
        "model": deployed.model,
        "modelDisplayName": deployed.model_display_name,
        "modelVersionId": deployed.model_version,
        "metadata": {"usage": usage},
    }
