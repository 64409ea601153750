"""Which paths are OpenAI's: what shape an error has there that nobody's route answers."""

from __future__ import annotations

_ROOT = "/v1/"
_VERTEX = ("/v1/projects/", "/v1/publishers/")


def is_openai_path(path: str) -> bool:
    """Whether a client of OpenAI's asks at this path, known or not: ``/v1`` without what is Vertex AI's of it."""
    return path.startswith(_ROOT) and not path.startswith(_VERTEX)
