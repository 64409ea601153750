"""Which paths are OpenAI's: what shape an error has there that nobody's route answers."""

from __future__ import annotations

from headrace.contracts.databricks.paths import is_databricks_openai_path

_ROOT = "/v1/"
_VERTEX = ("/v1/projects/", "/v1/publishers/")


def is_openai_path(path: str) -> bool:
    """Whether a client of OpenAI's asks at this path, known or not.

    ``/v1`` without what is Vertex AI's of it, and ``/serving-endpoints`` without what is Databricks' own.
    """
    return (path.startswith(_ROOT) and not path.startswith(_VERTEX)) or is_databricks_openai_path(path)
