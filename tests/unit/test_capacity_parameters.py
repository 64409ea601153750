"""Parameters counted from configurations alone, against what publishers say."""

from __future__ import annotations

import pytest
from published_models import V2, WATSONX

from headrace.capacity.parameters import Parameters, count_parameters
from headrace.weights.config import parse_config

ALL = V2 | WATSONX


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_within_one_percent_of_the_published_ones(name: str) -> None:
    """Every base model of V2's list and every example of the watsonx table, from its configuration alone."""
    counted = count_parameters(parse_config(ALL[name].config))
    assert counted is not None
    assert counted.total == pytest.approx(ALL[name].parameters, rel=0.01)


@pytest.mark.parametrize("name", [name for name, model in ALL.items() if model.active])
def test_active_parameters_are_those_that_publishers_round(name: str) -> None:
    """What a token meets in a mixture of experts; some publishers count the embedding's rows, too."""
    counted = count_parameters(parse_config(ALL[name].config))
    assert counted is not None
    assert counted.active == pytest.approx(ALL[name].active, rel=0.055)
    assert counted.active < counted.total


def test_an_unknown_family_is_not_guessed() -> None:
    """Neither a family that is not in the table nor one without its sizes gets a number."""
    assert count_parameters(parse_config(ALL["Qwen3-8B"].config | {"model_type": "novel"})) is None
    assert count_parameters(parse_config({"model_type": "llama"})) is None


def test_a_token_takes_no_more_experts_than_there_are() -> None:
    """Whatever the configuration says, what is active is a part of all, and a batch reads no more than that."""
    counted = count_parameters(parse_config(ALL["Mixtral-8x7B-v0.1"].config | {"num_experts_per_tok": 2**39}))
    assert counted is not None
    assert counted.active <= counted.total
    assert counted.read_by(512) <= counted.total


def test_a_batch_reads_the_experts_that_its_tokens_take() -> None:
    """One token reads what is active, many read nearly all experts; a dense model reads the same for any number."""
    sparse = Parameters(total=1100, active=225, routed=1000, experts=8, experts_per_token=1)
    assert sparse.read_by(1) == 225
    assert sparse.read_by(2) == 100 + round(1000 * (1 - (7 / 8) ** 2))
    assert sparse.read_by(1000) == 1100
    dense = Parameters(total=1100, active=1000)
    assert dense.read_by(1) == dense.read_by(64) == 1000
