"""Bodies of ``/serving-endpoints/{name}/invocations``: which of our ways of asking each is, and what it is there.

A chat, a completion or texts to embed in OpenAI's shape; or rows of a table, in the four ways in which MLflow's
scoring server takes them (https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally): those become instances,
each one request, as ``:rawPredict`` has them. What stands beside a table holds for each row that says nothing else:
``params``, and how to sample, which ``query`` of Databricks' SDK puts there; anything else is refused by its name.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any

import msgspec

from headrace.contracts.openai.requests import OpenAIBody
from headrace.resources.errors import BadField, BadJson

_TABLES = ("dataframe_split", "dataframe_records", "instances", "inputs")
_OURS_ALONE = frozenset({"client_request_id", "usage_context", "databricks_options", "extra_params"})
"""What Databricks' clients may send beside a request of OpenAI's: an engine does not know it."""
_PARAMETERS = ("params", "parameters")
_SAMPLING = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "stop",
        "stop_token_ids",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "ignore_eos",
        "response_format",
    }
)
"""What may stand beside a table itself, as it may beside messages; engines look at the values."""
_OF_THE_REQUEST = ("service_tier", "priority")
"""What is said of the request as a whole, and stays where it is."""


class Asked(StrEnum):
    """What a body asks for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    PREDICTIONS = "predictions"


_BY_KEY = {"messages": Asked.CHAT, "prompt": Asked.COMPLETIONS, "input": Asked.EMBEDDINGS}


def read_invocation(body: OpenAIBody) -> tuple[Asked, OpenAIBody]:
    """What is asked, and the body as that way of asking has it; predictions have ``instances`` and ``parameters``.

    Raises:
        BadField: It asks for nothing, or for two things, or its table is none.
        BadJson: A part of it cannot be read.
    """
    found = [key for key in (*_BY_KEY, *_TABLES) if key in body]
    if len(found) != 1:
        raise BadField(
            f"The body must have exactly one of {', '.join((*_BY_KEY, *_TABLES))}.",
            evidence=f"It has {', '.join(sorted(body))[:200] or 'nothing'}.",
            fix='For example {"messages": [{"role": "user", "content": "Hello"}]}.',
        )
    if found[0] in _BY_KEY:
        rest = {key: value for key, value in body.items() if key not in _OURS_ALONE}
        return _BY_KEY[found[0]], _extra(body) | rest
    return Asked.PREDICTIONS, _table(body, found[0])


def _table(body: OpenAIBody, key: str) -> OpenAIBody:
    """A table's rows as instances, with what holds for all of them as parameters."""
    rows, shared = _rows(key, _decoded(body, key)), _shared(body, key)
    if shared.pop("stream", False) or any(isinstance(row, dict) and row.get("stream") for row in rows):
        raise BadField(
            "A table is not streamed: its answer is one document, with a text for each row.",
            evidence="`stream` is true.",
            fix="Leave out `stream`, or ask with `messages` or `prompt`.",
        )
    told = {name: body[name] for name in _OF_THE_REQUEST if name in body}
    return told | {"instances": _raw(rows), "parameters": _raw({"raw_response": True} | shared)}


def _shared(body: OpenAIBody, key: str) -> dict[str, Any]:
    """What stands beside a table, of which what is said most particularly wins.

    Raises:
        BadField: Something of it is not known, or is said in two places of one meaning.
    """
    known = _SAMPLING | _OURS_ALONE | {key, "stream", *_PARAMETERS, *_OF_THE_REQUEST}
    if unknown := sorted(set(body) - known):
        raise BadField(
            f"`{unknown[0][:80]}` beside `{key}` is not known.",
            evidence=f"The body also has {', '.join(unknown)[:200]}.",
            fix=f"What holds for each row goes into `params`; known beside a table are {', '.join(sorted(_SAMPLING))}.",
        )
    said = [name for name in _PARAMETERS if name in body]
    if len(said) > 1:
        raise BadField("`params` and `parameters` are the same.", fix="Send one of the two.")
    beside = {name: _decoded(body, name) for name in (*sorted(_SAMPLING), "stream") if name in body}
    extra = {
        name: _number(value) for name, value in _parameters(_decoded(body, "extra_params"), "extra_params").items()
    }
    return extra | beside | (_parameters(_decoded(body, said[0])) if said else {})


def _extra(body: OpenAIBody) -> OpenAIBody:
    """``extra_params``: a map of texts, in which numbers are written out, too."""
    extra = _parameters(_decoded(body, "extra_params"), "extra_params")
    return {key: _raw(_number(value)) for key, value in extra.items()}


def _number(value: Any) -> Any:
    try:
        found = msgspec.json.decode(value.encode()) if isinstance(value, str) else value
    except (msgspec.DecodeError, UnicodeEncodeError):
        return value
    return value if isinstance(found, dict | list) else found


def _parameters(value: Any, name: str = "params") -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadField(f"`{name}` must be an object.", evidence=f"It is a {type(value).__name__}.")
    return value


def _rows(key: str, value: Any) -> list[Any]:
    if key == "dataframe_split":
        return _split(value)
    if key == "inputs":
        return _inputs(value)
    if not isinstance(value, list):
        raise BadField(f"`{key}` must be a list.", evidence=f"It is a {type(value).__name__}.")
    return value


def _split(value: Any) -> list[Any]:
    """``{"columns": [name, …], "data": [[value, …], …]}``, as pandas writes a frame."""
    columns = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not isinstance(data, list) or not all(isinstance(one, str) for one in columns):
        raise BadField(
            "`dataframe_split` must have `columns`, a list of names, and `data`, a list of rows.",
            fix='For example {"columns": ["prompt"], "data": [["Hello"]]}.',
        )
    if len(set(columns)) != len(columns):
        twice, times = Counter(columns).most_common(1)[0]
        raise BadField(
            "`dataframe_split.columns` must name each column once.", evidence=f"It has {twice[:100]!r} {times} times."
        )
    for index, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            held = f"{len(row)} values" if isinstance(row, list) else f"a {type(row).__name__}"
            raise BadField(
                f"`dataframe_split.data[{index}]` must have a value for each of the {len(columns)} columns.",
                evidence=f"It is {held}." if not isinstance(row, list) else f"It has {held}.",
            )
    return [dict(zip(columns, row, strict=True)) for row in data]


def _inputs(value: Any) -> list[Any]:
    """A list of rows, one row, or columns: an object of lists that are as long as each other."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return [value]
    lengths = {len(column) for column in value.values() if isinstance(column, list)}
    whole = all(isinstance(column, list) for column in value.values()) and "messages" not in value
    if not whole or not value:
        return [value]
    if len(lengths) != 1:
        raise BadField(
            "The columns of `inputs` must be as long as each other.", evidence=f"They have {sorted(lengths)}."
        )
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _decoded(body: OpenAIBody, key: str) -> Any:
    if key not in body:
        return None
    try:
        return msgspec.json.decode(body[key])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"`{key}` cannot be read.", evidence=f"{error}.") from error


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
