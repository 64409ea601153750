"""Which paths are Databricks', and what of them the gateway answers."""

from __future__ import annotations

from urllib.parse import unquote

SERVING = "/api/2.0/serving-endpoints"
"""Where serving endpoints are made, listed, changed and deleted."""

QUERY = "/serving-endpoints/"
"""Below it they are asked: by their name, or as OpenAI's clients do."""

_API = ("/api/2.", "/oidc/", "/.well-known/databricks-config")
_INVOCATIONS = "/invocations"


def is_databricks_path(path: str) -> bool:
    """Whether a client of Databricks' asks at this path, known or not, and so reads errors in that shape."""
    return path.startswith(_API) or (path.startswith(QUERY) and path.endswith(_INVOCATIONS))


def is_databricks_openai_path(path: str) -> bool:
    """Whether an OpenAI client asks at this path, as `get_open_ai_client` of Databricks' SDK makes one."""
    return path.startswith(QUERY) and not path.endswith(_INVOCATIONS)


def invoked(path: str) -> str:
    """The endpoint that ``/serving-endpoints/{name}/invocations`` names, percent-decoded; empty for other paths."""
    if not (path.startswith(QUERY) and path.endswith(_INVOCATIONS)):
        return ""
    name = path.removeprefix(QUERY).removesuffix(_INVOCATIONS)
    return "" if "/" in name else unquote(name)
