"""The native API's sums of what was used: what they tell apart, and who sees whose."""

from __future__ import annotations

import time
from typing import Any

import pytest
from api_world import World

from headrace.resources.access import Role
from headrace.resources.usage import UsageRecord, hour_of

URL = "/headrace/v1/usage"
NOW = hour_of(time.time())


def use(world: World, *records: UsageRecord) -> None:
    """Have these in the sums."""
    with world.store.transaction() as tx:
        tx.usage.add("segment", 1, records)


def record(key_id: str = "k", *, hours_ago: int = 0, project: str = "my-proj", **more: Any) -> UsageRecord:
    """A request of 3 and 4 tokens."""
    return UsageRecord(
        request_id="r",
        at=NOW - 3600.0 * hours_ago,
        key_id=key_id,
        project=project,
        location="us-central1",
        endpoint_id="e",
        deployed_model_id="d",
        model_id="smol",
        model_version="1",
        prompt_tokens=3,
        completion_tokens=4,
        **more,
    )


def test_usage_is_told_apart_as_asked(world: World) -> None:
    """By all, by some, by none; with names where they are still known, and those of keys for admins only."""
    world.deploy(endpointConfig={"endpointUserId": "e", "endpointDisplayName": "rivers"})
    (admin_key,) = world.json("GET", "/headrace/v1/keys")["keys"]
    use(world, record(), record(admin_key["id"]), record(finished=False, inexact=True))
    found = world.json("GET", URL)
    assert found["by"] == ["key", "endpoint", "model"]
    assert found["from"] < NOW < found["to"]
    by_key = {one["key_id"]: one for one in found["usage"]}
    assert set(by_key) == {"k", admin_key["id"]}
    assert by_key[admin_key["id"]]["key_name"] == admin_key["name"]
    counts = {"requests": 2, "unfinished": 1, "inexact": 1, "prompt_tokens": 6, "completion_tokens": 8}
    assert by_key["k"].items() >= (counts | {"total_tokens": 14, "model_id": "smol", "model_version": "1"}).items()
    assert by_key["k"]["endpoint_name"] == "rivers"
    assert "key_name" not in by_key["k"]
    (alone,) = world.json("GET", f"{URL}?by=model")["usage"]
    assert (alone["requests"], "key_id" in alone, alone["model_id"]) == (3, False, "smol")
    (total,) = world.json("GET", f"{URL}?by=")["usage"]
    assert (total["requests"], total["total_tokens"]) == (3, 21)
    shown = world.json("GET", URL, key=world.key("my-proj", Role.VIEWER))["usage"]
    assert not any("key_name" in one for one in shown)


def test_a_key_of_every_project_is_named_in_each(world: World) -> None:
    """For whoever may list it, also where one project is asked for; a project's own admin may not."""
    (of_all,) = world.json("GET", "/headrace/v1/keys")["keys"]
    assert of_all["project"] == "*"
    use(world, record(of_all["id"]))
    query = f"{URL}?by=key&project=my-proj"
    assert [one["key_name"] for one in world.json("GET", query)["usage"]] == [of_all["name"]]
    (one,) = world.json("GET", query, key=world.key("my-proj", Role.ADMIN))["usage"]
    assert "key_name" not in one


def test_the_span_is_of_whole_hours(world: World) -> None:
    """The last day if not told; an hour that a bound falls into is in."""
    use(world, *(record(hours_ago=hours) for hours in (0, 5, 23, 100)))

    def counted(query: str = "") -> int:
        return sum(one["requests"] for one in world.json("GET", f"{URL}?{query}")["usage"])

    assert counted() == 3
    assert counted(f"from={NOW - 100 * 3600 + 1800}") == 4
    assert counted(f"from={NOW - 101 * 3600}&to={NOW - 5 * 3600 + 0.5}") == 3
    assert counted(f"from=0&to={NOW - 5 * 3600}") == 2
    assert world.json("GET", f"{URL}?from=0&to=0&by=")["usage"] == []


def test_each_sees_its_own_project(world: World) -> None:
    """Keys of every project see all of it, others theirs; asking for more is refused."""
    use(world, record(), record(project="other"))
    assert {one["project"] for one in world.json("GET", URL)["usage"]} == {"my-proj", "other"}
    viewer = world.key("other", Role.VIEWER)
    assert {one["project"] for one in world.json("GET", URL, key=viewer)["usage"]} == {"other"}
    assert [one["requests"] for one in world.json("GET", f"{URL}?by=key", key=viewer)["usage"]] == [1]
    assert world.error("GET", f"{URL}?project=my-proj", key=viewer) == (403, "ROLE_MISSING")


@pytest.mark.parametrize("query", ["by=user", "by=key;model", "from=yesterday", "to=-1", "from=5&to=1"])
def test_what_cannot_be_understood_is_refused(world: World, query: str) -> None:
    """With the field's name; a span that ends before it begins, too."""
    assert world.error("GET", f"{URL}?{query}") == (400, "BAD_FIELD")
