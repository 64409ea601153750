"""A simulated deployment: work is conserved, nobody is lost, and promises hold under a flood."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from headrace.capacity.simulation import Outcome, Scale, Tenant, arrivals_of, simulate
from headrace.capacity.simulation.choice import Choice
from headrace.capacity.simulation.load import Arrival
from headrace.capacity.simulation.replica import Replica
from headrace.resources.autoscaling import Metric
from headrace.resources.profiles import Carried, Cost

COST = Cost(prompt=1e-3, prompt_squared=1e-8, step=0.02, sequence=1e-3, context=1e-7)
CARRIED = Carried(cost=COST, concurrency=8, first_s=3.0, gap_s=0.2)
UNITS = CARRIED.units(768, 256)
ARRIVALS = st.lists(
    st.tuples(st.floats(0.0, 30.0), st.integers(1, 2000), st.integers(1, 300)), min_size=1, max_size=40
).map(lambda found: tuple(sorted(found)))
ONE = Scale(least=1, most=1)


def _asks(name: str, share: float, **fields: float) -> Tenant:
    """One that asks for so many full replicas' work, on average."""
    return replace(Tenant(name=name, requests_per_s=share / UNITS), **fields)


@given(ARRIVALS, st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_everybody_is_answered_refused_or_still_there(
    arrivals: tuple[tuple[float, int, int], ...], replicas: int, bounded: bool
) -> None:
    """Nobody is lost or told of twice, and where nothing bounds them all are answered."""
    tenant = Tenant(name="a", arrivals=arrivals, guaranteed=0.2, most=0.5 if bounded else 0.0)
    outcome = simulate([tenant], CARRIED, Scale(least=replicas, most=replicas), seconds=31.0)
    (told,) = outcome.tenants
    assert told.asked == len(arrivals)
    assert told.answered + told.refused + outcome.unfinished == told.asked
    assert bounded or told.refused == 0
    assert 0.0 <= told.attainment <= 1.0
    assert 0.0 <= outcome.utilisation <= 1.0 + 1e-9


@given(ARRIVALS)
@settings(deadline=None)
def test_a_replica_computes_for_as_long_as_its_work_takes(arrivals: tuple[tuple[float, int, int], ...]) -> None:
    """Reading takes what prompts cost, whatever is written beside; so no time is lost or made."""
    cost = Cost(prompt=1e-3, prompt_squared=1e-8, step=0.0, sequence=1e-2, context=0.0)  # alone or together alike
    replica, ended = Replica(cost), 0
    for at, prompt, output in arrivals:
        ended += len(replica.take(Arrival(at, 0, prompt, output), at))
    while (at := replica.next_at()) < math.inf:
        ended += len(replica.advance(at))
    work = sum(1e-3 * prompt + 1e-8 * prompt**2 + 1e-2 * output for _, prompt, output in arrivals)
    assert ended == len(arrivals)
    assert replica.outstanding == 0
    assert replica.busy_s == pytest.approx(work, rel=1e-6)


def test_one_request_alone_takes_what_its_terms_say() -> None:
    """Its prompt and a step until the first token, then a step with its growing cache for each one."""
    outcome = simulate([Tenant(name="a", arrivals=((1.0, 500, 100),))], CARRIED, ONE, seconds=10.0)
    (told,) = outcome.tenants
    assert told.first_p50_s == pytest.approx(500e-3 + 1e-8 * 500**2 + 0.02 + 1e-3)
    assert told.gap_p99_s == pytest.approx(0.02 + 1e-3 + 1e-7 * 550, rel=0.01)


def test_prompts_are_read_in_steps() -> None:
    """What comes during a step is read in the next one, as much of it as there is place for, and a step that reads
    gives everybody else a token."""
    cost = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=0.0, context=0.0)
    replica = Replica(cost, step_tokens=100)
    first, second, third = Arrival(0.0, 0, 50, 10), Arrival(0.01, 0, 60, 2), Arrival(0.01, 0, 90, 1)
    replica.take(first, 0.0)
    replica.take(second, 0.01)
    replica.take(third, 0.01)
    while (at := replica.next_at()) < math.inf:
        replica.advance(at)
    assert first.first_s == pytest.approx(0.07)
    after_the_next = 0.07 + 0.02 + 0.099  # beside one sequence 99 tokens have place: 60, and 39 of 90
    assert second.first_s == pytest.approx(after_the_next - 0.01)
    assert third.first_s == third.wall_s == pytest.approx(after_the_next + 0.02 + 0.051 - 0.01)
    assert second.wall_s == third.wall_s
    assert first.wall_s == pytest.approx(after_the_next + 0.071 + 7 * 0.02)


