"""Limits of endpoints, of all keys together and of each: never more, with one gateway or several; and access lists."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from gateway_serving import (
    EVERYWHERE_KEY,
    KEY,
    OTHER_KEY,
    SCOPE,
    Served,
    deployed,
    gateway_before,
    key,
    snapshot,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from test_gateway_budget import LIMIT, WAITS, Clock, Request, most_arrived, most_used
from test_gateway_key_limits import CHUNKS, PROMPT, ask, code, left
from test_gateway_leases import REQUESTS, WHO, Crew, Process

from headrace.control.leases import LeaseLedger
from headrace.gateway import budgets as budgets_module
from headrace.gateway.budgets import Budgets
from headrace.gateway.joint_budget import JointBudget
from headrace.gateway.limit_notes import LimitNotes
from headrace.resources.access import Role
from headrace.resources.endpoint_limits import budget_of_all, budget_of_each
from headrace.resources.errors import KeyLimited, KeyLimitReached
from headrace.resources.leases import LeaseReport, LeaseUse
from headrace.resources.limits import EndpointLimits, KeyLimits
from headrace.resources.snapshot import EndpointRoute, RoutingSnapshot
from standin import StandIn

EACH = PROMPT + CHUNKS
"""Tokens of a request to the stand-in."""

BOTH = KeyLimits(tokens_per_minute=LIMIT, requests_per_minute=REQUESTS)


def endpoint(**limits: Any) -> EndpointRoute:
    """One with these limits."""
    return EndpointRoute(scope=SCOPE, id="e1", display_name="e1", limits=EndpointLimits(**limits))


def limited(
    address: str, *, callers: frozenset[str] | None = None, key_limits: KeyLimits | None = None, **limits: Any
) -> RoutingSnapshot:
    """A snapshot whose endpoint has these limits."""
    one = msgspec.structs.replace(key(KEY), limits=key_limits or KeyLimits())
    keys = (one, key(OTHER_KEY), key(EVERYWHERE_KEY, Role.ADMIN))
    made = snapshot(deployed(address), generation=2, keys=keys)
    (there,) = made.endpoints
    changed = msgspec.structs.replace(there, limits=EndpointLimits(**limits), callers=callers)
    return msgspec.structs.replace(made, endpoints=(changed,))


@asynccontextmanager
async def limiting(folder: Path, **said: Any) -> AsyncIterator[tuple[Served, StandIn]]:
    """A gateway whose endpoint has these limits, and its engine."""
    async with StandIn(folder / "e") as engine, gateway_before(folder, deployed(engine.address)) as served:
        assert (await served.push(limited(engine.address, **said))).status_code == 200
        yield served, engine


async def ask_as(served: Served, secret: str) -> httpx.Response:
    """Ask with this key."""
    async with httpx.AsyncClient(
        base_url=served.url, headers={"authorization": f"Bearer {secret}"}, trust_env=False
    ) as client:
        return await ask(Served(served.gateway, served.url, client, served.admin))


def test_all_keys_share_one_limit_of_tokens(tmp_path: Path) -> None:
    """100 tokens a minute, 40 callers with two keys, 10 tokens each: ten are answered, never the 101st token made."""

    async def main() -> None:
        async with limiting(tmp_path, all_keys=KeyLimits(tokens_per_minute=100)) as (served, engine):
            secrets = [KEY, EVERYWHERE_KEY] * 20
            answers = await asyncio.gather(*(ask_as(served, secret) for secret in secrets))
            assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 30}
            assert sum("max_tokens" in body for body in engine.seen.bodies) == 10
            refused = next(answer for answer in answers if answer.status_code == 429)
            assert code(refused) == "ENDPOINT_LIMIT_REACHED"
            assert 1 <= int(refused.headers["retry-after"]) <= 61
            message = refused.json()["error"]["message"]
            for told in ("limit of endpoint e1 for all keys together of 100 tokens", "were used", "needs", "It fits"):
                assert told in message, message

    asyncio.run(main())


def test_each_key_has_its_own(tmp_path: Path) -> None:
    """Two requests of each key are answered; a key with a limit of its own has that one in its place."""

    async def main() -> None:
        of_keys = {f"id-{EVERYWHERE_KEY}": KeyLimits(requests_per_minute=3)}
        limits = {"each_key": KeyLimits(requests_per_minute=2), "of_keys": of_keys}
        async with limiting(tmp_path, **limits) as (served, _):
            assert [left(await ask_as(served, KEY), "requests") for _ in range(2)] == [1, 0]
            refused = await ask_as(served, KEY)
            assert (refused.status_code, code(refused)) == (429, "ENDPOINT_LIMIT_REACHED")
            assert "for each key" in refused.json()["error"]["message"]
            answers = [(await ask_as(served, EVERYWHERE_KEY)).status_code for _ in range(4)]
            assert answers == [200, 200, 200, 429]

    asyncio.run(main())


def test_what_one_limit_refuses_costs_the_others_nothing(tmp_path: Path) -> None:
    """A key's own limit, the endpoint's and that of each key hold at once; the headers tell of the tightest."""

    async def main() -> None:
        said = {
            "key_limits": KeyLimits(requests_per_minute=3),
            "all_keys": KeyLimits(requests_per_minute=5),
            "each_key": KeyLimits(tokens_per_minute=10 * EACH),
        }
        async with limiting(tmp_path, **said) as (served, _):
            answers = [await ask(served) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert code(answers[3]) == "KEY_LIMIT_REACHED"
            assert [left(answer, "requests") for answer in answers] == [2, 1, 0, 0]
            assert left(answers[3]) == 7 * EACH
            assert [(await ask_as(served, EVERYWHERE_KEY)).status_code for _ in range(3)] == [200, 200, 429]

    asyncio.run(main())


def test_a_limit_of_none_lets_nothing_through(tmp_path: Path) -> None:
    """It never fits, and clients are told not to try again."""

    async def main() -> None:
        async with limiting(tmp_path, all_keys=KeyLimits(requests_per_minute=0)) as (served, engine):
            refused = await ask(served)
            assert (refused.status_code, code(refused)) == (429, "ENDPOINT_LIMIT_TOO_SMALL")
            assert refused.headers["x-should-retry"] == "false"
            assert engine.seen.began == 0

    asyncio.run(main())


def test_an_access_list_keeps_others_out(tmp_path: Path) -> None:
    """Keys on it are answered, and admins; others get 403 and no engine hears of them."""

    async def main() -> None:
        async with limiting(tmp_path, callers=frozenset({"id-somebody"})) as (served, engine):
            refused = await ask(served)
            assert (refused.status_code, code(refused)) == (403, "NOT_ON_ACCESS_LIST")
            assert engine.seen.began == 0
            assert (await ask_as(served, EVERYWHERE_KEY)).status_code == 200
            allowed = limited(engine.address, callers=frozenset({f"id-{KEY}"}))
            assert (await served.push(msgspec.structs.replace(allowed, generation=3))).status_code == 200
            assert (await ask(served)).status_code == 200

    asyncio.run(main())


def test_the_list_of_models_has_what_a_key_may_ask(tmp_path: Path) -> None:
    """An endpoint whose access list leaves a key out is not in its list, and not shown by name; an admin sees it."""

    async def listed(served: Served, secret: str, path: str = "/v1/models") -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as client:
            return await client.get(path)

    async def main() -> None:
        async with limiting(tmp_path, callers=frozenset({"id-somebody"})) as (served, _):
            assert (await listed(served, KEY)).json()["data"] == []
            (one,) = (await listed(served, EVERYWHERE_KEY)).json()["data"]
            for path in (f"/v1/models/{one['id']}", f"/v1/{SCOPE}/endpoints/e1/models"):
                refused = await listed(served, KEY, path)
                assert (refused.status_code, code(refused)) == (403, "NOT_ON_ACCESS_LIST")
                assert (await listed(served, EVERYWHERE_KEY, path)).status_code == 200

    asyncio.run(main())


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.tuples(st.just("arrive"), st.integers(0, 2), st.integers(0, LIMIT))
        | st.tuples(st.just("end"), st.integers(0, 30), st.integers(0, 100))
        | st.tuples(st.just("wait"), WAITS, st.none()),
        max_size=60,
    )
)
def test_no_window_of_any_limit_ever_holds_more(steps: list[tuple[str, Any, Any]]) -> None:
    """Whatever three keys ask of one endpoint and when: neither all together nor any of them gets more than it may."""
    clock, limits = Clock(), {"all_keys": BOTH, "each_key": KeyLimits(tokens_per_minute=60, requests_per_minute=5)}
    budgets = Budgets(LimitNotes(Path("/nowhere/snapshot.json")), clock)
    budgets._changed = lambda: None  # type: ignore[method-assign]
    budgets.follow((), endpoints=(one := endpoint(**limits),))
    requests: dict[int, list[Request]] = {0: [], 1: [], 2: []}
    for kind, which, amount in steps:
        if kind == "wait":
            clock.now += which
        elif kind == "arrive":
            budget = budgets.of(f"key-{which}", one)
            assert budget is not None
            with contextlib.suppress(KeyLimited):
                requests[which].append(Request(budget.reserve(amount), clock.now))  # type: ignore[arg-type]
        else:
            running = [each for of_key in requests.values() for each in of_key if each.ended == float("inf")]
            if running:
                request = running[which % len(running)]
                request.ended, request.used = clock.now, request.reservation.tokens * amount // 100
                request.reservation.settle(request.used)
        every = [each for of_key in requests.values() for each in of_key]
        assert most_used(every) <= LIMIT
        assert most_arrived(every) <= REQUESTS
        for of_key in requests.values():
            assert most_used(of_key) <= 60
            assert most_arrived(of_key) <= 5


def test_who_is_refused_by_one_takes_nothing_of_the_others() -> None:
    """In one step: the budgets that had room have as much afterwards."""
    clock, one = Clock(), endpoint(all_keys=BOTH, each_key=KeyLimits(requests_per_minute=1))
    budgets = Budgets(LimitNotes(Path("/nowhere/snapshot.json")), clock)
    budgets._changed = lambda: None  # type: ignore[method-assign]
    budgets.follow((), endpoints=(one,))
    budget = budgets.of("k", one)
    assert isinstance(budget, JointBudget)
    budget.reserve(10)
    for _ in range(5):
        with contextlib.suppress(KeyLimitReached):
            budget.reserve(10)
    together = budgets.of(budget_of_all(one))
    assert together is not None
    assert (together.requests.busy, together.tokens.busy) == (1, 10)


def test_keys_that_ask_no_more_are_forgotten(monkeypatch: Any) -> None:
    """Of ten thousand keys that came one after the other there are never many more budgets than may be kept."""
    monkeypatch.setattr(budgets_module, "KEPT_BUDGETS", 16)
    clock, one = Clock(), endpoint(each_key=BOTH)
    budgets = Budgets(LimitNotes(Path("/nowhere/snapshot.json")), clock)
    budgets._changed = lambda: None  # type: ignore[method-assign]
    budgets.follow((), endpoints=(one,))
    most = 0
    for number in range(10_000):
        clock.now += 100.0
        budget = budgets.of(f"key-{number}", one)
        assert budget is not None
        budget.reserve(1).settle(1)
        most = max(most, len(budgets._budgets))
    assert most <= 40


def test_limits_that_go_are_gone_and_others_come(tmp_path: Path) -> None:
    """What was used of the old limit counts under the new one; without a limit there is no budget."""
    clock = Clock()
    budgets = Budgets(LimitNotes(tmp_path / "snapshot.json"), clock)
    budgets._changed = lambda: None  # type: ignore[method-assign]
    two, three = (endpoint(each_key=KeyLimits(requests_per_minute=many)) for many in (2, 3))
    budgets.follow((), endpoints=(two,))
    for _ in range(2):
        budget = budgets.of("k", two)
        assert budget is not None
        budget.reserve(0)
    budgets.follow((), endpoints=(three,))
    budget = budgets.of("k", three)
    assert budget is not None
    assert budget.requests.free == 1
    budgets.follow((), endpoints=(endpoint(),))
    assert budgets.of("k", endpoint()) is None


ENDPOINT = endpoint(each_key=BOTH)
NAME = budget_of_each(ENDPOINT, "id")


class EndpointProcess(Process):
    """A gateway at which one key asks one endpoint that limits each key."""

    def follow(self) -> None:
        """The snapshot with the endpoint comes."""
        self.knows = True
        self.budgets.follow((), endpoints=(ENDPOINT,))

    @property
    def budget(self) -> Any:
        """What a request needs room in."""
        return self.budgets.of("id", ENDPOINT)

    def held(self, unit: str) -> int:
        """Its lease, if it has the budget."""
        budget = self.budgets._budgets.get(NAME)
        return (getattr(budget, unit).lease or 0) if budget is not None else 0

    def forget(self) -> None:
        """Nobody has asked for long, as far as it knows."""
        self.budgets._forget_from = 0
        self.budgets._asked_at = dict.fromkeys(self.budgets._asked_at, -1e9)
        self.budgets._forget_idle()


class EndpointCrew(Crew):
    """As `Crew`, with a budget that is there from the first request on and is forgotten when it is idle."""

    process = EndpointProcess
    name = NAME

    def _follow(self) -> None:
        self.ledger.follow((), endpoints=(ENDPOINT,))

    @rule(who=WHO)
    def forget(self, who: int) -> None:
        """A gateway forgets what is idle."""
        gateway = self.gateways[who]
        assert isinstance(gateway, EndpointProcess)
        gateway.forget()


EndpointCrew.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow]
)
TestEndpointCrew: Any = EndpointCrew.TestCase


def test_the_ledger_keeps_nothing_of_keys_that_nobody_holds_any_more() -> None:
    """And it gives nothing of a key's limit to a gateway that the key did not ask."""
    ledger = LeaseLedger(2, Clock())
    ledger.follow((), endpoints=(ENDPOINT,))
    ledger.report(1, LeaseReport(number=1, whole=True))
    first = ledger.report(0, LeaseReport(number=1, whole=True, uses=(LeaseUse(NAME, "tokens", 0, 0, 50),)))
    ledger.report(0, LeaseReport(number=2, whole=True, uses=(LeaseUse(NAME, "tokens", 0, 0, 50),)))
    assert all(lease.key_id == NAME for lease in first.leases)
    assert ledger.held((NAME, "tokens"))[0].held >= 50
    other = ledger.report(1, LeaseReport(number=2, whole=False))
    assert not [lease for lease in other.leases if lease.key_id == NAME]
    ledger.report(0, LeaseReport(number=3, whole=True))
    assert not [name for name in ledger._uses if name[0] == NAME]
