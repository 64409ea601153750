"""OpenAPI of one endpoint: how it is asked, ``GET /api/2.0/serving-endpoints/{name}/openapi``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

_TEXT: Mapping[str, Any] = {"type": "string"}
_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 1}
_NUMBER: Mapping[str, Any] = {"type": "number"}
_SAMPLING: Mapping[str, Any] = {
    "max_tokens": _COUNT,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "n": _COUNT,
    "stop": {"type": ["string", "array"], "items": _TEXT},
    "stream": {"type": "boolean"},
}
_BODIES: Mapping[str, Mapping[str, Any]] = {
    "chat": {
        "description": "OpenAI's chat completions.",
        "required": ["messages"],
        "properties": {
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["role"],
                    "properties": {"role": _TEXT, "content": {"type": ["string", "array", "null"]}},
                },
            },
            **_SAMPLING,
        },
    },
    "completions": {
        "description": "OpenAI's completions.",
        "required": ["prompt"],
        "properties": {"prompt": {"type": ["string", "array"]}, **_SAMPLING},
    },
    "embeddings": {
        "description": "OpenAI's embeddings.",
        "required": ["input"],
        "properties": {"input": {"type": ["string", "array"]}},
    },
    "dataframe_split": {
        "description": "Rows of a table, as pandas writes them with orient=split.",
        "required": ["dataframe_split"],
        "properties": {"dataframe_split": {"type": "object"}},
    },
    "dataframe_records": {
        "description": "Rows of a table, as pandas writes them with orient=records.",
        "required": ["dataframe_records"],
        "properties": {"dataframe_records": {"type": "array", "items": {"type": "object"}}},
    },
    "inputs": {"description": "Named columns.", "required": ["inputs"], "properties": {"inputs": {}}},
    "instances": {
        "description": "One prompt for each answer.",
        "required": ["instances"],
        "properties": {"instances": {"type": "array"}},
    },
}


def endpoint_openapi(name: str, served: Sequence[str], *, url: str) -> dict[str, Any]:
    """The document.

    Args:
        name: Of the endpoint.
        served: The names of its served entities.
        url: Of this server.
    """
    bodies = [{"title": title, "type": "object", **body} for title, body in _BODIES.items()]
    error = {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": _TEXT, "message": _TEXT},
    }
    content = {"application/json": {"schema": error}}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": "1", "description": f"Served entities: {', '.join(served) or 'none yet'}."},
        "servers": [{"url": url}],
        "security": [{"key": []}],
        "paths": {
            f"/serving-endpoints/{quote(name, safe='')}/invocations": {
                "post": {
                    "operationId": "invocations",
                    "summary": "Query the endpoint.",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"oneOf": bodies}}},
                    },
                    "responses": {
                        "200": {
                            "description": "The answer, in the shape that goes with the request's.",
                            "content": {
                                "application/json": {"schema": {"type": "object"}},
                                "text/event-stream": {"schema": _TEXT},
                            },
                        },
                        "4XX": {"description": "The request is at fault.", "content": content},
                        "5XX": {"description": "There is no answer.", "content": content},
                    },
                }
            }
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }
