"""Model folders with one fault each, made from the recorded structures of real architectures.

Their weights are headers that are true and data that is not there: a reader answers zeros, as of a sparse file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from written_pickles import pickle_of_zeros

RECORD = json.loads((Path(__file__).parent / "recorded_structures.json").read_text())
ARCHITECTURES: dict[str, dict[str, Any]] = RECORD["architectures"]

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1, "I32": 4}
TOKENIZER = b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'
INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"
STORAGES = {
    "F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
    "U8": "ByteStorage", "I8": "CharStorage", "I32": "IntStorage",
}  # fmt: skip
"""Of the types that torch has storages of."""


class Sparse:
    """A folder in memory whose weight files are a header and a length."""

    def __init__(self, files: dict[str, bytes], lengths: dict[str, int]) -> None:
        self.files, self.lengths = files, lengths

    def sizes(self) -> Mapping[str, int]:
        """The length of every file."""
        return {name: self.lengths.get(name, len(content)) for name, content in self.files.items()}

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """What is there, and zeros up to the file's length."""
        end = min(start + length, self.sizes()[name])
        return self.files[name][start:end].ljust(max(0, end - start), b"\0")


class Folder:
    """A folder that can still be changed: a configuration, and the tensors of each file with type and shape."""

    def __init__(self, architecture: str) -> None:
        recorded = copy.deepcopy(ARCHITECTURES[architecture])
        self.config: dict[str, Any] = recorded["config"]
        self.shards = {
            "model.safetensors": {name: ["F32", shape] for name, shape in recorded["tensors"].items()},
        }
        self.metadata: dict[str, str] | None = {"format": "pt"}
        self.data: dict[str, bytes] = {}
        self.index: dict[str, str] | None = None
        self.cut_bytes = 0
        self.mangle: Callable[[dict[str, Any]], object] = lambda header: None
        self.encode: Callable[[bytes], bytes] = lambda encoded: encoded

    @property
    def tensors(self) -> dict[str, list[Any]]:
        """Those of the first file."""
        return next(iter(self.shards.values()))

    def split(self) -> None:
        """Put the tensors into two files with an index."""
        items = list(self.tensors.items())
        half = len(items) // 2
        self.shards = {
            f"model-0000{number}-of-00002.safetensors": dict(part)
            for number, part in enumerate((items[:half], items[half:]), start=1)
        }
        self.index = {tensor: file for file, tensors in self.shards.items() for tensor in tensors}

    def reader(self) -> Sparse:
        """The folder as a reader."""
        files = {
            "config.json": json.dumps(self.config).encode(),
            "tokenizer.json": TOKENIZER,
            "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        }
        lengths = {}
        for file, tensors in self.shards.items():
            files[file], lengths[file] = self._file(tensors)
        if self.index is not None:
            files[INDEX] = json.dumps({"weight_map": self.index}).encode()
        return Sparse(files, lengths)

    def pickled(self) -> Sparse:
        """The same folder with its weights as ``torch.save`` writes them."""
        files = {name: content for name, content in self.reader().files.items() if "safetensors" not in name}
        names = {file: file.replace("model", "pytorch_model").replace("safetensors", "bin") for file in self.shards}
        for file, tensors in self.shards.items():
            files[names[file]] = pickle_of_zeros(
                {name: (STORAGES[dtype], BYTES[dtype], tuple(shape)) for name, (dtype, shape) in tensors.items()}
            )
        if self.index is not None:
            index = {tensor: names[file] for tensor, file in self.index.items()}
            files[BIN_INDEX] = json.dumps({"weight_map": index}).encode()
        return Sparse(files, {})

    def _file(self, tensors: dict[str, list[Any]]) -> tuple[bytes, int]:
        header: dict[str, Any] = {} if self.metadata is None else {"__metadata__": self.metadata}
        end, data = 0, b""
        for name, (dtype, shape) in tensors.items():
            start, end = end, end + prod(shape) * BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
            if name in self.data:
                data = data.ljust(start, b"\0") + self.data[name]
        self.mangle(header)
        encoded = self.encode(json.dumps(header).encode())
        return len(encoded).to_bytes(8, "little") + encoded + data, 8 + len(encoded) + end - self.cut_bytes


Change = Callable[[Folder], object]


def config(**fields: Any) -> Change:
    """Change fields of the configuration."""
    return lambda folder: folder.config.update(fields)


def drop(*parts: str) -> Change:
    """Leave out the tensors whose names hold one of these."""

    def change(folder: Folder) -> None:
        for name in [name for name in folder.tensors if any(part in name for part in parts)]:
            del folder.tensors[name]

    return change


def stored(dtype: str, part: str = "") -> Change:
    """Change the type of the tensors whose names hold this."""

    def change(folder: Folder) -> None:
        for name, tensor in folder.tensors.items():
            if part in name:
                tensor[0] = dtype

    return change


def add(**tensors: tuple[str, list[int]]) -> Change:
    """Add tensors; two underscores stand for a point."""
    return lambda folder: folder.tensors.update({name.replace("__", "."): list(t) for name, t in tensors.items()})


def reshaped(part: str, shape: list[int]) -> Change:
    """Give the tensors whose names hold this another shape."""

    def change(folder: Folder) -> None:
        for name, tensor in folder.tensors.items():
            if part in name:
                tensor[1] = shape

    return change


def metadata(value: dict[str, str] | None) -> Change:
    """Change the notes in the headers."""
    return lambda folder: setattr(folder, "metadata", value)


def twice(folder: Folder) -> None:
    """One tensor in both shards."""
    folder.split()
    first, second = folder.shards.values()
    name = next(iter(first))
    second[name] = first[name]


def unindexed(folder: Folder) -> None:
    """One tensor more than the index has."""
    folder.split()
    assert folder.index
    folder.tensors["adapter.weight"] = ["F32", [2, 2]]


def misplaced(folder: Folder) -> None:
    """The index looks for a tensor in the other file."""
    folder.split()
    assert folder.index
    first, second = folder.shards
    folder.index[next(iter(folder.shards[first]))] = second


def renamed(folder: Folder) -> None:
    """The names of another library."""
    folder.shards = {"model.safetensors": {f"tok.{n}": t for n, t in enumerate(folder.tensors.values())}}


def cut(folder: Folder) -> None:
    """The last byte is not there."""
    folder.cut_bytes = 1


def moved(start: int, end: int) -> Change:
    """Shift where the second tensor begins and ends."""

    def mangle(header: dict[str, Any]) -> None:
        offsets = list(header.values())[2]["data_offsets"]
        offsets[:] = [offsets[0] + start, offsets[1] + end]

    return lambda folder: setattr(folder, "mangle", mangle)


def encoded(change: Callable[[bytes], bytes]) -> Change:
    """Change the header's bytes."""
    return lambda folder: setattr(folder, "encode", change)


def native(architecture: str, method: str, **sizes: Any) -> Change:
    """A listed base model's configuration, with few tensors."""
    return config(model_type=architecture, quantization_config={"quant_method": method}, **sizes)


GPT_OSS_20B = {"num_hidden_layers": 24, "hidden_size": 2880, "vocab_size": 201088, "num_local_experts": 32}
DEEPSEEK_V3 = {"num_hidden_layers": 61, "hidden_size": 7168, "vocab_size": 129280, "n_routed_experts": 256}

FAULTS: dict[str, tuple[str, Change, str, str]] = {
    "llama: wider": ("llama", config(hidden_size=64), "SHAPE_MISMATCH", "error"),
    "llama: more heads for keys": ("llama", config(num_key_value_heads=4), "SHAPE_MISMATCH", "error"),
    "llama: wider heads": ("llama", config(head_dim=32), "SHAPE_MISMATCH", "error"),
    "llama: another vocabulary": ("llama", config(vocab_size=331), "SHAPE_MISMATCH", "error"),
    "llama: a layer more": ("llama", config(num_hidden_layers=3), "TENSORS_MISSING", "error"),
    "llama: many layers more": ("llama", config(num_hidden_layers=10_000), "TENSORS_MISSING", "error"),
    "llama: layers without end": ("llama", config(num_hidden_layers=2**39), "CONFIG_INVALID", "error"),
    "llama: a layer less": ("llama", config(num_hidden_layers=1), "LAYERS_UNEXPECTED", "warning"),
    "llama: judges texts": (
        "llama",
        lambda folder: (
            drop("lm_head")(folder),
            folder.config.update(architectures=["LlamaForSequenceClassification"]),
        ),
        "OUTPUT_HEAD_MISSING",
        "error",
    ),
    "llama: no head": ("llama", drop("lm_head"), "OUTPUT_HEAD_MISSING", "error"),
    "llama: a head too many": ("llama", config(tie_word_embeddings=True), "OUTPUT_HEAD_IGNORED", "warning"),
    "llama: no embedding": ("llama", drop("embed_tokens"), "TENSORS_MISSING", "error"),
    "llama: an unknown type": ("llama", config(model_type="turbine"), "ARCHITECTURE_UNKNOWN", "warning"),
    "llama: foreign names": ("llama", renamed, "TENSORS_UNRECOGNISED", "warning"),
    "llama: no format": ("llama", metadata(None), "WEIGHTS_FORMAT", "warning"),
    "llama: an empty note": ("llama", metadata({"by": "me"}), "WEIGHTS_FORMAT", "warning"),
    "llama: from TensorFlow": ("llama", metadata({"format": "tf"}), "WEIGHTS_FORMAT", "error"),
    "llama: twice": ("llama", twice, "TENSORS_DUPLICATED", "warning"),
    "llama: unindexed": ("llama", unindexed, "TENSORS_UNINDEXED", "warning"),
    "llama: misplaced": ("llama", misplaced, "WEIGHTS_MISSING", "error"),
    "llama: cut": ("llama", cut, "WEIGHTS_TRUNCATED", "error"),
    "qwen2: half in another type": ("qwen2", stored("BF16", "mlp"), "DTYPE_MIXED", "warning"),
    "qwen2: another type": ("qwen2", config(dtype="bfloat16"), "DTYPE_MISMATCH", "warning"),
    "qwen2: AWQ": ("qwen2", config(quantization_config={"quant_method": "awq"}), "WEIGHTS_QUANTISED", "error"),
    "qwen3: a norm of the wrong width": ("qwen3", config(head_dim=8), "SHAPE_MISMATCH", "error"),
    "mistral: no norm": ("mistral", drop("model.norm"), "TENSORS_MISSING", "error"),
    "mistral: GPTQ by its tensors": ("mistral", add(a__g_idx=("I32", [4])), "WEIGHTS_QUANTISED", "error"),
    "mixtral: an expert left behind": ("mixtral", drop("experts.1.w2"), "TENSORS_MISSING", "error"),
    "qwen3_moe: an expert left behind": ("qwen3_moe", drop("layers.1.mlp.experts.2.up"), "TENSORS_MISSING", "error"),
    "qwen2_moe: other experts": ("qwen2_moe", config(moe_intermediate_size=30), "SHAPE_MISMATCH", "error"),
    "gpt2: fewer positions": ("gpt2", config(n_positions=128), "SHAPE_MISMATCH", "error"),
    "gpt2: a block without its network": ("gpt2", drop("h.1.mlp.c_fc"), "TENSORS_MISSING", "error"),
    "gpt_bigcode: GPTQ": (
        "gpt_bigcode", config(quantization_config={"quant_method": "gptq"}), "WEIGHTS_QUANTISED", "error",
    ),
    "gpt_bigcode: heads of their own": (
        "gpt_bigcode", config(multi_query=False, num_key_value_heads=None), "SHAPE_MISMATCH", "error",
    ),
    "gpt_neox: no head": ("gpt_neox", drop("embed_out"), "OUTPUT_HEAD_MISSING", "error"),
    "gptj: transposed": ("gptj", reshaped("mlp.fc_in.weight", [48, 192]), "SHAPE_MISMATCH", "error"),
    "bloom: an attention left behind": ("bloom", drop("h.0.self_attention"), "TENSORS_MISSING", "error"),
    "falcon: fewer key heads": ("falcon", config(num_kv_heads=1, num_key_value_heads=1), "SHAPE_MISMATCH", "error"),
    "mpt: wider": ("mpt", config(d_model=64), "SHAPE_MISMATCH", "error"),
    "opt: a layer more": ("opt", config(num_hidden_layers=4), "TENSORS_MISSING", "error"),
    "phi3: unfused": ("phi3", drop("qkv_proj"), "TENSORS_MISSING", "error"),
    "gemma2: wider network": ("gemma2", config(intermediate_size=96), "SHAPE_MISMATCH", "error"),
    "t5: a decoder of three": ("t5", config(num_decoder_layers=3), "TENSORS_MISSING", "error"),
    "t5: narrower keys": ("t5", config(d_kv=8), "SHAPE_MISMATCH", "error"),
    "bert: no words": ("bert", drop("word_embeddings"), "TENSORS_MISSING", "error"),
    "mamba: another state": ("mamba", config(state_size=7), "SHAPE_MISMATCH", "error"),
    "deepseek_v3: another rank": ("deepseek_v3", config(kv_lora_rank=24), "SHAPE_MISMATCH", "error"),
    "deepseek_v3: its own FP8": ("deepseek_v3", native("deepseek_v3", "fp8", **DEEPSEEK_V3), "NATIVE_QUANTISATION",
                                 "warning"),
    "deepseek_v3: small and FP8": ("deepseek_v3", native("deepseek_v3", "fp8"), "WEIGHTS_QUANTISED", "error"),
    "gpt_oss: its own MXFP4": ("gpt_oss", native("gpt_oss", "mxfp4", **GPT_OSS_20B), "NATIVE_QUANTISATION", "warning"),
    "gpt_oss: in bitsandbytes": (
        "gpt_oss", native("gpt_oss", "bitsandbytes", **GPT_OSS_20B), "WEIGHTS_QUANTISED", "error",
    ),
    "granite: FP8 by its tensors": ("granite", stored("F8_E4M3", "mlp.up_proj"), "WEIGHTS_QUANTISED", "error"),
    "olmo: compressed": ("olmo", add(a__weight_packed=("I32", [4, 4])), "WEIGHTS_QUANTISED", "error"),
    "nemotron: NF4": ("nemotron", add(a__weight__absmax=("F32", [4])), "WEIGHTS_QUANTISED", "error"),
    "llama4: other experts": ("llama4_text", config(intermediate_size=88), "SHAPE_MISMATCH", "error"),
    "qwen3_next: an expert left behind": ("qwen3_next", drop("experts.1.gate_proj"), "TENSORS_MISSING", "error"),
    "qwen3_next: fewer linear heads": ("qwen3_next", config(linear_num_key_heads=1), "SHAPE_MISMATCH", "error"),
    "bart: a decoder of one": ("bart", config(decoder_layers=1), "LAYERS_UNEXPECTED", "warning"),
    "granitemoehybrid: other groups": ("granitemoehybrid", config(mamba_n_groups=2), "SHAPE_MISMATCH", "error"),
    "cohere: an overlap": ("cohere", moved(-4, 0), "WEIGHTS_CORRUPT", "error"),
    "glm: a hole": ("glm", moved(4, 4), "WEIGHTS_CORRUPT", "error"),
    "stablelm: beyond the end": ("stablelm", moved(0, 2**40), "WEIGHTS_CORRUPT", "error"),
    "smollm3: no JSON": ("smollm3", encoded(lambda header: header[:-1]), "WEIGHTS_CORRUPT", "error"),
    "codegen: an endless header": (
        "codegen", encoded(lambda header: header.ljust(100_000_001)), "WEIGHTS_CORRUPT", "error",
    ),
    "persimmon: fewer heads": ("persimmon", config(num_attention_heads=3), "SHAPE_MISMATCH", "error"),
}  # fmt: skip
"""Architecture, fault, code and severity of each."""


OF_SAFETENSORS = frozenset({"WEIGHTS_FORMAT", "TENSORS_UNINDEXED", "WEIGHTS_TRUNCATED", "WEIGHTS_CORRUPT"})
"""Codes of faults that only a safetensors file can have, or that are made there in its bytes."""


def broken(name: str) -> Folder:
    """The folder of a fault."""
    architecture, change, *_ = FAULTS[name]
    folder = Folder(architecture)
    change(folder)
    return folder
