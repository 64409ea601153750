"""What a key may use in any minute: never more, whatever comes when; and what was used comes back."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.allowance import CELL_S, WINDOW_S, KeyUse
from headrace.gateway.budget import Budget, Reservation
from headrace.resources.errors import Draining, KeyLimited, KeyLimitReached, KeyLimitTooSmall
from headrace.resources.limits import KeyLimits

LIMIT = 100


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now


class Request:
    """One that was let through; it uses nothing before it has all of its reservation."""

    def __init__(self, reservation: Reservation, arrived: float) -> None:
        self.reservation, self.arrived, self.begins = reservation, arrived, arrived
        self.ended, self.used = float("inf"), reservation.tokens  # while it runs it may use all of that


def used_within(requests: list[Request], begin: float) -> int:
    """The whole use of all that were under way at any moment of the 60 s from then on, both ends among them."""
    return sum(each.used for each in requests if each.ended >= begin and each.begins <= begin + WINDOW_S)


def most_used(requests: list[Request]) -> int:
    """In any 60 s: what is under way in a window changes only where one ends at its beginning, or comes at its end."""
    begins = [each.ended for each in requests] + [each.begins - WINDOW_S for each in requests]
    return max((used_within(requests, begin) for begin in begins), default=0)


def most_arrived(requests: list[Request]) -> int:
    """In any 60 s."""
    arrivals = [each.arrived for each in requests]
    return max((sum(begin <= at <= begin + WINDOW_S for at in arrivals) for begin in arrivals), default=0)


WAITS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 7.75, 29.5, 30.0, 58.75, 59.75, 60.0, 60.25, 61.0])
STEP = (
    st.tuples(st.just("arrive"), st.integers(0, LIMIT + 5), st.integers(0, 1))
    | st.tuples(st.just("end"), st.integers(0, 20), st.integers(0, 100))
    | st.tuples(st.just("wait"), WAITS, st.none())
)
STEPS = st.lists(STEP, max_size=60)
WIDENING = st.tuples(st.just("widen"), st.integers(0, 20), st.integers(0, LIMIT))


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(STEP | WIDENING, max_size=60), requests_limit=st.none() | st.integers(1, 6))
def test_no_window_ever_holds_more(steps: list[tuple[str, Any, Any]], requests_limit: int | None) -> None:
    """Of any arrivals, ends, times and reservations that grow: no 60 s see more used than the limit, or asked."""
    clock = Clock()
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT, requests_per_minute=requests_limit), clock)
    requests: list[Request] = []
    for kind, value, more in steps:
        running = [each for each in requests if each.ended == float("inf")]
        if kind == "wait":
            clock.now += value
        elif kind == "arrive":
            with contextlib.suppress(KeyLimitReached) if value <= LIMIT else pytest.raises(KeyLimitTooSmall):
                requests.append(Request(budget.reserve(value), clock.now))
        elif running and kind == "widen":
            request = running[value % len(running)]
            with contextlib.suppress(KeyLimitReached):
                request.reservation.widen(more)
                request.begins, request.used = clock.now, request.reservation.tokens
        elif running:
            request = running[value % len(running)]
            request.ended, request.used = clock.now, request.reservation.tokens * more // 100
            request.reservation.settle(request.used)
        assert most_used(requests) <= LIMIT
    assert most_arrived(requests) <= (requests_limit or len(requests))


@settings(deadline=None, max_examples=300)
@given(steps=STEPS, looks=st.data())
def test_nor_where_one_gateway_follows_another(steps: list[tuple[str, Any, Any]], looks: st.DataObject) -> None:
    """Nor over two gateways, of which the first drains, however late the second one reads what the first one writes."""
    clock = Clock()
    first, second = (Budget(KeyLimits(tokens_per_minute=LIMIT), clock) for _ in range(2))
    requests: list[Request] = []
    handover, let_go = (looks.draw(st.integers(0, len(steps))) for _ in range(2))
    notes: list[KeyUse] = []
    read = 0
    for number, (kind, value, more) in enumerate(steps):
        if number == handover:
            first.hand_over()
            notes = [first.use()]
        running = [each for each in requests if each.ended == float("inf")]
        if notes:
            read = looks.draw(st.integers(read, len(notes) - 1))
            second.look_elsewhere([notes[read]])
        if kind == "wait":
            clock.now += value
        elif kind == "arrive":
            with contextlib.suppress(KeyLimited, Draining):
                requests.append(Request((second if notes and more else first).reserve(value), clock.now))
        elif running:
            request = running[value % len(running)]
            request.ended, request.used = clock.now, request.reservation.tokens * more // 100
            request.reservation.settle(request.used)
        if notes:
            if number == let_go:
                first.let_go()
            notes.append(first.use())
        assert most_used(requests) <= LIMIT


@settings(deadline=None)
@given(needs=st.lists(st.integers(1, LIMIT), max_size=20), waits=st.lists(WAITS, min_size=20, max_size=20))
def test_what_was_used_comes_back(needs: list[int], waits: list[float]) -> None:
    """Who waits as long as it is told gets through, if nobody else does; and in the end all is there again."""
    clock = Clock()
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT), clock)
    for need, wait in zip(needs, waits, strict=False):
        clock.now += wait
        budget.now()  # what is old by then is no longer counted
        if budget.tokens.free < need:
            with pytest.raises(KeyLimitReached) as caught:
                budget.reserve(need)
            assert caught.value.retry_after_s is not None
            assert 1.0 <= caught.value.retry_after_s <= WINDOW_S + CELL_S
            clock.now += caught.value.retry_after_s
        budget.reserve(need).settle(need)
    clock.now += WINDOW_S + CELL_S
    budget.reserve(LIMIT)


def test_a_minute_does_not_begin_anew() -> None:
    """A minute's worth at once, and none before a minute is over: no bucket refills meanwhile."""
    clock = Clock()
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT), clock)
    budget.reserve(LIMIT).settle(LIMIT)
    for _ in range(60):
        with pytest.raises(KeyLimitReached):
            budget.reserve(1)
        clock.now += 1.0
    clock.now += CELL_S
    budget.reserve(LIMIT)


