"""The paths that the gateway answers itself. Every other one is the control plane's, but for ``/internal``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import unquote

import msgspec

from headrace.contracts.databricks.oauth import CONFIG_PATH, DISCOVERY_PATHS, TOKEN_PATH
from headrace.contracts.databricks.paths import QUERY, invoked
from headrace.contracts.vertex.paths import VERSIONS, EndpointPath, read_endpoint_path, segments_of
from headrace.resources.access import Process


class Action(StrEnum):
    """What is asked of the gateway."""

    HEALTHZ = "healthz"
    READYZ = "readyz"
    ROOT = "root"
    METRICS = "metrics"
    EXCHANGE = "exchange"
    DISCOVER = "discover"
    GRANT = "grant"
    PREDICT = "predict"
    RAW_PREDICT = "rawPredict"
    STREAM_RAW_PREDICT = "streamRawPredict"
    GENERATE_CONTENT = "generateContent"
    STREAM_GENERATE_CONTENT = "streamGenerateContent"
    COUNT_TOKENS = "countTokens"
    EXPLAIN = "explain"
    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    INVOCATIONS = "invocations"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    MODELS = "models"
    MODEL = "model"
    WRONG_METHOD = "wrong method"
    PRIVATE = "private"  # our own processes' routes, which no client may reach
    CONTROL = "control"


class Match(msgspec.Struct, frozen=True):
    """A request's action and what its path names.

    Attributes:
        endpoint: For paths below an endpoint.
        model: For ``/v1/models/{model}`` and ``/serving-endpoints/{model}/invocations``.
        takes: The methods that the path takes, where the request has another one.
    """

    action: Action
    endpoint: EndpointPath | None = None
    model: str = ""
    takes: tuple[str, ...] = ()


class RouteEntry(msgspec.Struct, frozen=True):
    """One line of the list of routes, for the test that walks them all."""

    process: Process
    method: str
    template: str


ENDPOINT_ACTIONS: Mapping[tuple[str, str], Action] = {
    ("POST", ":predict"): Action.PREDICT,
    ("POST", ":rawPredict"): Action.RAW_PREDICT,
    ("POST", ":streamRawPredict"): Action.STREAM_RAW_PREDICT,
    ("POST", ":generateContent"): Action.GENERATE_CONTENT,
    ("POST", ":streamGenerateContent"): Action.STREAM_GENERATE_CONTENT,
    ("POST", ":countTokens"): Action.COUNT_TOKENS,
    ("POST", ":explain"): Action.EXPLAIN,
    ("POST", "/chat/completions"): Action.CHAT,
    ("POST", "/completions"): Action.COMPLETIONS,
    ("POST", "/embeddings"): Action.EMBEDDINGS,
    ("GET", "/models"): Action.MODELS,
}
"""By method and what follows an endpoint in the path, ``/invoke`` taken off."""

OPENAI_ACTIONS: Mapping[tuple[str, str], Action] = {
    ("POST", "/v1/chat/completions"): Action.CHAT,
    ("POST", "/v1/completions"): Action.COMPLETIONS,
    ("POST", "/v1/embeddings"): Action.EMBEDDINGS,
    ("POST", "/tokenize"): Action.TOKENIZE,
    ("POST", "/detokenize"): Action.DETOKENIZE,
    ("GET", "/v1/models"): Action.MODELS,
}
"""OpenAI's own paths, and vLLM's two for tokens, which have no ``/v1``."""

SERVING_ACTIONS: Mapping[tuple[str, str], Action] = {
    ("POST", f"{QUERY}chat/completions"): Action.CHAT,
    ("POST", f"{QUERY}completions"): Action.COMPLETIONS,
    ("POST", f"{QUERY}embeddings"): Action.EMBEDDINGS,
}
"""The same below the base URL that Databricks' SDK gives OpenAI's clients; ``model`` is the endpoint's name."""

PROBES: Mapping[tuple[str, str], Action] = {
    (method, path): action
    for path, action in (("/healthz", Action.HEALTHZ), ("/readyz", Action.READYZ), ("/", Action.ROOT))
    for method in ("GET", "HEAD")
}

METRICS: Mapping[tuple[str, str], Action] = {("GET", "/metrics"): Action.METRICS}
"""Where Prometheus looks."""

