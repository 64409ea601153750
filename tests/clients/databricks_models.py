"""A model as Databricks' clients name it, at a server."""

from __future__ import annotations

from pathlib import Path

from server_process import LOCATION, ServerProcess

CLIENT = "HEADRACE_TEST_DATABRICKS_PYTHON"
"""The variable of the environment that has Databricks' clients."""

MODEL = "ml.llm-catalog.foundation-model"
"""As the document has it: three levels, with hyphens."""


def register(server: ServerProcess, weights: Path, name: str = MODEL, versions: int = 1) -> None:
    """Versions of a model of this name, in the project in which the server's first key works with these clients."""
    parent = ""
    with server.client() as client:
        for _ in range(versions):
            body = {"model": {"displayName": name, "artifactUri": str(weights)}} | (
                {"parentModel": parent} if parent else {}
            )
            operation = client.post(f"/v1/projects/default/locations/{LOCATION}/models:upload", json=body)
            assert operation.status_code == 200, operation.text
            parent = operation.json()["response"]["model"]


def environment(server: ServerProcess) -> dict[str, str]:
    """What points any of these clients at the server."""
    return {
        "DATABRICKS_HOST": server.url,
        "DATABRICKS_TOKEN": server.key,
        "HEADRACE_URL": server.url,
        "HEADRACE_API_KEY": server.key,
    }
