"""Unity Catalog's registry by either client's routes: names, versions that are uploaded, files, the Garden's models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import World
from fastapi.responses import StreamingResponse

from headrace.api.databricks.download import file_answer
from headrace.api.databricks.registry import upload_lock
from headrace.api.databricks.system_ai import prepared
from headrace.control import commands
from headrace.control.commands import unity_catalog
from headrace.control.registration import Outcome
from headrace.resources.access import Role
from headrace.resources.errors import HeadraceError, InstructOnly, LicenceNotAccepted, ModelNotFound, UploadNotFound
from headrace.resources.models import ModelVersion, RegistrationState
from headrace.resources.names import DEFAULT_SCOPE
from headrace.weights.demo import demo_model_dir
from mlflow_folders import MLMODEL, PYFUNC_ONLY, files_of, hugging_face, mlflow

UC = "/api/2.1/unity-catalog"
MF = "/api/2.0/mlflow/unity-catalog"
FILES = "/api/2.0/fs/files"
FOLDERS = "/api/2.0/fs/directories"
NAME = "ml.llm.fm"
PLACE = "Models/ml/llm/fm"


def refused(world: World, method: str, path: str, **options: Any) -> tuple[int, str, str]:
    """Status, Databricks' code and ours of a request that must fail."""
    answer = world.call(method, path, **options)
    body = answer.json()
    assert set(body) == {"error_code", "message", "details"}, answer.text
    assert "Traceback" not in answer.text
    return answer.status_code, body["error_code"], body["details"][0]["reason"]


def registered(world: World, name: str = NAME) -> Any:
    """A registered model, as MLflow makes it."""
    return world.json("POST", f"{MF}/registered-models/create", json={"name": name})["registered_model"]


def pending(world: World, name: str = NAME, **fields: Any) -> str:
    """The number of a version whose files are to come."""
    body = {"name": name, "source": "/models/m", "feature_deps": "", **fields}
    version = world.json("POST", f"{MF}/model-versions/create", json=body)["model_version"]
    assert version["status"] == "PENDING_REGISTRATION"
    number: str = version["version"]
    return number


def put(world: World, path: str, content: bytes, **query: str) -> httpx.Response:
    """Upload a file."""
    return world.call("PUT", f"{FILES}/{path}", params=query, content=content)


def uploaded(world: World, folder: Path, name: str = NAME) -> Any:
    """A version with the files of a folder, finalized."""
    number = pending(world, name)
    for file, content in files_of(folder).items():
        assert put(world, f"Models/{name.replace('.', '/')}/{number}/{file}", content).status_code == 204
    body = {"name": name, "version": number}
    return world.json("POST", f"{MF}/model-versions/finalize", json=body)["model_version"]


def row(world: World, number: str) -> ModelVersion:
    """A version of the only model, as stored."""
    with world.store.transaction() as tx:
        (found,) = (each for each in tx.list(ModelVersion, scope=DEFAULT_SCOPE) if each.version == number)
    return found


def deployable(world: World, number: str) -> str:
    """Why a version cannot be deployed; empty if it can."""
    try:
        commands.require_deployable(row(world, number))
    except HeadraceError as error:
        return f"{error.code} {error.evidence}"
    return ""


