"""The native API's profiles: kept, listed, told stale, forgotten; and by whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from api_world import World

from headrace.control.placement import home
from headrace.hardware import look
from headrace.resources.access import Role
from headrace.resources.deployments import Deployment
from headrace.resources.nodes import Node
from headrace.resources.profiles import Carried, Cost
from small_models import write_llama

URL = "/headrace/v1/profiles"
COST = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)
POINTS = [
    {
        "prompt_tokens": prompt,
        "output_tokens": output,
        "concurrency": at,
        "requests": 1.0,
        "wall_s": COST.work_s(prompt, output, at),
        "first_s": 0.1,
        "gap_s": 0.05,
    }
    for prompt in (32, 256, 768)
    for output in (16, 64)
    for at in (1, 4)
]


@pytest.fixture
def deployment(world: World) -> str:
    """The id of a deployment that CHECKING has passed, on a node that told what machine it is."""
    folder = write_llama(world.layout.data_dir / "llama")
    body = {"artifact_uri": folder.as_uri(), "project": "my-proj", "endpoint_id": "chat", "model_id": "llama"}
    operation = world.json("POST", "/headrace/v1/deployments", json=body)
    with world.store.transaction() as tx:
        hardware = msgspec.to_builtins(look(folder)) | {"gpus": []}
        tx.insert(Node(id="local", boot_id="b", memory_bytes=1 << 32, cores=2, hardware=hardware, last_seen_at=1.0))
        (one,) = tx.list(Deployment)
        tx.update(msgspec.structs.replace(one, runtime="openvino", max_model_len=4096))
    world.advance(operation)
    return str(operation["targets"]["deployment"])


def body(deployment: str, **fields: Any) -> dict[str, Any]:
    """What the command sends."""
    return {"deployment": deployment, "project": "my-proj", "points": POINTS} | fields


def test_a_measurement_is_kept_listed_and_forgotten(world: World, deployment: str) -> None:
    """With what it holds for as the server knows it, the fit, and what that is in throughput."""
    made = world.json("POST", URL, json=body(deployment))
    assert (made["model_id"], made["model_version"], made["runtime"]) == ("llama", "1", "openvino")
    assert made["carried"]["cost"]["step"] == pytest.approx(0.02, rel=1e-3)
    assert (made["carried"]["concurrency"], made["carried"]["measured"]) == (4, True)
    assert made["mean_error"] < 1e-3
    assert 0 < 4 * made["chunk"] <= made["tokens_per_s"]
    assert (made["model_units_per_minute"], made["stale"], made["stale_because"]) == (60, False, "")
    assert "A replica carries" in made["summary"]
    newer = world.json("POST", URL, json=body(deployment, first_s=0.01))
    assert (newer["tokens_per_s"], newer["chunk"]) == (0, 0)
    assert [one["id"] for one in world.json("GET", URL)["profiles"]] == [newer["id"], made["id"]]
    assert [one["id"] for one in world.json("GET", f"{URL}?limit=1")["profiles"]] == [newer["id"]]
    for model, number in (("llama", 2), ("llama@1", 2), ("llama@2", 0), ("other", 0)):
        assert len(world.json("GET", f"{URL}?model={model}")["profiles"]) == number
    assert world.json("GET", f"{URL}/{made['id']}") == made
    assert world.json("DELETE", f"{URL}/{made['id']}")["id"] == made["id"]
    assert world.error("GET", f"{URL}/{made['id']}") == (404, "PROFILE_NOT_FOUND")
    assert world.error("DELETE", f"{URL}/{made['id']}") == (404, "PROFILE_NOT_FOUND")


def test_it_is_stale_when_the_machine_is_another(world: World, deployment: str) -> None:
    """And says in what; no store is asked for the weights, so it says the same when they are gone."""
    made = world.json("POST", URL, json=body(deployment))
    with world.store.transaction() as tx:
        node = home(tx)
        assert node is not None
        tx.update(msgspec.structs.replace(node, hardware=node.hardware | {"cores": 192.0}))
    shown = world.json("GET", f"{URL}/{made['id']}")
    assert shown["stale"]
    assert shown["stale_because"].startswith("The machine would be 192 cores of")
    (world.layout.data_dir / "llama" / "config.json").unlink()
    assert world.json("GET", URL)["profiles"][0]["stale_because"] == shown["stale_because"]


def test_what_was_sold_goes_by_it_from_now_on(world: World, deployment: str) -> None:
    """A deployment of the version that carries a prediction carries the measurement then, and its timeline says so."""
    predicted = Carried(cost=COST, concurrency=1, first_s=2.0, gap_s=0.2)
    with world.store.transaction() as tx:
        (one,) = tx.list(Deployment)
        tx.update(msgspec.structs.replace(one, carried=predicted))
    made = world.json("POST", URL, json=body(deployment))
    shown = world.json("GET", f"/headrace/v1/deployments/{deployment}")
    assert shown["carried"] == made["carried"] | {"profile_id": made["id"]}
    assert shown["timeline"][-1]["detail"] == made["summary"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": [POINTS[0] | {"requests": 0}, *POINTS]},
        {"points": [POINTS[0] | {"wall_s": -1}, *POINTS]},
        {"points": [POINTS[0] | {"prompt_tokens": 10**12}, *POINTS]},
        {"points": [POINTS[0] | {"colour": "red"}, *POINTS]},
        {"points": POINTS * 100},
        {"first_s": 0},
        {"gap_s": 1e300},
        {"hardware": "mine"},
    ],
    ids=",".join,
)
def test_numbers_that_nobody_measured_are_refused(world: World, deployment: str, wrong: dict[str, Any]) -> None:
    """By name, and nothing is kept."""
    assert world.error("POST", URL, json=body(deployment, **wrong)) == (400, "BAD_FIELD")
    assert world.json("GET", URL)["profiles"] == []


def test_too_little_to_tell_is_refused(world: World, deployment: str) -> None:
    """No points, few, and all alike."""
    for points in ([], POINTS[:2], [POINTS[0]] * 9):
        assert world.error("POST", URL, json=body(deployment, points=points)) == (400, "PROFILE_TOO_SMALL")
    assert world.error("POST", URL, json=body("none")) == (404, "DEPLOYMENT_NOT_FOUND")
    world.deploy()
    with world.store.transaction() as tx:
        (fresh,) = [one for one in tx.list(Deployment) if one.id != deployment]
    assert world.error("POST", URL, json=body(fresh.id)) == (400, "BAD_FIELD")


def test_profiles_are_their_projects_own(world: World, deployment: str) -> None:
    """Another project's key sees none and makes none here; who may only look may not keep one."""
    made = world.json("POST", URL, json=body(deployment))
    stranger, viewer = world.key("other", Role.ADMIN), world.key("my-proj", Role.VIEWER)
    assert world.json("GET", URL, key=stranger)["profiles"] == []
    for method in ("GET", "DELETE"):
        assert world.error(method, f"{URL}/{made['id']}", key=stranger) == (404, "PROFILE_NOT_FOUND")
    assert world.error("POST", URL, key=stranger, json=body(deployment)) == (403, "ROLE_MISSING")
    assert len(world.json("GET", URL, key=viewer)["profiles"]) == 1
    assert world.error("POST", URL, key=viewer, json=body(deployment)) == (403, "ROLE_MISSING")
    assert world.error("DELETE", f"{URL}/{made['id']}", key=viewer) == (403, "ROLE_MISSING")
