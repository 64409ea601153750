"""The OpenAPI document: every route that a client may use, from what declares, parses and answers it.

It is the same for everybody, and public like the source that it is made from: it tells what can be asked here, and
nothing of what is here. Routes of our own processes (``/internal/``) are not in it, nor those that take what is left.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace import __version__
from headrace.api import data_plane
from headrace.api.access import Route
from headrace.api.databricks import DESCRIPTIONS as DATABRICKS
from headrace.api.databricks import ROUTES as DATABRICKS_ROUTES
from headrace.api.description import Description, Schema
from headrace.api.native import ROOT
from headrace.api.native import descriptions as native
from headrace.api.requests import LEFT_OVER
from headrace.api.schemas import Schemas
from headrace.api.vertex import descriptions as vertex
from headrace.contracts.vertex.paths import VERSIONS

DESCRIPTIONS: Mapping[str, Description] = {
    **data_plane.DESCRIPTIONS,
    **native.DESCRIPTIONS,
    **vertex.DESCRIPTIONS,
    **DATABRICKS,
}
"""Everything that is described, by ``"METHOD /path"``."""

LOOSELY_DESCRIBED: frozenset[str] = frozenset(
    [
        # "METHOD /path",
    ]
)
"""Routes that are in the document with their path and their docstring only: some object in, some object out.

Each is a line ``"METHOD /path"`` as `ROUTES` has it. A test names what is neither here nor described.
"""

_TITLE = "Headrace"
_ABOUT = """Serve your own models on your own machines, to the clients that you already have.

Every request but the few that are marked public shows a key: `Authorization: Bearer KEY`. A key is made by
`headrace keys create`; a service account's signed token stands wherever a key does."""

_NAME: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9:.-]{0,61}$"}
_PARAMETERS: Mapping[str, Schema] = {
    "version": {"type": "string", "enum": list(VERSIONS)},
    "project": _NAME,
    "location": {**_NAME, "examples": ["us-central1"]},
}
_ID: Schema = {"type": "string", "pattern": "^[^/:?#]+$"}
_PLACEHOLDER = re.compile(r"{(\w+)(?::\w+)?}")
_TAGS: Mapping[str, str] = {
    "Headrace": "The native API: our nouns as they are.",
    "Databricks": "The control plane as Databricks' clients know it.",
    "Vertex AI": "The control plane as Vertex AI's clients know it.",
    "OpenAI": "Inference as OpenAI's clients ask for it, at the server and at each endpoint.",
    "Prediction": "Inference as Vertex AI's clients ask for it.",
    "Server": "Probes, metrics, tokens.",
}

_GOOGLE_ERROR: Schema = {
    "type": "object",
    "description": "AIP-193. `details` has a google.rpc.ErrorInfo (`reason` is the code) and a google.rpc.Help.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string", "description": "What happened, the evidence, and what to do."},
                "status": {"type": "string", "description": "google.rpc.Code's name."},
                "details": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["code", "message", "status", "details"],
        }
    },
    "required": ["error"],
}
_OPENAI_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type"],
        }
    },
    "required": ["error"],
}
_DATABRICKS_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error_code": {"type": "string"},
        "message": {"type": "string", "description": "What happened, the evidence, and what to do."},
        "details": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["error_code", "message", "details"],
}
_OAUTH_ERROR: Schema = {
    "type": "object",
    "description": "RFC 6749, section 5.2.",
    "properties": {
        "error": {"type": "string"},
        "error_description": {"type": "string"},
        "error_uri": {"type": "string", "format": "uri"},
    },
    "required": ["error", "error_description"],
}
_ERRORS: Mapping[str, tuple[str, Schema]] = {
    "google": ("GoogleError", _GOOGLE_ERROR),
    "openai": ("OpenAIError", _OPENAI_ERROR),
    "databricks": ("DatabricksError", _DATABRICKS_ERROR),
    "oauth": ("OAuthError", _OAUTH_ERROR),
}
_SECURITY_SCHEMES: Mapping[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, or a service account's signed token."},
    "googleApiKey": {"type": "apiKey", "in": "header", "name": "x-goog-api-key", "description": "The same, as it is."},
}


def undescribed(routes: Sequence[Route]) -> list[str]:
    """What is served and neither described nor in `LOOSELY_DESCRIBED`, by ``"METHOD /path"``."""
    return sorted(_served(routes) - DESCRIPTIONS.keys() - LOOSELY_DESCRIBED)


