"""Bodies of ``/serving-endpoints/{name}/invocations``: which of our ways of asking each is, and what it is there.

A chat, a completion or texts to embed in OpenAI's shape; or rows of a table, in the four ways in which MLflow's
scoring server takes them (https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally): those become instances,
each one request, as ``:rawPredict`` has them.
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
    rows = _rows(found[0], _decoded(body, found[0]))
    shared = _parameters(_decoded(body, "params") if "params" in body else _decoded(body, "parameters"))
    answer = {"instances": _raw(rows), "parameters": _raw({"raw_response": True} | shared)}
    return Asked.PREDICTIONS, answer


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
