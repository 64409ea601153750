"""Control's ledger of leases, and several gateways that it speaks to as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import RecordingGateway, World
from test_control_internal import _call

from headrace.control import EveryGateway, GatewayAway
from headrace.control.commands import create_key
from headrace.control.leases import LeaseLedger, split
from headrace.control.routing import build_snapshot
from headrace.resources.access import Principal, Role
from headrace.resources.egress import Egress
from headrace.resources.leases import LeaseAnswer, LeaseReport, LeaseUse
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import MOST_RUNNING, GatewayStatus, KeyRoute, RoutingSnapshot

LIMIT = 1600
USES = st.lists(
    st.builds(
        LeaseUse, st.just("k"), st.just("tokens"), st.integers(0, 2000), st.integers(0, 900), st.integers(0, 2000)
    ),
    min_size=1,
    max_size=5,
)


@given(limit=st.integers(1, 2000), uses=USES)
def test_shares_are_together_the_limit(limit: int, uses: list[LeaseUse]) -> None:
    """Each covers what is in use there; only where that is more than the limit already are they together more."""
    shares = split(limit, uses)
    busy = [use.busy for use in uses]
    assert all(share >= used for share, used in zip(shares, busy, strict=True))
    assert sum(shares) == max(limit, sum(busy))


@pytest.mark.parametrize(
    ("busy", "wanted", "shares"),
    [
        ((0, 0), (0, 0), (800, 800)),
        ((700, 0), (0, 0), (1500, 100)),  # to where it is used, and a little to who may be asked next
        ((800, 700), (0, 90), (806, 794)),  # who waits comes first
        ((800, 700), (200, 90), (810, 790)),  # and who needs least of those
        ((900, 900), (1, 1), (900, 900)),  # nothing is taken away that is in use
    ],
)
def test_shares_follow_the_use(busy: Sequence[int], wanted: Sequence[int], shares: Sequence[int]) -> None:
    """What is in use, then what is waited for, then the rest by what is used."""
    uses = [LeaseUse("k", "tokens", 0, *each) for each in zip(busy, wanted, strict=True)]
    assert split(LIMIT, uses) == list(shares)


def limited(tokens: int | None) -> tuple[KeyRoute, ...]:
    """A key with this limit."""
    return (
        KeyRoute(
            secret_hash="h",
            principal=Principal("k", "k", "default", Role.PREDICTOR),
            limits=KeyLimits(tokens_per_minute=tokens),
        ),
    )


class Told:
    """A ledger and the gateways that tell it something, each with numbers of its own."""

    def __init__(self, gateways: int, tokens: int | None = LIMIT) -> None:
        self.ledger = LeaseLedger(gateways)
        self.ledger.follow(limited(tokens))
        self._number = 0

    def tell(self, gateway: int, held: int = 0, busy: int = 0, wanted: int = 0, *, whole: bool = True) -> LeaseAnswer:
        """A gateway tells this."""
        self._number += 1
        uses = (LeaseUse("k", "tokens", held, busy, wanted),)
        return self.ledger.report(gateway, LeaseReport(number=self._number, whole=whole, uses=uses))

    def lease(self, gateway: int, held: int = 0, busy: int = 0, wanted: int = 0) -> int:
        """What it gets then."""
        leases = self.tell(gateway, held, busy, wanted).leases
        return leases[0].amount if leases else held


def test_nothing_is_given_before_everyone_was_heard() -> None:
    """One that was not may hold it all; who waits is told that more may come."""
    told = Told(2)
    [lease] = told.tell(0, wanted=10).leases
    assert (lease.amount, lease.coming) == (0, True)
    most = told.lease(1, held=1000, busy=1000)
    assert 1000 < most < LIMIT
    assert 0 < told.lease(0) <= LIMIT - most


def test_who_told_first_gets_its_share_as_soon_as_everyone_was_heard() -> None:
    """Although it has nothing new to tell."""
    told = Told(2)
    told.tell(0)
    told.tell(1)
    again = told.ledger.report(0, LeaseReport(number=100, whole=False))
    assert [lease.amount for lease in again.leases] == [LIMIT // 2]


def test_what_is_called_back_is_given_once_it_came_back() -> None:
    """Not before the gateway that held it says so."""
    told = Told(2)
    told.tell(0)
    assert told.lease(1) == 800
    assert told.lease(0) == 800
    [waits] = told.tell(0, held=800, busy=800, wanted=500).leases
    assert (waits.amount, waits.coming) == (800, True)
    [back] = told.tell(1, held=800).leases
    assert back.amount < 300
    assert told.lease(0, held=800, busy=800, wanted=500) == 800
    told.tell(1, held=back.amount)
    assert told.lease(0, held=800, busy=800, wanted=500) == LIMIT - back.amount


def test_what_is_given_counts_although_nobody_heard_of_it() -> None:
    """Until the gateway tells what it really holds."""
    told = Told(2)
    told.tell(1)
    assert told.lease(0) == 800
    assert sum(use.held for use in told.ledger.held(("k", "tokens"))) == 800
    told.tell(0, held=0)
    assert sum(use.held for use in told.ledger.held(("k", "tokens"))) == 800


def test_a_report_that_was_overtaken_is_not_believed() -> None:
    """It may say less than the gateway was given since."""
    told = Told(1)
    late = LeaseReport(number=0, whole=True, uses=())
    told.tell(0)
    assert told.ledger.report(0, late) == LeaseAnswer()
    assert told.ledger.held(("k", "tokens"))[0].held == LIMIT


def test_a_control_plane_that_knows_nothing_asks_for_everything() -> None:
    """For a part of what a gateway holds is no ground to give on; nor is there any before the limits are known."""
    told = Told(1)
    assert told.tell(0, whole=False).again
    assert LeaseLedger(1).report(0, LeaseReport(number=1, whole=True)).again


def test_a_lower_limit_calls_back_what_is_not_used() -> None:
    """However little that is; a limit that is gone is nobody's."""
    told = Told(2)
    told.tell(0)
    assert [told.lease(1), told.lease(0)] == [800, 800]
    told.ledger.follow(limited(LIMIT - 2))
    assert [told.lease(1, held=800), told.lease(0, held=800)] == [799, 799]
    told.ledger.follow(limited(None))
    assert told.tell(0, held=799).leases == ()


