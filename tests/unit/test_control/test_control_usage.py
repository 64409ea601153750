"""What gateways wrote down gets into the sums once, whoever dies in between."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from headrace.control import UsageIngester
from headrace.control.usage import FORGET_EVERY_S, KEPT_S, NAMELESS_S
from headrace.gateway.usage_log import UsageLog
from headrace.resources.usage import UsageBy, UsageRecord, UsageSum
from headrace.store import Store, Transaction, migrate
from headrace.store.schema import usage_segments

PART_BYTES = 1000
"""A few lines."""


class Killed(BaseException):
    """Nothing in control catches it, as nothing catches signal 9."""


class FragileStore(Store):
    """Dies at chosen transactions: before its work, or after its commit and before anybody hears of it."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.count = 0
        self.dies_before: frozenset[int] = frozenset()
        self.dies_after: frozenset[int] = frozenset()

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Transaction]:
        """As `Store.transaction`, or not."""
        self.count += 1
        number = self.count
        if number in self.dies_before:
            raise Killed
        with super().transaction(read_only=read_only) as tx:
            yield tx
        if number in self.dies_after:
            raise Killed


def record(number: int, *, hour: int = 0, **more: Any) -> UsageRecord:
    """One of so many tokens."""
    fields: dict[str, Any] = {
        "request_id": "the same",
        "at": hour * 3600.0 + 1.5,
        "key_id": "k",
        "project": "p",
        "location": "l",
        "endpoint_id": "e",
        "deployed_model_id": "d",
        "model_id": "m",
        "model_version": "1",
        "prompt_tokens": number,
        "completion_tokens": 10 * number,
    }
    return UsageRecord(**(fields | more))


def sums(store: Store, *by: UsageBy, end_at: int = 10**10) -> list[UsageSum]:
    """What is stored."""
    with Store.transaction(store, read_only=True) as tx:
        return tx.usage.sums(by, begin_at=0, end_at=end_at)


def total(store: Store) -> tuple[int, int, int]:
    """Requests, prompt tokens and output tokens of all."""
    found = sums(store)
    return (found[0].requests, found[0].prompt_tokens, found[0].completion_tokens) if found else (0, 0, 0)


def remembered(store: Store) -> list[str]:
    """The segments that are known."""
    with Store.transaction(store, read_only=True) as tx:
        return list(tx._connection.execute(select(usage_segments.c.name)).scalars())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A fresh one."""
    url = f"sqlite:///{tmp_path}/headrace.db"
    migrate(url)
    store = Store(url)
    yield store
    store.close()


_EVENTS = st.lists(st.integers(1, 12) | st.sampled_from(["ingest", "kill gateway", "cut power"]), max_size=12)


@given(
    events=_EVENTS,
    before=st.frozensets(st.integers(1, 30), max_size=5),
    after=st.frozensets(st.integers(1, 30), max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_kills_neither_lose_nor_double(events: list[int | str], before: frozenset[int], after: frozenset[int]) -> None:
    """Control killed before and after any of its transactions, the gateway between any two lines, or in one: the sums
    are those of all whole lines, and in the end nothing is left of the segments."""
    with tempfile.TemporaryDirectory() as data:
        url, folder = f"sqlite:///{data}/headrace.db", Path(data) / "usage"
        migrate(url)
        store = FragileStore(url)
        store.dies_before, store.dies_after = before, after
        control = UsageIngester(store, folder, part_bytes=PART_BYTES)
        gateway = UsageLog(folder, segment_bytes=2000)
        wrote: list[int] = []
        for event in [*events, "kill gateway", *["ingest"] * 12]:
            if isinstance(event, int):
                for _ in range(event):
                    wrote.append(len(wrote))
                    gateway.append(record(wrote[-1]))
            elif event == "ingest":
                try:
                    control.ingest()
                except Killed:
                    control = UsageIngester(store, folder, part_bytes=PART_BYTES)
                assert total(store)[0] <= len(wrote)
            else:
                gateway.close()
                if event == "cut power" and (newest := max(folder.glob("*.usage"), key=_when, default=None)):
                    with newest.open("ab") as file:
                        file.write(b'0123abcd {"half of')
                gateway = UsageLog(folder, segment_bytes=2000)
        assert total(store) == (len(wrote), sum(wrote), 10 * sum(wrote))
        assert (list(folder.glob("*")), remembered(store)) == ([], [])
        store.close()


def _when(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_a_segment_that_grows_is_counted_as_it_grows(store: Store, tmp_path: Path) -> None:
    """Nobody waits for its end; it is deleted when its gateway has ended, and not before."""
    gateway, control = UsageLog(tmp_path / "usage"), UsageIngester(store, tmp_path / "usage")
    control.ingest()
    for number in (1, 2):
        gateway.append(record(number))
        control.ingest()
        assert total(store) == ((1, 1, 10), (2, 3, 30))[number - 1]
    control.ingest()
    assert len(list((tmp_path / "usage").iterdir())) == 1
    gateway.close()
    UsageIngester(store, tmp_path / "usage").ingest()
    assert (total(store), list((tmp_path / "usage").iterdir())) == ((2, 3, 30), [])


def test_a_segment_that_lost_its_end_is_not_counted_again(store: Store, tmp_path: Path) -> None:
    """A power cut takes lines that were in the sums already: they stay in them, once."""
    gateway = UsageLog(tmp_path / "usage")
    for number in range(4):
        gateway.append(record(number))
    UsageIngester(store, tmp_path / "usage").ingest()
    gateway.close()
    (segment,) = (tmp_path / "usage").iterdir()
    segment.write_bytes(segment.read_bytes()[:100])
    UsageIngester(store, tmp_path / "usage").ingest()
    assert (total(store), list((tmp_path / "usage").iterdir())) == ((4, 6, 60), [])


def test_a_damaged_line_is_told_and_skipped(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The lines around it count."""
    gateway = UsageLog(tmp_path / "usage")
    for number in range(3):
        gateway.append(record(number))
    gateway.close()
    (segment,) = (tmp_path / "usage").iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"prompt_tokens":1,', b'"prompt_tokens":9,'))
    UsageIngester(store, tmp_path / "usage").ingest()
    assert total(store) == (2, 2, 20)
    assert "1 lines" in caplog.text


