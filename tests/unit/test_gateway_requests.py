"""The life of a request: keys, names, limits, queues, and which replica answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
from gateway_serving import (
    ADMIN_TOKEN,
    BASE,
    CHAT,
    CONTENTS,
    EVERYWHERE_KEY,
    KEY,
    KEYS,
    OTHER_KEY,
    SCOPE,
    VIEWER_KEY,
    deployed,
    gateway_before,
    serving,
    snapshot,
)

from headrace.contracts.databricks.oauth import TOKEN_PATH
from headrace.gateway import Gateway
from headrace.gateway.access_log import write_collected
from headrace.gateway.limits import Limits
from headrace.resources.access import PUBLIC_ROUTES
from headrace.resources.errors import Failure
from headrace.resources.snapshot import EndpointRoute, RoutingSnapshot
from standin import Script, StandIn

TOKEN_PATHS = ("/token", TOKEN_PATH)


def bearer(key: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"authorization": f"Bearer {key}"}


def reason(answer: httpx.Response) -> str:
    """The stable code of an error in Google's shape."""
    code: str = answer.json()["error"]["details"][0]["reason"]
    return code


def filled(template: str) -> str:
    """A path that a route's template matches."""
    names = {"project": SCOPE.project, "location": SCOPE.location, "endpoint": "e1", "deployed_model": "d1"}
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], "my-endpoint"), template)


def test_every_route_denies_by_default(tmp_path: Path) -> None:
    """Without a key, and with an unknown one, nothing but `PUBLIC_ROUTES` answers, on both sockets."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            for client in (served.client, served.admin):
                del client.headers["authorization"]
            for route in Gateway.routes():
                client = served.client if route.process == "gateway" else served.admin
                open_to_all = (route.process, route.method, route.template) in PUBLIC_ROUTES
                for headers in (
                    {},
                    bearer("hr-wrong"),
                    {"x-goog-api-key": "wrong"},
                    {"authorization": "Basic eA=="},
                ):
                    answer = await client.request(route.method, filled(route.template), headers=headers)
                    # There a signed assertion, or a client's secret, is the key.
                    expected = 400 if route.template in TOKEN_PATHS else 200
                    assert answer.status_code == (expected if open_to_all else 401), route
            assert engine.seen.began == 0

    asyncio.run(main())


def test_every_inference_route_answers(tmp_path: Path) -> None:
    """With a key each listed route answers, so the list and the gateway are the same."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e", token="nonce") as engine,
            gateway_before(tmp_path, deployed(engine.address)) as served,
        ):
            body = {"model": "my-endpoint", "messages": [{"role": "user", "content": "x"}]}
            predict = {"instances": [{"prompt": "x"}]}
            for route in Gateway.routes():
                # `test_gateway_tokens` and `test_gateway_client_credentials` have these two.
                if route.process != "gateway" or route.template in TOKEN_PATHS:
                    continue
                content = None if route.method == "GET" else predict if ":" in route.template else body
                if route.template.endswith(("enerateContent", ":countTokens")):
                    content = CONTENTS
                headers = bearer(EVERYWHERE_KEY) if route.template == "/metrics" else {}
                answer = await served.client.request(
                    route.method, filled(route.template), json=content, headers=headers
                )
                told = 501 if route.template.endswith(":explain") else 200
                assert answer.status_code == told, (route, answer.text)
                assert answer.headers["x-request-id"]

    asyncio.run(main())


def test_keys_reach_their_project_and_role_only(tmp_path: Path) -> None:
    """Another project's key, and a viewer's, are refused; both ways to show a key work."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            post, path = served.client.post, f"{BASE}/chat/completions"
            for key in (OTHER_KEY, VIEWER_KEY):
                refused = await post(path, json=CHAT, headers=bearer(key))
                assert (refused.status_code, reason(refused)) == (403, "ROLE_MISSING")
            hidden = await post(path.replace("e1", "nothing"), json=CHAT, headers=bearer(OTHER_KEY))
            assert hidden.status_code == 403
            elsewhere = await post("/v1/chat/completions", json=CHAT | {"model": "e1"}, headers=bearer(OTHER_KEY))
            assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (404, "model_not_found")
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.post(served.url + path, json=CHAT, headers={"x-goog-api-key": KEY})).is_success

    asyncio.run(main())


def test_revoked_key_is_refused_at_once(tmp_path: Path) -> None:
    """The first request after the push that lacks a key is refused."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            assert (await served.client.get("/v1/models")).is_success
            await served.push(snapshot(deployed(engine.address), generation=2, keys=KEYS[1:]))
            refused = await served.client.get("/v1/models")
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "UNKNOWN_KEY")

    asyncio.run(main())


