"""What a model's folder says about sampling is what a request without a word gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace_engines.serving.generator import Sampling
from headrace_engines.serving.parameters import SharedParameters
from headrace_engines.serving.recommended import recommended_sampling


def test_the_makers_defaults_are_read(tmp_path: Path) -> None:
    """Temperature and its like come from generation_config.json; token ids in it are not sampling."""
    said = {"temperature": 0.2, "top_p": 0.9, "top_k": None, "eos_token_id": 2, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert recommended_sampling(tmp_path) == Sampling(temperature=0.2, top_p=0.9)


@pytest.mark.parametrize("content", [None, "{", '{"temperature": "hot"}', "[]"])
def test_nothing_readable_means_the_models_own_distribution(tmp_path: Path, content: str | None) -> None:
    """Without the file, or with one that cannot be read, sampling is OpenAI's default."""
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    assert recommended_sampling(tmp_path) == Sampling()


IMPOSSIBLE = [
    {"temperature": -1},
    {"temperature": "hot"},
    {"top_p": -1},
    {"top_p": 0},
    {"top_p": 1.5},
    {"min_p": 2},
    {"top_k": -2},
    {"top_k": 0.5},
    {"repetition_penalty": 0},
    {"repetition_penalty": 1e-300},
    {"repetition_penalty": 1e300},
]


@pytest.mark.parametrize("said", IMPOSSIBLE)
def test_what_no_request_may_say_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: dict[str, Any]
) -> None:
    """A value out of a request's bounds is left out with a warning that names it; the others stay."""
    others: dict[str, Any] = {"temperature": 0.7, "top_k": 40}
    (tmp_path / "generation_config.json").write_text(json.dumps(others | said))
    expected = {name: value for name, value in others.items() if name not in said}
    assert recommended_sampling(tmp_path) == Sampling(**expected)
    (warning,) = caplog.messages
    assert "generation_config.json" in warning
    assert all(name in warning for name in said)


def test_all_tokens_may_be_said_as_minus_one(tmp_path: Path) -> None:
    """-1 as top_k means all, as in a request."""
    (tmp_path / "generation_config.json").write_text('{"top_k": -1}')
    assert recommended_sampling(tmp_path) == Sampling(top_k=0)


def test_a_request_overrides_what_it_names() -> None:
    """A request's own temperature wins; what it leaves out stays the makers'."""
    asked = SharedParameters(model="m", temperature=0, top_k=-1)
    assert asked.sampling(Sampling(temperature=0.2, top_p=0.9)) == Sampling(temperature=0, top_p=0.9)
