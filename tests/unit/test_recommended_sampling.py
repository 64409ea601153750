"""What a model's folder says about sampling is what a request without a word gets."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_a_request_overrides_what_it_names() -> None:
    """A request's own temperature wins; what it leaves out stays the makers'."""
    asked = SharedParameters(model="m", temperature=0, top_k=-1)
    assert asked.sampling(Sampling(temperature=0.2, top_p=0.9)) == Sampling(temperature=0, top_p=0.9)