def test_what_is_reserved_and_not_used_is_there_at_once() -> None:
    """A request that ends with less than it might have used leaves the rest to others; it is charged only once."""
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT), Clock())
    reservation = budget.reserve(90)
    with pytest.raises(KeyLimitReached):
        budget.reserve(20)
    reservation.settle(10)
    reservation.settle(90)
    budget.reserve(90)


def test_a_reservation_grows_within_the_limit() -> None:
    """More is set aside where there is room, else it stays as it was; less is never given back before the end."""
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT, requests_per_minute=1), Clock())
    reservation = budget.reserve(60)
    with pytest.raises(KeyLimitTooSmall):
        reservation.widen(LIMIT + 1)
    reservation.widen(LIMIT)  # its one request was counted already
    reservation.widen(10)
    assert (reservation.tokens, budget.tokens.reserved) == (LIMIT, LIMIT)
    reservation.settle(70)
    assert (budget.tokens.reserved, budget.tokens.used) == (0, 70)


def test_a_refusal_has_the_numbers() -> None:
    """Limit, used, reserved, needed, and when: as far as that is known."""
    clock = Clock()
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT), clock)
    budget.reserve(30).settle(30)
    budget.reserve(40)
    clock.now += 10.0
    with pytest.raises(KeyLimitReached) as caught:
        budget.reserve(50)
    assert caught.value.message == "The key's limit of 100 tokens per minute is reached."
    assert caught.value.evidence == (
        "30 were used in the last 60 s, and 40 are reserved by requests under way. This one needs 50. It fits in 51 s."
    )
    assert caught.value.retry_after_s == 51.0
    with pytest.raises(KeyLimitReached) as caught:
        budget.reserve(70)
    assert caught.value.evidence.endswith(
        "This one needs 70. It fits once requests under way have ended, in 1 s at the earliest."
    )
    with pytest.raises(KeyLimitTooSmall) as never:
        budget.require(101, at_least=True)
    assert never.value.retry_after_s is None
    assert "This one needs at least 101" in never.value.evidence


def test_a_refused_request_costs_nothing() -> None:
    """Neither of its limits is charged where it breaks one of them."""
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT, requests_per_minute=2), Clock())
    budget.reserve(60)
    with pytest.raises(KeyLimitReached):
        budget.reserve(60)
    budget.reserve(40)
    with pytest.raises(KeyLimitReached, match="limit of 2 requests per minute"):
        budget.reserve(0)


def test_a_changed_limit_holds_for_what_was_used_before() -> None:
    """A lower one lets nothing through until that is a minute old; a higher one does at once; none always does."""
    clock = Clock()
    budget = Budget(KeyLimits(tokens_per_minute=LIMIT), clock)
    budget.reserve(80).settle(80)
    budget.follow(KeyLimits(tokens_per_minute=50))
    with pytest.raises(KeyLimitReached):
        budget.reserve(1)
    budget.follow(KeyLimits(tokens_per_minute=200))
    budget.reserve(120).settle(0)
    budget.follow(KeyLimits(requests_per_minute=50))
    budget.reserve(10**9).settle(0)


def test_who_hands_over_keeps_a_share_for_who_comes_late() -> None:
    """A fourth of what is free goes to requests that still come; others are sent on to the gateway that counts now."""
    clock = Clock()
    first, second = (Budget(KeyLimits(tokens_per_minute=LIMIT), clock) for _ in range(2))
    running = first.reserve(60)
    first.hand_over()
    with pytest.raises(Draining):
        first.reserve(11)
    second.look_elsewhere([first.use()])
    late = first.reserve(10)
    with pytest.raises(KeyLimitReached):
        second.reserve(31)
    running.settle(20)
    late.settle(0)
    second.look_elsewhere([first.use()])
    second.reserve(80)
    with pytest.raises(Draining):
        first.reserve(1)


def test_what_a_gateway_had_reserved_that_is_gone_was_used() -> None:
    """Nobody will tell, so it counts for a minute; what is of another run of the machine does not."""
    clock = Clock()
    first, second = (Budget(KeyLimits(tokens_per_minute=LIMIT), clock) for _ in range(2))
    first.reserve(10).settle(10)
    first.reserve(60)
    second.take_over(first.use())
    with pytest.raises(KeyLimitReached, match="70 were used"):
        second.reserve(50)
    clock.now += WINDOW_S + CELL_S
    second.take_over(KeyUse(tokens={int(clock.now) + 5: 99}))
    second.reserve(LIMIT)
