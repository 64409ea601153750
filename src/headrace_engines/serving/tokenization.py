"""``POST /tokenize`` and ``POST /detokenize``, in vLLM's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace_engines.serving.chat import chat_prompt
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.parameters import DetokenizeParameters, TokenizeParameters, convert, read_json
from headrace_engines.serving.text_size import TextTooLong
from headrace_engines.serving.tools.request import read_tool_choice


async def tokenize(request: Request) -> Response:
    """The token ids of a prompt, or of the messages of a chat, exactly as a request would have them."""
    engine: Engine = request.app.state.engine
    parameters = convert(read_json(await request.body(), max_model_len=engine.max_model_len), TokenizeParameters)
    if parameters.model is not None:
        engine.check_model(parameters.model)
    if (parameters.prompt is None) == (parameters.messages is None):
        raise BadRequest("Give either `prompt` or `messages`.", param="prompt", code="invalid_value")
    if parameters.prompt is not None:
        token_ids = await engine.encode(
            parameters.prompt, add_special_tokens=parameters.add_special_tokens is not False, param="prompt"
        )
    else:
        choice = read_tool_choice(parameters.tools, None, parallel=None)
        prompt = chat_prompt(
            engine,
            parameters.messages or [],
            tools=None if choice is None else choice.tools,
            add_generation_prompt=parameters.add_generation_prompt,
            continue_final_message=parameters.continue_final_message,
            variables=parameters.chat_template_kwargs,
        )
        token_ids = await engine.encode_chat(prompt, add_special_tokens=bool(parameters.add_special_tokens))
    answer: dict[str, Any] = {"count": len(token_ids), "max_model_len": engine.max_model_len, "tokens": token_ids}
    if parameters.return_token_strs:
        answer["token_strs"] = await engine.pieces(token_ids)
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def detokenize(request: Request) -> Response:
    """The text of token ids, special tokens included."""
    engine: Engine = request.app.state.engine
    parameters = convert(read_json(await request.body(), max_model_len=engine.max_model_len), DetokenizeParameters)
    if parameters.model is not None:
        engine.check_model(parameters.model)
    require_known(parameters.tokens, vocab_size=engine.vocab_size, max_model_len=engine.max_model_len)
    text = await engine.decode_all(parameters.tokens)
    return Response(msgspec.json.encode({"prompt": text}), media_type="application/json")


def require_known(token_ids: Sequence[int], *, vocab_size: int, max_model_len: int) -> None:
    """Refuse tokens that a model does not have, and more than it could have read or written.

    Raises:
        BadRequest: It names the first, or how many there may be.
    """
    if len(token_ids) > max_model_len:
        what, at_most = f"{len(token_ids):,} tokens", f"{max_model_len:,}"
        raise TextTooLong(what, at_most, max_model_len=max_model_len, param="tokens")
    for index, token_id in enumerate(token_ids):
        if token_id >= vocab_size:
            raise BadRequest(
                f"`tokens` holds {token_id}; this model has tokens 0 to {vocab_size - 1}.",
                param=f"tokens[{index}]",
                code="invalid_value",
            )
