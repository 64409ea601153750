"""Databricks' registry, files and OAuth as pure translations: names, paths, pages, clients."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.databricks import mlflow, unity_catalog
from headrace.contracts.databricks.files import read_path
from headrace.contracts.databricks.oauth import base_url, read_client, refusal_status, token_json
from headrace.contracts.databricks.registry_bodies import PageQuery, read_object, read_query
from headrace.contracts.oauth import BadGrant
from headrace.resources.aliases import check_catalog_alias
from headrace.resources.errors import BadField, BadJson, BadName
from headrace.resources.models import Model, ModelVersion, Registration, RegistrationState
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.unity_catalog import FullName, read_full_name

PARTS = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.tuples(PARTS, PARTS, PARTS))
def test_a_full_name_is_read_back(parts: tuple[str, str, str]) -> None:
    """Of three levels, whatever their case; as it is read it is written, and that is read as the same."""
    name = read_full_name(".".join(parts))
    assert name == FullName(*(part.lower() for part in parts))
    assert read_full_name(str(name)) == name


@given(st.text(max_size=30))
def test_no_other_text_is_a_full_name(text: str) -> None:
    """Whatever else it is, it is refused as a name, and a name never leads anywhere in a path."""
    try:
        name = read_full_name(text)
    except BadName:
        return
    path = unity_catalog.storage_path(name)
    assert posixpath.normpath(path) == path
    assert path.count("/") == 4


@pytest.mark.parametrize("text", ["a.b", "a.b.c.d", "a..c", "a.b.c d", "a.b.c/d", "..", "a.b.ü", ".", "", "a.b.c\n"])
def test_levels_are_three(text: str) -> None:
    """And MLflow's client finds the words by which it tells that the name is not one of Unity Catalog."""
    with pytest.raises(BadName) as refused:
        read_full_name(text)
    assert "specify all three levels" in str(refused.value) or "no name" in str(refused.value)


@given(st.lists(NAMES, max_size=6))
def test_no_path_leads_out_of_its_folder(parts: list[str]) -> None:
    """Whatever is written below a version, what is read of it stays below, and is the same when it is read again."""
    text = "/Models/ml/llm/fm/3/" + "/".join(parts)
    try:
        path = read_path(text)
    except BadName:
        return
    below = "/".join(path.below)
    assert posixpath.normpath(f"/x/{below}") == (f"/x/{below}" if below else "/x")
    assert not any(part in ("", ".", "..") or "/" in part or "\0" in part for part in path.below)
    assert read_path(str(path)) == path


@pytest.mark.parametrize(
    "text",
    [
        "/Models/ml/llm/fm/3/../../x",
        "/Models/ml/llm/fm/3/a//b",
        "/Models/ml/llm/fm/three/a",
        "/Models/ml/llm/../3/a",
        "/Models/ml/llm/fm",
        "/Volumes/ml/llm",
        "/etc/passwd",
        "/Models/ml/llm/fm/3/" + "a" * 256,
        "/Models/ml/llm/fm/3/" + "/".join("a" * 30),
        "/Models/ml/llm/fm/³/a",
    ],
)
def test_what_is_no_path(text: str) -> None:
    """It names no file of a version or volume, or would lead elsewhere."""
    with pytest.raises(BadName):
        read_path(text)


def test_paths_of_both_kinds() -> None:
    """Models have a version, volumes have none; the levels are read in lower case, what follows is not."""
    assert read_path("Models/ML/llm/fm/3/model/A.bin").below == ("model", "A.bin")
    assert str(read_path("/Volumes/ML/llm/raw/A b/c.txt")) == "/Volumes/ml/llm/raw/A b/c.txt"
    assert read_path("/Models/ml/llm/fm/3/").below == ()


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=30), st.integers(1, 7))
def test_pages_are_the_list(items: list[str], size: int) -> None:
    """Page by page each item comes once, in order; an item that goes between two pages hides no other."""
    items.sort()
    seen: list[str] = []
    token = ""
    while True:
        page, token = PageQuery(max_results=size, page_token=token).page(items, str)
        seen += page
        if not token:
            break
        assert len(page) == size
        rest = [item for item in items if item > page[-1]]
        items = [item for item in items if item != page[-1]]
        assert [item for item in items if item > page[-1]] == rest
    assert seen == sorted(seen)
    assert set(items) <= set(seen)


