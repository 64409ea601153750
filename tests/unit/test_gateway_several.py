"""Several real gateways share a key's limits through control, and are one to whoever asks for their metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from gateway_serving import ADMIN_TOKEN, CHAT, EVERYWHERE_KEY, KEY, Served, deployed, serving, serving_gateway, snapshot
from prometheus_client.parser import text_string_to_metric_families
from test_gateway_key_limits import ask, code, left, limited

from headrace.control.leases import LeaseLedger
from headrace.gateway import Gateway, Sibling
from headrace.gateway.allowance import WINDOW_S
from headrace.gateway.exchange import Exchange
from headrace.resources.leases import LeaseReport
from headrace.resources.snapshot import RoutingSnapshot
from standin import Script, StandIn

LIMIT = 100
EACH = 10
"""Tokens of a request: seven of its prompt, three of its answer."""


class Control:
    """What gateways see of the control plane: its ledger, while it is there.

    Attributes:
        away: Whether it answers nobody.
    """

    def __init__(self, gateways: int) -> None:
        self.ledger = LeaseLedger(gateways)
        self.away = False

    async def handle(self, exchange: Exchange) -> None:
        """Answer one of them."""
        assert exchange.head.header(b"authorization") == b"Bearer " + ADMIN_TOKEN.encode()
        found = re.fullmatch(rb"/internal/gateways/(\d+)/leases", exchange.head.target)
        assert found is not None
        body = await exchange.read_all(1 << 20)
        if self.away:
            await exchange.answer(503, [], b"")
            return
        answer = self.ledger.report(int(found[1]), msgspec.json.decode(body, type=LeaseReport))
        await exchange.answer(200, [], msgspec.json.encode(answer))


class Crew:
    """Gateways before one engine.

    Attributes:
        served: Each of them, by number.
        snapshot: What they route by.
    """

    def __init__(
        self, folder: Path, control: Control, control_url: str, engine: StandIn, stack: AsyncExitStack
    ) -> None:
        self.control, self.engine = control, engine
        self.served: list[Served] = []
        self.snapshot: RoutingSnapshot = limited(deployed(engine.address), tokens_per_minute=LIMIT)
        control.ledger.follow(self.snapshot.keys)
        self._folder, self._control_url, self._stack = folder, control_url, stack
        self._leasing: dict[Gateway, asyncio.Task[None]] = {}

    async def start(self, number: int) -> Served:
        """A gateway in the place of this number."""
        folders = [self._folder / str(each) for each in range(self.control.ledger.gateways)]
        paths = [(folder / "admin", folder / "snapshot.json") for folder in folders]
        others = [
            Sibling(number=each, admin=f"unix:{admin}", snapshot_path=path)
            for each, (admin, path) in enumerate(paths)
            if each != number
        ]
        folders[number].mkdir(exist_ok=True)
        admin, path = paths[number]
        admin.unlink(missing_ok=True)
        gateway = Gateway(
            snapshot_path=path,
            control_address=self._control_url,
            admin_token=ADMIN_TOKEN,
            number=number,
            others=others,
        )
        served = await self._stack.enter_async_context(serving_gateway(gateway, admin))
        assert (await served.push(self.snapshot)).status_code == 200
        self._leasing[gateway] = asyncio.create_task(gateway.lease())
        self._stack.callback(self._leasing[gateway].cancel)
        return served

    def stop(self, served: Served) -> None:
        """This gateway does nothing by itself any more, as if it were killed; or it is to drain."""
        self._leasing[served.gateway].cancel()
        served.gateway._budgets.close()

    async def until_split(self) -> None:
        """Wait until the gateways hold all of the limit together."""
        async with asyncio.timeout(20):
            while sum(self.leases) < LIMIT:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)

    @property
    def leases(self) -> list[int]:
        """Of tokens, by gateway."""
        budgets = [each.gateway._budgets.of(f"id-{KEY}") for each in self.served]
        return [budget.tokens.room if budget is not None else 0 for budget in budgets]


@asynccontextmanager
async def crew(folder: Path, gateways: int, *, started: int | None = None) -> AsyncIterator[Crew]:
    """So many gateways at which `KEY` has a limit of tokens, of which all run, or some."""
    control = Control(gateways)
    async with (
        StandIn(folder / "e") as engine,
        serving(control.handle) as control_url,
        AsyncExitStack() as stack,
    ):
        built = Crew(folder, control, control_url, engine, stack)
        built.served = [await built.start(number) for number in range(started or gateways)]
        yield built


def answered(answers: list[httpx.Response]) -> int:
    """How many got what they asked for; all others were told that the limit is reached."""
    assert {code(each) for each in answers if each.status_code != 200} <= {"KEY_LIMIT_REACHED"}
    return sum(each.status_code == 200 for each in answers)


@pytest.mark.parametrize("gateways", [1, 2, 4])
def test_fifty_callers_get_a_hundred_tokens_of_all_gateways(tmp_path: Path, gateways: int) -> None:
    """Never the 101st; and whoever asks again gets what is left, at whichever gateway it is."""

    async def main() -> None:
        async with crew(tmp_path, gateways) as them:
            began = time.monotonic()
            asking = (ask(them.served[number % gateways]) for number in range(50))
            total = answered(await asyncio.gather(*asking))
            turn = 0
            while total < LIMIT // EACH and time.monotonic() - began < WINDOW_S:
                total += answered([await ask(them.served[turn % gateways])])
                turn += 1
            refused = [await ask(each) for each in them.served]
            if time.monotonic() - began < WINDOW_S:  # nothing of it is a minute old
                assert (total, answered(refused)) == (LIMIT // EACH, 0)

    asyncio.run(main())


def test_one_gateway_that_is_asked_gets_it_all(tmp_path: Path) -> None:
    """What the other one does not use comes to it; then that one has nothing, until it is a minute old."""

    async def main() -> None:
        async with crew(tmp_path, 2) as them:
            began = time.monotonic()
            await them.until_split()
            assert min(them.leases) > 0
            busy, idle = them.served
            total = 0
            while total < LIMIT // EACH and time.monotonic() - began < WINDOW_S:
                total += answered([await ask(busy)])
            refused = await ask(idle)
            if time.monotonic() - began < WINDOW_S:
                assert total == LIMIT // EACH
                assert code(refused) == "KEY_LIMIT_REACHED"
                assert "are this gateway's" in refused.json()["error"]["message"]
                assert refused.headers["x-ratelimit-limit-tokens"] == str(LIMIT)
                assert left(refused) == 0

    asyncio.run(main())


def test_what_needs_the_whole_limit_gets_it(tmp_path: Path) -> None:
    """Although at first each gateway holds a part; what needs more than the limit never fits, and is told so."""

    async def main() -> None:
        async with crew(tmp_path, 4) as them:
            await them.until_split()
            never = await ask(them.served[1], LIMIT + 1)
            assert code(never) == "KEY_LIMIT_TOO_SMALL"
            async with asyncio.timeout(40):
                while (await ask(them.served[2], LIMIT - 7)).status_code != 200:
                    continue

    asyncio.run(main())


def test_while_control_is_down_each_gateway_keeps_what_it_has(tmp_path: Path) -> None:
    """It answers up to that and no further, and a gateway that hands over leaves it to the next one."""

    async def main() -> None:
        async with crew(tmp_path, 2) as them:
            began = time.monotonic()
            await them.until_split()
            them.control.away = True
            leases = them.leases
            first = them.served[0]
            assert answered([await ask(first)]) == 1
            them.stop(first)
            assert await first.gateway.drain(20) == 0
            them.served[0] = await them.start(0)
            assert them.leases == leases
            answers = [await ask(each) for each in them.served for _ in range(LIMIT // EACH)]
            if time.monotonic() - began < WINDOW_S:
                assert answered(answers) == sum(lease // EACH for lease in leases) - 1

    asyncio.run(main())


def test_what_a_killed_gateway_held_counts_as_used(tmp_path: Path) -> None:
    """The one in its place gives none of it away; the other one gives away the rest, and no more."""

    async def main() -> None:
        async with crew(tmp_path, 2) as them:
            began = time.monotonic()
            await them.until_split()
            killed, other = them.served
            them.engine.script = Script(gated=True)
            running = asyncio.create_task(ask(killed))
            await them.engine.until(began=2)  # one was asked how long the prompt is
            them.stop(killed)
            held = them.leases[0]
            them.served[0] = await them.start(0)
            them.engine.script = Script()
            total, left_over = 0, LIMIT - held
            while total * EACH + EACH <= left_over and time.monotonic() - began < WINDOW_S / 2:
                total += answered([await ask(each) for each in (them.served[0], other)])
            total += answered([await ask(each) for each in (them.served[0], other)])
            if time.monotonic() - began < WINDOW_S:  # nothing of it is a minute old
                assert left_over - EACH < total * EACH <= left_over or time.monotonic() - began > WINDOW_S / 2
            running.cancel()

    asyncio.run(main())


def test_control_that_starts_anew_gives_nothing_twice(tmp_path: Path) -> None:
    """It hears from every gateway what it holds before it gives anything."""

    async def main() -> None:
        async with crew(tmp_path, 2) as them:
            began = time.monotonic()
            await them.until_split()
            assert answered([await ask(each) for each in them.served]) == 2
            them.control.ledger = LeaseLedger(2)
            them.control.ledger.follow(them.snapshot.keys)
            total = 2 + answered(await asyncio.gather(*(ask(them.served[number % 2]) for number in range(30))))
            assert total * EACH <= LIMIT or time.monotonic() - began > WINDOW_S

    asyncio.run(main())


def test_whichever_is_asked_shows_the_metrics_of_all(tmp_path: Path) -> None:
    """Each series says of which gateway it is; one that is away is told by its number and hides no other."""

    async def shown(served: Served, name: str) -> dict[str, float]:
        answer = await served.client.get("/metrics", headers={"authorization": f"Bearer {EVERYWHERE_KEY}"})
        assert answer.status_code == 200, answer.text
        [family] = [one for one in text_string_to_metric_families(answer.text) if one.name == name]
        samples = [one for one in family.samples if one.labels.get("endpoint", "e1") == "e1"]
        return {one.labels["gateway"]: one.value for one in samples if not one.name.endswith("_created")}

    async def main() -> None:
        async with crew(tmp_path, 3, started=2) as them:
            for each in them.served:
                assert (await each.push(snapshot(deployed(them.engine.address), generation=3))).status_code == 200
            for number in (0, 1, 1):
                assert (await ask(them.served[number], **(CHAT | {"stream": True}))).status_code == 200
            for each in them.served:
                assert await shown(each, "headrace_gateway_up") == {"0": 1.0, "1": 1.0, "2": 0.0}
                async with asyncio.timeout(20):
                    while not (chunks := await shown(each, "headrace_gateway_chunks")).get("0"):
                        continue  # an answer is counted just after it was sent
                    while chunks.get("1") != 2 * chunks["0"]:
                        chunks = await shown(each, "headrace_gateway_chunks")

    asyncio.run(main())
