"""Who gets in: deny by default, on every route."""

from __future__ import annotations

import asyncio
import re

import pytest
from api_world import INTERNAL_TOKEN, SCOPE, World
from fastapi import FastAPI, Request, Response

from headrace.api.access import Route, check_routes, mount
from headrace.api.app import ROUTES
from headrace.resources.access import PUBLIC_ROUTES, Permission, Process, Role
from headrace.resources.nodes import Node

SAMPLES = {"version": "v1", "project": "my-proj", "location": "us-central1", "rest": "projects/nothing"}


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Every method of every path that the application answers."""
    return [(method, route.path) for route in app.routes for method in route.methods]  # type: ignore[attr-defined]


def filled(path: str) -> str:
    """A path template with something in each place."""
    return re.sub(r"{(\w+)(:\w+)?}", lambda match: SAMPLES.get(match[1], "1"), path)


def test_every_route_wants_a_key(world: World) -> None:
    """Without a key, with a wrong one, or with a revoked one, every route but the public ones answers 401."""
    revoked = world.key("*", Role.ADMIN)
    (newest,) = [key for key in world.json("GET", "/headrace/v1/keys")["keys"] if revoked.startswith(key["hint"])]
    world.json("DELETE", f"/headrace/v1/keys/{newest['id']}")
    routes = routes_of(world.app)
    assert len(routes) > len(ROUTES)
    for method, path in routes:
        if (Process.CONTROL, method, path) in PUBLIC_ROUTES:
            assert world.call(method, path, key=None).status_code == 200
            continue
        if method == "HEAD":  # which has no body that could say more
            assert {world.call(method, filled(path), key=key).status_code for key in (None, "hr-wrong", revoked)} == {
                401
            }
            continue
        assert world.error(method, filled(path), key=None) == (401, "NO_KEY"), path
        for bad in ("hr-wrong", revoked):
            assert world.error(method, filled(path), key=bad) == (401, "UNKNOWN_KEY"), path


def test_internal_routes_take_the_internal_token_only(world: World) -> None:
    """No user's key opens what our own processes use, and their token opens nothing else."""
    internal = [(method, path) for method, path in routes_of(world.app) if path.startswith("/internal/")]
    assert internal
    for method, path in internal:
        assert world.error(method, filled(path)) == (401, "UNKNOWN_KEY"), path
    assert world.error("GET", "/headrace/v1/whoami", key=INTERNAL_TOKEN) == (401, "UNKNOWN_KEY")


def test_strangers_learn_nothing_of_paths(world: World) -> None:
    """An unknown path answers 401 to strangers, and 404 only to those with a key."""
    for path in ("/", "/docs", "/v1beta1/what", "/headrace/v1/what", "/internal/what"):
        assert world.error("GET", path, key=None)[0] == 401, path
    for path in ("/", "/docs", "/v1beta1/what", "/headrace/v1/what"):
        assert world.error("GET", path) == (404, "UNKNOWN_PATH"), path


def test_what_nobody_has_below_v1_is_told_as_openai_tells_it(world: World) -> None:
    """To strangers, too; what is Vertex AI's of `/v1` keeps Google's shape."""
    for key, status, code in ((None, 401, "NO_KEY"), ("", 404, "UNKNOWN_PATH")):
        answer = world.call("GET", "/v1/assistants", key=key)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.json()["error"]["code"] == code
        assert world.error("GET", "/v1/projects/p/what", key=key) == (status, code)


