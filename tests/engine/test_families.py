"""Families that the OpenVINO engine is given, and some on vLLM: tiny random models, judged by float32."""

from typing import Any

import pytest
from families import DIRECT, GENERAL, PROMPTS, Families, families

pytestmark = pytest.mark.timeout(1200)
"""The first test waits for all of them to be made, which takes some minutes where they are not in the cache."""

ON_VLLM = ("bloom", "gemma", "gpt2", "granite", "mistral", "opt", "phi3", "qwen3")
"""Of those that vLLM computes itself, some that differ: in attention, norms, positions, activations and sharing."""

EXPORT_BOUND, EXPORT_MEAN_BOUND = 0.5, 0.05
"""Nats by which a token's log-probability in float32 may differ from transformers', at most and in the mean:
optimum-intel rounds to float16, which the least likely tokens show most (phi3: 0.25 at one of -22, 0.02 in the mean).
"""

BOUND_NATS = 0.05
"""A token, by which greedy answers may be less likely than those of ``generate`` in float32."""


@pytest.fixture(scope="session", name="tiny")
def fixture_tiny() -> Families:
    """All of them."""
    return families()


@pytest.fixture(scope="session")
def expected(tiny: Families) -> dict[str, float]:
    """How likely transformers' own answers are."""
    return tiny.score({name: said["answers"] for name, said in tiny.said.items()})


@pytest.fixture(scope="session")
def astray(tiny: Families) -> dict[str, float]:
    """How likely answers are that belong to another prompt."""
    return tiny.score({name: said["answers"][1:] + said["answers"][:1] for name, said in tiny.said.items()})


class Said:
    """What an engine said of all its families.

    Args:
        told: By family: its answers, or an error.
        tiny: Judges them.
    """

    def __init__(self, told: dict[str, Any], tiny: Families) -> None:
        self._told = told
        answers = {name: one["answers"] for name, one in told.items() if "error" not in one}
        self.nats = tiny.score(answers)

    def __getitem__(self, name: str) -> dict[str, Any]:
        one: dict[str, Any] = self._told[name]
        assert "error" not in one, one["error"]
        return one


@pytest.fixture(scope="session")
def openvino(tiny: Families) -> Said:
    """The OpenVINO engine's."""
    return Said(tiny.on_openvino(), tiny)


@pytest.fixture(scope="session")
def vllm(tiny: Families, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """vLLM's."""
    return Said(tiny.on_vllm(ON_VLLM, tmp_path_factory.mktemp("vllm")), tiny)


@pytest.mark.parametrize("name", GENERAL)
def test_what_is_exported_says_what_transformers_says(name: str, tiny: Families, openvino: Said) -> None:
    """Each token's log-probability, of rows far longer than any window."""
    rows = zip(tiny.said[name]["likelihoods"], openvino[name]["likelihoods"], strict=True)
    pairs = [pair for want, have in rows for pair in zip(want, have, strict=True)]
    apart = [abs(want - have) for want, have in pairs]
    assert max(apart) < EXPORT_BOUND
    assert sum(apart) / len(apart) < EXPORT_MEAN_BOUND
    spread = max(want for want, _ in pairs) - min(want for want, _ in pairs)
    assert spread > 20 * EXPORT_BOUND, "a flat distribution would prove nothing"


@pytest.mark.parametrize(
    ("engine_name", "name"),
    [*(("openvino", name) for name in (*DIRECT, *GENERAL)), *(("vllm", name) for name in ON_VLLM)],
)
def test_greedy_answers_are_as_likely_as_transformers_own(
    engine_name: str,
    name: str,
    tiny: Families,
    expected: dict[str, float],
    astray: dict[str, float],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Per token, 200 answers made as they are served lose less than the bound; those to other prompts lose far more."""
    made: Said = request.getfixturevalue(engine_name)
    answers, ours, theirs = made[name]["answers"], made.nats[name], expected[name]
    same = sum(map(list.__eq__, answers, tiny.said[name]["answers"]))
    with capsys.disabled():
        print(f"\n{engine_name}, {name}: {ours:.4f} nats a token, transformers itself {theirs:.4f}; {same}/200 equal")
    assert len(answers) == len(PROMPTS) == 200
    assert ours - theirs < BOUND_NATS
    assert astray[name] - theirs > 10 * BOUND_NATS, "a model that says the same to every prompt would prove nothing"