@pytest.mark.parametrize("token", ["!", "bm8", "e30", "\u00e9", "MTIz"])
def test_a_token_is_ours_or_refused(token: str) -> None:
    """A page token that no list gave is a wrong field, as a negative number is."""
    with pytest.raises(BadField, match="Fix: Begin at the first page"):
        PageQuery(page_token=token).page(["a"], str)
    with pytest.raises(BadField, match="Fix: Leave it out"):
        PageQuery(max_results=-1).page(["a"], str)


@given(st.binary(max_size=60))
def test_bodies_are_read_or_refused(body: bytes) -> None:
    """Nothing but a body of the shape passes, and nothing else is raised."""
    try:
        read_object(body, unity_catalog.ModelBody)
    except (BadJson, BadField):
        return


def test_unknown_fields_are_left_alone() -> None:
    """The SDK sends whole objects; MLflow's messages grow. Numbers may come as texts."""
    body = b'{"catalog_name": "ML", "schema_name": "llm", "name": "fm", "owner": "x", "browse_only": false}'
    assert read_object(body, unity_catalog.ModelBody).full_name == FullName("ml", "llm", "fm")
    assert read_object(b'{"name": "a.b.c", "version": "1", "x": 1}', mlflow.Versioned).version == "1"
    assert read_query({"max_results": "5", "catalog_name": "ml"}, unity_catalog.ModelsQuery).max_results == 5


@pytest.mark.parametrize(
    ("read", "fix"),
    [
        (lambda: read_object(b"{}", mlflow.Versioned), "The fields are: name, version."),
        (
            lambda: read_object(b'{"name": "a.b.c", "tags": [{"value": 1}]}', mlflow.CreateModel),
            "The fields of tags are: key",
        ),
        (lambda: read_query({"max_results": "many"}, PageQuery), "The parameters are: max_results, page_token."),
        (lambda: read_query({}, mlflow.Named), "The parameters are: name."),
        (lambda: read_object(b"{", mlflow.Named), "Send one JSON object"),
    ],
)
def test_a_wrong_field_is_told_with_the_right_ones(read: Callable[[], object], fix: str) -> None:
    """Whoever mistyped it, or left one out, is told what there is."""
    with pytest.raises((BadField, BadJson)) as refused:
        read()
    assert fix in refused.value.fix


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ("", "")),
        ("name='a.b.c'", ("name", "a.b.c")),
        ('name = "a.b.c"', ("name", "a.b.c")),
        ("run_id = '7'", ("run_id", "7")),
        ("name=''", ("name", "")),
    ],
)
def test_filters_of_versions(text: str, wanted: tuple[str, str]) -> None:
    """One comparison, in either kind of quotes."""
    assert mlflow.SearchVersions(filter=text).wanted == wanted


@pytest.mark.parametrize("text", ["name", "name = a", "name LIKE 'a'", "name='a' AND run_id='b'", "tags.x = 'a'"])
def test_other_filters_are_refused(text: str) -> None:
    """What is not understood is never taken for everything."""
    with pytest.raises(BadField):
        _ = mlflow.SearchVersions(filter=text).wanted


@pytest.mark.parametrize("alias", ["Champion", "a", "prod_2", "-", "default", "v", "version3"])
def test_aliases(alias: str) -> None:
    """Letters, digits, underscores and hyphens."""
    check_catalog_alias(alias)


@pytest.mark.parametrize("alias", ["", "latest", "Latest", "3", "v3", "V12", "a b", "ä", "a" * 129, "a\n"])
def test_no_aliases(alias: str) -> None:
    """What MLflow keeps for itself, and what reads as a version."""
    with pytest.raises(BadField):
        check_catalog_alias(alias)