@pytest.mark.parametrize("path", [f"{BASE}/chat/completions", f"{BASE}:predict", f"{BASE}:rawPredict"])
def test_revoked_key_ends_what_waits_and_runs(tmp_path: Path, path: str) -> None:
    """A unary request whose key is revoked while it runs or waits gets a 401, and its engine is told to stop."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            one = deployed(engine.address, max_running=1)
            async with gateway_before(tmp_path, one) as served:
                engine.script = Script(hang=True)
                body = CHAT | {"instances": ["a"]}
                asking = [asyncio.create_task(served.client.post(path, json=body)) for _ in range(3)]
                await engine.until(began=1)
                await served.push(snapshot(one, generation=2))  # the key is still there: nothing happens
                assert not any(task.done() for task in asking)
                await served.push(snapshot(one, generation=3, keys=KEYS[1:]))
                for answer in await asyncio.gather(*asking):
                    assert (answer.status_code, reason(answer)) == (401, "UNKNOWN_KEY")
                await engine.until(cancelled=1)
                assert await served.gateway.drain(10) == 0
                assert engine.seen.began == 1

    asyncio.run(main())


def test_probes_by_head(tmp_path: Path) -> None:
    """Load balancers that probe by HEAD get GET's answer without its body, and without a key."""

    async def main() -> None:
        async with gateway_before(tmp_path) as served, httpx.AsyncClient(base_url=served.url) as anybody:
            for path in ("/healthz", "/readyz"):
                by_get, by_head = await anybody.get(path), await anybody.head(path)
                assert (by_head.status_code, by_head.content) == (200, b"")
                assert by_head.headers["content-length"] == by_get.headers["content-length"]

    asyncio.run(main())


