"""What a request may ask of the generator: bias, stop tokens, log probabilities, grammars."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from engine_process import run_in_engine_environment

PROGRAM = Path(__file__).parent / "sampling_features.py"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them, from one process."""
    answers: dict[str, Any] = run_in_engine_environment(PROGRAM, str(tmp_path_factory.mktemp("tiny")))
    return answers


def test_logit_bias_moves_the_choice(answers: dict[str, Any]) -> None:
    """A hundred on one token makes it the only one; minus a hundred keeps tokens out."""
    assert answers["biased"]["ids"] == [65] * 3
    assert not set(answers["banned"]["ids"]) & set(answers["plain"])
    assert len(answers["banned"]["ids"]) == 20


def test_a_stop_token_ends_the_sequence(answers: dict[str, Any]) -> None:
    """It is the last token, even where the end of sequence is ignored."""
    first = answers["plain"].index(answers["plain"][4])
    assert answers["stopped"]["ids"] == answers["plain"][: first + 1]
    assert answers["stopped"]["finish"] == "stop"


def test_min_tokens_holds_for_stop_tokens(answers: dict[str, Any]) -> None:
    """Until so many tokens it is not picked."""
    token_id, at_least = answers["plain"][4], answers["plain"].index(answers["plain"][4]) + 3
    assert token_id not in answers["stopped_late"]["ids"][:at_least]
    assert len(answers["stopped_late"]["ids"]) >= at_least


def test_min_tokens_of_a_model_without_an_end_asks_nothing(answers: dict[str, Any]) -> None:
    """Where no token ends a sequence none is kept out, and nobody's batch fails for it."""
    assert answers["without_an_end"] == 2


def test_log_probabilities_are_the_models_own(answers: dict[str, Any]) -> None:
    """They are those of the plain distribution, best first, whatever bias moved the choice."""
    values, ids = answers["expected_logprobs"]
    (logprob, *top) = answers["logprobs"]["logprobs"][0]
    assert logprob == pytest.approx(values[0], abs=1e-4)
    assert [token_id for token_id, _ in top] == ids
    assert [value for _, value in top] == pytest.approx(values, abs=1e-4)
    assert answers["logprobs_of_biased"]["logprobs"] == [[pytest.approx(answers["expected_of_biased"], abs=1e-4)]]
    assert answers["biased"]["logprobs"] == []


def test_texts_follow_their_grammar(answers: dict[str, Any]) -> None:
    """A random model writes valid JSON and what a pattern matches, and ends there."""
    text, finish = answers["schema"]
    assert json.loads(text) in ({"a": 1}, {"a": 2})
    assert finish == "stop"
    text, finish = answers["regex"]
    assert re.fullmatch("(ab|cd){3}", text)
    assert finish == "stop"


def test_a_grammar_that_is_none_is_refused(answers: dict[str, Any]) -> None:
    """Before any token, and as the request's own fault."""
    assert {answers[name] for name in ("bad_schema", "bad_regex")} == {"GRAMMAR_INVALID"}
