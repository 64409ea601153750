"""Model folders: what `inspect` learns and what `check` names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from written_pickles import saved

from headrace.resources.errors import (
    CODES,
    ConfigInvalid,
    HeadraceError,
    WeightsTruncated,
    error_from,
    page,
)
from headrace.storage import open_artifacts
from headrace.weights import FolderReader, check, inspect, raise_first_error, read_config
from headrace.weights.reader import ReadOnce

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
LAYER = {
    "input_layernorm": (8,),
    "post_attention_layernorm": (8,),
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (6, 8),
    "mlp.up_proj": (6, 8),
    "mlp.down_proj": (8, 6),
}
TENSORS = (
    {name: np.zeros((10, 8), np.float16) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    | {f"model.layers.{n}.{name}.weight": np.zeros(shape, np.float16) for n in (0, 1) for name, shape in LAYER.items()}
    | {"model.norm.weight": np.zeros(8, np.float32)}
)
PARAMETERS = 2 * 80 + 2 * 352 + 8

PICKLED = Path(__file__).with_name("fixtures_pickles").joinpath("torch_zip.bin").read_bytes()
"""Recorded with torch 2.13 (`record_pickles.py`)."""


class Files:
    """A folder in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def sizes(self) -> Mapping[str, int]:
        """The length of every file."""
        return {name: len(content) for name, content in self.files.items()}

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """A slice of a file."""
        return self.files[name][start : start + length]


def as_json(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value).encode()


def healthy() -> dict[str, bytes]:
    """A small folder without a fault."""
    return {
        "config.json": as_json(CONFIG),
        "model.safetensors": save(TENSORS, metadata={"format": "pt"}),
        "tokenizer.json": as_json({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}),
        "tokenizer_config.json": as_json({"chat_template": "{{ messages }}"}),
    }


def sharded() -> dict[str, bytes]:
    """The same in two files with an index."""
    files = healthy()
    del files["model.safetensors"]
    weight_map: dict[str, str] = {}
    for number, norms in enumerate((False, True), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        part = {name: tensor for name, tensor in TENSORS.items() if ("norm" in name) is norms}
        files[file] = save(part, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    return files | {"model.safetensors.index.json": as_json({"weight_map": weight_map})}


def with_config(**changes: Any) -> dict[str, bytes]:
    """The healthy folder with a changed configuration; None removes a key."""
    return healthy() | {"config.json": as_json({k: v for k, v in (CONFIG | changes).items() if v is not None})}


def without(*names: str) -> dict[str, bytes]:
    """The healthy folder without some files."""
    return {name: content for name, content in healthy().items() if name not in names}


def test_inspect_tells_what_a_folder_holds() -> None:
    """Sizes, shapes and counts come from the headers and the configuration."""
    reader: FolderReader = Files(healthy())
    folder = inspect(reader)
    assert folder.parameters == PARAMETERS
    assert folder.weight_bytes == (PARAMETERS - 8) * 2 + 8 * 4
    assert folder.bytes_by_dtype == {"F16": (PARAMETERS - 8) * 2, "F32": 32}
    assert (folder.config.layers, folder.config.heads, folder.config.kv_heads, folder.config.head_dim) == (2, 4, 2, 2)
    assert (folder.config.hidden, folder.config.vocab, folder.config.max_positions) == (8, 10, 64)
    assert folder.config.architectures == ("LlamaForCausalLM",)
    assert folder.weights_format == "safetensors"
    assert folder.tokenizer_files == ("tokenizer.json",)
    assert folder.has_chat_template
    assert not folder.config.tied_embeddings


def test_inspect_adds_up_shards() -> None:
    """A sharded model counts as the whole that it is."""
    assert inspect(Files(sharded())).parameters == PARAMETERS


def test_a_nested_text_configuration_gives_the_shape() -> None:
    """A multimodal model's shape is that of its text part."""
    raw = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2}}
    config = read_config(Files({"config.json": as_json(raw)}))
    assert (config.model_type, config.layers, config.head_dim, config.kv_heads) == ("gemma3", 3, 8, 2)


