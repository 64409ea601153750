"""The registry's and the files' routes, each with the permission that it demands and what it takes and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace.api.access import Route
from headrace.api.databricks import catalog, files, mlflow, scim
from headrace.api.databricks.files import ABORT_PATH
from headrace.api.description import BOOLEAN, STRING, Description, Query, Schema, listed, record
from headrace.contracts.databricks import mlflow as mlflow_bodies
from headrace.contracts.databricks import unity_catalog as bodies
from headrace.contracts.databricks.files import AbortBody
from headrace.resources.access import Permission

READ, DEPLOY = Permission.READ, Permission.DEPLOY

UC: Final = "/api/2.1/unity-catalog"
MLFLOW: Final = "/api/2.0/mlflow/unity-catalog"
FILES: Final = "/api/2.0/fs"
MODEL: Final = f"{UC}/models/{{name}}"
ME: Final = "/api/2.0/preview/scim/v2/Me"
IS_ENABLED: Final = f"{MLFLOW}/registered-models:is-databricks-sdk-models-artifact-repository-enabled"
PARTS: Final = (
    "create-upload-part-urls",
    "create-resumable-upload-url",
    "create-download-url",
)

ROUTES: Final = (
    Route("GET", ME, READ, scim.me),
    Route("POST", f"{UC}/models", DEPLOY, catalog.create_model),
    Route("GET", f"{UC}/models", READ, catalog.list_models),
    Route("GET", MODEL, READ, catalog.get_model),
    Route("PATCH", MODEL, DEPLOY, catalog.update_model),
    Route("DELETE", MODEL, DEPLOY, catalog.delete_model),
    Route("GET", f"{MODEL}/versions", READ, catalog.list_versions),
    Route("GET", f"{MODEL}/versions/{{version}}", READ, catalog.get_version),
    Route("PATCH", f"{MODEL}/versions/{{version}}", DEPLOY, catalog.update_version),
    Route("DELETE", f"{MODEL}/versions/{{version}}", DEPLOY, catalog.delete_version),
    Route("GET", f"{MODEL}/aliases/{{alias}}", READ, catalog.get_version_by_alias),
    Route("PUT", f"{MODEL}/aliases/{{alias}}", DEPLOY, catalog.set_alias),
    Route("DELETE", f"{MODEL}/aliases/{{alias}}", DEPLOY, catalog.delete_alias),
    Route("POST", f"{UC}/catalogs", DEPLOY, catalog.create_catalog),
    Route("GET", f"{UC}/catalogs", READ, catalog.list_catalogs),
    Route("GET", f"{UC}/catalogs/{{name}}", READ, catalog.get_catalog),
    Route("DELETE", f"{UC}/catalogs/{{name}}", DEPLOY, catalog.delete_catalog),
    Route("POST", f"{UC}/schemas", DEPLOY, catalog.create_schema),
    Route("GET", f"{UC}/schemas", READ, catalog.list_schemas),
    Route("GET", f"{UC}/schemas/{{name}}", READ, catalog.get_schema),
    Route("DELETE", f"{UC}/schemas/{{name}}", DEPLOY, catalog.delete_schema),
    Route("GET", IS_ENABLED, READ, mlflow.uploads_by_files),
    Route("POST", f"{MLFLOW}/registered-models/create", DEPLOY, mlflow.create_model),
    Route("GET", f"{MLFLOW}/registered-models/get", READ, mlflow.get_model),
    Route("GET", f"{MLFLOW}/registered-models/search", READ, mlflow.search_models),
    Route("PATCH", f"{MLFLOW}/registered-models/update", DEPLOY, mlflow.update_model),
    Route("DELETE", f"{MLFLOW}/registered-models/delete", DEPLOY, mlflow.delete_model),
    Route("GET", f"{MLFLOW}/registered-models/alias", READ, mlflow.get_version_by_alias),
    Route("POST", f"{MLFLOW}/registered-models/alias", DEPLOY, mlflow.set_alias),
    Route("DELETE", f"{MLFLOW}/registered-models/alias", DEPLOY, mlflow.delete_alias),
    Route("POST", f"{MLFLOW}/registered-models/set-tag", DEPLOY, mlflow.set_model_tag),
    Route("DELETE", f"{MLFLOW}/registered-models/delete-tag", DEPLOY, mlflow.delete_model_tag),
    Route("POST", f"{MLFLOW}/model-versions/create", DEPLOY, mlflow.create_version),
    Route("POST", f"{MLFLOW}/model-versions/finalize", DEPLOY, mlflow.finalize_version),
    Route("GET", f"{MLFLOW}/model-versions/get", READ, mlflow.get_version),
    Route("GET", f"{MLFLOW}/model-versions/search", READ, mlflow.search_versions),
    Route("PATCH", f"{MLFLOW}/model-versions/update", DEPLOY, mlflow.update_version),
    Route("DELETE", f"{MLFLOW}/model-versions/delete", DEPLOY, mlflow.delete_version),
    Route("GET", f"{MLFLOW}/model-versions/get-download-uri", READ, mlflow.download_uri),
    Route("POST", f"{MLFLOW}/model-versions/generate-temporary-credentials", READ, mlflow.temporary_credentials),
    Route("POST", f"{MLFLOW}/model-versions/set-tag", DEPLOY, mlflow.set_version_tag),
    Route("DELETE", f"{MLFLOW}/model-versions/delete-tag", DEPLOY, mlflow.delete_version_tag),
    *(Route("POST", f"{FILES}/{name}", READ, files.refuse_parts) for name in PARTS),
    Route("POST", f"{FILES}/create-abort-upload-url", DEPLOY, files.abort_address),
    Route("DELETE", ABORT_PATH, DEPLOY, files.abort_upload),
    Route("PUT", f"{FILES}/files/{{path:below}}", DEPLOY, files.upload_file),
    Route("POST", f"{FILES}/files/{{path:below}}", DEPLOY, files.start_upload),
    Route("GET", f"{FILES}/files/{{path:below}}", READ, files.download_file),
    Route("HEAD", f"{FILES}/files/{{path:below}}", READ, files.file_metadata),
    Route("DELETE", f"{FILES}/files/{{path:below}}", DEPLOY, files.delete_uploaded),
    Route("GET", f"{FILES}/directories/{{path:below}}", READ, files.list_folder),
    Route("HEAD", f"{FILES}/directories/{{path:below}}", READ, files.folder_metadata),
    Route("PUT", f"{FILES}/directories/{{path:below}}", DEPLOY, files.create_folder),
    Route("DELETE", f"{FILES}/directories/{{path:below}}", DEPLOY, files.delete_directory),
)
"""In the order in which they are tried."""

_INTEGER: Schema = {"type": "string", "pattern": "^[0-9]{1,6}$"}
_PAGE = (Query("max_results", "How many at most; 0: 100.", _INTEGER), Query("page_token", "Of the page before."))
_MODEL = record(name=STRING, full_name=STRING, catalog_name=STRING, schema_name=STRING)
_VERSION = record(model_name=STRING, version={"type": "integer"}, status=STRING)
_NAMESPACE = record(name=STRING, full_name=STRING)
_MLFLOW_MODEL = record(registered_model=record(name=STRING))
_MLFLOW_VERSION = record(model_version=record(name=STRING, version=STRING, status=STRING))
_NOTHING: Schema = {"type": "object"}


def _said(**fields: Any) -> Description:
    return Description(errors="databricks", **fields)


def _asked(*names: str) -> tuple[Query, ...]:
    return tuple(Query(name, f"The {name}.") for name in names)


def _uc(body: Any = None, answer: Any = None, query: tuple[Query, ...] = ()) -> Description:
    return _said(body=body, answer=answer or _NOTHING, query=query)


DESCRIPTIONS: Mapping[str, Description] = {
    f"GET {ME}": _uc(answer=record(id=STRING, userName=STRING, displayName=STRING)),
    f"POST {UC}/models": _uc(bodies.ModelBody, _MODEL),
    f"GET {UC}/models": _uc(
        answer=listed("registered_models", _MODEL), query=(*_asked("catalog_name", "schema_name"), *_PAGE)
    ),
    f"GET {MODEL}": _uc(answer=_MODEL),
    f"PATCH {MODEL}": _uc(bodies.ModelChange, _MODEL),
    f"DELETE {MODEL}": _uc(),
    f"GET {MODEL}/versions": _uc(answer=listed("model_versions", _VERSION), query=_PAGE),
    f"GET {MODEL}/versions/{{version}}": _uc(answer=_VERSION),
    f"PATCH {MODEL}/versions/{{version}}": _uc(bodies.VersionChange, _VERSION),
    f"DELETE {MODEL}/versions/{{version}}": _uc(),
    f"GET {MODEL}/aliases/{{alias}}": _uc(answer=_VERSION),
    f"PUT {MODEL}/aliases/{{alias}}": _uc(bodies.AliasBody, record(alias_name=STRING)),
    f"DELETE {MODEL}/aliases/{{alias}}": _uc(),
    **{f"POST {UC}/{kind}": _uc(bodies.NamespaceBody, _NAMESPACE) for kind in ("catalogs", "schemas")},
    f"GET {UC}/catalogs": _uc(answer=listed("catalogs", _NAMESPACE), query=_PAGE),
    f"GET {UC}/schemas": _uc(answer=listed("schemas", _NAMESPACE), query=(*_asked("catalog_name"), *_PAGE)),
    **{f"GET {UC}/{kind}/{{name}}": _uc(answer=_NAMESPACE) for kind in ("catalogs", "schemas")},
    **{
        f"DELETE {UC}/{kind}/{{name}}": _uc(query=(Query("force", "Empty schemas go along.", BOOLEAN),))
        for kind in ("catalogs", "schemas")
    },
    f"GET {IS_ENABLED}": _uc(),
    f"POST {MLFLOW}/registered-models/create": _uc(mlflow_bodies.CreateModel, _MLFLOW_MODEL),
    f"GET {MLFLOW}/registered-models/get": _uc(answer=_MLFLOW_MODEL, query=_asked("name")),
    f"GET {MLFLOW}/registered-models/search": _uc(answer=listed("registered_models", record(name=STRING)), query=_PAGE),
    f"PATCH {MLFLOW}/registered-models/update": _uc(mlflow_bodies.UpdateModel, _MLFLOW_MODEL),
    f"DELETE {MLFLOW}/registered-models/delete": _uc(mlflow_bodies.Named),
    f"GET {MLFLOW}/registered-models/alias": _uc(answer=_MLFLOW_VERSION, query=_asked("name", "alias")),
    f"POST {MLFLOW}/registered-models/alias": _uc(mlflow_bodies.SetAlias),
    f"DELETE {MLFLOW}/registered-models/alias": _uc(mlflow_bodies.Aliased),
    f"POST {MLFLOW}/registered-models/set-tag": _uc(mlflow_bodies.ModelTag),
    f"DELETE {MLFLOW}/registered-models/delete-tag": _uc(mlflow_bodies.ModelTag),
    f"POST {MLFLOW}/model-versions/create": _uc(mlflow_bodies.CreateVersion, _MLFLOW_VERSION),
    f"POST {MLFLOW}/model-versions/finalize": _uc(mlflow_bodies.Versioned, _MLFLOW_VERSION),
    f"GET {MLFLOW}/model-versions/get": _uc(answer=_MLFLOW_VERSION, query=_asked("name", "version")),
    f"GET {MLFLOW}/model-versions/search": _uc(
        answer=listed("model_versions", record(name=STRING)), query=(*_asked("filter"), *_PAGE)
    ),
    f"PATCH {MLFLOW}/model-versions/update": _uc(mlflow_bodies.UpdateVersion, _MLFLOW_VERSION),
    f"DELETE {MLFLOW}/model-versions/delete": _uc(mlflow_bodies.Versioned),
    f"GET {MLFLOW}/model-versions/get-download-uri": _uc(
        answer=record(artifact_uri=STRING), query=_asked("name", "version")
    ),
    f"POST {MLFLOW}/model-versions/generate-temporary-credentials": _uc(_NOTHING),
    f"POST {MLFLOW}/model-versions/set-tag": _uc(mlflow_bodies.VersionTag),
    f"DELETE {MLFLOW}/model-versions/delete-tag": _uc(mlflow_bodies.VersionTag),
    **{f"POST {FILES}/{name}": _uc(_NOTHING) for name in PARTS},
    f"POST {FILES}/create-abort-upload-url": _uc(AbortBody),
    f"DELETE {ABORT_PATH}": _uc(),
    f"PUT {FILES}/files/{{path:below}}": _said(
        answer=None,
        body={"type": "string", "contentMediaType": "application/octet-stream"},
        body_types=("application/octet-stream",),
        query=(Query("overwrite", "Whether a file that is there is replaced; it is, if nothing is said.", BOOLEAN),),
    ),
    f"POST {FILES}/files/{{path:below}}": _uc(query=_asked("action")),
    f"GET {FILES}/files/{{path:below}}": _said(
        answer=None, answer_types={"application/octet-stream": "The file's bytes."}
    ),
    f"HEAD {FILES}/files/{{path:below}}": _said(answer=None),
    f"DELETE {FILES}/files/{{path:below}}": _said(answer=None),
    f"GET {FILES}/directories/{{path:below}}": _uc(
        answer=listed("contents", record(path=STRING, name=STRING)),
        query=(Query("page_size", "How many at most; 0: 1000.", _INTEGER), Query("page_token", "Of the page before.")),
    ),
    f"HEAD {FILES}/directories/{{path:below}}": _said(answer=None),
    f"PUT {FILES}/directories/{{path:below}}": _said(answer=None),
    f"DELETE {FILES}/directories/{{path:below}}": _said(answer=None),
}
"""By ``"METHOD /path"``."""