def test_an_mlflow_model_becomes_a_folder_that_can_be_served(world: World, tmp_path: Path) -> None:
    """Uploaded, finalized, READY: its artifacts are one Hugging Face folder, and what came stays downloadable."""
    registered(world)
    version = uploaded(world, mlflow(tmp_path / "m"))
    assert (version["status"], version["version"], version["source"]) == ("READY", "1", "/models/m")
    stored = row(world, "1")
    folder = Path(stored.artifact_uri.removeprefix("file://"))
    assert set(files_of(folder)) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert deployable(world, "1") == ""
    listed = world.json("GET", f"{FOLDERS}/{PLACE}/1")["contents"]
    assert [(each["name"], each["is_directory"]) for each in listed] == [
        ("MLmodel", False),
        ("components", True),
        ("model", True),
    ]
    assert listed[0]["path"] == f"/{PLACE}/1/MLmodel"
    assert listed[0]["file_size"] == len(MLMODEL)
    assert world.call("GET", f"{FILES}/{PLACE}/1/MLmodel").text == MLMODEL
    part = world.call("GET", f"{FILES}/{PLACE}/1/MLmodel", headers={"range": "bytes=0-7"})
    assert (part.status_code, part.text) == (206, MLMODEL[:8])
    told = world.json("GET", f"{MF}/model-versions/get-download-uri", params={"name": NAME, "version": "1"})
    assert told == {"artifact_uri": f"/{PLACE}/1"}


def test_a_hugging_face_folder_is_served_where_it_was_uploaded(world: World, tmp_path: Path) -> None:
    """Nothing is made of it; a warning of the doctor's is told and does no harm."""
    registered(world)
    folder = hugging_face(tmp_path / "m")
    (folder / "tokenizer_config.json").unlink()
    version = uploaded(world, folder)
    assert version["status"] == "READY"
    assert "CHAT_TEMPLATE_MISSING" in version["status_message"]
    assert "/models/" in row(world, "1").artifact_uri


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"MLmodel": PYFUNC_ONLY}, "FLAVOUR_NOT_SUPPORTED: MLflow models of the flavour 'pyfunc'"),
        ({"MLmodel": b"flavors: {sklearn: {}}", "model.pkl": b"x"}, "'sklearn'"),
        ({"MLmodel": b"\x00"}, "CONFIG_INVALID"),
        ({"readme.md": b"x"}, "CONFIG_MISSING"),
        ({"config.json": b"{}", "model.safetensors": b"x"}, "_"),
        ({}, "ARTIFACTS_NOT_FOUND: No file was uploaded."),
    ],
)
def test_what_cannot_be_served_fails_with_its_reason(
    world: World, tmp_path: Path, files: dict[str, bytes], why: str
) -> None:
    """FAILED_REGISTRATION and the message; a deploy is refused with the same words, and no file is taken any more."""
    registered(world)
    number = pending(world)
    for name, content in files.items():
        assert put(world, f"{PLACE}/{number}/{name}", content).status_code == 204
    body = {"name": NAME, "version": number}
    version = world.json("POST", f"{MF}/model-versions/finalize", json=body)["model_version"]
    assert version["status"] == "FAILED_REGISTRATION"
    assert why in version["status_message"]
    assert version["status_message"] in deployable(world, number)
    assert world.json("GET", f"{UC}/models/{NAME}/versions/1")["status"] == "FAILED_REGISTRATION"
    assert refused(world, "POST", f"{MF}/model-versions/finalize", json=body)[2] == "VERSION_NOT_READY"
    late = refused(world, "PUT", f"{FILES}/{PLACE}/{number}/x", content=b"x")
    assert late == (400, "INVALID_STATE", "VERSION_NOT_READY")


def test_a_version_whose_files_come_is_neither_deployed_nor_in_the_way(world: World, tmp_path: Path) -> None:
    """It is PENDING_REGISTRATION, cannot be deployed, and the next one has the next number."""
    registered(world)
    assert (pending(world), pending(world)) == ("1", "2")
    assert deployable(world, "1").startswith("VERSION_NOT_READY PENDING_REGISTRATION")
    assert put(world, f"{PLACE}/1/a", b"x").status_code == 204
    assert world.call("DELETE", f"{FILES}/{PLACE}/1/a").status_code == 204
    assert refused(world, "GET", f"{FILES}/{PLACE}/1/a")[2] == "UPLOAD_NOT_FOUND"
    assert refused(world, "PUT", f"{FILES}/{PLACE}/3/a", content=b"x")[2] == "MODEL_NOT_FOUND"