@pytest.mark.parametrize(
    ("raw", "shape"),
    [
        (  # Gemma 3 4B and MedGemma 4B, as published
            {
                "model_type": "gemma3",
                "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34},
                "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16},
            },
            (34, 8, 4, 256, 131_072),
        ),
        (  # LLaVA 1.5
            {"model_type": "llava", "text_config": {"model_type": "llama", "max_position_embeddings": 4096}},
            (32, 32, 32, 128, 4096),
        ),
        (
            {
                "model_type": "qwen2_5_omni",
                "thinker_config": {"text_config": {"model_type": "qwen2", "num_hidden_layers": 28, "head_dim": 64}},
                "talker_config": {"num_hidden_layers": 5},
            },
            (28, 32, 32, 64, 32_768),
        ),
    ],
)
def test_a_text_part_means_what_its_family_means_where_it_does_not_say(
    raw: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """Published folders leave out what is their family's default; memory can be planned for them all the same."""
    config = read_config(Files({"config.json": as_json(raw)}))
    assert (config.layers, config.heads, config.kv_heads, config.head_dim, config.max_positions) == shape


@pytest.mark.parametrize(
    ("raw", "shape"),
    [
        (
            {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024},
            (12, 12, 12, 64, 1024),
        ),
        ({"model_type": "mpt", "n_layers": 2, "n_heads": 4, "d_model": 32, "max_seq_len": 9}, (2, 4, 4, 8, 9)),
        (
            {"model_type": "rwkv", "num_hidden_layers": 2, "hidden_size": 64, "context_length": 4096},
            (2, None, None, None, 4096),
        ),
        (
            {
                "model_type": "falcon",
                "num_hidden_layers": 2,
                "num_attention_heads": 71,
                "hidden_size": 4544,
                "multi_query": True,
            },
            (2, 71, 1, 64, 2048),
        ),
        ({"model_type": "t5", "num_layers": 6, "num_heads": 8, "d_model": 512, "d_kv": 64}, (6, 8, 8, 64, None)),
    ],
)
def test_other_names_for_the_same_sizes_are_known(raw: dict[str, Any], shape: tuple[int | None, ...]) -> None:
    """GPT-2, MPT, Falcon and T5 have names of their own for layers, heads and widths."""
    config = read_config(Files({"config.json": as_json(raw)}))
    assert (config.layers, config.heads, config.kv_heads, config.head_dim, config.max_positions) == shape


@pytest.mark.parametrize("folder", [healthy(), sharded()])
def test_a_healthy_folder_gives_no_finding(folder: dict[str, bytes]) -> None:
    """Nothing is said about a folder without a fault."""
    assert check(Files(folder)) == []


FAULTS: dict[str, tuple[dict[str, bytes], str]] = {
    "no config": (without("config.json"), "CONFIG_MISSING"),
    "config not JSON": (healthy() | {"config.json": b"{"}, "CONFIG_INVALID"),
    "config not UTF-8": (healthy() | {"config.json": b'{"a": "\xff"}'}, "CONFIG_INVALID"),
    "config a list": (healthy() | {"config.json": b"[]"}, "CONFIG_INVALID"),
    "config too deep": (healthy() | {"config.json": b'{"a":' + b"[" * 100_000}, "CONFIG_INVALID"),
    "no model type": (with_config(model_type=None), "CONFIG_INVALID"),
    "layers a string": (with_config(num_hidden_layers="2"), "CONFIG_INVALID"),
    "heads zero": (with_config(num_attention_heads=0), "CONFIG_INVALID"),
    "no weights": (without("model.safetensors"), "WEIGHTS_MISSING"),
    "only an adapter": (without("model.safetensors") | {"adapter_model.safetensors": b""}, "WEIGHTS_MISSING"),
    "a shard missing": (
        {name: content for name, content in sharded().items() if "00002-of" not in name},
        "WEIGHTS_MISSING",
    ),
    "a tensor missing": (
        sharded() | {"model-00002-of-00002.safetensors": save({"other": np.zeros(1, np.float32)})},
        "WEIGHTS_MISSING",
    ),
    "index not JSON": (sharded() | {"model.safetensors.index.json": b"?"}, "WEIGHTS_CORRUPT"),
    "index without a map": (sharded() | {"model.safetensors.index.json": b"{}"}, "WEIGHTS_CORRUPT"),
    "a shard cut": (
        sharded() | {"model-00002-of-00002.safetensors": sharded()["model-00002-of-00002.safetensors"][:-1]},
        "WEIGHTS_TRUNCATED",
    ),
    "weights empty": (healthy() | {"model.safetensors": b""}, "WEIGHTS_TRUNCATED"),
    "weights not weights": (healthy() | {"model.safetensors": b"<!DOCTYPE html><html>404</html>"}, "WEIGHTS_CORRUPT"),
    "quantised": (with_config(quantization_config={"quant_method": "gptq"}), "WEIGHTS_QUANTISED"),
    "GGUF": (without("model.safetensors") | {"model.Q4_K_M.gguf": b"GGUF"}, "WEIGHTS_QUANTISED"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "TOKENIZER_MISSING"),
    "tokenizer random bytes": (healthy() | {"tokenizer.json": bytes(range(256)) * 1000}, "TOKENIZER_INVALID"),
    "tokenizer empty": (healthy() | {"tokenizer.json": b""}, "TOKENIZER_INVALID"),
    "tokenizer cut": (healthy() | {"tokenizer.json": healthy()["tokenizer.json"][:-9]}, "TOKENIZER_INVALID"),
    "tokenizer without a model": (healthy() | {"tokenizer.json": b"{}"}, "TOKENIZER_INVALID"),
    "tokenizer's model a list": (healthy() | {"tokenizer.json": b'{"model": []}'}, "TOKENIZER_INVALID"),
    "tokenizer too deep": (healthy() | {"tokenizer.json": b'{"model":{"a":' + b"[" * 100_000}, "TOKENIZER_INVALID"),
    "tokenizer's config not JSON": (healthy() | {"tokenizer_config.json": b"{"}, "CONFIG_INVALID"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_gives_exactly_its_code(name: str) -> None:
    """A folder with one fault gets one finding, with evidence and a fix."""
    folder, code = FAULTS[name]
    findings = check(Files(folder))
    assert [(finding.code, finding.severity) for finding in findings] == [(code, "error")]
    assert findings[0].evidence
    assert findings[0].fix


def test_a_configuration_too_long_to_be_one_is_not_read() -> None:
    """An index may be as long; of anything else every value would become an object, of many times its length."""

    class Long(Files):
        def sizes(self) -> Mapping[str, int]:
            return {**super().sizes(), "config.json": 17 * 1024 * 1024}

        def read_range(self, name: str, start: int, length: int) -> bytes:
            assert name != "config.json"
            return super().read_range(name, start, length)

    findings = check(Long(healthy()))
    assert [finding.code for finding in findings if finding.severity == "error"] == ["CONFIG_INVALID"]


def test_a_tokenizer_too_long_to_be_one_is_not_read() -> None:
    """Its size is enough to refuse it."""

    class Endless(Files):
        def sizes(self) -> Mapping[str, int]:
            return {**super().sizes(), "tokenizer.json": 10**12}

    (finding,) = check(Endless(healthy()))
    assert (finding.code, finding.file) == ("TOKENIZER_INVALID", "tokenizer.json")


WARNINGS: dict[str, tuple[dict[str, bytes], str]] = {
    "no template": (without("tokenizer_config.json"), "CHAT_TEMPLATE_MISSING"),
    "template empty": (healthy() | {"tokenizer_config.json": b"{}"}, "CHAT_TEMPLATE_MISSING"),
    "custom code": (with_config(auto_map={"AutoModel": "evil.Model"}), "CUSTOM_CODE_IGNORED"),
    "pickles": (without("model.safetensors") | {"pytorch_model.bin": saved(TENSORS)}, "WEIGHTS_PICKLED"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_is_only_odd_is_a_warning(name: str) -> None:
    """A warning does not keep a model from being deployed."""
    folder, code = WARNINGS[name]
    findings = check(Files(folder))
    assert [(finding.code, finding.severity) for finding in findings] == [(code, "warning")]
    raise_first_error(findings)


def test_pickled_weights_are_known_by_what_they_describe() -> None:
    """A pickle's tensors count like any others; a training's state beside them is not the model."""
    folder = inspect(Files(without("model.safetensors") | {"pytorch_model.bin": PICKLED, "training_args.bin": b"y"}))
    assert (folder.weights_format, folder.weight_files) == ("bin", ("pytorch_model.bin",))
    assert (folder.weight_bytes, folder.parameters) == (240, 112)
    assert folder.bytes_by_dtype == {"F16": 160, "F32": 32, "BF16": 48}


def test_several_faults_are_named_at_once_errors_first() -> None:
    """A user learns everything in one go, and the first error becomes the exception of its code."""
    folder = without("tokenizer_config.json") | {"model.safetensors": healthy()["model.safetensors"][:-3]}
    findings = check(Files(folder))
    assert [finding.code for finding in findings] == ["WEIGHTS_TRUNCATED", "CHAT_TEMPLATE_MISSING"]
    with pytest.raises(WeightsTruncated) as caught:
        raise_first_error(findings)
    assert caught.value.fix


def test_an_embedding_model_misses_no_chat_template() -> None:
    """Nobody chats with an encoder, so nothing is said of it."""
    encoder = with_config(model_type="bert", architectures=["BertModel"]) | {"tokenizer_config.json": b"{}"}
    assert "CHAT_TEMPLATE_MISSING" not in {finding.code for finding in check(Files(encoder))}


def test_inspect_raises_what_check_names() -> None:
    """The two never disagree about a folder that cannot be read."""
    for name in ("no config", "no weights", "a shard cut", "a shard missing", "a tensor missing", "GGUF"):
        folder, code = FAULTS[name]
        with pytest.raises(HeadraceError) as caught:
            inspect(Files(folder))
        assert caught.value.code == code
    with pytest.raises(ConfigInvalid):
        inspect(Files(with_config(hidden_size=-1)))


def test_every_code_that_check_uses_has_a_page() -> None:
    """`headrace explain` knows every finding."""
    for code in {code for _, code in (*FAULTS.values(), *WARNINGS.values())}:
        assert code in CODES
        assert page(code).startswith(f"# {code}")
        assert error_from(CODES[code]("x").failure).code == code


def test_the_room_is_light() -> None:
    """Importing the weights' and the storage's rooms brings neither NumPy nor torch into the control plane."""
    program = (
        "import sys, headrace.weights, headrace.weights.demo, headrace.weights.gguf, headrace.storage;"
        "import headrace.capacity, headrace.hardware;"
        "print([m for m in ('numpy', 'gguf', 'safetensors', 'torch') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_index_and_the_headers_are_read_once(tmp_path: Path) -> None:
    """However many checks ask for them; another look reads them anew."""
    (tmp_path / "a.safetensors").write_bytes(save({"wte.weight": np.zeros((4, 2), np.float16)}, {"format": "pt"}))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    index = {"metadata": {}, "weight_map": {"wte.weight": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    opened = open_artifacts(tmp_path.as_uri())
    asked: list[str] = []

    class Counting:
        """Writes down what is read."""

        def sizes(self) -> Mapping[str, int]:
            return opened.sizes()

        def read_range(self, name: str, start: int, length: int) -> bytes:
            asked.append(name)
            return opened.read_range(name, start, length)

    def look() -> tuple[int, ...]:
        asked.clear()
        reader = ReadOnce(Counting())
        check(reader)
        inspect(reader)
        return tuple(asked.count(name) for name in ("config.json", "model.safetensors.index.json", "a.safetensors"))

    once = look()
    assert once[:2] == (1, 1)
    assert look() == once