def test_a_known_path_names_the_methods_that_it_takes(world: World) -> None:
    """405 with `Allow`: of every route there is at the path."""
    for method, path, allow in (
        ("PUT", f"/v1/{SCOPE}:deploy", "POST"),
        ("PUT", f"/v1/{SCOPE}/operations/1", "DELETE, GET"),
        ("DELETE", "/headrace/v1/status", "GET"),
        ("OPTIONS", f"/v1/{SCOPE}/endpoints", "GET, POST"),
        ("OPTIONS", "/headrace/v1/keys", "GET, POST"),
        ("PUT", "/headrace/v1/keys", "GET, POST"),
    ):
        assert world.error(method, path) == (405, "METHOD_NOT_ALLOWED")
        assert world.call(method, path).headers["allow"] == allow


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_roles(world: World, route: Route) -> None:
    """Each role gets exactly as far as its permissions say, in its own project."""
    may = {
        Permission.READ: {Role.VIEWER, Role.PREDICTOR, Role.DEPLOYER, Role.ADMIN},
        Permission.DEPLOY: {Role.DEPLOYER, Role.ADMIN},
        Permission.ADMINISTER: {Role.ADMIN},
    }[route.permission]
    for role in Role:
        project = "*" if route.server_wide else "my-proj"
        status = world.call(route.method, filled(route.path), key=world.key(project, role)).status_code
        assert (status != 403) is (role in may), role
    if "{project}" in route.path:
        stranger = world.key("other", Role.ADMIN)
        assert world.error(route.method, filled(route.path), key=stranger) == (403, "ROLE_MISSING")


def test_the_machine_is_not_a_projects_business(world: World) -> None:
    """Nodes and runtimes are shown to keys of every project only; a project's key has its status without them."""
    with world.store.transaction() as tx:
        tx.insert(Node(id="local", boot_id="b", memory_bytes=8, cores=2, last_seen_at=1.0))
    admin = world.key("my-proj", Role.ADMIN)
    for path in ("nodes", "runtimes"):
        assert world.error("GET", f"/headrace/v1/{path}", key=admin) == (403, "ROLE_MISSING")
    of_project = world.json("GET", "/headrace/v1/status", key=admin)
    assert (of_project["nodes"], of_project["nodes_shown"]) == ([], False)
    everywhere = world.key("*", Role.VIEWER)
    of_all = world.json("GET", "/headrace/v1/status", key=everywhere)
    assert (len(of_all["nodes"]), of_all["nodes_shown"]) == (1, True)
    assert len(world.json("GET", "/headrace/v1/nodes", key=everywhere)["nodes"]) == 1


def test_google_api_key_header(world: World) -> None:
    """A key may also come in Google's header for API keys."""
    headers = {"x-goog-api-key": world.admin}
    assert world.json("GET", "/headrace/v1/whoami", key=None, headers=headers)["role"] == "admin"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", "bearer\t"])
def test_headers_without_a_key(world: World, value: str) -> None:
    """A header that holds no bearer token is no key."""
    response = world.call("GET", "/headrace/v1/whoami", key=None, headers={"authorization": value})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_route_without_a_permission_cannot_be_served() -> None:
    """A route that declares nothing fails when the application is made, not when somebody finds it."""

    async def handler(_request: Request) -> Response:
        return Response()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    declared = [Route("GET", "/declared", Permission.READ, handler)]
    mount(app, declared)
    app.add_api_route("/healthz", handler)
    check_routes(app.routes, declared)
    app.add_api_route("/forgotten", handler, methods=["POST"])
    with pytest.raises(RuntimeError, match=r"POST /forgotten declares no permission"):
        check_routes(app.routes, declared)
    with pytest.raises(RuntimeError, match=r"/openapi\.json"):
        check_routes(FastAPI().routes, [])


def test_keys_reach_only_their_project(world: World) -> None:
    """A listing across projects shows what the key reaches; asking for more is refused."""
    world.deploy()
    other = SCOPE.__class__("other", "us-central1")
    world.deploy(scope=other)
    viewer = world.key("other", Role.VIEWER)
    for collection in ("models", "endpoints", "deployments", "operations"):
        path = f"/headrace/v1/{collection}"
        assert len(world.json("GET", path)[collection]) == 2
        assert {one["project"] for one in world.json("GET", path, key=viewer)[collection]} == {"other"}
        assert [one["project"] for one in world.json("GET", f"{path}?project=my-proj")[collection]] == ["my-proj"]
        assert world.error("GET", f"{path}?project=my-proj", key=viewer) == (403, "ROLE_MISSING")
    status = world.json("GET", "/headrace/v1/status", key=viewer)
    assert {endpoint["project"] for endpoint in status["endpoints"]} == {"other"}


