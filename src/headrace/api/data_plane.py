"""What the gateway's own routes take and answer; it has no web framework that would say so."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.api.description import STRING, Description, Shape, listed, record
from headrace.contracts.databricks import oauth
from headrace.contracts.vertex.paths import VERSIONS
from headrace.contracts.vertex.token_exchange import GRANT_TYPE
from headrace.gateway.routes import gateway_routes

_VERSION = re.compile(f"^/({'|'.join(VERSIONS)})/projects/")
_OBJECTS: Shape = {"type": "array", "items": {"type": "object"}}
_STREAM = {"text/event-stream": "With `stream`: server-sent events, the last one `[DONE]`."}
_CHAT: Shape = {
    **record(messages=_OBJECTS),
    "description": "As OpenAI's clients send it. `model` names the endpoint; below an endpoint it may be anything.",
}
_PROMPT: Shape = {**record(prompt={}), "description": "As OpenAI's clients send it."}
_INPUT: Shape = {**record(input={}), "description": "As OpenAI's clients send it."}
_INSTANCES: Shape = {
    **record(instances={"type": "array"}),
    "description": "Prompts, texts or chats, each with its own parameters or with `parameters` for all.",
}
_INVOCATION: Shape = {
    "type": "object",
    "description": "A chat (`messages`), a completion (`prompt`), texts to embed (`input`), or rows of a table: "
    "`dataframe_split`, `dataframe_records`, `inputs` or `instances`, answered by `predictions`.",
}
_STATUS: Shape = record(status=STRING)
_TEXT = {"text/plain": "Lines of text."}
_TOKEN_REQUEST: Shape = record(grant_type={"const": GRANT_TYPE}, assertion=STRING)
_ACCESS_TOKEN: Shape = record(access_token=STRING, token_type=STRING, expires_in={"type": "integer"})

_COMPLETION = Description(body=_PROMPT, answer_types=_STREAM, errors="openai")
_CONTENTS = record(contents={"type": "array", "items": {"type": "object"}})
_BELOW_AN_ENDPOINT: Mapping[str, Description] = {
    "POST :predict": Description(body=_INSTANCES, answer=listed("predictions", {})),
    "POST :rawPredict": Description(body={"type": "object"}),
    "POST :streamRawPredict": Description(body={"type": "object"}, answer_types=_STREAM),
    "POST :generateContent": Description(body=_CONTENTS, answer=listed("candidates", {"type": "object"})),
    "POST :streamGenerateContent": Description(body=_CONTENTS, answer={}, answer_types=_STREAM),
    "POST :countTokens": Description(body={"type": "object"}, answer=record(totalTokens={"type": "integer"})),
    "POST :explain": Description(body={"type": "object"}),
    "POST /chat/completions": Description(body=_CHAT, answer_types=_STREAM),
    "POST /completions": Description(body=_PROMPT, answer_types=_STREAM),
    "POST /embeddings": Description(body=_INPUT),
    "GET /models": Description(answer=listed("data", {"type": "object"})),
}
_PLACE = "/{version}/projects/{project}/locations/{location}/endpoints/{endpoint}"
_BY_NAME = "/{version}/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}"

DESCRIPTIONS: Mapping[str, Description] = {
    "GET /healthz": Description(public=True, answer=_STATUS),
    "GET /readyz": Description(public=True, answer=_STATUS),
    "GET /": Description(public=True, answer=None, answer_types=_TEXT),
    "GET /metrics": Description(answer=None, answer_types=_TEXT, errors="openai"),
    "POST /token": Description(
        public=True,
        body=_TOKEN_REQUEST,
        body_types=("application/x-www-form-urlencoded", "application/json"),
        answer=_ACCESS_TOKEN,
        errors="oauth",
    ),
    f"POST {oauth.TOKEN_PATH}": Description(
        public=True,
        body=record(grant_type={"const": oauth.GRANT_TYPE}),
        body_types=("application/x-www-form-urlencoded",),
        answer=_ACCESS_TOKEN,
        errors="oauth",
    ),
    f"GET {oauth.CONFIG_PATH}": Description(
        public=True, answer=record(oidc_endpoint=STRING, workspace_id=STRING, cloud=STRING)
    ),
    **{
        f"GET {path}": Description(public=True, answer=record(token_endpoint=STRING, authorization_endpoint=STRING))
        for path in oauth.DISCOVERY_PATHS
    },
    "GET /v1/models": Description(answer=listed("data", {"type": "object"}), errors="openai"),
    "GET /v1/models/{model}": Description(answer=record(id=STRING), errors="openai"),
    "POST /v1/chat/completions": Description(body=_CHAT, answer_types=_STREAM, errors="openai"),
    "POST /v1/completions": _COMPLETION,
    "POST /v1/embeddings": Description(body=_INPUT, errors="openai"),
    "POST /serving-endpoints/chat/completions": Description(body=_CHAT, answer_types=_STREAM, errors="openai"),
    "POST /serving-endpoints/completions": _COMPLETION,
    "POST /serving-endpoints/embeddings": Description(body=_INPUT, errors="openai"),
    "POST /serving-endpoints/{name}/invocations": Description(
        body=_INVOCATION, answer_types=_STREAM, errors="databricks"
    ),
    "POST /tokenize": Description(body={"type": "object"}, errors="openai"),
    "POST /detokenize": Description(body={"type": "object"}, errors="openai"),
    **{
        f"{what.split()[0]} {_PLACE}{infix}{what.split()[1]}": one
        for infix in ("", "/invoke", "/deployedModels/{deployed_model}/invoke")
        for what, one in _BELOW_AN_ENDPOINT.items()
        if " /" in what or not infix
    },
    **{
        f"{what.split()[0]} {_BY_NAME}{what.split()[1]}": one
        for what, one in _BELOW_AN_ENDPOINT.items()
        if " :" in what
    },
}
"""By ``"METHOD /path"``."""

SUMMARIES: Mapping[str, str] = {
    "/healthz": "That the process runs, and nothing else.",
    "/readyz": "Whether it can route: 200 or 503.",
    "/": "What the port is, for a browser.",
    "/metrics": "For Prometheus: of every gateway and every engine.",
    "/token": "Trade what a service account signed (RFC 7523) for an access token, as Google's libraries do.",
    oauth.TOKEN_PATH: "An access token for a client's id and secret (RFC 6749, 4.4), as Databricks' clients want it.",
    oauth.CONFIG_PATH: "Where Databricks' clients get tokens.",
    **dict.fromkeys(oauth.DISCOVERY_PATHS, "Where tokens are to be had (RFC 8414)."),
    "/v1/models": "The endpoints that the key reaches, as OpenAI's models.",
    "/v1/models/{model}": "One of them.",
    "/tokenize": "The tokens of a prompt or a chat, as its engine counts them.",
    "/detokenize": "The text of tokens.",
    "/serving-endpoints/{name}/invocations": "A serving endpoint, asked as Databricks' clients do.",
    ":predict": "One prediction for each instance.",
    ":rawPredict": "A body handed to the engine as it is.",
    ":streamRawPredict": "The same, and the answer streamed.",
    ":generateContent": "Gemini's way of asking: contents in, candidates out.",
    ":streamGenerateContent": "The same, streamed: events with alt=sse, else one JSON array.",
    ":countTokens": "How many tokens contents have, as the engine counts them.",
    ":explain": "Nothing here explains predictions: 501, with the reason.",
    "/chat/completions": "OpenAI's chat completions.",
    "/completions": "OpenAI's completions.",
    "/embeddings": "OpenAI's embeddings.",
    "/models": "What is deployed on the endpoint, as OpenAI's models.",
}
"""A sentence for each, by its path or by the end of it; the longest that fits."""


def data_plane_routes() -> list[tuple[str, str]]:
    """Method and path of what the gateway answers, without the heads of probes; both versions of a path are one."""
    routes = [(route.method, _VERSION.sub("/{version}/projects/", route.template)) for route in gateway_routes()]
    return [route for route in dict.fromkeys(routes) if route[0] != "HEAD"]


def summary_of(path: str) -> str:
    """What a route is for; empty if nobody said."""
    if path in SUMMARIES:
        return SUMMARIES[path]
    ends = [end for end in SUMMARIES if path.endswith(end) and end != "/"]
    return SUMMARIES[max(ends, key=len)] if ends else ""