def test_the_same_seed_is_the_same_outcome() -> None:
    """Played again nothing differs; and who asks when does not depend on who else asks."""
    tenants = [_asks("a", 0.3), _asks("b", 0.3)]
    assert simulate(tenants, CARRIED, ONE, seconds=300.0) == simulate(tenants, CARRIED, ONE, seconds=300.0)
    together = [one.at for one in arrivals_of(tenants, 300.0, 1) if one.tenant == 0]
    assert together == [one.at for one in arrivals_of(tenants[:1], 300.0, 1)]
    assert together != [one.at for one in arrivals_of(tenants[:1], 300.0, 2)]


@given(st.integers(1, 5))
@settings(deadline=None, max_examples=5)
def test_more_replicas_keep_more(seed: int) -> None:
    """Of the same load more is kept within the latencies, until all of it is."""
    kept = [
        simulate([_asks("a", 1.5)], CARRIED, Scale(least=many, most=many), seconds=600.0, seed=seed)
        .tenants[0]
        .attainment
        for many in (1, 2, 16)
    ]
    assert kept[0] < kept[1] <= kept[2]
    assert kept[2] > 0.9


def test_a_guarantee_holds_while_another_tenant_floods() -> None:
    """Within its rate nothing is refused, and its first tokens come nearly as soon as when all keep to theirs."""
    sold = _asks("a", 0.45, guaranteed=0.5, most=0.75)
    calm = simulate([sold, _asks("b", 0.3)], CARRIED, ONE, seconds=1800.0).tenants[0]
    attacked = simulate([sold, _asks("b", 5.0)], CARRIED, ONE, seconds=1800.0).tenants
    assert attacked[0].refused == 0
    assert attacked[0].answered == attacked[0].asked == calm.asked
    assert attacked[1].refused > 0
    assert attacked[0].work_per_s == pytest.approx(calm.work_per_s, rel=0.02)
    unsold = simulate([_asks("a", 0.45), _asks("b", 5.0)], CARRIED, ONE, seconds=1800.0).tenants[0]
    assert attacked[0].first_p99_s < unsold.first_p99_s


def test_most_is_not_passed() -> None:
    """Who asks for more than was sold gets that, and a minute's work once."""
    (told,) = simulate([_asks("a", 2.0, most=0.5)], CARRIED, Scale(least=4, most=4), seconds=1800.0).tenants
    assert told.work_per_s <= 0.5 + 60 * 0.5 / 1800.0 + 0.01
    assert told.work_per_s == pytest.approx(0.5, abs=0.05)
    assert told.refused > 0


def _scaled(share: float) -> Outcome:
    scale = Scale(least=1, most=8, metric=Metric.CONCURRENCY, target=4, start_s=5.0)
    return simulate([_asks("a", share)], CARRIED, scale, seconds=1800.0)


def test_the_autoscaler_follows_the_load() -> None:
    """More load runs more replicas within the bounds, and costs more replica-hours."""
    small, large = _scaled(0.3), _scaled(3.0)
    assert small.most_replicas <= large.most_replicas <= 8
    assert small.replica_hours < large.replica_hours < 8 * 0.7
    assert large.changes > 0
    assert large.tenants[0].answered == large.tenants[0].asked


