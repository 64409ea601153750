"""A folder of sentence-transformers asks for no more than the engine has, or the doctor says what."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from weights_corpus import Folder, Sparse

from headrace.weights import check
from headrace.weights.pooling import ACTIVATIONS, MODES, STEPS, pooling_findings

ENGINE = Path(__file__).parents[2] / "src" / "headrace_engines" / "transformers" / "pooling.py"


def folder(kinds: list[str], pooling: dict[str, Any] | None) -> dict[str, bytes]:
    """The files that say how vectors are made, as the library writes them."""
    modules = [
        {"idx": index, "path": f"{index}_{kind}" if index else "", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    files = {"modules.json": json.dumps(modules).encode()}
    return files if pooling is None else files | {"1_Pooling/config.json": json.dumps(pooling).encode()}


MEAN = {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.mark.parametrize("pooling", [MEAN, {"pooling_mode": "cls"}, {"pooling_mode": ["mean", "max"]}])
def test_what_the_engine_has_is_no_finding(pooling: dict[str, Any]) -> None:
    """Pooling by old names and new ones, with and without bringing vectors to length one."""
    for kinds in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        assert list(pooling_findings(Sparse(folder(kinds, pooling), {}))) == []
    assert list(pooling_findings(Sparse({}, {}))) == []


@pytest.mark.parametrize(
    ("kinds", "pooling", "code", "told"),
    [
        (["Transformer", "Pooling", "LSTM", "Normalize"], MEAN, "ARCHITECTURE_UNSUPPORTED", "the step LSTM"),
        (["Transformer", "Pooling", "Dense"], MEAN, "CONFIG_INVALID", "2_Dense/model.safetensors is missing"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_weightedmean_tokens": True},
            "ARCHITECTURE_UNSUPPORTED",
            "weighted",
        ),
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": False}, "ARCHITECTURE_UNSUPPORTED", "nothing"),
        (["Transformer", "Pooling"], None, "CONFIG_INVALID", "1_Pooling/config.json"),
    ],
)
def test_what_it_has_not_is_told_before_anything_is_deployed(
    kinds: list[str], pooling: dict[str, Any] | None, code: str, told: str
) -> None:
    """The deployment would end at its start: without the step vectors would be others than the model's."""
    files = folder(kinds, pooling)
    (finding,) = pooling_findings(Sparse(files, {}))
    assert (finding.code, finding.severity) == (code, "error")
    assert told in finding.evidence
    whole = Folder("llama").reader()
    assert code in {each.code for each in check(Sparse(whole.files | files, whole.lengths))}


def test_a_dense_layer_is_taken_whole_and_with_an_activation_that_the_engine_has() -> None:
    """Weights in safetensors, whatever the layer is called; a pickle is not read, and the fix says how to save it."""
    files = folder(["Transformer", "Pooling", "Dense", "Normalize"], MEAN)

    def found(activation: str, weights: str, **more: str) -> list[tuple[str, str]]:
        said = {"activation_function": f"torch.nn.modules.activation.{activation}"} | more
        config = json.dumps(said).encode()
        reader = Sparse(files | {"2_Dense/config.json": config, f"2_Dense/{weights}": b"."}, {})
        return [(finding.code, f"{finding.evidence} {finding.fix}") for finding in pooling_findings(reader)]

    assert found("Tanh", "model.safetensors") == []
    assert found("Tanh", "model.safetensors", module_output_name="sentence_embedding") == []
    [(code, told)] = found("Identity", "model.safetensors", module_output_name="scores")
    assert (code, "module_output_name scores" in told) == ("ARCHITECTURE_UNSUPPORTED", True), "a reranker"
    [(code, told)] = found("Softshrink", "model.safetensors")
    assert (code, "activation.Softshrink" in told) == ("ARCHITECTURE_UNSUPPORTED", True)
    [(code, told)] = found("Tanh", "pytorch_model.bin")
    assert (code, "a pickle is there" in told, "sentence-transformers 3" in told) == ("CONFIG_INVALID", True, True)


@pytest.mark.parametrize(
    ("kinds", "step"),
    [
        (["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"], "Dense"),
        (["T.Transformer", "sentence_transformers.models.Dense", "T.Pooling"], "Dense"),
        (["T.Transformer", "T.Normalize", "T.Pooling"], "Normalize"),
        (["T.Transformer", "T.Pooling", "pylate.models.Dense.Dense"], "pylate.models.Dense.Dense"),
    ],
    ids=str,
)
def test_what_takes_a_vector_stands_behind_the_pooling(kinds: list[str], step: str) -> None:
    """One vector for each token, as late interaction has them, is not what is asked for; nor are others' layers."""
    modules = [{"idx": place, "path": f"{place}", "type": kind} for place, kind in enumerate(kinds)]
    pooling = {f"{place}/config.json": json.dumps(MEAN).encode() for place in range(3)}
    [finding] = pooling_findings(Sparse({"modules.json": json.dumps(modules).encode()} | pooling, {}))
    assert finding.code == "ARCHITECTURE_UNSUPPORTED"
    assert step in finding.evidence


@pytest.mark.parametrize("content", [b"{", b"{}", b"[1]", b"\xff", b"[" * 5000])
def test_what_is_no_list_of_steps_is_told(content: bytes) -> None:
    """Whatever lies in its place."""
    (finding,) = pooling_findings(Sparse({"modules.json": content}, {}))
    assert (finding.code, finding.severity) == ("CONFIG_INVALID", "error")


def test_the_engine_has_these() -> None:
    """Steps and modes are those of the engine's own file, which has other libraries than this interpreter."""
    values = {
        node.targets[0].id: node.value
        for node in ast.parse(ENGINE.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    modes, steps = values["_MODES"], values["_STEPS"]
    assert isinstance(steps, ast.Call)
    assert tuple(ast.literal_eval(modes).values()) == MODES
    assert ast.literal_eval(steps.args[0]) == set(STEPS)
    activations = values["_ACTIVATIONS"]
    assert isinstance(activations, ast.Dict)
    assert tuple(key.value for key in activations.keys if isinstance(key, ast.Constant)) == ACTIVATIONS