def test_leases_cross_the_wire(world: World) -> None:
    """A gateway's report is answered with its share of a key's limit; nonsense, and a gateway too many, are refused."""
    world.write(
        lambda tx: create_key(
            tx, name="k", project="default", role=Role.PREDICTOR, now=1.0, limits=KeyLimits(tokens_per_minute=90)
        )
    )

    def put(number: str, body: bytes, token: str = "between-us") -> httpx.Response:
        path = f"/internal/gateways/{number}/leases"
        return asyncio.run(_call(world, "PUT", path, token=token, body=body))

    body = msgspec.json.encode(LeaseReport(number=1, whole=True))
    assert msgspec.json.decode(put("0", body).content, type=LeaseAnswer).again
    asyncio.run(world.turn())
    [lease] = msgspec.json.decode(put("0", body).content, type=LeaseAnswer).leases
    assert (lease.unit, lease.amount) == ("tokens", 90)
    assert [put("1", body).text, put("-1", body).text, put("x", body).text] == ["BAD_FIELD"] * 3
    assert put("0", b"{").text == "BAD_JSON"
    assert put("0", body, token="wrong").status_code == 401


def test_gateways_share_the_places_at_a_replica(world: World) -> None:
    """However many there are, an engine gets no more at a time than it takes."""

    async def ready() -> None:
        world.deploy()
        await world.until_state("READY")

    asyncio.run(ready())
    for gateways in (1, 2, 3):
        snapshot = world.write(lambda tx, gateways=gateways: build_snapshot(tx, 1, Egress(), gateways=gateways))
        [deployed] = [one for endpoint in snapshot.endpoints for one in endpoint.deployed]
        assert MOST_RUNNING - gateways < deployed.max_running * gateways <= MOST_RUNNING


def test_what_any_gateway_has_under_way_counts() -> None:
    """Requests are added up; nobody has been idle for longer than the one that was asked last."""
    one, two = RecordingGateway(), RecordingGateway()
    one.outstanding, two.outstanding = {"a": 1, "b": 2}, {"b": 3}
    one.waiting, two.waiting = {"d": 1}, {"d": 4}
    one.idle_s, two.idle_s = {"d": 5.0, "e": 9.0}, {"d": 2.0}
    status = asyncio.run(EveryGateway([one, two]).status())
    assert (status.outstanding, status.waiting, status.idle_s) == ({"a": 1, "b": 5}, {"d": 5}, {"d": 2.0})


def test_all_gateways_are_brought_to_the_newest_snapshot() -> None:
    """Each is pushed to that has another one; what they route by together is the oldest of them, or what is ahead."""

    async def main() -> None:
        one, two = RecordingGateway(), RecordingGateway()
        every = EveryGateway([one, two])
        assert (await every.push(RoutingSnapshot(generation=3))).generation == 3
        one.restart()
        assert (await every.status()).generation == 0
        assert (await every.push(RoutingSnapshot(generation=3))).generation == 3
        assert (len(one.pushed), len(two.pushed)) == (2, 1)
        two.snapshot = RoutingSnapshot(generation=7)
        assert (await every.status()).generation == 7

    asyncio.run(main())


def test_while_a_gateway_is_away_nothing_is_certain() -> None:
    """The others are pushed to, and tell who waits; what the one that is away routes by is not known."""

    async def main() -> None:
        one, two = RecordingGateway(), RecordingGateway()
        every = EveryGateway([one, two])
        one.away, two.waiting = True, {"d": 1}
        status = await every.push(RoutingSnapshot(generation=3))
        assert (status.generation, status.waiting) == (0, {"d": 1})
        assert two.snapshot.generation == 3
        two.away = True
        with pytest.raises(GatewayAway):
            await every.status()

    asyncio.run(main())


def test_one_that_hangs_holds_the_others_up_once() -> None:
    """From the second time on its answer is hardly waited for: what the others are told does not come late."""

    class Hanging(RecordingGateway):
        async def status(self) -> GatewayStatus:
            if not self.away:
                await asyncio.Event().wait()
            raise GatewayAway("scripted")

    async def main() -> None:
        one, two = Hanging(), RecordingGateway()
        every = EveryGateway([one, two])
        one.away = True
        assert (await every.push(RoutingSnapshot(generation=3))).generation == 0
        one.away = False  # and does not answer at all
        assert (await every.push(RoutingSnapshot(generation=4))).generation == 0
        assert two.snapshot.generation == 4

    asyncio.run(main())
