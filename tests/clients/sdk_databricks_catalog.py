"""Run by the environment of Databricks' SDK, never by ours: the registry as the SDK's users use it.

Its arguments: the server's address, a key, the key's id, and a file to upload. Its last line is JSON.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError

NAME = "ml.llm.fm"


def refused(work: Callable[[], Any]) -> list[str]:
    """The class of the SDK's exception, and what it says."""
    try:
        work()
    except (DatabricksError, ValueError) as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def catalog(w: WorkspaceClient) -> dict[str, Any]:
    """Names of three levels, from their making to their end."""
    w.catalogs.create("ml")
    w.schemas.create("llm", "ml")
    made = w.registered_models.create(catalog_name="ml", schema_name="llm", name="fm", comment="It flows.")
    told: dict[str, Any] = {
        "made": [made.full_name, made.catalog_name, made.comment],
        "again": refused(lambda: w.registered_models.create(catalog_name="ml", schema_name="llm", name="FM")),
        "missing": refused(lambda: w.registered_models.get("ml.llm.nothing")),
        "bad_name": refused(lambda: w.registered_models.create(catalog_name="ml", schema_name="llm", name="a.b")),
        "catalogs": [each.name for each in w.catalogs.list()],
        "schemas": [each.full_name for each in w.schemas.list("ml")],
        "listed": [each.full_name for each in w.registered_models.list(catalog_name="ml", schema_name="llm")],
        "system": [
            each.full_name for each in w.registered_models.list(catalog_name="system", schema_name="ai", max_results=5)
        ],
        "read_only": refused(lambda: w.registered_models.delete("system.ai.smollm2_135m_instruct")),
    }
    w.registered_models.update(NAME, comment="It flowed.")
    return told


def pending(w: WorkspaceClient) -> str:
    """A version whose files are to come: the SDK has no method for that, MLflow does it."""
    body = {"name": NAME, "source": "here"}
    made: Any = w.api_client.do("POST", "/api/2.0/mlflow/unity-catalog/model-versions/create", body=body)
    return str(made["model_version"]["version"])


def files(w: WorkspaceClient, number: str, large: Path) -> dict[str, Any]:
    """The files of a version and of a volume, small and large."""
    place = f"/Models/ml/llm/fm/{number}"
    w.files.upload(f"{place}/config.json", io.BytesIO(b"{}"), overwrite=True)
    with large.open("rb") as file:
        w.files.upload(f"{place}/deep/large.bin", file, overwrite=True)
    volume = "/Volumes/ml/llm/raw"
    w.files.create_directory(f"{volume}/d/e")
    w.files.upload(f"{volume}/d/a b.txt", io.BytesIO(b"text"), overwrite=False)
    target = large.with_name("back.bin")
    w.files.download_to(f"{place}/deep/large.bin", str(target))
    body = {"name": NAME, "version": number}
    w.api_client.do("POST", "/api/2.0/mlflow/unity-catalog/model-versions/finalize", body=body)
    return {
        "downloaded": (w.files.download(f"{volume}/d/a b.txt").contents or io.BytesIO()).read().decode(),
        "same": target.read_bytes() == large.read_bytes(),
        "length": w.files.get_metadata(f"{place}/deep/large.bin").content_length,
        "listed": [[each.path, each.is_directory] for each in w.files.list_directory_contents(f"{volume}/d")],
        "taken": refused(lambda: w.files.upload(f"{volume}/d/a b.txt", io.BytesIO(b"x"), overwrite=False)),
        "no_file": refused(lambda: w.files.get_metadata(f"{place}/nothing")),
        "no_folder": refused(lambda: w.files.get_directory_metadata(f"{place}/nothing")),
        "late": refused(lambda: w.files.upload(f"{place}/x", io.BytesIO(b"x"), overwrite=True)),
        "outside": refused(lambda: w.files.upload(f"{place}/../../x", io.BytesIO(b"x"), overwrite=True)),
    }


def versions(w: WorkspaceClient) -> dict[str, Any]:
    """Versions, aliases, and their end."""
    second = pending(w)
    listed = [[each.version, each.status.value if each.status else ""] for each in w.model_versions.list(NAME)]
    w.registered_models.set_alias(NAME, "Champion", 1)
    w.registered_models.set_alias(NAME, "Champion", int(second))
    by_alias = w.model_versions.get_by_alias(NAME, "Champion").version
    w.model_versions.update(NAME, 1, comment="first")
    told = {
        "listed": listed,
        "by_alias": by_alias,
        "comment": w.model_versions.get(NAME, 1).comment,
        "aliases": [[each.alias_name, each.version_num] for each in w.registered_models.get(NAME).aliases or []],
    }
    w.registered_models.delete_alias(NAME, "Champion")
    told["no_alias"] = refused(lambda: w.model_versions.get_by_alias(NAME, "Champion"))
    w.model_versions.delete(NAME, 1)
    w.registered_models.delete(NAME)
    told["gone"] = refused(lambda: w.registered_models.get(NAME))
    return told


def ways_in(host: str, key: str, key_id: str) -> dict[str, Any]:
    """With a token, and as a service: client credentials."""
    service = WorkspaceClient(host=host, client_id=key_id, client_secret=key, auth_type="oauth-m2m")
    wrong = WorkspaceClient(host=host, client_id=key_id, client_secret="hr-wrong", auth_type="oauth-m2m")
    return {
        "service": service.current_user.me().id,
        "catalogs": [each.name for each in service.catalogs.list()],
        "wrong": refused(wrong.current_user.me),
        "no_key": refused(WorkspaceClient(host=host, token="hr-wrong").current_user.me),
    }


def main() -> None:
    """Do it all."""
    host, key, key_id, large = sys.argv[1:]
    w = WorkspaceClient(host=host, token=key)
    told = {"me": w.current_user.me().id, "catalog": catalog(w)}
    told["files"] = files(w, pending(w), Path(large))
    told["versions"] = versions(w)
    told["ways_in"] = ways_in(host, key, key_id)
    print(json.dumps(told))


main()