def test_admins_make_keys_for_what_they_reach(world: World) -> None:
    """An admin of one project can neither make, see nor revoke keys beyond it."""
    admin = world.key("other", Role.ADMIN)
    made = world.json("POST", "/headrace/v1/keys", key=admin, json={"name": "ci", "project": "other", "role": "viewer"})
    assert made["secret"].startswith(made["hint"])
    assert world.json("GET", "/headrace/v1/whoami", key=made["secret"])["permissions"] == ["read"]
    for project in ("my-proj", "*"):
        body = {"name": "x", "project": project, "role": "viewer"}
        assert world.error("POST", "/headrace/v1/keys", key=admin, json=body) == (403, "ROLE_MISSING")
    visible = world.json("GET", "/headrace/v1/keys", key=admin)["keys"]
    assert {key["project"] for key in visible} == {"other"}
    assert not any("secret" in field for key in visible for field in key)
    (foreign,) = [key for key in world.json("GET", "/headrace/v1/keys")["keys"] if key["project"] == "*"]
    assert world.error("DELETE", f"/headrace/v1/keys/{foreign['id']}", key=admin) == (404, "KEY_NOT_FOUND")
    world.json("DELETE", f"/headrace/v1/keys/{made['id']}", key=admin)
    assert world.error("GET", "/headrace/v1/whoami", key=made["secret"]) == (401, "UNKNOWN_KEY")
    assert world.woken.times == 2


def test_role_missing_says_what_to_do(world: World) -> None:
    """A refusal names the key's role and the way to another."""
    response = world.call("POST", f"/v1/{SCOPE}:deploy", key=world.key("my-proj", Role.VIEWER))
    assert "has the role viewer" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/what", "/v1/projects/p/locations/l/models/1:export", "/headrace/v1/what"])
def test_no_address_of_ours_is_in_a_refusal(world: World, path: str) -> None:
    """A Host header that is none brings the message no other: only the path is named, never the socket's."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"host", b"\xff\xfe"), (b"authorization", f"Bearer {world.admin}".encode())]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": headers, "server": ("/secret/control.sock", None), "scheme": "http", "root_path": ""}
    asyncio.run(world.app(scope, receive, send))  # type: ignore[arg-type]
    body = b"".join(message.get("body", b"") for message in sent)  # type: ignore[misc]
    assert f"POST {path}".encode() in body
    assert b"secret" not in body


LONG = "x" * 129


@pytest.mark.parametrize("name", [LONG, "a\nb", "\x1b[31mred", "a\x00"])
def test_texts_are_bounded(world: World, name: str) -> None:
    """Names and labels have at most 128 printable characters, whichever way they come; a refusal shows why."""
    native, vertex = "/headrace/v1/deployments", f"/v1/{SCOPE}:deploy"
    model = {"customModel": {"gcsUri": "file:///w"}}
    asked = [
        ("/headrace/v1/keys", {"name": name}),
        (native, {"artifact_uri": "file:///", "model_display_name": name}),
        (native, {"artifact_uri": "file:///", "labels": {name: "v"}}),
        (native, {"artifact_uri": "file:///", "labels": {"k": name}}),
        (native, {"artifact_uri": "file:///", "runtime": name}),
        (vertex, model | {"modelConfig": {"modelDisplayName": name}}),
        (vertex, model | {"endpointConfig": {"endpointDisplayName": name}}),
    ]
    for path, body in asked:
        assert world.error("POST", path, json=body) == (400, "BAD_FIELD"), body
        details = world.call("POST", path, json=body).json()["error"]["details"]
        assert "It has" in details[0]["metadata"]["evidence"]


def test_addresses_and_labels_are_bounded(world: World) -> None:
    """An address has at most 4,096 characters and is not echoed whole; a resource has at most 64 labels."""
    body = {"customModel": {"gcsUri": "/" + "x" * 4096}}
    response = world.call("POST", f"/v1/{SCOPE}:deploy", json=body)
    assert response.status_code == 400
    assert "4,097 characters" in response.text
    assert len(response.text) < 2000
    labels = {str(number): "" for number in range(65)}
    body = {"artifact_uri": "/", "labels": labels}
    assert world.error("POST", "/headrace/v1/deployments", json=body) == (400, "BAD_FIELD")
    world.deploy(customModel={"gcsUri": "/m/" + "x" * 200 + "\n"})
    (model,) = world.json("GET", "/headrace/v1/models")["models"]
    assert model["display_name"] == "x" * 128
