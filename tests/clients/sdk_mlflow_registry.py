"""Run by the environment of MLflow, never by ours: a model's way into the registry, as MLflow's users go it.

Its arguments: a model folder as MLflow saves it, one with another flavour, and where to download to. The server and the
key are in its environment. Its last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

NAME = "ml.llm.smol"


def refused(work: Callable[[], Any]) -> list[str]:
    """The error's code, and what it says."""
    try:
        work()
    except MlflowException as error:
        return [error.error_code, error.message]
    return ["nothing", ""]


def version_of(client: MlflowClient, number: str) -> list[str]:
    """What the registry says of a version."""
    version = client.get_model_version(NAME, number)
    return [version.version, version.status, version.status_message or ""]


def main() -> None:
    """Register, find, alias, download, and be refused."""
    folder, other, target = sys.argv[1:]
    mlflow.set_registry_uri("databricks-uc")
    client = MlflowClient()
    client.create_registered_model(NAME, tags={"of": "tests"}, description="It answers.")
    made = client.create_model_version(NAME, folder)
    told: dict[str, Any] = {
        "made": [made.version, made.status],
        "again": refused(lambda: client.create_registered_model(NAME)),
        "two_levels": refused(lambda: client.create_registered_model("llm.smol")),
    }
    client.set_registered_model_alias(NAME, "champion", "1")
    told["by_alias"] = client.get_model_version_by_alias(NAME, "champion").version
    client.set_model_version_tag(NAME, "1", "k", "v")
    client.update_model_version(NAME, "1", "first")
    version = client.get_model_version(NAME, "1")
    told["version"] = [version.description, version.tags, version.source == folder]
    model = client.get_registered_model(NAME)
    told["model"] = [model.description, model.tags, model.aliases]
    told["found"] = [[each.name, each.version] for each in client.search_model_versions(f"name='{NAME}'")]
    told["names"] = [each.name for each in client.search_registered_models(max_results=1000)]
    client.create_model_version(NAME, other)
    told["other"] = version_of(client, "2")
    local = mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=target)
    told["downloaded"] = sorted(path.relative_to(local).as_posix() for path in Path(local).rglob("*") if path.is_file())
    told["missing"] = refused(lambda: client.get_model_version(NAME, "9"))
    client.delete_model_version(NAME, "2")
    told["left"] = [each.version for each in client.search_model_versions(f"name='{NAME}'")]
    print(json.dumps(told))


main()