def left_over(routes: Sequence[Route]) -> list[str]:
    """What is described and not served."""
    return sorted((DESCRIPTIONS.keys() | LOOSELY_DESCRIBED) - _served(routes))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document.

    Args:
        routes: What control serves; what the gateway answers by itself is there, too.
    """
    schemas = Schemas(DESCRIPTIONS.values())
    paths: dict[str, dict[str, Any]] = {}
    for method, path in data_plane.data_plane_routes():
        said = {"tags": [_data_plane_tag(path)], "summary": data_plane.summary_of(path)}
        operation = _operation(method, path, schemas, said)
        paths.setdefault(_plain(path), {})[method.lower()] = operation
    for route in routes:
        if not route.path.endswith(LEFT_OVER):
            summary, about = _sentences(route.handler.__doc__)
            about = f"{about}\n\nWants the permission `{route.permission}`".strip()
            about += ", in every project." if route.server_wide else "."
            said = {"tags": [_tag(route)], "summary": summary, "description": about}
            operation = _operation(route.method, route.path, schemas, said)
            paths.setdefault(_plain(route.path), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": __version__, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{name: []} for name in _SECURITY_SCHEMES],
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, **dict(_ERRORS.values())},
            "responses": {name: _response(f"An error ({name}).", _reference(name)) for name, _ in _ERRORS.values()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _served(routes: Sequence[Route]) -> set[str]:
    described = {f"{route.method} {route.path}" for route in routes if not route.path.endswith(LEFT_OVER)}
    return described | {f"{method} {path}" for method, path in data_plane.data_plane_routes()}


def _operation(method: str, path: str, schemas: Schemas, said: Mapping[str, Any]) -> dict[str, Any]:
    described = DESCRIPTIONS.get(f"{method} {path}") or _loosely(method)
    operation: dict[str, Any] = {
        "operationId": _identifier(method, path),
        **said,
        "parameters": _path_parameters(path) + _query_parameters(described),
        "responses": _responses(described, schemas),
    }
    if described.body is not None:
        content = {"schema": schemas.resolved(described.body)}
        operation["requestBody"] = {
            "required": described.body_required,
            "content": dict.fromkeys(described.body_types, content),
        }
    if described.public:
        operation["security"] = []
    return {name: value for name, value in operation.items() if value or name in ("security", "responses")}


def _loosely(method: str) -> Description:
    body: Schema | None = {"type": "object"} if method in ("POST", "PUT", "PATCH") else None
    return Description(body=body, body_required=False)


def _plain(path: str) -> str:
    """A template without its convertors, as OpenAPI writes it."""
    return _PLACEHOLDER.sub(r"{\1}", path)


def _identifier(method: str, path: str) -> str:
    """A name for generated clients: what the path says, in order."""
    words = re.findall(r"[A-Za-z0-9]+", _plain(path))
    slash = ["slash"] if path.endswith("/") and words else []
    return "_".join([method.lower(), *words, *slash])


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS.get(name, _ID)}
        for name in _PLACEHOLDER.findall(path)
    ]


def _query_parameters(described: Description) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "in": "query", "description": each.text, "schema": each.schema} for each in described.query
    ]


def _responses(described: Description, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if described.answer is not None:
        content["application/json"] = {"schema": schemas.resolved(described.answer)}
    content |= {
        kind: {"schema": {"type": "string", "description": text}} for kind, text in described.answer_types.items()
    }
    error = {"$ref": f"#/components/responses/{_ERRORS[described.errors][0]}"}
    refused = {} if described.public else {"401": error, "403": error}
    return {"200": {"description": "Done.", "content": content}, **refused, "4XX": error, "5XX": error}


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _sentences(docstring: str | None) -> tuple[str, str]:
    """The first sentence of a docstring, and what follows without what it raises."""
    text = inspect.cleandoc(docstring or "").partition("\n\nRaises:")[0]
    first, _, rest = text.partition("\n\n")
    return " ".join(first.split()), rest.strip()


def _tag(route: Route) -> str:
    if route in DATABRICKS_ROUTES:
        return "Databricks"
    return "Headrace" if route.path.startswith(ROOT) else "Vertex AI"


def _data_plane_tag(path: str) -> str:
    if ":" in path:
        return "Prediction"
    if path.endswith("/invocations"):
        return "Databricks"
    openai = path.startswith(("/v1/", "/serving-endpoints/")) or "/endpoints/" in path or path.endswith("tokenize")
    return "OpenAI" if openai else "Server"
