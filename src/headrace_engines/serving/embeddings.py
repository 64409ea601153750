"""``POST /v1/embeddings``."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from headrace_engines.serving.answering import unless_hung_up
from headrace_engines.serving.embedder import Embedder
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import BadRequest, ContextOverflow, api_error_from
from headrace_engines.serving.generator import GenerationFailed, QueueFull
from headrace_engines.serving.parameters import convert, read_json

MAX_INPUTS = 2048
"""OpenAI's bound of inputs in one request."""


class EmbeddingParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body."""

    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: Any = None
    priority: Any = None
    request_id: Any = None


async def embeddings(request: Request) -> Response:
    """A vector for each input: text or token ids, one or many."""
    arrived_s = time.monotonic()
    engine: Engine = request.app.state.engine
    parameters = convert(read_json(await request.body(), max_model_len=engine.max_model_len), EmbeddingParameters)
    engine.check_model(parameters.model)
    embedder = engine.embedder
    dimensions = _dimensions(embedder, parameters.dimensions)
    inputs = await unless_hung_up(request.receive, _read_inputs(engine, _separate(parameters.input)))
    try:
        vectors = await unless_hung_up(request.receive, _embed(engine, embedder, inputs))
    except (QueueFull, GenerationFailed) as error:
        engine.metrics.ended["error"].inc()
        raise api_error_from(error) from error
    except (asyncio.CancelledError, ClientDisconnect):
        engine.metrics.ended["abort"].inc()
        raise
    if dimensions is not None:
        vectors = [_shortened(vector, dimensions) for vector in vectors]
    tokens = sum(map(len, inputs))
    engine.metrics.embedded(time.monotonic() - arrived_s)
    encode = _base64 if parameters.encoding_format == "base64" else list
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)} for index, vector in enumerate(vectors)
        ],
        "model": engine.model_name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def _embed(engine: Engine, embedder: Embedder, inputs: list[list[int]]) -> list[list[float]]:
    vectors: list[list[float]] = []
    size = embedder.limits.max_batch_inputs
    for start in range(0, len(inputs), size):
        vectors += await embedder.embed(inputs[start : start + size], engine.metrics.prompt_tokens.inc)
    return vectors


def _separate(value: str | list[Any]) -> list[str | list[Any]]:
    """The inputs: one text, one list of token ids, or a list of either."""
    many = isinstance(value, list) and value and all(isinstance(item, str | list) for item in value)
    inputs = value if isinstance(value, list) and many else [value]
    if len(inputs) > MAX_INPUTS:
        raise BadRequest(
            f"`input` holds {len(inputs)} inputs; {MAX_INPUTS} are taken at once.", param="input", code="invalid_value"
        )
    return inputs


async def _read_inputs(engine: Engine, values: Sequence[str | list[Any]]) -> list[list[int]]:
    """The token ids of all, up to the first that does not fit."""
    return [await _token_ids(engine, value) for value in values]


async def _token_ids(engine: Engine, value: str | list[Any]) -> list[int]:
    limits = engine.embedder.limits
    if value == "":  # not nothing to the model, which puts its own tokens around it; OpenAI refuses it too
        raise BadRequest("`input` has an empty text.", param="input", code="invalid_value")
    if isinstance(value, str):
        token_ids = await engine.encode(value, add_special_tokens=True)
    elif all(type(item) is int and 0 <= item < limits.vocab_size for item in value):
        token_ids = value
    else:
        raise BadRequest(
            f"`input` must be text or a list of token ids from 0 to {limits.vocab_size - 1}, or a list of such.",
            param="input",
            code="invalid_value",
        )
    if not token_ids:
        raise BadRequest("`input` holds no tokens.", param="input", code="invalid_value")
    if len(token_ids) > limits.max_input_tokens:
        raise ContextOverflow(
            prompt_tokens=len(token_ids), max_tokens=0, max_model_len=limits.max_input_tokens, param="input"
        )
    return token_ids


def _dimensions(embedder: Embedder, wanted: int | None) -> int | None:
    """How many dimensions to leave; None for all. vLLM's rule: only models trained for it are cut short."""
    limits = embedder.limits
    if wanted is None or wanted == limits.dimensions:
        return None
    if wanted > limits.dimensions or not limits.matryoshka:
        raise BadRequest(
            f"This model's vectors have {limits.dimensions} dimensions, and it was not trained to be cut to {wanted} "
            "(Matryoshka representations)."
            if wanted < limits.dimensions
            else f"This model's vectors have {limits.dimensions} dimensions, not {wanted}.",
            param="dimensions",
            code="invalid_value",
        )
    return wanted


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    """The beginning of a vector, of length 1 again."""
    kept = vector[:dimensions]
    norm = math.hypot(*kept)
    return [value / norm for value in kept] if norm else kept


def _base64(vector: list[float]) -> str:
    """OpenAI's form: little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
