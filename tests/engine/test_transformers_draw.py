"""Tokens that are drawn come as often as transformers' own warpers say, however many sequences draw at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_process import run_in_engine_environment

PROGRAM = Path(__file__).parent / "draw_cases.py"
DRAWS = 2000


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """All cases, from one process."""
    answers: dict[str, Any] = run_in_engine_environment(PROGRAM)
    return answers


def test_tokens_come_as_often_as_transformers_says(answers: dict[str, Any]) -> None:
    """At 2,000 random numbers that are spread evenly no token's share is off by more than one of them, for scores that
    are steep, flat, tied and mostly forbidden; looking at the likeliest first changes nothing."""
    far = {case: distance for case, (distance, _) in answers["apart"].items() if distance > 1.01 / DRAWS}
    assert far == {}
    assert len(answers["apart"]) == 70
    came = {case: tokens for case, (_, tokens) in answers["apart"].items()}
    assert came["steep, top-k"] == 5
    assert came["flat, top-k beyond the first look"] == 200 > answers["looked at"][0]
    assert came["flat, nearly all of top-p"] > answers["looked at"][1]
    assert came["masked, plain"] == 42


def test_a_seed_draws_the_same_alone_and_in_company(answers: dict[str, Any]) -> None:
    """And what fails, by the request's fault or the model's, fails alone."""
    company = answers["in company"]
    assert company["together"] == company["alone"]
    assert company["together"][-3:] == ["SamplingImpossible", "GenerationFailed", "GenerationFailed"]
    assert all(isinstance(token_id, int) for token_id in company["together"][:-3])