def test_half_a_file_is_never_seen(world: World) -> None:
    """A client that leaves in the middle leaves nothing behind, and what was there before stays."""
    registered(world)
    pending(world)
    assert put(world, f"{PLACE}/1/w", b"whole").status_code == 204

    async def leave() -> None:
        scope = {
            "type": "http",
            "method": "PUT",
            "path": f"{FILES}/{PLACE}/1/w",
            "query_string": b"overwrite=true",
            "headers": [(b"authorization", f"Bearer {world.admin}".encode())],
        }
        messages = [
            {"type": "http.request", "body": b"half", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(_message: Any) -> None:
            return None

        await world.app(scope, receive, send)

    asyncio.run(leave())
    assert world.call("GET", f"{FILES}/{PLACE}/1/w").content == b"whole"
    assert not list((world.layout.uploads_dir / ".incoming").iterdir())


@pytest.mark.parametrize(
    "path",
    [
        f"{PLACE}/1/%2e%2e/%2e%2e/x",
        f"{PLACE}/1/a/..%2f..%2f..%2fx",
        f"{PLACE}/1/%00",
        f"{PLACE}/1/a%2f%2fb",
        f"{PLACE}/..%2f1/x",
        "Models/ml/llm",
        "etc/passwd",
        "%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_out(world: World, path: str) -> None:
    """However it is written it is refused, for writing and for reading, and nothing is made."""
    registered(world)
    pending(world)
    for method in ("PUT", "GET", "DELETE"):
        assert refused(world, method, f"{FILES}/{path}", content=b"x")[2] in ("BAD_NAME", "UPLOAD_NOT_FOUND")
    assert not [file for file in world.layout.uploads_dir.rglob("*") if file.is_file()]


@pytest.mark.parametrize("place", [f"{PLACE}/1", "Volumes/ml/llm/raw"])
def test_a_path_that_no_disk_takes_is_refused(world: World, place: str) -> None:
    """Names that are each short enough and together too long: by every method, before anything is made."""
    registered(world)
    pending(world)
    path = "/".join([place, *(["d" * 250] * 17)])
    for method, route in ((method, route) for method in ("PUT", "GET", "DELETE") for route in (FILES, FOLDERS)):
        assert refused(world, method, f"{route}/{path}", content=b"x")[2] == "BAD_NAME"
    assert not [file for file in world.layout.uploads_dir.rglob("*") if file.is_file()]


@pytest.mark.parametrize(("method", "route"), [("DELETE", FILES), ("PUT", FOLDERS), ("DELETE", FOLDERS)])
def test_nothing_changes_while_a_version_is_looked_at(world: World, method: str, route: str) -> None:
    """What is asked for while its files are read is done before or not at all: READY is what was looked at."""
    registered(world)
    number = pending(world)
    file = f"{PLACE}/{number}/a"
    if (method, route) == ("DELETE", FILES):
        assert put(world, file, b"x").status_code == 204
    elif method == "DELETE":
        assert world.call("PUT", f"{FOLDERS}/{file}").status_code == 204
    version = row(world, number)
    folder = world.layout.uploads_dir / DEFAULT_SCOPE.project / "models" / version.model_id / number
    before = sorted(folder.glob("*"))

    async def main() -> httpx.Response:
        lock, headers = upload_lock(version), {"authorization": f"Bearer {world.admin}"}
        async with lock, httpx.AsyncClient(transport=httpx.ASGITransport(app=world.app), base_url="http://h") as client:
            asked = asyncio.create_task(client.request(method, f"{route}/{file}", headers=headers))
            while not asked.done() and not lock._waiters:  # noqa: ASYNC110 - a lock tells nobody who waits for it
                await asyncio.sleep(0)
            with world.store.transaction() as tx:
                unity_catalog.conclude_version(tx, version, Outcome(RegistrationState.READY))
            lock.release()
            answer = await asked
            await lock.acquire()
        return answer

    answer = asyncio.run(main())
    assert answer.json()["details"][0]["reason"] == "VERSION_NOT_READY"
    assert sorted(folder.glob("*")) == before


def test_what_is_set_while_a_version_is_looked_at_stays(world: World) -> None:
    """Its end is written to the row as it is by then, with its tags; of one that was deleted there is no end."""
    registered(world)
    version = row(world, pending(world))
    with world.store.transaction() as tx:
        unity_catalog.tag_version(tx, version, added={"team": "a"})
    with world.store.transaction() as tx:
        ended = unity_catalog.conclude_version(tx, version, Outcome(RegistrationState.READY, "", "file:///a"))
    assert ended.registration is not None
    assert (ended.registration.state, ended.artifact_uri) == (RegistrationState.READY, "file:///a")
    assert ended.labels == {"team": "a"}
    assert row(world, version.version) == ended
    world.json("DELETE", f"{UC}/models/{NAME}/versions/{version.version}")
    with world.store.transaction() as tx, pytest.raises(ModelNotFound, match="deleted meanwhile"):
        unity_catalog.conclude_version(tx, version, Outcome(RegistrationState.READY))


def test_files_of_a_volume(world: World) -> None:
    """The same files API for volumes: whole files, folders, ``overwrite``, what is not there."""
    place = "Volumes/ml/llm/raw"
    assert put(world, f"{place}/d/a b.txt", b"x", overwrite="false").status_code == 204
    again = refused(world, "PUT", f"{FILES}/{place}/d/a b.txt?overwrite=false", content=b"y")
    assert again == (400, "RESOURCE_ALREADY_EXISTS", "NAME_TAKEN")
    head = world.call("HEAD", f"{FILES}/{place}/d/a b.txt")
    assert (head.status_code, head.headers["content-length"]) == (200, "1")
    assert "GMT" in head.headers["last-modified"]
    assert world.call("PUT", f"{FOLDERS}/{place}/e/f").status_code == 204
    names = [each["name"] for each in world.json("GET", f"{FOLDERS}/{place}", params={"page_size": "1"})["contents"]]
    assert names == ["d"]
    assert refused(world, "DELETE", f"{FOLDERS}/{place}/e")[2] == "STILL_IN_USE"
    assert world.call("DELETE", f"{FOLDERS}/{place}/e/f").status_code == 204
    assert world.call("HEAD", f"{FOLDERS}/{place}/e/f").status_code == 404
    assert world.call("HEAD", f"{FILES}/{place}/nothing").status_code == 404
    other = world.key("elsewhere", Role.ADMIN)
    assert refused(world, "GET", f"{FILES}/{place}/d/a b.txt", key=other)[0] == 404


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=2-3", 206, b"23"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-2", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
    ],
)
def test_a_part_of_a_file(world: World, asked: str, status: int, content: bytes) -> None:
    """One range is honoured; what is none is ignored, and comes as the whole file."""
    place = f"{FILES}/Volumes/ml/llm/raw/f"
    assert world.call("PUT", place, content=b"0123456789").status_code == 204
    answer = world.call("GET", place, headers={"range": asked})
    assert (answer.status_code, answer.content) == (status, content)


def test_a_part_that_a_file_has_not_is_refused_with_its_size(world: World) -> None:
    """In the shape of Databricks' errors, with evidence and fix."""
    place = f"{FILES}/Volumes/ml/llm/raw/f"
    assert world.call("PUT", place, content=b"0123456789").status_code == 204
    assert refused(world, "GET", place, headers={"range": "bytes=10-"}) == (416, "INVALID_PARAMETER_VALUE", "BAD_FIELD")
    assert world.call("GET", place, headers={"range": "bytes=10-"}).headers["content-range"] == "bytes */10"


def test_a_download_is_one_file_to_its_end(world: World, tmp_path: Path) -> None:
    """Replaced and deleted while it is on its way, it is still the file that was asked for; then there is none."""
    file = tmp_path / "f"
    file.write_bytes(b"old" * 200_000)

    async def main() -> bytes:
        answer = await file_answer(file, {}, FILES)
        assert isinstance(answer, StreamingResponse)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(file)
        file.unlink()
        return b"".join([piece async for piece in answer.body_iterator if isinstance(piece, bytes)])

    assert asyncio.run(main()) == b"old" * 200_000
    with pytest.raises(UploadNotFound):
        asyncio.run(file_answer(file, {}, FILES))


def test_parts_are_not_taken_but_begun(world: World) -> None:
    """The SDK begins what is large in parts, is told that it may not, and then sends the file whole."""
    registered(world)
    pending(world)
    begun = world.json("POST", f"{FILES}/{PLACE}/1/w?action=initiate-upload&overwrite=true")
    assert begun["multipart_upload"]["session_token"]
    for name in ("create-upload-part-urls", "create-resumable-upload-url", "create-download-url"):
        assert refused(world, "POST", f"/api/2.0/fs/{name}", json={})[:2] == (501, "NOT_IMPLEMENTED")
    assert refused(world, "POST", f"{FILES}/{PLACE}/1/w?action=complete-upload", json={})[0] == 501
    abort = "/api/2.0/fs/create-abort-upload-url"
    told = world.json("POST", abort, json={"path": f"/Models/{PLACE}/1/w", "session_token": "whole"})[
        "abort_upload_url"
    ]
    assert refused(world, "POST", abort)[0] == 400
    assert told["headers"] == [{"name": "Authorization", "value": f"Bearer {world.admin}"}]
    assert world.call("DELETE", told["url"].partition("localhost")[2]).status_code == 200


def test_names_of_three_levels(world: World) -> None:
    """Made by either client, found by both, in whatever case; what is not of three levels is refused."""
    made = world.json("POST", f"{UC}/models", json={"catalog_name": "ML", "schema_name": "llm", "name": "Fm"})
    assert (made["full_name"], made["name"], made["catalog_name"]) == (NAME, "fm", "ml")
    assert refused(world, "POST", f"{MF}/registered-models/create", json={"name": NAME}) == (
        400,
        "RESOURCE_ALREADY_EXISTS",
        "NAME_TAKEN",
    )
    for name in ("fm", "llm.fm"):
        answer = world.call("POST", f"{MF}/registered-models/create", json={"name": name})
        assert "specify all three levels" in answer.json()["message"]
    found = world.json("GET", f"{MF}/registered-models/get", params={"name": "ML.LLM.FM"})["registered_model"]
    assert found["name"] == NAME
    changed = world.json("PATCH", f"{UC}/models/{NAME}", json={"comment": "It flows.", "new_name": "river"})
    assert (changed["full_name"], changed["comment"]) == ("ml.llm.river", "It flows.")
    assert refused(world, "GET", f"{UC}/models/{NAME}") == (404, "RESOURCE_DOES_NOT_EXIST", "MODEL_NOT_FOUND")
    renamed = world.json(
        "PATCH", f"{MF}/registered-models/update", json={"name": "ml.llm.river", "new_name": "ml.other.river"}
    )
    assert renamed["registered_model"]["name"] == "ml.other.river"
    world.json("DELETE", f"{MF}/registered-models/delete", json={"name": "ml.other.river"})
    assert refused(world, "GET", f"{UC}/models/ml.other.river")[0] == 404


def test_lists_are_filtered_and_paged(world: World) -> None:
    """By catalog and schema, by name; page by page the same, the Garden's among them."""
    names = ["a.s.m1", "a.s.m2", "a.t.m1", "b.s.m1"]
    for name in names:
        registered(world, name)

    def listed(**query: str) -> list[str]:
        return [
            each["full_name"] for each in world.json("GET", f"{UC}/models", params=query).get("registered_models", [])
        ]

    assert listed(catalog_name="a") == names[:3]
    assert listed(catalog_name="A", schema_name="s") == names[:2]
    assert listed(catalog_name="c") == []
    everything, token = [], ""
    while True:
        page = world.json("GET", f"{MF}/registered-models/search", params={"max_results": "7", "page_token": token})
        everything += [each["name"] for each in page["registered_models"]]
        token = page["next_page_token"]
        if not token:
            break
    assert everything == sorted(everything)
    assert [name for name in everything if not name.startswith("system.ai.")] == names
    assert "system.ai.smollm2_135m_instruct" in everything
    assert refused(world, "GET", f"{UC}/models?page_token=x")[2] == "BAD_FIELD"


def test_aliases(world: World) -> None:
    """They move; both clients see them; a name that Vertex AI would not take may be one; what is none is refused."""
    registered(world)
    pending(world)
    pending(world)
    world.json("POST", f"{MF}/registered-models/alias", json={"name": NAME, "alias": "Champion_1", "version": "1"})
    assert world.json("GET", f"{UC}/models/{NAME}/aliases/Champion_1")["version"] == 1
    moved = world.json("PUT", f"{UC}/models/{NAME}/aliases/Champion_1", json={"version_num": 2})
    assert (moved["alias_name"], moved["version_num"]) == ("Champion_1", 2)
    by_alias = world.json("GET", f"{MF}/registered-models/alias", params={"name": NAME, "alias": "Champion_1"})
    assert by_alias["model_version"]["version"] == "2"
    aliases = world.json("GET", f"{UC}/models/{NAME}")["aliases"]
    assert [(each["alias_name"], each["version_num"]) for each in aliases] == [("default", 1), ("Champion_1", 2)]
    world.json("DELETE", f"{UC}/models/{NAME}/aliases/Champion_1")
    for path in (
        f"{UC}/models/{NAME}/aliases/Champion_1",
        f"{UC}/models/{NAME}/aliases/1",
        f"{UC}/models/{NAME}/versions/default",
    ):
        assert refused(world, "GET", path)[2] == "MODEL_NOT_FOUND"
    assert refused(world, "PUT", f"{UC}/models/{NAME}/aliases/latest", json={"version_num": 1})[2] == "BAD_FIELD"
    assert refused(world, "PUT", f"{UC}/models/{NAME}/aliases/a", json={"version_num": 9})[2] == "MODEL_NOT_FOUND"
    assert refused(world, "DELETE", f"{UC}/models/{NAME}/aliases/default")[2] == "STILL_IN_USE"


def test_versions_are_searched_described_tagged_and_deleted(world: World, tmp_path: Path) -> None:
    """By name and by run; the last one may go, too, with its files; numbers never come twice."""
    registered(world)
    for run in ("r1", "r2"):
        pending(world, run_id=run, tags=[{"key": "k", "value": run}])
    put(world, f"{PLACE}/1/w", b"x")

    def found(**query: str) -> list[str]:
        answer = world.json("GET", f"{MF}/model-versions/search", params=query)
        return [each["version"] for each in answer["model_versions"]]

    assert found(filter=f"name='{NAME}'") == ["1", "2"]
    assert found(filter="run_id='r2'") == ["2"]
    assert found(filter="name='ml.llm.other'") == []
    assert refused(world, "GET", f"{MF}/model-versions/search?filter=tags.k='v'")[2] == "BAD_FIELD"
    world.json("PATCH", f"{UC}/models/{NAME}/versions/1", json={"comment": "first"})
    world.json("POST", f"{MF}/model-versions/set-tag", json={"name": NAME, "version": "1", "key": "a", "value": "b"})
    world.json("DELETE", f"{MF}/model-versions/delete-tag", json={"name": NAME, "version": "1", "key": "k"})
    version = world.json("GET", f"{MF}/model-versions/get", params={"name": NAME, "version": "1"})["model_version"]
    assert (version["description"], version["tags"]) == ("first", [{"key": "a", "value": "b"}])
    world.json("POST", f"{MF}/registered-models/set-tag", json={"name": NAME, "key": "a", "value": "b"})
    world.json("DELETE", f"{MF}/registered-models/delete-tag", json={"name": NAME, "key": "a"})
    world.json("DELETE", f"{UC}/models/{NAME}/versions/1")
    assert world.json("GET", f"{UC}/models/{NAME}/aliases/default")["version"] == 2
    world.json("DELETE", f"{MF}/model-versions/delete", json={"name": NAME, "version": "2"})
    assert world.json("GET", f"{UC}/models/{NAME}/versions")["model_versions"] == []
    assert not [file for file in world.layout.uploads_dir.rglob("*") if file.is_file()]
    assert world.json("GET", f"/v1/{DEFAULT_SCOPE}/models") == {"models": []}
    assert pending(world) == "3"
    assert world.json("GET", f"{UC}/models/{NAME}/aliases/default")["version"] == 3


def test_catalogs_and_schemas(world: World) -> None:
    """Those that were made, those of models' names, and the server's own, in which nobody makes anything."""
    registered(world)
    world.json("POST", f"{UC}/catalogs", json={"name": "Empty", "comment": "for later"})
    world.json("POST", f"{UC}/schemas", json={"catalog_name": "empty", "name": "s"})

    def names(kind: str, **query: str) -> list[str]:
        return [each["full_name"] for each in world.json("GET", f"{UC}/{kind}", params=query)[kind]]

    assert names("catalogs", max_results="0") == ["empty", "ml", "system"]
    assert names("schemas", catalog_name="empty") == ["empty.s"]
    assert names("schemas", catalog_name="system") == ["system.ai"]
    assert world.json("GET", f"{UC}/catalogs/empty")["comment"] == "for later"
    assert world.json("GET", f"{UC}/schemas/ml.llm")["catalog_name"] == "ml"
    assert refused(world, "GET", f"{UC}/catalogs/nope")[1:] == ("RESOURCE_DOES_NOT_EXIST", "NAMESPACE_NOT_FOUND")
    assert refused(world, "POST", f"{UC}/catalogs", json={"name": "ml"})[2] == "NAME_TAKEN"
    assert refused(world, "DELETE", f"{UC}/catalogs/ml?force=true")[2] == "STILL_IN_USE"
    assert refused(world, "DELETE", f"{UC}/catalogs/empty")[2] == "STILL_IN_USE"
    world.json("DELETE", f"{UC}/catalogs/empty?force=true")
    assert names("catalogs") == ["ml", "system"]
    for method, path, body in (
        ("POST", f"{UC}/schemas", {"catalog_name": "system", "name": "mine"}),
        ("POST", f"{MF}/registered-models/create", {"name": "system.ai.mine"}),
        ("DELETE", f"{UC}/models/system.ai.smollm2_135m_instruct", None),
        ("PATCH", f"{UC}/models/system.ai.smollm2_135m_instruct", {"comment": "x"}),
    ):
        assert refused(world, method, path, json=body)[:2] == (403, "PERMISSION_DENIED")


def test_system_ai_is_filled_from_the_garden(world: World) -> None:
    """Each of its models has a version, and both clients read it; no file of it is here."""
    shown = world.json("GET", f"{UC}/models", params={"catalog_name": "system", "schema_name": "ai"})
    assert len(shown["registered_models"]) > 40
    name = "system.ai.smollm2_135m_instruct"
    assert world.json("GET", f"{UC}/models/{name}")["full_name"] == name
    assert world.json("GET", f"{UC}/models/{name}/versions")["model_versions"][0]["status"] == "READY"
    version = world.json("GET", f"{MF}/model-versions/get", params={"name": name, "version": "1"})["model_version"]
    assert version["source"] == "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
    assert refused(world, "GET", f"{UC}/models/{name}/versions/2")[2] == "MODEL_NOT_FOUND"
    assert refused(world, "GET", f"{FOLDERS}/Models/system/ai/smollm2_135m_instruct/1")[2] == "UPLOAD_NOT_FOUND"


def test_an_entity_of_system_ai_is_prepared_for_its_deployment(world: World) -> None:
    """It gets one row of the project, under its name; a base Llama, or one whose licence nobody accepted, gets none."""
    context = world.app.state.context

    def prepare(name: str, version: str = "1") -> Any:
        return asyncio.run(prepared(context, DEFAULT_SCOPE, name, version))

    for _ in range(2):
        model, version = prepare("system.ai.smollm2-135m-instruct")
        assert (model.display_name, version.version) == ("system.ai.smollm2_135m_instruct", "1")
        assert version.artifact_uri == str(demo_model_dir())
    assert prepare("ml.llm.fm") is prepare("smollm2") is None
    for name, error in (
        ("system.ai.llama_3_2_1b", InstructOnly),
        ("system.ai.llama_3_2_1b_instruct", LicenceNotAccepted),
        ("system.ai.nothing", ModelNotFound),
    ):
        with pytest.raises(error):
            prepare(name)
    with pytest.raises(ModelNotFound):
        prepare("system.ai.smollm2_135m_instruct", "2")
    shown = world.json("GET", f"{UC}/models", params={"catalog_name": "system"})["registered_models"]
    assert len({each["full_name"] for each in shown}) == len(shown)


def test_roles_and_projects_are_held(world: World) -> None:
    """A viewer reads and changes nothing; another project's key sees nothing of this one's."""
    registered(world)
    viewer, other = world.key("default", Role.VIEWER), world.key("other", Role.ADMIN)
    assert world.call("GET", f"{UC}/models/{NAME}", key=viewer).status_code == 200
    for method, path, body in (
        ("POST", f"{MF}/registered-models/create", {"name": "a.b.c"}),
        ("DELETE", f"{UC}/models/{NAME}", None),
        ("PUT", f"{FILES}/{PLACE}/1/x", None),
    ):
        assert refused(world, method, path, json=body, key=viewer)[:2] == (403, "PERMISSION_DENIED")
    assert refused(world, "GET", f"{UC}/models/{NAME}", key=other)[0] == 404
    assert world.call("GET", f"{UC}/models/{NAME}", key=None).json()["error_code"] == "UNAUTHENTICATED"
    assert refused(world, "POST", f"{MF}/model-versions/generate-temporary-credentials", json={})[0] == 501


def test_who_am_i(world: World) -> None:
    """The key's own id and name, as SCIM's user."""
    me = world.json("GET", "/api/2.0/preview/scim/v2/Me")
    (key,) = (each for each in world.json("GET", "/headrace/v1/keys")["keys"] if each["id"] == me["id"])
    assert me["userName"] == key["name"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{UC}/models", b"{"),
        (f"{UC}/models", b'{"name": 1}'),
        (f"{UC}/models", b'{"catalog_name": "a", "schema_name": "b", "name": "c.d"}'),
        (f"{MF}/registered-models/create", json.dumps({"name": NAME, "description": "x" * 5000}).encode()),
        (f"{MF}/registered-models/create", json.dumps({"name": NAME, "tags": [{"key": "k" * 200}]}).encode()),
        (f"{UC}/catalogs", b"[]"),
    ],
)
def test_bad_bodies(world: World, path: str, body: bytes) -> None:
    """A clear error, and nothing is made."""
    status, code, _ours = refused(world, "POST", path, content=body)
    assert (status, code) == (400, "MALFORMED_REQUEST" if body == b"{" else "INVALID_PARAMETER_VALUE")
    assert world.json("GET", f"{UC}/catalogs")["catalogs"][0]["name"] == "system"