EXCHANGE: Mapping[tuple[str, str], Action] = {("POST", "/token"): Action.EXCHANGE}
"""Where the files of service accounts send Google's libraries."""

WAYS_IN: Mapping[tuple[str, str], Action] = {
    ("POST", TOKEN_PATH): Action.GRANT,
    **{("GET", path): Action.DISCOVER for path in (CONFIG_PATH, *DISCOVERY_PATHS)},
}
"""How Databricks' clients find out where tokens are, and get one."""

INFERRING = frozenset(
    {
        *ENDPOINT_ACTIONS.values(),
        *OPENAI_ACTIONS.values(),
        *SERVING_ACTIONS.values(),
        Action.INVOCATIONS,
        Action.MODEL,
    }
)
"""What `headrace.gateway.inference` answers."""

PUBLIC_PATHS = frozenset(path for _, path in (*PROBES, *EXCHANGE, *WAYS_IN))
"""That answer without a key."""

_FIXED = {**OPENAI_ACTIONS, **SERVING_ACTIONS, **PROBES, **METRICS, **EXCHANGE, **WAYS_IN}
_FIXED_MATCHES = {(method, path.encode()): Match(action) for (method, path), action in _FIXED.items()}
_MODEL = "/v1/models/"


def match(method: str, target: bytes) -> Match:
    """What a request asks for.

    Args:
        method: The HTTP method.
        target: The path as it was sent, percent-encoded.
    """
    fixed = _FIXED_MATCHES.get((method, target))
    if fixed is not None:
        return fixed
    path = target.decode("latin-1")
    if is_private(path):
        return Match(Action.PRIVATE)
    if method == "GET" and path.startswith(_MODEL) and len(path) > len(_MODEL):
        return Match(Action.MODEL, model=unquote(path.removeprefix(_MODEL)))
    if method == "POST" and (name := invoked(path)):
        return Match(Action.INVOCATIONS, model=name)
    endpoint = read_endpoint_path(segments_of(target))
    action = ENDPOINT_ACTIONS.get((method, endpoint.method)) if endpoint is not None else None
    if action is not None:
        return Match(action, endpoint)
    takes = _takes(path, endpoint)
    return Match(Action.WRONG_METHOD, endpoint, takes=takes) if takes else Match(Action.CONTROL)


def _takes(path: str, endpoint: EndpointPath | None) -> tuple[str, ...]:
    """The methods that the gateway answers at a path; none where it is control's."""
    if endpoint is not None:
        return tuple(method for method, suffix in ENDPOINT_ACTIONS if suffix == endpoint.method)
    if path.startswith(_MODEL) and len(path) > len(_MODEL):
        return ("GET",)
    if invoked(path):
        return ("POST",)
    return tuple(method for method, known in _FIXED if known == path)


def is_private(path: str) -> bool:
    """Whether a path leads to ``/internal`` or through it, however it is written: escaped, with dots or capitals.

    Through it, because the next reader may take ``..`` and backslashes as names.
    """
    steps: list[str] = []
    for step in unquote(path).lower().replace("\\", "/").split("/"):
        if step == "..":
            steps = steps[:-1]
        elif step not in ("", "."):
            steps.append(step)
        if steps[:1] == ["internal"]:
            return True
    return False


def gateway_routes() -> tuple[RouteEntry, ...]:
    """Every route that the gateway answers itself, on its public port."""
    below = [
        (method, f"/{version}/projects/{{project}}/locations/{{location}}/endpoints/{{endpoint}}{infix}{suffix}")
        for version in VERSIONS
        for method, suffix in ENDPOINT_ACTIONS
        for infix in ("", "/invoke", "/deployedModels/{deployed_model}/invoke")
        if suffix.startswith("/") or not infix
    ]
    named = [("GET", f"{_MODEL}{{model}}"), ("POST", f"{QUERY}{{name}}/invocations")]
    below += [
        (
            method,
            f"/{version}/projects/{{project}}/locations/{{location}}/publishers/{{publisher}}/models/{{model}}{verb}",
        )
        for version in VERSIONS
        for method, verb in ENDPOINT_ACTIONS
        if verb.startswith(":")
    ]
    listed = [*PROBES, *METRICS, *EXCHANGE, *WAYS_IN, *OPENAI_ACTIONS, *SERVING_ACTIONS, *named, *below]
    return tuple(RouteEntry(Process.GATEWAY, method, template) for method, template in listed)
