"""What a drill calls a loss, and how it counts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.drill.outcomes import Outcome, Reading, Sample, of_answer
from headrace.cli.drill.report import Tally, Usual, percentile, tally, total, usual

WHOLE_STREAM = (
    'data: {"choices": [{"delta": {"role": "assistant"}, "finish_reason": null}]}',
    "",
    'data: {"choices": [{"delta": {"content": "One"}, "finish_reason": null}]}',
    "",
    'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}',
    "",
    "data: [DONE]",
    "",
)
ERROR_EVENT = 'data: {"error": {"message": "The engine died.", "code": "ENGINE_BROKE_OFF", "evidence": "signal 9"}}'


@pytest.mark.parametrize(
    ("status", "body", "outcome", "told"),
    [
        (200, {"choices": [{"message": {"content": "One"}}]}, Outcome.WHOLE, ""),
        (200, {"choices": []}, Outcome.LOST, "no answer"),
        (200, None, Outcome.LOST, "no answer"),
        (429, {"error": {"message": "Full.", "code": "QUEUE_FULL"}}, Outcome.REFUSED, "QUEUE_FULL Full."),
        (429, None, Outcome.LOST, "429 without a reason"),
        (429, {"error": {"message": ""}}, Outcome.LOST, "429 without a reason"),
        (503, {"error": {"message": "None.", "code": "NOT_READY"}}, Outcome.LOST, "503 NOT_READY None."),
        (404, {"error": {"message": "Nobody."}}, Outcome.LOST, "404 Nobody."),
        (502, None, Outcome.LOST, "502 without a reason"),
        (500, {"error": "text"}, Outcome.LOST, "500 without a reason"),
    ],
)
def test_an_answer_is_whole_refused_with_a_reason_or_lost(
    status: int, body: object, outcome: Outcome, told: str
) -> None:
    """Only a full queue that says so is a refusal: what was answered before is owed an answer."""
    raw = b"<html>" if body is None else json.dumps(body).encode()
    found, reason = of_answer(status, raw)
    assert found is outcome
    assert told in reason


@given(st.integers(min_value=100, max_value=599), st.binary(max_size=200))
def test_no_answer_is_too_strange_to_be_counted(status: int, body: bytes) -> None:
    """Whatever comes has an outcome, and whatever is not whole a reason."""
    outcome, reason = of_answer(status, body)
    assert bool(reason) is (outcome is not Outcome.WHOLE)


def _read(*lines: str, broken_by: str = "") -> tuple[Outcome, str]:
    reading = Reading()
    for line in lines:
        reading.take(line)
    return reading.end(broken_by)


def test_a_stream_is_whole_with_its_end_only() -> None:
    """The reason why it is finished, and [DONE]."""
    assert _read(*WHOLE_STREAM) == (Outcome.WHOLE, "")
    assert _read("data: [DONE]")[0] is Outcome.LOST
    assert _read(*WHOLE_STREAM, broken_by="ReadError")[0] is Outcome.LOST


@given(st.integers(min_value=0, max_value=len(WHOLE_STREAM) - 3), st.sampled_from(["", "ReadError: reset"]))
def test_a_stream_that_is_cut_is_lost(lines: int, broken_by: str) -> None:
    """Wherever that is, and whether the connection is closed or breaks."""
    outcome, reason = _read(*WHOLE_STREAM[:lines], broken_by=broken_by)
    assert outcome is Outcome.LOST
    assert broken_by in reason


@given(st.integers(min_value=0, max_value=len(WHOLE_STREAM) - 3), st.sampled_from(["", "ReadError: reset"]))
def test_a_stream_that_says_why_it_ends_is_broken_off(lines: int, broken_by: str) -> None:
    """The error event comes first; the connection then breaks visibly, and that is no loss of its own."""
    outcome, reason = _read(*WHOLE_STREAM[:lines], ERROR_EVENT, broken_by=broken_by)
    assert (outcome, reason) == (Outcome.BROKEN, "ENGINE_BROKE_OFF The engine died.")


def test_an_error_event_without_a_message_tells_nobody_anything() -> None:
    """So it is no clear error."""
    assert _read(*WHOLE_STREAM[:3], 'data: {"error": {}}')[0] is Outcome.LOST


@given(st.lists(st.text(max_size=60), max_size=8))
def test_no_stream_is_too_strange_to_be_counted(lines: list[str]) -> None:
    """Whatever its lines are."""
    outcome, reason = _read(*lines, *(f"data: {line}" for line in lines))
    assert bool(reason) is (outcome is not Outcome.WHOLE)


def _sample(waited_s: float, *, stream: bool = False, outcome: Outcome = Outcome.WHOLE, reason: str = "") -> Sample:
    return Sample(stream=stream, outcome=outcome, waited_s=waited_s, reason=reason)


def test_the_waits_of_a_fault_are_held_against_those_without_one() -> None:
    """Each kind against its own: the median, the 99th percentile, and the worst against the median."""
    before = usual([_sample(1.0), _sample(3.0), _sample(2.0), _sample(0.1, stream=True)])
    assert before == Usual(answers=(1.0, 3.0, 2.0), streams=(0.1,))
    found = tally([_sample(2.5), _sample(9.0), _sample(0.1, stream=True), _sample(0.6, stream=True)], before)
    assert (found.requests, found.streams, found.lost) == (4, 2, 0)
    assert found.added_p50_s == pytest.approx(0.5)
    assert found.added_p99_s == pytest.approx(6.0)
    assert found.worst_added_s == pytest.approx(7.0)
    assert found.sentence() == "4 requests, 2 streams, 0 lost, worst added latency 7.0 s"


def test_a_stream_broken_off_is_lost_unless_its_engine_was_killed() -> None:
    """The error event is what a killed engine owes; a server that is only looked after owes the answer."""
    samples = [
        _sample(0.1, stream=True, outcome=Outcome.BROKEN, reason="ENGINE_BROKE_OFF"),
        _sample(0.1, outcome=Outcome.REFUSED, reason="QUEUE_FULL"),
        _sample(0.1, outcome=Outcome.LOST, reason="ConnectError"),
    ]
    crash = tally(samples, Usual(), may_break=True)
    assert (crash.lost, crash.broken, crash.refused) == (1, 1, 1)
    assert crash.sentence().endswith("1 lost, worst added latency 0 ms, 1 refused (429), 1 broken off with an error")
    assert crash.reasons == (("ConnectError", 1),)
    restart = tally(samples, Usual())
    assert (restart.lost, restart.broken) == (2, 0)
    assert dict(restart.reasons) == {"ConnectError": 1, "ENGINE_BROKE_OFF": 1}


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(Outcome), st.floats(0, 100)), max_size=40))
def test_every_request_is_counted_once(lived: list[tuple[bool, Outcome, float]]) -> None:
    """Whole, refused, broken and lost ones are all; and the sum over faults has them all again."""
    samples = [_sample(waited_s, stream=stream, outcome=outcome) for stream, outcome, waited_s in lived]
    whole = sum(one.outcome is Outcome.WHOLE for one in samples)
    for may_break in (False, True):
        found = tally(samples, usual(samples), may_break=may_break)
        assert found.requests == len(samples) == whole + found.refused + found.broken + found.lost
        both = total([found, found])
        assert (both.requests, both.lost) == (2 * found.requests, 2 * found.lost)
        assert both.worst_added_s == found.worst_added_s >= 0.0
    assert total([]) == Tally()


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([50, 99, 100]))
def test_a_percentile_is_one_of_the_values(values: list[float], percent: int) -> None:
    """And at least that many percent of them are no larger."""
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
