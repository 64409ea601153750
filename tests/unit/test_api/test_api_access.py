"""Who gets in: deny by default, on every route."""

from __future__ import annotations

import re

import pytest
from api_world import INTERNAL_TOKEN, SCOPE, World
from fastapi import FastAPI, Request, Response

from headrace.api.access import Route, check_routes, mount
from headrace.api.app import ROUTES
from headrace.resources.access import PUBLIC_ROUTES, Permission, Process, Role

SAMPLES = {"version": "v1", "project": "my-proj", "location": "us-central1", "rest": "nothing/here"}


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
    for path in ("/", "/docs", "/openapi.json", "/v1/what", "/headrace/v1/what", "/internal/what"):
        assert world.error("GET", path, key=None)[0] == 401, path
    for path in ("/", "/docs", "/openapi.json", "/v1/what", "/headrace/v1/what"):
        assert world.error("GET", path) == (404, "UNKNOWN_PATH"), path


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_roles(world: World, route: Route) -> None:
    """Each role gets exactly as far as its permissions say, in its own project."""
    may = {
        Permission.READ: {Role.VIEWER, Role.PREDICTOR, Role.DEPLOYER, Role.ADMIN},
        Permission.DEPLOY: {Role.DEPLOYER, Role.ADMIN},
        Permission.ADMINISTER: {Role.ADMIN},
    }[route.permission]
    for role in Role:
        status = world.call(route.method, filled(route.path), key=world.key("my-proj", role)).status_code
        assert (status != 403) is (role in may), role
    if "{project}" in route.path:
        stranger = world.key("other", Role.ADMIN)
        assert world.error(route.method, filled(route.path), key=stranger) == (403, "ROLE_MISSING")


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
