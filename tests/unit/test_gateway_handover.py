"""A gateway that drains and the one in its place: control hears of both, and both follow control."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from gateway_serving import BASE, CHAT, KEY, KEYS, Served, deployed, gateway_before, pieces_of, snapshot
from test_gateway_zero import NAME, asleep, status, until

from headrace.gateway.notes import STALE_AFTER_S
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
STREAM = CHAT | {"stream": True}


async def read(served: Served) -> tuple[bytes, bool]:
    """A whole stream, and whether it came to its end."""
    async with served.client.stream("POST", URL, json=STREAM) as answer:
        pieces, whole = await pieces_of(answer)
    return b"".join(pieces), whole


def notes(folder: Path) -> list[Path]:
    """What gateways that drain left there."""
    return list(folder.glob("draining-*"))


def test_a_stream_of_the_gateway_before_is_heard_until_its_end(tmp_path: Path) -> None:
    """Its engine has it under way and nobody counts as idle; afterwards idleness begins, and nothing is left of it."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            awake = deployed(engine.address, wakes=True)
            async with gateway_before(tmp_path, awake) as old, gateway_before(tmp_path, awake) as new:
                engine.script = Script(chunks=2, gated=True)
                reading = asyncio.create_task(read(old))
                await engine.until(began=1)
                assert (await status(new))["outstanding"] == {}
                old.gateway.hand_over()
                told = await status(new)
                assert (told["outstanding"], told["idle_s"][NAME] < 0.1) == ({"d1-r0": 1}, True)
                draining = asyncio.create_task(old.gateway.drain(20))
                engine.gate.release()
                engine.gate.release()
                text, whole = await reading
                assert (text.endswith(b"data: [DONE]\n\n"), whole, await draining) == (True, True, 0)
                assert (await status(new))["outstanding"] == {}
                assert not notes(tmp_path)

    asyncio.run(main())


def test_who_waits_at_the_gateway_before_is_woken_for(tmp_path: Path) -> None:
    """Control hears of who waits there, and the replica that it gives to the new gateway is given to both."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, asleep()) as old,
            gateway_before(tmp_path, asleep()) as new,
        ):
            waiting = asyncio.create_task(read(old))
            await until(old, lambda told: told["waiting"] == {NAME: 1})
            draining = asyncio.create_task(old.gateway.drain(20))
            await until(new, lambda told: told["waiting"] == {NAME: 1})
            await new.push(snapshot(deployed(engine.address, wakes=True), generation=2))
            text, whole = await waiting
            assert (text.endswith(b"data: [DONE]\n\n"), whole, await draining) == (True, True, 0)

    asyncio.run(main())


def test_a_key_that_is_revoked_ends_its_streams_there_too(tmp_path: Path) -> None:
    """Although control tells the new gateway alone."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            model = deployed(engine.address)
            async with gateway_before(tmp_path, model) as old, gateway_before(tmp_path, model) as new:
                engine.script = Script(chunks=5, gated=True)
                engine.gate.release()
                reading = asyncio.create_task(read(old))
                await engine.until(chunks_sent=1)
                draining = asyncio.create_task(old.gateway.drain(20))
                kept = tuple(one for one in KEYS if one.principal.key_id != f"id-{KEY}")
                await new.push(snapshot(model, generation=2, keys=kept))
                text, whole = await reading
                assert (b"UNKNOWN_KEY" in text, whole, await draining) == (True, False, 0)

    asyncio.run(main())


def test_what_a_killed_gateway_left_is_not_believed_for_long(tmp_path: Path) -> None:
    """A note that is not renewed is of nobody, and removed."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address)) as old,
            gateway_before(tmp_path, deployed(engine.address)) as new,
        ):
            engine.script = Script(gated=True)
            reading = asyncio.create_task(read(old))
            await engine.until(began=1)
            old.gateway.hand_over()
            [note] = notes(tmp_path)
            long_ago = time.time() - STALE_AFTER_S - 1
            os.utime(note, (long_ago, long_ago))
            assert (await status(new))["outstanding"] == {}
            assert not notes(tmp_path)
            reading.cancel()

    asyncio.run(main())