def test_the_autoscaler_follows_work() -> None:
    """By the work that is let in and in line it runs as many replicas as that takes, and fewer than for its double."""

    def scaled(share: float) -> Outcome:
        scale = Scale(least=1, most=8, metric=Metric.WORK, target=90, start_s=5.0)
        return simulate([_asks("a", share)], CARRIED, scale, seconds=1800.0)

    small, large = scaled(1.5), scaled(3.0)
    assert 2 <= small.most_replicas <= large.most_replicas <= 8
    assert small.replica_hours < large.replica_hours
    assert large.tenants[0].answered == large.tenants[0].asked


def test_who_is_sent_away_is_work_too() -> None:
    """A full pool that does less than its profile says lets in what it gets done; it grows by what it sends away."""
    scale = Scale(least=20, most=40, metric=Metric.WORK, target=90, start_s=5.0, places=1)
    outcome = simulate([_asks("a", 60.0)], CARRIED, scale, seconds=600.0)
    assert outcome.tenants[0].work_per_s < 0.5 * 40, "one at a time a replica does a third of what eight do"
    assert outcome.most_replicas == 40


def test_one_line_waits_as_queueing_theory_says() -> None:
    """Prompts alone, alike, a step each, at random times: a line M/D/1, whose mean is Pollaczek and Khinchine's."""
    reads = Carried(cost=replace(COST, prompt_squared=0.0, step=0.0, sequence=1e-9, context=0.0), concurrency=10_000,
                    first_s=60.0, gap_s=1.0)  # fmt: skip
    busy, service_s = 0.7, 0.5
    tenant = Tenant(name="a", requests_per_s=busy / service_s, lengths=((500, 1),))
    asked = tuple((one.at, one.prompt_tokens, 1) for one in arrivals_of([tenant], 50_000.0, 1))
    replica, requests = (
        Replica(reads.cost, step_tokens=500),
        [Arrival(at, 0, prompt, output) for at, prompt, output in asked],
    )
    for one in requests:
        replica.take(one, one.at)
    replica.advance(100_000.0)
    mean_s = sum(one.first_s for one in requests) / len(requests)
    assert mean_s == pytest.approx(service_s + busy * service_s / (2 * (1 - busy)), rel=0.05)
    outcome = simulate([tenant], reads, ONE, seconds=50_000.0)
    assert outcome.utilisation == pytest.approx(busy, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 5.0), st.integers(0, 4)), max_size=60))
def test_the_least_work_is_found(moves: list[tuple[int, float, int]]) -> None:
    """Whatever was offered before, the choice is one that a search through all would make."""
    places = 2
    choice, replicas = Choice(places), [Replica(COST) for _ in range(4)]
    for each in replicas:
        each.ready = True
        choice.offer(each)
    for place, units, what in moves:
        replica = replicas[place]
        if what == 0:
            replica.ready = False
        elif replica.ready:
            request = Arrival(0.0, 0, 100, 10)
            request.units = units
            if what < 3:
                replica.take(request, 0.0)
            else:
                replica.advance(1e6)  # all of it is done
            choice.offer(replica)
        ready = [each for each in replicas if each.ready]
        open_ = [each for each in ready if each.outstanding < places]
        for among, found in ((ready, choice.least(places=False)), (open_, choice.least(places=True))):
            assert (found is None) == (not among)
            assert found is None or found.work == min(each.work for each in among)


@pytest.mark.parametrize("began_s", [0.0, 5e6])
def test_what_takes_no_time_ends(began_s: float) -> None:
    """Requests that cost nothing to write, or to read, end as others do; after two months as on the first day."""
    for cost in (replace(COST, step=0.0, sequence=0.0, context=0.0), replace(COST, prompt=0.0, prompt_squared=0.0)):
        arrivals = tuple((began_s + place, 100 + place, 10) for place in range(20))
        outcome = simulate(
            [Tenant(name="a", arrivals=arrivals)], replace(CARRIED, cost=cost), ONE, seconds=began_s + 21.0
        )
        assert outcome.tenants[0].answered == len(arrivals)
