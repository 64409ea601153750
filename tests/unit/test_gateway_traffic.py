"""Sessions: one deployed model answers all of one, and over many of them the shares are right."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path

import pytest
from gateway_serving import CHAT, deployed, gateway_before, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from test_gateway_rerouting import DEPLOYED
from test_gateway_zero import URL

from headrace.gateway.traffic import TrafficSplit
from standin import Script, StandIn

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), min_size=1)
SESSIONS = 4000
STANDARD_ERRORS = 5
"""Of the share of one among so many: a right one is outside once in a million tries or so."""


@settings(deadline=None, max_examples=30, derandomize=True)
@given(weights=WEIGHTS, salt=st.binary(max_size=8))
def test_shares_are_right_over_many_sessions(weights: dict[str, int], salt: bytes) -> None:
    """Each gets as many sessions as its weight is of all, as far as chance allows; without a weight, none."""
    split, ready, total = TrafficSplit(weights), frozenset(weights), sum(weights.values())
    picks = Counter(split.pick(ready, b"%b %d" % (salt, number)) for number in range(SESSIONS))
    if not total:
        assert picks == {None: SESSIONS}
        return
    for key, weight in weights.items():
        share = weight / total
        allowed = STANDARD_ERRORS * math.sqrt(SESSIONS * share * (1 - share))
        assert abs(picks[key] - SESSIONS * share) <= allowed, (key, picks)


@settings(deadline=None)
@given(weights=WEIGHTS, asked=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b""])), max_size=40))
def test_a_session_stays(weights: dict[str, int], asked: list[tuple[bytes]]) -> None:
    """Whatever else is asked in between, a session gets the same; in another process, and another table, too."""
    split, ready = TrafficSplit(weights), frozenset(weights)
    picks: dict[bytes, set[str | None]] = {}
    for (session,) in asked:
        picks.setdefault(session, set()).add(split.pick(ready, session))
    for session, picked in picks.items():
        if session:
            assert picked == {TrafficSplit(weights).pick(ready, session)}


@settings(deadline=None)
@given(weights=WEIGHTS, data=st.data())
def test_only_sessions_that_must_move_do(weights: dict[str, int], data: st.DataObject) -> None:
    """When one does not answer, its sessions go to others and all else stays; when it is back, so are they."""
    split, ready = TrafficSplit(weights), frozenset(weights)
    away = data.draw(st.sampled_from(sorted(weights)))
    for number in range(50):
        session = b"%d" % number
        before, meanwhile = split.pick(ready, session), split.pick(ready - {away}, session)
        assert before in (away, meanwhile)
        assert meanwhile != away or not any(weights[key] for key in weights if key != away)
        assert split.pick(ready, session) == before


@settings(deadline=None)
@given(weights=WEIGHTS, more=st.integers(1, 100), data=st.data())
def test_a_larger_weight_only_draws_sessions(weights: dict[str, int], more: int, data: st.DataObject) -> None:
    """Where a share grows, sessions move to it and to nobody else."""
    grows = data.draw(st.sampled_from(sorted(weights)))
    before, after = TrafficSplit(weights), TrafficSplit(weights | {grows: weights[grows] + more})
    for number in range(50):
        was, now = (split.pick(frozenset(weights), b"%d" % number) for split in (before, after))
        assert now in (was, grows)


@settings(deadline=None)
@given(weights=WEIGHTS, sessions=st.lists(st.sampled_from([b"", b"a", b"b"]), max_size=60))
def test_sessions_leave_the_rest_exact(weights: dict[str, int], sessions: list[bytes]) -> None:
    """Requests without a session get exactly what they would get if no others were there."""
    alone, mixed, ready = TrafficSplit(weights), TrafficSplit(weights), frozenset(weights)
    for session in sessions:
        pick = mixed.pick(ready, session)
        assert session or pick == alone.pick(ready)


def test_a_session_is_answered_by_one_deployed_model(tmp_path: Path) -> None:
    """Through the gateway: by its header, streamed or not, until the split changes; another header is no session."""

    async def main() -> None:
        async with StandIn(tmp_path / "e1") as one, StandIn(tmp_path / "e2") as two:
            one.script = two.script = Script()
            first, second = deployed(one.address, traffic=50), deployed(two.address, name="d2", traffic=50)
            async with gateway_before(tmp_path, first, second) as served:

                async def answered_by(session: str | None, **more: object) -> str:
                    headers = {} if session is None else {"x-session-id": session}
                    answer = await served.client.post(URL, json=CHAT | more, headers=headers)
                    assert answer.status_code == 200, answer.text
                    return answer.headers[DEPLOYED]

                kept = {name: await answered_by(name) for name in map(str, range(20))}
                assert set(kept.values()) == {"d1", "d2"}
                again = {name: await answered_by(name, stream=True) for name in kept}
                assert again == kept
                assert Counter([await answered_by(None) for _ in range(10)]) == {"d1": 5, "d2": 5}
                await served.push(snapshot(replace(first, traffic=0), replace(second, traffic=100), generation=2))
                assert {await answered_by(name) for name in kept} == {"d2"}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("endpoint_s", "client_s", "code"),
    [(0.2, None, "ENGINE_TIMEOUT"), (30.0, "0.2", "CLIENT_TIMEOUT"), (0.2, "0.3", "ENGINE_TIMEOUT")],
)
def test_an_endpoints_timeout_is_obeyed(tmp_path: Path, endpoint_s: float, client_s: str | None, code: str) -> None:
    """An answer that has not begun by then ends with 504; the shorter of the endpoint's and the client's counts."""

    async def main() -> None:
        async with StandIn(tmp_path / "e1") as engine:
            engine.script = Script(gated=True)
            model = deployed(engine.address)
            async with gateway_before(tmp_path, model) as served:
                routed = snapshot(model, generation=2)
                (endpoint,) = routed.endpoints
                await served.push(replace(routed, endpoints=(replace(endpoint, inference_timeout_s=endpoint_s),)))
                headers = {} if client_s is None else {"x-server-timeout": client_s}
                answer = await served.client.post(URL, json=CHAT, headers=headers)
                assert answer.status_code == 504
                assert answer.json()["error"]["details"][0]["reason"] == code

    asyncio.run(main())
