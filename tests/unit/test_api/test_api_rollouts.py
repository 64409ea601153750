"""The native API's rollouts: begun, shown, changed; and by whom."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World

from headrace.control.rollouts.counting import count_requests
from headrace.resources.access import Role
from headrace.resources.usage import Service, UsageRecord

URL = "/headrace/v1/rollouts"
BODY = {"endpoint_id": "chat", "project": "my-proj"}


@pytest.fixture
def canary(world: World) -> str:
    """The id of a deployed model without traffic, beside one that has all of it."""
    ids = []
    for no_traffic in (False, True):
        body = {"artifact_uri": "/", "project": "my-proj", "endpoint_id": "chat", "no_traffic": no_traffic}
        operation = world.json("POST", "/headrace/v1/deployments", json=body)
        world.advance(operation)
        ids.append(operation["targets"]["deployed_model"])
    assert traffic(world) == {ids[0]: 100, ids[1]: 0}
    return str(ids[1])


def traffic(world: World) -> dict[str, int]:
    """As the endpoint shows it."""
    (endpoint,) = world.json("GET", "/headrace/v1/endpoints")["endpoints"]
    return {each["id"]: each["traffic"] for each in endpoint["deployed_models"]}


def serve(world: World, rollout: dict[str, Any], number: int, service: Service) -> None:
    """So many requests to the canary."""
    record = UsageRecord(
        request_id="r",
        at=rollout["stage_began_at"] + 1,
        key_id="k",
        project="my-proj",
        location="us-central1",
        endpoint_id="chat",
        deployed_model_id=rollout["deployed_model_id"],
        model_id="m",
        model_version="1",
        service=service,
    )
    with world.store.transaction() as tx:
        count_requests(tx, [record] * number)


def test_a_rollout_begins_and_shows_what_it_has_seen(world: World, canary: str) -> None:
    """The first stage's traffic at once; then what it waits for, each measure beside its limit, and the timeline."""
    woken = world.woken.times
    rollout = world.json("POST", URL, json=BODY | {"stages": [10, 100], "bounds": {"first_token_s": 0.5}})
    assert world.woken.times == woken + 1
    assert (rollout["state"], rollout["percent"], rollout["deployed_model_id"]) == ("RUNNING", 10, canary)
    assert rollout["plan"]["bounds"]["error_rate"] == 0.01
    assert traffic(world)[canary] == 10
    serve(world, rollout, 3, Service(first_token_s=0.25))
    serve(world, rollout, 1, Service(failed=True))
    shown = world.json("GET", f"{URL}/{rollout['id']}")
    assert shown["waits_for"] == "4 of 100 requests."
    errors, first, gaps = shown["measures"]
    assert (errors["measure"], errors["bad"], errors["trials"], errors["bound"]) == ("errors", 1, 4, 0.01)
    assert errors["canary"] == {"count": 4, "mean": 0.25}
    assert (first["limit"], first["trials"], first["bad"], first["bound"]) == ("500 ms", 3, 0, 0.05)
    assert first["canary"] == {"count": 3, "mean": 0.25}
    assert first["stable"] == {"count": 0, "mean": None}
    assert (gaps["limit"], gaps["trials"], gaps["bound"]) == ("1.5 times the stable model's", 0, 0.5)
    assert first["evidence"] < 1 < errors["evidence"] < errors["threshold"]
    assert errors["threshold"] == pytest.approx(600)
    assert [move["state"] for move in shown["timeline"]] == ["RUNNING", "RUNNING"]
    (listed,) = world.json("GET", f"{URL}?endpoint=chat")["rollouts"]
    assert listed["id"] == rollout["id"]
    assert world.json("GET", f"{URL}?endpoint=other")["rollouts"] == []


def test_a_person_pauses_and_ends_it(world: World, canary: str) -> None:
    """By the state that it is to have; what has ended stays ended."""
    rollout = world.json("POST", URL, json=BODY | {"deployed_model_id": canary})
    path = f"{URL}/{rollout['id']}"
    assert world.json("PATCH", path, json={"state": "PAUSED"})["waits_for"] == "Paused."
    assert world.json("PATCH", path, json={"state": "RUNNING"})["state"] == "RUNNING"
    done = world.json("PATCH", path, json={"state": "PROMOTED"})
    assert (done["state"], done["percent"], done["waits_for"]) == ("PROMOTED", 100, "")
    assert traffic(world)[canary] == 100
    assert world.error("PATCH", path, json={"state": "ROLLED_BACK"}) == (400, "ILLEGAL_MOVE")
    assert traffic(world)[canary] == 100
    assert world.error("PATCH", path, json={"state": "GONE"}) == (400, "BAD_FIELD")


def test_the_traffic_is_the_rollouts_meanwhile(world: World, canary: str) -> None:
    """A split by hand is refused with its id; after its end it is taken again."""
    rollout = world.json("POST", URL, json=BODY)
    split = {"traffic": {canary: 100}}
    assert world.error("PATCH", "/headrace/v1/endpoints/chat", json=split) == (400, "ROLLOUT_RUNNING")
    assert world.error("POST", URL, json=BODY) == (400, "ROLLOUT_RUNNING")
    done = world.json("PATCH", f"{URL}/{rollout['id']}", json={"state": "ROLLED_BACK"})
    assert (done["percent"], traffic(world)[canary]) == (0, 0)
    world.json("PATCH", "/headrace/v1/endpoints/chat", json=split)


@pytest.mark.parametrize(
    "field",
    [
        {"stages": []},
        {"stages": [50, 5]},
        {"stages": "all"},
        {"min_requests": 0},
        {"false_alarms": 2},
        {"bounds": {"error_rate": 0}},
        {"bounds": {"latency_s": 1}},
        {"percent": 5},
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_gone_by_is_refused(world: World, canary: str, field: dict[str, Any]) -> None:
    """And nothing has changed."""
    assert world.error("POST", URL, json=BODY | field) == (400, "BAD_FIELD")
    assert (traffic(world)[canary], world.json("GET", URL)["rollouts"]) == (0, [])


def test_a_rollout_is_its_projects_own(world: World, canary: str) -> None:
    """A key of another project does not see it, nor begin one here."""
    rollout = world.json("POST", URL, json=BODY)
    stranger = world.key("other", Role.ADMIN)
    assert world.json("GET", URL, key=stranger)["rollouts"] == []
    assert world.error("GET", f"{URL}/{rollout['id']}", key=stranger) == (404, "ROLLOUT_NOT_FOUND")
    change = {"key": stranger, "json": {"state": "PROMOTED"}}
    assert world.error("PATCH", f"{URL}/{rollout['id']}", **change) == (404, "ROLLOUT_NOT_FOUND")
    assert world.error("POST", URL, key=stranger, json=BODY) == (403, "ROLE_MISSING")
    assert world.error("POST", URL, json=BODY | {"endpoint_id": "none"}) == (404, "ENDPOINT_NOT_FOUND")