def version(**fields: object) -> ModelVersion:
    """The third of a model."""
    known = {"scope": DEFAULT_SCOPE, "model_id": "m", "version": "3", "artifact_uri": "file:///w", "created_at": 1.5}
    return ModelVersion(**(known | fields))  # type: ignore[arg-type]


def test_versions_as_both_clients_read_them() -> None:
    """Numbers are numbers for the one and texts for the other; times are milliseconds; a status is always there."""
    name = FullName("ml", "llm", "fm")
    plain = unity_catalog.version_json(name, version(aliases=("default", "Champ")))
    assert (plain["version"], plain["status"], plain["created_at"]) == (3, "READY", 1500)
    assert [(each["alias_name"], each["version_num"]) for each in plain["aliases"]] == [("default", 3), ("Champ", 3)]
    assert plain["storage_location"] == "file:///w"
    failed = Registration(state=RegistrationState.FAILED, message="why", source="runs:/1", run_id="r")
    told = mlflow.version_json(name, version(registration=failed, artifact_uri=""))
    assert (told["version"], told["status"], told["status_message"]) == ("3", "FAILED_REGISTRATION", "why")
    assert (told["storage_location"], told["source"]) == ("/Models/ml/llm/fm/3", "runs:/1")
    model = Model(scope=DEFAULT_SCOPE, id="m", display_name="ml.llm.fm", labels={"k": ""}, created_at=1, updated_at=2)
    assert mlflow.model_json(model)["tags"] == [{"key": "k", "value": ""}]
    assert unity_catalog.model_json(model, [version()])["full_name"] == "ml.llm.fm"


def basic(text: str) -> str:
    """A header."""
    return "Basic " + base64.b64encode(text.encode()).decode()


GRANT = b"grant_type=client_credentials&scope=all-apis"


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (GRANT, basic("id:hr-secret")),
        (GRANT + b"&client_id=id&client_secret=hr-secret", ""),
        (GRANT + b"&client_id=other&client_secret=x", basic("id:hr-secret")),
    ],
)
def test_a_client_shows_itself(body: bytes, header: str) -> None:
    """In the header, or in the form; the token that it gets is its secret."""
    client = read_client(body, header)
    assert (client.id, token_json(client)["access_token"]) == ("id", "hr-secret")
    assert "hr-secret" not in repr(client)


@pytest.mark.parametrize(
    ("body", "header", "error", "status"),
    [
        (b"", "", "invalid_request", 400),
        (b"grant_type=password", "", "unsupported_grant_type", 400),
        (GRANT, "", "invalid_client", 401),
        (GRANT, "Basic !", "invalid_client", 401),
        (GRANT, basic("id"), "invalid_client", 401),
        (GRANT, basic(":x"), "invalid_client", 401),
        (GRANT + b"&client_id=&client_secret=x", "", "invalid_client", 401),
        (GRANT + b"&scope=b", "", "invalid_request", 400),
        ("grant_type=é".encode(), "", "invalid_request", 400),
    ],
)
def test_no_client(body: bytes, header: str, error: str, status: int) -> None:
    """What shows no client is refused in the words of RFC 6749."""
    with pytest.raises(BadGrant) as refused:
        read_client(body, header)
    assert (refused.value.error, refusal_status(refused.value)) == (error, status)


@given(st.binary(max_size=80), st.text(max_size=40))
def test_whatever_comes_is_a_client_or_is_refused(body: bytes, header: str) -> None:
    """Nothing else is raised."""
    try:
        client = read_client(body, header)
    except BadGrant:
        return
    assert client.id
    assert client.secret


@pytest.mark.parametrize(
    ("host", "base"),
    [
        (b"localhost:8080", "http://localhost:8080"),
        (b"[::1]:80", "http://[::1]:80"),
        (b"evil.example/x?", "http://localhost"),
        (b"a@b", "http://localhost"),
        (None, "http://localhost"),
    ],
)
def test_a_host_is_told_back_only_if_it_is_one(host: bytes | None, base: str) -> None:
    """Nothing that a client wrote leads its next request elsewhere than to a host."""
    assert base_url("http", host) == base
