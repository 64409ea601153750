"""What control knows of the transformers engine's breadth: which families it serves, and how to read their folders."""

import ast
import importlib.util
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from published_models import V2
from published_models import WATSONX as EXAMPLES

from headrace.capacity import estimate
from headrace.runtimes import architectures
from headrace.runtimes.table import RUNTIMES
from headrace.storage import open_artifacts
from headrace.weights.folder import inspect

T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "d_model": 512,
    "d_kv": 64,
    "num_layers": 6,
    "num_decoder_layers": 4,
    "num_heads": 8,
    "n_positions": 512,
    "vocab_size": 320,
}
BART = {
    "architectures": ["BartForConditionalGeneration"],
    "model_type": "bart",
    "is_encoder_decoder": True,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 8,
    "max_position_embeddings": 512,
    "vocab_size": 320,
}


def model_folder(path: Path, config: Mapping[str, Any]) -> Path:
    """A folder with one small tensor and a tokenizer."""
    header = json.dumps({"shared.weight": {"dtype": "BF16", "shape": [320, 4], "data_offsets": [0, 2560]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2560))
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    return path


def engine_list(name: str) -> set[str]:
    """A list of the engine's ``kinds.py``, which cannot be imported here."""
    spec = importlib.util.find_spec("headrace_engines")
    assert spec is not None
    [root] = spec.submodule_search_locations or []
    tree = ast.parse((Path(root) / "transformers" / "kinds.py").read_text())
    return set(_strings(tree, name))


def _strings(tree: ast.Module, name: str) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]:
            yield from (str(each.value) for each in ast.walk(node.value) if isinstance(each, ast.Constant))


@pytest.mark.parametrize("config", [T5, BART])
def test_an_encoder_decoder_is_planned_by_its_decoder(tmp_path: Path, config: Mapping[str, Any]) -> None:
    """Its cache is that of its decoder's four layers."""
    reader = open_artifacts(str(model_folder(tmp_path, config)))
    assert estimate(inspect(reader), 512, 8).kv_bytes_per_token == 2 * 4 * 8 * 64 * 2


@pytest.mark.parametrize("name", ["ENCODER_DECODER_TYPES", "VISION_LANGUAGE_TYPES"])
def test_control_and_the_engine_agree(name: str) -> None:
    """Neither may import the other, so their lists are held against each other here."""
    assert engine_list(name) == getattr(architectures, name)


REMOTE_CODE = frozenset({"exaone", "jais", "qwen"})
"""Of watsonx's table: the first versions of these, which transformers does not know. One more is of time series."""

WATSONX = frozenset(published.config["model_type"] for published in EXAMPLES.values()) - REMOTE_CODE
"""Those of watsonx's table; its llama and mixtral are in Vertex AI's list too."""

VERTEX = frozenset(published.config["model_type"] for published in V2.values())
"""Those of Vertex AI's base models."""


def test_every_listed_architecture_is_served() -> None:
    """Both documents', by the engine of breadth."""
    assert (len(WATSONX), "llama4" in VERTEX) == (20, True)
    assert RUNTIMES["transformers"].model_types >= WATSONX | VERTEX


def test_every_listed_architecture_has_a_tiny_model() -> None:
    """So that each one's answers are held against those of ``generate``, as its publisher's folder has it."""
    program = Path(__file__).parents[1] / "engine" / "test_transformers_architectures.py"
    names = set(_strings(ast.parse(program.read_text()), "NAMES"))
    assert {name.partition("-")[0] for name in names} >= WATSONX | VERTEX