def test_sums_are_told_apart(store: Store, tmp_path: Path) -> None:
    """By key, endpoint, model with its version, and hour; a request that comes again under its id is another one."""
    gateway = UsageLog(tmp_path / "usage")
    for more in ({}, {}, {"key_id": "other"}, {"endpoint_id": "f"}, {"model_version": "2"}, {"project": "q"}):
        gateway.append(record(1, **more))
    gateway.append(record(1, hour=5, finished=False, inexact=True))
    gateway.close()
    UsageIngester(store, tmp_path / "usage").ingest()
    assert [(one.of, one.requests) for one in sums(store, UsageBy.KEY)] == [
        ({"key_id": "k"}, 6),
        ({"key_id": "other"}, 1),
    ]
    models = {(one.of["project"], one.of["model_version"]): one.requests for one in sums(store, UsageBy.MODEL)}
    assert models == {("p", "1"): 5, ("p", "2"): 1, ("q", "1"): 1}
    assert len(sums(store, *UsageBy)) == 5
    assert [one.requests for one in sums(store, end_at=5 * 3600)] == [6]
    (all_of_it,) = sums(store)
    assert (all_of_it.unfinished, all_of_it.inexact, all_of_it.prompt_tokens) == (1, 1, 7)


def test_it_goes_on_after_a_failure(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A database that could not be written is tried again."""
    gateway = UsageLog(tmp_path / "usage")
    gateway.append(record(1))
    gateway.close()
    control = UsageIngester(store, tmp_path / "usage")
    once = control.ingest
    failures = iter([ZeroDivisionError("first pass")])
    done = asyncio.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def failing() -> None:
            for error in failures:
                raise error
            once()
            loop.call_soon_threadsafe(done.set)

        control.ingest = failing  # type: ignore[method-assign]
        running = asyncio.create_task(control.run())
        await asyncio.wait_for(done.wait(), 30)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    assert total(store) == (1, 1, 10)
    assert "first pass" in caplog.text


def test_what_a_killed_gateway_began_is_cleared_away(tmp_path: Path, store: Store) -> None:
    """A segment that never got its name goes; one that is being made stays, and so does one that has its name."""
    folder = tmp_path / "usage"
    log = UsageLog(folder)
    log.append(record(1))
    old, young = folder / "a-000001.usage.new", folder / "b-000001.usage.new"
    for path in (old, young):
        path.touch()
    long_ago = time.time() - NAMELESS_S - 1
    os.utime(old, (long_ago, long_ago))
    UsageIngester(store, folder).ingest()
    assert (old.exists(), young.exists(), len(list(folder.glob("*.usage")))) == (False, True, 1)
    log.close()


def test_sums_of_years_ago_are_forgotten(tmp_path: Path, store: Store) -> None:
    """Whole hours, once they began longer ago than sums are kept; what is younger stays."""
    now = [KEPT_S + 7200.0]
    log = UsageLog(tmp_path / "usage")
    ingester = UsageIngester(store, tmp_path / "usage", clock=lambda: now[0])
    for hour in (1, 2, 3):
        log.append(record(hour, hour=hour))
    ingester.ingest()
    assert total(store)[:2] == (3, 6)
    now[0] += FORGET_EVERY_S
    ingester.ingest()
    assert total(store)[:2] == (1, 3), "the third hour began just as long ago as sums are kept"
    ingester.ingest()
    assert total(store)[:2] == (1, 3)
    log.close()
