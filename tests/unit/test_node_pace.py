"""How fast bytes come, as a deployment's timeline tells it."""

from __future__ import annotations

from headrace.node.pace import Pace


def test_the_pace_is_that_of_the_last_seconds() -> None:
    """What was there at first does not count, a fast beginning is forgotten, and a stall comes to nothing."""
    moments = iter([0.0, 1.0, 5.0, 14.0, 15.0, 16.0, 40.0])
    pace = Pace(lambda: next(moments))
    assert pace.bytes_per_s(500) == 0
    assert pace.bytes_per_s(600) == 100
    assert pace.bytes_per_s(1000) == 100
    assert pace.bytes_per_s(1130) == 530 / 13  # since 1 s: the last moment that is 10 s old
    assert pace.bytes_per_s(1130) == 13
    assert pace.bytes_per_s(1130) == 130 / 11
    assert pace.bytes_per_s(1130) == 0