@pytest.mark.parametrize("name", ["e1", f"{SCOPE}/endpoints/e1", "my-endpoint", "my-model", "custom-model"])
def test_model_names_an_endpoint(tmp_path: Path, name: str) -> None:
    """`model` may be an endpoint's id, full name or display name, or a model's name; the engine hears its own name."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)
            answer = await client.completions.create(model=name, prompt="x", extra_body={"ignore_eos": True})
            assert answer.choices[0].text == "tok tok tok "
            assert engine.seen.bodies == [{"model": "served", "prompt": "x", "ignore_eos": True}]
            assert "hr-key" not in str(engine.seen.headers)
            await client.close()

    asyncio.run(main())


def test_models_are_listed_and_unknown_ones_told(tmp_path: Path) -> None:
    """The list shows names that work; an unknown or ambiguous name is told with what there is."""

    async def main() -> None:
        twins = tuple(
            EndpointRoute(scope=SCOPE, id=f"t{n}", display_name="twin", deployed=(deployed(name=f"x{n}"),))
            for n in (1, 2)
        )
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            first = snapshot(deployed(engine.address)).endpoints
            await served.push(RoutingSnapshot(generation=2, endpoints=first + twins, keys=KEYS))
            client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)
            assert [model.id async for model in client.models.list()] == ["my-endpoint", "t1", "t2"]
            assert (await client.models.retrieve("e1")).id == "e1"
            with pytest.raises(openai.NotFoundError, match="my-endpoint, t1, t2") as unknown:
                await client.completions.create(model="no-such", prompt="x")
            assert unknown.value.code == "model_not_found"
            with pytest.raises(openai.NotFoundError, match="several endpoints"):
                await client.completions.create(model="twin", prompt="x")
            vertex = openai.AsyncOpenAI(base_url=served.url + BASE.replace("v1", "v1beta1"), api_key=KEY)
            assert [model.id async for model in vertex.models.list()] == ["my-model"]
            await client.close()
            await vertex.close()

    asyncio.run(main())


@pytest.mark.parametrize(("twin", "name"), [("t1", "my-endpoint"), ("my-endpoint", "")])
def test_a_silent_twin_takes_no_name_away(tmp_path: Path, twin: str, name: str) -> None:
    """An endpoint with nothing ready takes the name of one that answers away neither by its name nor by its id."""

    async def main() -> None:
        failed = EndpointRoute(scope=SCOPE, id=twin, display_name=name, deployed=(deployed(name="x1"),))
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            first = snapshot(deployed(engine.address)).endpoints
            await served.push(RoutingSnapshot(generation=2, endpoints=(*first, failed), keys=KEYS))
            client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)
            answer = await client.completions.create(model="my-endpoint", prompt="x")
            assert answer.choices[0].text
            await client.close()

    asyncio.run(main())


def test_bad_bodies_are_told(tmp_path: Path) -> None:
    """What is no JSON object, or too large, is refused before an engine hears of it."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), body_bytes=1000) as served,
        ):
            for content in (b"", b"{", b"[]", b'"x"', b"{\xff}", b"[" * 900):
                answer = await served.client.post(f"{BASE}/chat/completions", content=content)
                assert (answer.status_code, reason(answer)) == (400, "BAD_JSON"), content
            answer = await served.client.post("/v1/completions", json={"prompt": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_FIELD")
            answer = await served.client.post(f"{BASE}:predict", content=b"x" * 1001)
            assert (answer.status_code, reason(answer)) == (413, "BODY_TOO_LARGE")
            answer = await served.client.get("/v1/models", headers={"x": "y" * 70_000})
            assert (answer.status_code, reason(answer)) == (431, "HEADERS_TOO_LARGE")
            assert engine.seen.began == 0

    asyncio.run(main())


def test_body_over_the_limit_is_not_read(tmp_path: Path) -> None:
    """A body that comes in chunks is refused as soon as it is over the limit, while the client still sends."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed(), body_bytes=100_000) as served:
            host, port = served.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                f"POST {BASE}:predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
                "transfer-encoding: chunked\r\n\r\n".encode()
            )
            for _ in range(7):
                writer.write(b"%x\r\n%s\r\n" % (16384, b"x" * 16384))
            assert b"413" in await reader.readline()  # though the body has no end yet
            assert b"connection: close" in (await reader.readuntil(b"\r\n\r\n")).lower()
            writer.close()

    asyncio.run(main())


def test_dead_replica_before_the_first_byte(tmp_path: Path) -> None:
    """A replica that is gone, or dies before its first byte, is replaced by another, unseen by the client."""

    async def main() -> None:
        async with StandIn(tmp_path / "a") as dying, StandIn(tmp_path / "b") as living:
            dying.script = Script(die_after=0)
            gone = f"unix:{tmp_path / 'gone'}"
            for bad in (dying.address, gone):
                async with gateway_before(tmp_path / bad[-3:], deployed(bad, living.address)) as served:
                    for stream in (False, True) * 16:  # of two with nothing to do, chance has one
                        answer = await served.client.post(f"{BASE}/chat/completions", json=CHAT | {"stream": stream})
                        assert answer.status_code == 200
            assert dying.seen.began > 0
            assert living.seen.answered == 64

    asyncio.run(main())


def test_no_replica_answers(tmp_path: Path) -> None:
    """Where no replica answers, none is ready, or none begins in time, each is told by its own code."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            gone = f"unix:{tmp_path / 'gone'}"
            waiting = deployed(why_not_ready="It loads its weights.")
            async with gateway_before(
                tmp_path, deployed(gone, gone), first_byte_timeout_s=0.05, noticed_s=0.0
            ) as served:
                ask = served.client.post
                answer = await ask(f"{BASE}/chat/completions", json=CHAT)
                assert (answer.status_code, reason(answer)) == (503, "ENGINE_UNREACHABLE")
                await served.push(snapshot(waiting, generation=2))
                answer = await ask(f"{BASE}/chat/completions", json=CHAT)
                assert (answer.status_code, reason(answer)) == (503, "NOT_READY")
                assert "loads its weights" in answer.text
                assert answer.headers["retry-after"]
                engine.script = Script(hang=True)
                await served.push(snapshot(deployed(engine.address), generation=3))
                answer = await ask(f"{BASE}/chat/completions", json=CHAT | {"stream": True})
                assert (answer.status_code, reason(answer)) == (504, "ENGINE_TIMEOUT")
                await engine.until(cancelled=1)

    asyncio.run(main())


def test_a_wrong_method_is_told_the_right_one(tmp_path: Path) -> None:
    """405 with `Allow`, in the shape of the path's clients; strangers get 401, and at the root a text."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed(), control_returns_s=0) as served:
            openai_s = await served.client.get("/v1/chat/completions")
            assert (openai_s.status_code, openai_s.headers["allow"]) == (405, "POST")
            error = openai_s.json()["error"]
            assert (error["code"], error["type"]) == ("METHOD_NOT_ALLOWED", "invalid_request_error")
            assert "The path takes POST." in error["message"]
            google_s = await served.client.get(f"{BASE}:predict")
            assert (google_s.status_code, google_s.headers["allow"]) == (405, "POST")
            assert reason(google_s) == "METHOD_NOT_ALLOWED"
            away = await served.client.get("/v1/assistants")  # control's, which is not there
            assert away.json()["error"]["code"] == "CONTROL_PLANE_DOWN"
            del served.client.headers["authorization"]
            assert (await served.client.get("/v1/chat/completions")).status_code == 401
            root = await served.client.get("/")
            assert (root.status_code, "/healthz" in root.text) == (200, True)

    asyncio.run(main())


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    """A compressed body, and a key in a header of other vendors: each is said, and not only what is missing."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            zipped = gzip.compress(msgspec.json.encode(CHAT))
            answer = await served.client.post(
                f"{BASE}/chat/completions", content=zipped, headers={"content-encoding": "gzip"}
            )
            assert (answer.status_code, reason(answer)) == (400, "BAD_JSON")
            assert "Content-Encoding: gzip" in answer.text
            del served.client.headers["authorization"]
            answer = await served.client.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": KEY})
            assert answer.status_code == 401
            assert "X-Api-Key" in answer.text

    asyncio.run(main())


def test_what_failed_for_good_says_so(tmp_path: Path) -> None:
    """By the failure's own code and fix, and that another try is in vain; it and what is to come are not listed."""

    async def main() -> None:
        failure = Failure(code="DOES_NOT_FIT", message="It needs 9 GB.", fix="Use a larger machine.")
        dead = deployed(failure=failure, why_not_ready="It failed.")
        async with gateway_before(tmp_path, dead) as served:
            answer = await served.client.post(f"{BASE}/chat/completions", json=CHAT)
            assert (answer.status_code, reason(answer)) == (503, "NOT_READY")
            assert "DOES_NOT_FIT: It needs 9 GB." in answer.text
            assert "Use a larger machine." in answer.text
            assert "retry-after" not in answer.headers
            assert answer.headers["x-should-retry"] == "false"
            for generation, model in enumerate((dead, deployed(pending=True), deployed()), 2):
                await served.push(snapshot(model, generation=generation))
                listed = (await served.client.get("/v1/models")).json()["data"]
                assert len(listed) == (generation == 4)

    asyncio.run(main())


def test_queue_full_timeout_and_hang_up(tmp_path: Path) -> None:
    """One runs, one waits, the third is refused; a waiter that hangs up, or loses patience, frees its place."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(gated=True)
            model = deployed(engine.address, max_running=1, max_waiting=1)
            async with gateway_before(tmp_path, model) as served:
                room = served.gateway._routing.fleet.pools["dep-d1"].room
                running = asyncio.create_task(served.client.post(f"{BASE}/chat/completions", json=CHAT))
                await engine.until(began=1)

                async def waiting(count: int) -> None:
                    async with asyncio.timeout(10):
                        while room.waiting != count:  # noqa: ASYNC110 - the room has no event for it
                            await asyncio.sleep(0.001)

                waiter = asyncio.create_task(served.client.post(f"{BASE}/chat/completions", json=CHAT))
                await waiting(1)
                refused = await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "QUEUE_FULL")
                assert int(refused.headers["retry-after"]) >= 1
                metrics = (await served.admin_get("/metrics")).text
                assert 'headrace_gateway_waiting{deployment="dep-d1"} 1.0' in metrics
                waiter.cancel()
                await waiting(0)
                room.resize(max_running=1, max_waiting=1, max_wait_s=0.01)
                late = await served.client.post(f"{BASE}/chat/completions", json=CHAT)
                assert (late.status_code, reason(late)) == (503, "QUEUE_TIMEOUT")
                engine.gate.release()
                assert (await running).is_success
                assert engine.seen.began == 1

    asyncio.run(main())


def test_traffic_split_is_exact(tmp_path: Path) -> None:
    """Of each hundred requests exactly so many go to each deployed model, and one asked for by its id gets them all."""

    async def main() -> None:
        async with StandIn(tmp_path / "a") as a, StandIn(tmp_path / "b") as b:
            models = deployed(a.address, name="a", traffic=70), deployed(b.address, name="b", traffic=30)
            async with gateway_before(tmp_path, *models) as served:
                answers = [await served.client.post(f"{BASE}/chat/completions", json=CHAT) for _ in range(100)]
                got = Counter(answer.headers["x-vertex-ai-deployed-model-id"] for answer in answers)
                assert got == {"a": 70, "b": 30}
                assert (a.seen.answered, b.seen.answered) == (70, 30)
                assert a.seen.connections == 1  # kept
                await served.client.post(f"{BASE}/deployedModels/b/invoke/chat/completions", json=CHAT)
                assert b.seen.answered == 31

    asyncio.run(main())


def test_replica_with_the_least_to_do(tmp_path: Path) -> None:
    """A request goes to the replica that has the fewest under way."""

    async def main() -> None:
        async with StandIn(tmp_path / "a") as a, StandIn(tmp_path / "b") as b:
            a.script = b.script = Script(gated=True)
            async with gateway_before(tmp_path, deployed(a.address, b.address)) as served:
                asking = []
                for n in range(1, 4):
                    for _ in range(2):
                        asking.append(
                            asyncio.create_task(served.client.post(f"{BASE}/completions", json={"prompt": "x"}))
                        )
                    await asyncio.gather(a.until(began=n), b.until(began=n))
                for _ in asking:
                    a.gate.release()
                    b.gate.release()
                assert all(answer.is_success for answer in await asyncio.gather(*asking))

    asyncio.run(main())


def test_retired_replicas_finish(tmp_path: Path) -> None:
    """A replica that left the snapshot finishes what it has, is still counted, and gets nothing new."""

    async def main() -> None:
        async with StandIn(tmp_path / "a") as a, StandIn(tmp_path / "b") as b:
            a.script = Script(gated=True)
            async with gateway_before(tmp_path, deployed(a.address, name="a")) as served:
                running = asyncio.create_task(served.client.post(f"{BASE}/chat/completions", json=CHAT))
                await a.until(began=1)
                status = (await served.push(snapshot(deployed(b.address, name="b"), generation=2))).json()
                assert (status["generation"], status["outstanding"]) == (2, {"a-r0": 1})
                assert (await served.client.post(f"{BASE}/chat/completions", json=CHAT)).is_success
                a.gate.release()
                assert (await running).is_success
                assert (a.seen.began, b.seen.began) == (1, 1)
                assert (await served.admin_get("/status")).json()["outstanding"] == {}

    asyncio.run(main())


def test_snapshots_survive_and_never_go_back(tmp_path: Path) -> None:
    """The newest snapshot is on disk, private, and enough to serve without control; an older one is refused."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            async with gateway_before(tmp_path, deployed(engine.address)) as served:
                assert (await served.push(snapshot(deployed(engine.address), generation=5))).is_success
                assert (await served.push(snapshot(deployed(engine.address), generation=5))).is_success
                old = await served.push(snapshot(generation=4))
                assert (old.status_code, reason(old)) == (409, "STALE_WRITE")
            path = tmp_path / "snapshot.json"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            limits = Limits(control_returns_s=0)
            again = Gateway(snapshot_path=path, control_address="unix:/nowhere", admin_token=ADMIN_TOKEN, limits=limits)
            async with serving(again.handle) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
                assert (await client.get("/readyz")).status_code == 200
                answer = await client.post(f"{BASE}/chat/completions", json=CHAT, headers=bearer(KEY))
                assert answer.is_success
                down = await client.get(f"/v1/{SCOPE}/endpoints", headers=bearer(KEY))
                assert (down.status_code, reason(down)) == (503, "CONTROL_PLANE_DOWN")
            path.write_text("{")
            empty = Gateway(snapshot_path=path, control_address="unix:/nowhere", admin_token=ADMIN_TOKEN)
            assert not empty.ready

    asyncio.run(main())


def test_full_disk_still_revokes(tmp_path: Path) -> None:
    """A snapshot that cannot be kept on disk is routed by nevertheless, and the push says what is wrong."""

    async def main() -> None:
        async with gateway_before(tmp_path, deployed()) as served:
            (tmp_path / f".snapshot.json.{os.getpid()}").mkdir()
            answer = await served.push(snapshot(generation=2, keys=()))
            assert (answer.status_code, reason(answer)) == (507, "DISK_FULL")
            assert (await served.client.get("/v1/models")).status_code == 401

    asyncio.run(main())


def test_draining(tmp_path: Path) -> None:
    """While the gateway drains, what runs finishes, and what a kept connection still brings is answered."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(gated=True)
            assert (await served.client.get("/readyz")).is_success
            running = asyncio.create_task(served.client.post(f"{BASE}/chat/completions", json=CHAT))
            await engine.until(began=1)
            assert await served.gateway.drain(0.01) == 1
            assert (await served.client.get("/v1/models")).is_success
            assert (await served.client.get("/readyz")).status_code == 503
            assert (await served.client.get("/healthz")).is_success
            engine.gate.release()
            assert (await running).is_success
            assert await served.gateway.drain(10) == 0

    asyncio.run(main())


def test_one_line_per_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log and the metrics know what each request was, how long it took and how many tokens it made."""

    async def main() -> list[dict[str, Any]]:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            write_collected()
            caplog.clear()
            headers = {"x-request-id": "mine", "traceparent": "00-1-2-01"}
            body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
            await served.client.post(f"{BASE}/chat/completions?key=secret", json=body, headers=headers)
            assert engine.seen.headers[0]["x-request-id"] == "mine"
            assert engine.seen.headers[0]["traceparent"] == "00-1-2-01"
            await served.client.post(f"{BASE}:predict", json={"instances": ["a", "b"]})
            await served.client.post(f"{BASE}:predict", json={})
            metrics = (await served.admin_get("/metrics")).text
            assert 'headrace_gateway_requests_total{endpoint="e1",status="200"} 2.0' in metrics
            assert 'headrace_gateway_tokens_total{endpoint="e1",kind="completion"} 9.0' in metrics
            await served.push(RoutingSnapshot(generation=2, keys=KEYS))
            assert 'endpoint="e1"' not in (await served.admin_get("/metrics")).text
        write_collected()
        records = [record for record in caplog.records if record.name == "headrace.gateway.access"]
        return [json.loads(line) for record in records for line in record.message.splitlines()]

    with caplog.at_level(logging.INFO, "headrace.gateway.access"):
        streamed, predicted, refused = asyncio.run(main())
    expected = {"request_id": "mine", "status": 200, "key": "id-hr-key", "endpoint": "e1", "deployed_model": "d1"}
    assert streamed.items() >= (expected | {"replica": "d1-r0", "prompt_tokens": 7, "completion_tokens": 3}).items()
    assert 0 < streamed["ttft_s"] <= streamed["duration_s"]
    assert "secret" not in str(streamed)
    assert (predicted["prompt_tokens"], predicted["completion_tokens"]) == (14, 6)
    assert (refused["status"], refused["code"]) == (400, "BAD_FIELD")
