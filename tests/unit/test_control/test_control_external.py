"""External deployments in the control plane: real looks at a server on a loopback port, rows that follow them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from scripted import World

from external_servers import EXTERNAL_KEY, Scripted
from headrace.control import Reconciler
from headrace.control.commands import undeploy
from headrace.control.external import Looks, Pace, Wanted, life, probe
from headrace.gateway.upstream import Outside
from headrace.resources.deployments import Deployment
from headrace.resources.egress import Egress
from headrace.resources.errors import BadField, ExternalAddressForbidden
from headrace.resources.external import EXTERNAL, ExternalServer
from headrace.resources.models import ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.operations import Operation
from standin import Script, StandIn

PACE = Pace(every_s=0.02, missed_s=0.02, longest_s=0.05)


class Outward:
    """The scripted world, with the reconciler's own loops running."""

    def __init__(self, world: World, *, egress: Egress | None = None) -> None:
        self.world = world
        self.reconciler = Reconciler(
            world.store, world.gateway, egress=egress or Egress(), pace=PACE, clock=world.clock
        )

    async def __aenter__(self) -> Outward:
        self._running = asyncio.create_task(self.reconciler.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def deploy(self, base_url: str, *, key: str = EXTERNAL_KEY, anywhere: bool = True, model: str = "theirs") -> Any:
        """Ask for it, as the native API does."""
        server = ExternalServer(base_url=base_url, model=model, anywhere=anywhere)
        spec = ServingSpec(runtime=EXTERNAL, external=server)
        operation = self.world.deploy(artifact_uri=base_url, spec=spec, external_key=key)
        self.reconciler.wake()
        return operation

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for rows to hold this: other tasks write them, and the store tells nobody."""
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def until_state(self, *states: str) -> Deployment:
        """Wait for the newest deployment to be in one of these."""
        await self.until(lambda: self.world.deployment.state in states)
        return self.world.deployment


def test_a_server_is_checked_warmed_and_ready(world: World) -> None:
    """CHECKING, WARMING with a real generation, READY; routed with its key, path and name; no node, no memory."""

    async def main() -> None:
        async with StandIn(token=EXTERNAL_KEY, name="theirs") as server, Outward(world) as outward:
            operation = outward.deploy(f"{server.address}/v1")
            deployment = await outward.until_state("READY")
            await outward.until(lambda: world.operation(operation).state == "SUCCEEDED")
            assert world.states(deployment.id) == ["ACCEPTED", "CHECKING", "WARMING", "READY"]
            assert (deployment.runtime, deployment.memory_bytes, deployment.model_bytes) == (EXTERNAL, 0, 0)
            (replica,) = world.replicas
            assert (replica.node_id, replica.state, replica.address) == ("", "READY", f"{server.address}/v1")
            assert replica.warmup is not None
            assert replica.warmup.output_tokens == server.script.chunks
            (route,) = world.gateway.snapshot.endpoints[0].deployed
            (routed,) = route.replicas
            assert routed.external is not None
            assert (routed.address, routed.external.base_path, routed.nonce) == (server.address, "/v1", EXTERNAL_KEY)
            assert (route.served_name, route.external_host) == ("theirs", f"127.0.0.1:{server.port}")
            assert world.checker.asked == 0
            assert world.node.started == []

    asyncio.run(main())


def test_looks_that_find_the_same_are_not_told() -> None:
    """While nothing changes at a server, nobody goes through all rows because it was looked at."""

    async def main() -> None:
        told: list[int] = []
        looks = Looks(lambda: told.append(1), PACE)
        async with StandIn(name="theirs") as server:
            theirs = ExternalServer(base_url=f"{server.address}/v1", model="theirs", anywhere=True)
            outside = Outside(("127.0.0.0/8",))
            looks.follow({"one": Wanted(server=theirs, key="", outside=outside, generate=False)})
            await server.until(connections=6)
            assert len(told) == 1
            looks.close()

    asyncio.run(main())


def test_away_is_not_ready_and_back_is_ready(world: World) -> None:
    """A server that is away leaves routing, with the reason; once it answers and generates, it is used again."""

    async def main() -> None:
        async with Outward(world) as outward:
            async with StandIn(name="theirs") as server:
                outward.deploy(f"{server.address}/v1")
                ready = await outward.until_state("READY")
                await outward.until(lambda: world.gateway.replicas)
            away = await outward.until_state("CHECKING")
            await outward.until(lambda: not world.gateway.replicas)
            assert away.failure is not None
            assert away.failure.code == "EXTERNAL_UNREACHABLE"
            assert "EXTERNAL_UNREACHABLE" in world.gateway.snapshot.endpoints[0].deployed[0].why_not_ready
            async with StandIn(port=server.port, name="theirs"):
                back = await outward.until_state("READY")
                await outward.until(lambda: world.gateway.replicas)
            assert back.failure is None
            assert world.states(ready.id)[3:] == ["READY", "CHECKING", "WARMING", "READY"]
            assert len(world.replicas) == 1

    asyncio.run(main())


def test_a_new_control_goes_on(world: World) -> None:
    """A control that starts anew finds the deployment READY, with its key, and looks at its server again."""

    async def main() -> None:
        async with StandIn(token=EXTERNAL_KEY, name="theirs") as server:
            async with Outward(world) as first:
                first.deploy(f"{server.address}/v1")
                await first.until_state("READY")
            world.gateway.restart()
            async with Outward(world) as second:
                await second.until(lambda: world.gateway.replicas)
                assert world.deployment.state == "READY"
                server.token = "another"
                refused = await second.until_state("CHECKING")
                assert refused.failure is not None
                assert refused.failure.code == "EXTERNAL_REFUSED"

    asyncio.run(main())


def test_undeploy_forgets_the_key(world: World) -> None:
    """Undeployed, nothing of it is left but its timeline: no replica, no key in any row, no look at its server."""

    async def main() -> None:
        async with StandIn(token=EXTERNAL_KEY, name="theirs") as server, Outward(world) as outward:
            outward.deploy(f"{server.address}/v1")
            await outward.until_state("READY")
            (bound,) = world.bindings
            world.write(
                lambda tx: undeploy(tx, DEFAULT_SCOPE, bound.endpoint_id, bound.id, contract="test", now=world.clock())
            )
            outward.reconciler.wake()
            gone = await outward.until_state("GONE")
            assert world.replicas == []
            assert world.states(gone.id)[-2:] == ["DRAINING", "GONE"]
            assert outward.reconciler._looks.newest == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b'{"data": [{"id": "other"}]}', "EXTERNAL_MODEL_MISSING"),
        (200, b"<html>", "EXTERNAL_NOT_OPENAI"),
        (404, b'{"detail": "Not Found"}', "EXTERNAL_NOT_OPENAI"),
        (302, b"", "EXTERNAL_NOT_OPENAI"),
        (401, f'{{"error": {{"message": "wrong: {EXTERNAL_KEY}"}}}}'.encode(), "EXTERNAL_REFUSED"),
        (503, b'{"error": "loading"}', "EXTERNAL_UNREACHABLE"),
        (200, b'{"data": [{"id": "theirs"}]}', "EXTERNAL_NOT_OPENAI"),
        (429, b"{}", "QUEUE_FULL"),
    ],
)
def test_what_cannot_work_fails_with_its_reason(world: World, status: int, body: bytes, code: str) -> None:
    """A server that is none, or not with this key or model, fails the deployment with code, evidence and fix."""

    async def main() -> None:
        app = Scripted(status, body, location="http://169.254.169.254/")
        async with app.serving() as url, Outward(world) as outward:
            operation = outward.deploy(f"{url}/v1")
            failed = await outward.until_state("FAILED")
            assert failed.failure is not None
            assert failed.failure.code == code, failed.failure
            assert failed.failure.evidence
            await outward.until(lambda: world.operation(operation).state == "FAILED")
            told = [world.timeline(failed.id), world.rows(Operation), failed]
            assert EXTERNAL_KEY not in str(msgspec.json.encode(told))
            assert {path for _, path, _ in app.asked} <= {
                "/v1/models",
                "/v1/chat/completions",
                "/v1/completions",
                "/v1/embeddings",
            }
            await outward.until(lambda: world.replicas[0].state == "GONE")
            assert world.replicas[0].nonce == ""

    asyncio.run(main())


@pytest.mark.parametrize(("key", "fix"), [("", "--external-key-env"), (EXTERNAL_KEY, "a key that the server takes")])
def test_who_deploys_is_told_what_to_change(world: World, key: str, fix: str) -> None:
    """A key that is missing is told apart from one that is refused, in words for who named the server."""

    async def main() -> None:
        async with Scripted(401).serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1", key=key)
            failed = await outward.until_state("FAILED")
            assert failed.failure is not None
            assert failed.failure.code == "EXTERNAL_REFUSED"
            assert fix in failed.failure.fix

    asyncio.run(main())


def test_a_server_that_never_answers_fails_at_its_deadline(world: World) -> None:
    """A deployment whose server takes requests and says nothing fails when its time is over."""

    async def main() -> None:
        async with StandIn(name="theirs") as server, Outward(world) as outward:
            server.script = Script(hang=True)
            outward.deploy(f"{server.address}/v1")
            await outward.until_state("WARMING")
            world.clock.now += 4000
            outward.reconciler.wake()
            failed = await outward.until_state("FAILED")
            assert failed.failure is not None
            assert failed.failure.code == "DEPLOY_TIMEOUT"

    asyncio.run(main())


class Choosy(Scripted):
    """It lists the model, and answers these paths alone."""

    def __init__(self, **bodies: bytes) -> None:
        super().__init__(200)
        self._bodies = {"models": b'{"data": [{"id": "theirs"}]}'} | bodies

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        body = self._bodies.get(scope.get("path", "").rpartition("/")[2])
        self.status, self.body = (404, b'{"detail": "Not Found"}') if body is None else (200, body)
        await super().__call__(scope, receive, send)


class Listing(Scripted):
    """It lists the model, and answers everything else as scripted."""

    def __init__(self) -> None:
        super().__init__(200)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        said = self.status, self.body
        if scope.get("path") == "/v1/models":
            self.status, self.body = 200, b'{"data": [{"id": "theirs"}]}'
        await super().__call__(scope, receive, send)
        self.status, self.body = said


def test_an_embedding_model_is_warmed_with_an_embedding(world: World) -> None:
    """A server that makes no text and makes vectors becomes READY all the same."""

    async def main() -> None:
        async with Choosy(embeddings=b'{"data": [{"embedding": [1]}]}').serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1")
            ready = await outward.until_state("READY", "FAILED")
            assert ready.state == "READY"
            assert world.timeline(ready.id)[-1].detail.startswith("First answer after")

    asyncio.run(main())


def test_a_server_that_has_the_model_and_cannot_use_it_fails(world: World) -> None:
    """A list of models is no proof: a server that answers no kind of request fails its warm-up, with what it said."""

    async def main() -> None:
        async with Choosy().serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1")
            failed = await outward.until_state("READY", "FAILED")
            assert failed.failure is not None
            assert failed.failure.code == "ENGINE_WARMUP_FAILED"
            assert "/v1/chat/completions: HTTP 404" in failed.failure.evidence

    asyncio.run(main())


@pytest.mark.parametrize("event", [b": still thinking\n\n", b"data: {}\n\n", b"data: " + b"[" * 5000 + b"\n\n", b"x"])
def test_a_stream_that_never_says_anything_is_not_read_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch, event: bytes
) -> None:
    """A server that sends and sends, and no token, fails its warm-up after a bounded number of bytes."""
    monkeypatch.setattr(probe, "MAX_ANSWER_BYTES", 100_000)

    async def main() -> None:
        server = Choosy(completions=event * (1_000_000 // len(event)))
        server.headers["content-type"] = "text/event-stream"
        async with server.serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1")
            failed = await outward.until_state("READY", "FAILED")
            assert failed.failure is not None
            assert failed.failure.code == "ENGINE_WARMUP_FAILED", failed.failure
            assert "had no token" in failed.failure.message

    asyncio.run(main())


@pytest.mark.parametrize(
    ("card", "tokens"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"max_model_len": 2**31 - 1}, 2**31 - 1),
        ({"max_model_len": 2**64}, 0),
        ({"max_model_len": 10**30, "meta": {"n_ctx": 2048}}, 2048),
        ({"max_model_len": True}, 0),
        ({"max_model_len": 4096.0}, 0),
        ({"max_model_len": -1}, 0),
        ({"max_model_len": "4096", "meta": {"n_ctx": True}}, 0),
        ({"meta": {"n_ctx": 2**63}}, 0),
    ],
)
def test_a_context_that_nobody_has_is_unknown(world: World, card: dict[str, Any], tokens: int) -> None:
    """Whatever a server's card says of its context, the model becomes READY, with that length or with none."""

    async def main() -> None:
        models = msgspec.json.encode({"data": [{"id": "theirs", **card}]})
        vectors = b'{"data": [{"embedding": [1]}], "usage": {"completion_tokens": 1%s}}' % (b"0" * 400)
        async with Choosy(models=models, embeddings=vectors).serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1")
            ready = await outward.until_state("READY", "FAILED")
            assert (ready.state, ready.max_model_len) == ("READY", tokens)

    asyncio.run(main())


@pytest.mark.parametrize(("broken", "state"), [("_described", "CHECKING"), ("_measured", "WARMING")])
def test_a_defect_of_ours_is_said(world: World, monkeypatch: pytest.MonkeyPatch, broken: str, state: str) -> None:
    """Code that cannot take in what was found says so in the deployment, which its deadline ends; nothing is routed."""

    def defect(*_: object) -> str:
        raise OverflowError("too large for us")

    monkeypatch.setattr(life, broken, defect)

    async def main() -> None:
        async with StandIn(name="theirs") as server, Outward(world) as outward:
            outward.deploy(f"{server.address}/v1")
            await outward.until(lambda: world.deployment.failure)
            told = world.deployment
            assert told.failure is not None
            assert (told.state, told.failure.code) == (state, "INTERNAL")
            assert "too large for us" in told.failure.evidence
            outward.reconciler.wake()
            await asyncio.sleep(0.2)
            assert [each.failure for each in world.timeline(told.id)].count(told.failure) == 1
            assert not world.gateway.snapshot.endpoints[0].deployed[0].replicas
            world.clock.now += 4000
            outward.reconciler.wake()
            await outward.until_state("FAILED")

    asyncio.run(main())


ECHO = f'{{"error": {{"message": "You sent: authorization: Bearer {EXTERNAL_KEY}"}}, "data": 1}}'
DECODED = ECHO.replace("sk-", "\\u0073k-")


@pytest.mark.parametrize("said", [ECHO, DECODED])
@pytest.mark.parametrize("status", [200, 400, 404, 429, 500])
@pytest.mark.parametrize("listed", [False, True])
def test_a_key_that_is_repeated_is_kept_nowhere(world: World, said: str, status: int, listed: bool) -> None:
    """A server that shows a request's headers in its errors brings the key into no row, timeline or operation."""

    async def main() -> None:
        app = Listing() if listed else Scripted(status)
        app.status, app.body = status, said.encode()
        async with app.serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1")
            failed = await outward.until_state("FAILED")
            assert failed.failure is not None
            kept = [world.timeline(failed.id), world.rows(Operation), failed]
            assert EXTERNAL_KEY not in str(msgspec.json.encode(kept))

    asyncio.run(main())


def test_a_server_that_compresses_fails_with_its_reason(world: World) -> None:
    """Compressed answers, that nobody asked for, are no list of models and no tokens."""

    async def main() -> None:
        app = Scripted(200, gzip.compress(b'{"data": [{"id": "theirs"}]}'), content_encoding="gzip")
        async with app.serving() as url, Outward(world) as outward:
            outward.deploy(f"{url}/v1")
            failed = await outward.until_state("FAILED")
            assert failed.failure is not None
            assert failed.failure.code == "EXTERNAL_NOT_OPENAI"
            assert "'gzip'" in failed.failure.evidence

    asyncio.run(main())


def test_who_may_only_deploy_reaches_no_private_network(world: World) -> None:
    """Without an administrator or an opened network, a server on this machine is not called at all."""

    async def main() -> None:
        async with StandIn(name="theirs") as server:
            async with Outward(world) as outward:
                outward.deploy(f"http://localhost:{server.port}/v1", anywhere=False)
                failed = await outward.until_state("FAILED")
                assert failed.failure is not None
                assert failed.failure.code == "EXTERNAL_ADDRESS_FORBIDDEN"
                assert server.seen.connections == 0
            async with Outward(world, egress=Egress(networks=("127.0.0.0/8",))) as opened:
                opened.deploy(f"http://localhost:{server.port}/v1", anywhere=False)
                await opened.until_state("READY")

    asyncio.run(main())


def test_requests_that_can_be_refused_at_once_are(world: World) -> None:
    """A URL that is none, metadata addresses, a key with a line break, a model without a name: nothing is stored."""
    outward = Outward(world)
    with pytest.raises(ExternalAddressForbidden):
        outward.deploy("http://169.254.169.254/v1")
    with pytest.raises(BadField, match="base URL"):
        outward.deploy("http://user:pw@h/v1")
    with pytest.raises(BadField, match="key"):
        outward.deploy("https://h/v1", key="a\nb")
    with pytest.raises(BadField, match="name"):
        outward.deploy("https://h/v1", model=" ")
    assert world.rows(Deployment) == []
