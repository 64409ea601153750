"""The doctor on structure: healthy folders of every architecture give nothing, broken ones exactly their code."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_corpus import (
    ARCHITECTURES,
    DEEPSEEK_V3,
    FAULTS,
    GPT_OSS_20B,
    OF_SAFETENSORS,
    RECORD,
    STORAGES,
    Folder,
    Sparse,
    broken,
    native,
)
from written_pickles import saved

from headrace.weights import check, inspect
from headrace.weights.architectures import families, place_of
from headrace.weights.base_models import base_model, base_models
from headrace.weights.header import TensorEntry
from headrace.weights.parameters import count_parameters
from headrace.weights.quantisation import method_of
from headrace.weights.reader import ReadOnce
from headrace.weights.specifications import certified_table, specifications_for


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_healthy_folder_gives_no_finding(name: str) -> None:
    """What transformers writes is right, whatever the architecture."""
    assert check(Folder(name).reader()) == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_recorded_tensor_is_described_or_left_out_on_purpose(name: str) -> None:
    """The table knows each matrix of the text part, so that nothing passes because nothing was compared."""
    config = ARCHITECTURES[name]["config"]
    family = config.get("text_config", config)["model_type"]
    rows = families()[family]
    undescribed = [
        tensor
        for tensor in ARCHITECTURES[name]["tensors"]
        if place_of(tensor).pattern not in rows
        and not tensor.endswith("bias")
        and not tensor.startswith(("vision_tower", "multi_modal_projector"))
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_gives_exactly_its_code(name: str) -> None:
    """Each broken folder is named by one finding, with evidence and a fix."""
    *_, code, severity = FAULTS[name]
    findings = check(broken(name).reader())
    assert [(finding.code, finding.severity) for finding in findings] == [(code, severity)]
    assert findings[0].evidence
    assert findings[0].fix


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_healthy_folder_of_pickles_is_only_said_to_be_that(name: str) -> None:
    """The same tensors as torch pickles them."""
    assert [finding.code for finding in check(Folder(name).pickled())] == ["WEIGHTS_PICKLED"]


def _can_be_pickled(name: str) -> bool:
    """Whether torch has a storage for each of its tensors."""
    return all(dtype in STORAGES for tensors in broken(name).shards.values() for dtype, _ in tensors.values())


@pytest.mark.parametrize(
    "name",
    [name for name, (*_, code, _) in FAULTS.items() if code not in OF_SAFETENSORS and _can_be_pickled(name)],
)
def test_pickles_are_held_against_the_configuration_as_safetensors_are(name: str) -> None:
    """The same fault gives the same code, evidence and severity, beside the warning that these are pickles."""
    folder = broken(name)
    (expected,) = check(folder.reader())
    found = [finding for finding in check(folder.pickled()) if finding.code != "WEIGHTS_PICKLED"]
    assert [(finding.code, finding.severity) for finding in found] == [(expected.code, expected.severity)]
    assert found[0].message == expected.message.replace("model.safetensors.index", "pytorch_model.bin.index")


@pytest.mark.parametrize("tied", [True, False, None])
def test_a_head_that_shares_the_embeddings_numbers_is_no_fault(tied: bool | None) -> None:
    """As torch pickles a tied model: one storage, two names. One with numbers of its own is told."""
    files = Folder("llama").pickled().files
    own = Folder("llama")
    own.config["tie_word_embeddings"] = tied
    files["config.json"] = json.dumps(own.config).encode()
    files["pytorch_model.bin"] = saved(tied_arrays(own))
    assert [finding.code for finding in check(Sparse(files, {}))] == ["WEIGHTS_PICKLED"]
    own.config["tie_word_embeddings"] = True
    assert [finding.code for finding in check(own.pickled())] == ["WEIGHTS_PICKLED", "OUTPUT_HEAD_IGNORED"]


def tied_arrays(folder: Folder) -> dict[str, np.ndarray]:
    """A folder's tensors, the head a view of the embedding."""
    arrays = {name: np.zeros(shape, np.float32) for name, (_, shape) in folder.tensors.items()}
    return arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"][:]}


def test_the_corpus_is_wide() -> None:
    """Many faults over many architectures, recorded with a version that is told."""
    assert len(FAULTS) >= 45
    assert len({architecture for architecture, *_ in FAULTS.values()}) >= 20
    assert RECORD["recorded with"].startswith("transformers ")


def test_a_mismatch_shows_both_shapes_and_the_formula() -> None:
    """A reader of the finding can do the sum."""
    (finding,) = check(broken("gemma2: wider network").reader())
    assert "model.layers.0.mlp.down_proj.weight is [48, 80]" in finding.evidence
    assert "[48, 96] (hidden, ffn)" in finding.evidence


@pytest.mark.parametrize("prefix", ["model.", "", "model.language_model.", "language_model.model."])
def test_names_around_a_model_do_not_matter(prefix: str) -> None:
    """A model saved by another of its classes has the same tensors."""
    folder = Folder("llama")
    folder.shards = {
        "model.safetensors": {name.replace("model.", prefix, 1): tensor for name, tensor in folder.tensors.items()}
    }
    assert check(folder.reader()) == []


def named(folder: Folder, old: str, new: str) -> None:
    """Write the tensors under another name."""
    folder.shards = {"model.safetensors": {name.replace(old, new): tensor for name, tensor in folder.tensors.items()}}


def with_rotary_buffers(folder: Folder) -> None:
    """As the first Llama 2 folders have them."""
    folder.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ["F32", [8]]


def with_masks(folder: Folder) -> None:
    """As GPT-2 was published: no name around it, and a mask in each layer."""
    named(folder, "transformer.", "")
    folder.tensors["h.0.attn.bias"] = ["F32", [1, 1, 264, 264]]


def with_old_norms(folder: Folder) -> None:
    """As the first BERT was published."""
    named(folder, "LayerNorm.weight", "LayerNorm.gamma")
    named(folder, "LayerNorm.bias", "LayerNorm.beta")
    folder.shards = {"model.safetensors": {f"bert.{name}": tensor for name, tensor in folder.tensors.items()}}
    folder.tensors["cls.predictions.bias"] = ["F32", [330]]


def with_the_embedding_thrice(folder: Folder) -> None:
    """As T5 was published: shared, and for either half."""
    for half in ("encoder", "decoder"):
        folder.tensors[f"{half}.embed_tokens.weight"] = folder.tensors["shared.weight"]


def with_the_head_for_the_embedding(folder: Folder) -> None:
    """Of two tied tensors, safetensors keeps one, and not always the same."""
    named(folder, "transformer.wte.weight", "lm_head.weight")
    del folder.config["tie_word_embeddings"]


def with_a_layer_that_guesses(folder: Folder) -> None:
    """DeepSeek V3 brings a layer after its last."""
    folder.config["num_nextn_predict_layers"] = 1
    folder.tensors["model.layers.2.input_layernorm.weight"] = ["F32", [48]]


def without_what_its_family_means(folder: Folder) -> None:
    """A size that is not said, and that the family does not derive as others do."""
    del folder.config["head_dim"], folder.config["num_key_value_heads"]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama", with_rotary_buffers),
        ("gpt2", with_masks),
        ("bert", with_old_norms),
        ("t5", with_the_embedding_thrice),
        ("gpt2", with_the_head_for_the_embedding),
        ("deepseek_v3", with_a_layer_that_guesses),
        ("gemma2", without_what_its_family_means),
        ("qwen3", without_what_its_family_means),
    ],
)
def test_oddities_of_published_models_are_no_fault(name: str, published: Callable[[Folder], None]) -> None:
    """Models that everybody uses are not refused for how they were saved."""
    folder = Folder(name)
    published(folder)
    assert check(folder.reader()) == []


def test_of_a_store_headers_are_read_at_once_and_small_files_once() -> None:
    """Each read is a round trip there: no header waits for another's, and no file is asked for twice."""
    folder = Folder("llama")
    folder.split()
    inner, together, asked = folder.reader(), threading.Barrier(2, timeout=30), list[tuple[str, int]]()

    class Far:
        address = "s3://bucket/model"

        def sizes(self) -> Mapping[str, int]:
            return inner.sizes()

        def read_range(self, name: str, start: int, length: int) -> bytes:
            asked.append((name, start))
            if name.endswith(".safetensors"):
                together.wait()  # breaks where one comes alone
            return inner.read_range(name, start, length)

    reader = ReadOnce(Far())
    assert check(reader) == []
    assert inspect(reader).parameters
    assert len(asked) == len(set(asked))


class Counted(Sparse):
    """Counts the bytes that are read of it."""

    read_bytes = 0

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """What is there, counted."""
        content = super().read_range(name, start, length)
        self.read_bytes += len(content)
        return content


def _large() -> Folder:
    """The recorded gpt-oss with the sizes of its 120B and 151 layers, in 49 files: 480 billion numbers of 16 bits."""
    folder = Folder("gpt_oss")
    layers, wide = 151, {330: 201_088, 48: 2880, 80: 2880, 160: 5760, 3: 128, 32: 512, 64: 4096, 4: 64}
    folder.config |= {"num_hidden_layers": layers, "layer_types": ["sliding_attention", "full_attention"] * 75}
    folder.config["layer_types"] += ["full_attention"]
    folder.config |= {"hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 128, "vocab_size": 201_088}
    folder.config |= {"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "dtype": "bfloat16"}
    every = [
        (name.replace("layers.0.", f"layers.{layer}."), ["BF16", [wide[size] for size in shape]])
        for name, (_, shape) in folder.tensors.items()
        for layer in (range(layers) if ".layers.0." in name else (0,))
        if ".layers.1." not in name
    ]
    folder.shards = {f"model-{part + 1:05}-of-00049.safetensors": dict(every[part::49]) for part in range(49)}
    folder.index = {tensor: file for file, tensors in folder.shards.items() for tensor in tensors}
    return folder


def test_a_checkpoint_of_480_billion_parameters_costs_a_few_hundred_kilobytes() -> None:
    """Where a layer's experts are one tensor, as gpt-oss and what transformers 5 writes have them: headers and index.

    Its tokenizer, which is read whole, is small here. One tensor for each expert is a hundred times as many names.
    """
    files = _large().reader()
    reader = Counted(files.files, files.lengths)
    once = ReadOnce(reader)
    assert check(once) == []
    assert 480e9 < inspect(once).parameters < 490e9
    assert sum(reader.sizes().values()) > 960e9
    assert reader.read_bytes < 600_000


def test_an_encoder_alone_is_whole() -> None:
    """A T5 that was published without its decoder lacks nothing."""
    folder = Folder("t5")
    for name in [name for name in folder.tensors if name.startswith("decoder.")]:
        del folder.tensors[name]
    assert check(folder.reader()) == []


@pytest.mark.parametrize(
    ("dtype", "packed"),
    [
        ("F16", b"\x00\x7c"),
        ("BF16", b"\xc0\x7f"),
        ("F32", struct.pack("<f", float("nan"))),
        ("F64", struct.pack("<d", float("-inf"))),
    ],
)
def test_a_number_that_is_none_is_found_when_asked_for(dtype: str, packed: bytes) -> None:
    """NaN and infinity are found in each type, and only if a sample is wanted."""
    folder = Folder("phi")
    name = list(folder.tensors)[5]
    for tensor in folder.tensors.values():
        tensor[0] = dtype
    folder.config["dtype"] = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}[dtype]
    assert check(folder.reader(), sample=True) == []
    folder.data[name] = packed
    assert check(folder.reader()) == []
    (finding,) = check(folder.reader(), sample=True)
    assert (finding.code, finding.severity) == ("TENSOR_NOT_FINITE", "error")
    assert name in finding.evidence


def test_a_pickled_number_that_is_none_is_found_when_asked_for() -> None:
    """In its storage's middle, too; not where only a view's neighbours are none, nor unasked."""
    own = Folder("llama")
    arrays = {name: np.zeros(shape, np.float32) for name, (_, shape) in own.tensors.items()}
    files = own.pickled().files

    def found(changed: dict[str, np.ndarray], *, sample: bool = True) -> list[tuple[str, str]]:
        content = Sparse(files | {"pytorch_model.bin": saved(arrays | changed)}, {})
        return [(each.code, each.evidence) for each in check(content, sample=sample) if each.code != "WEIGHTS_PICKLED"]

    name = "model.norm.weight"
    (width,) = arrays[name].shape
    storage = np.zeros(3 * width, np.float32)
    storage[:width] = np.nan
    assert found({name: storage[width : 2 * width]}) == []
    assert found({name: storage[::3]}) == []  # numbers of its own and others: not looked at
    storage[width] = np.inf
    ((code, evidence),) = found({name: storage[width : 2 * width]})
    assert (code, evidence) == ("TENSOR_NOT_FINITE", f"{name}: 1 of its first {width} numbers.")
    assert found({name: storage[width : 2 * width]}, sample=False) == []


def test_a_publishers_own_quantisation_is_refused_only_strictly() -> None:
    """The listed base models are taken as they are published, unless the check is strict."""
    for name in ("deepseek_v3: its own FP8", "gpt_oss: its own MXFP4"):
        (finding,) = check(broken(name).reader(), strict=True)
        assert (finding.code, finding.severity) == ("NATIVE_QUANTISATION", "error")


@pytest.mark.parametrize(
    ("name", "dtype", "method"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "U8", "mxfp4"),
        ("model.layers.0.mlp.up_proj.qzeros", "I32", "awq"),
        ("model.layers.0.mlp.up_proj.SCB", "F32", "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", "fp8"),
        ("model.layers.0.mlp.up_proj.weight", "F16", None),
    ],
)
def test_tensors_betray_their_method(name: str, dtype: str, method: str | None) -> None:
    """A configuration that does not say it is not believed."""
    found = method_of({"model_type": "llama"}, [TensorEntry(name, dtype, (4, 4), 16, "m")])
    assert (found and found[0]) == method


@pytest.mark.parametrize(
    ("model_type", "method", "specifications"),
    [
        ("gpt_bigcode", "gptq", ("watsonx-cfm-caikit-1.0", "watsonx-cfm-caikit-1.1")),
        ("gpt_bigcode", "awq", ()),
        ("qwen2", "awq", ("watsonx-cfm-caikit-1.1",)),
        ("mixtral", "gptq", ("watsonx-cfm-caikit-1.1",)),
        ("t5", None, ("watsonx-cfm-caikit-1.0",)),
        ("gemma", None, ("watsonx-cfm-caikit-1.1",)),
        ("gpt_neox", None, ("watsonx-cfm-caikit-1.0", "watsonx-cfm-caikit-1.1")),
        ("tinytimemixer", None, ("watsonx-tsfm-runtime-1.0",)),
        ("qwen3", None, ()),
    ],
)
def test_the_certified_table_is_the_documents(
    model_type: str, method: str | None, specifications: tuple[str, ...]
) -> None:
    """Architecture and method decide which specification is certified."""
    assert specifications_for({"model_type": model_type}, method) == specifications


def test_a_refused_method_names_the_specifications_that_accept_it() -> None:
    """Of Qwen2 in AWQ one does; of StarCoder in AWQ none, and none is made up."""
    (taken,) = check(broken("qwen2: AWQ").reader())
    assert "`--specification watsonx-cfm-caikit-1.1`, of watsonx.ai, takes these" in taken.evidence
    folder = Folder("gpt_bigcode")
    folder.config["quantization_config"] = {"quant_method": "awq"}
    (refused,) = check(folder.reader())
    assert "watsonx" not in refused.evidence


def test_the_certified_table_is_whole() -> None:
    """Every line is there, those with another name under the type that config.json has."""
    assert {"gpt_neox", "qwen2", "jais", "codegen", "tinytimemixer"} <= set(certified_table())
    assert len(certified_table()["qwen2"]) == 2
    assert not certified_table()["mixtral"][0].tensor_parallel


def test_every_listed_base_model_is_recognised_as_itself() -> None:
    """Each entry's own sizes lead to it and to no other."""
    for model in base_models():
        names = {
            "decoder_layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "vocab": "vocab_size",
            "experts": "num_experts",
        }
        raw = {"model_type": model.model_type} | {names.get(key, key): size for key, size in model.sizes.items()}
        assert base_model(raw) == model
        assert base_model(raw, int(model.parameters_billions * 1e9)) == model
        assert base_model(raw, int(model.parameters_billions * 0.8e9)) is None


def test_what_is_not_listed_is_none() -> None:
    """A tiny llama is no Llama."""
    assert base_model(ARCHITECTURES["llama"]["config"]) is None


def test_active_parameters_leave_out_idle_experts() -> None:
    """Of three experts, two are used: a third of the experts' numbers is idle."""
    folder = Folder("mixtral")
    tensors = inspect(folder.reader()).tensors
    total, active = count_parameters(folder.config, tensors)
    assert total == sum(tensor.elements for tensor in tensors)
    assert total - active == 2 * 3 * 80 * 48
    dense = Folder("llama")
    total, active = count_parameters(dense.config, inspect(dense.reader()).tensors)
    assert total == active


def test_packed_numbers_are_counted_unpacked() -> None:
    """Two 4-bit numbers lie in a byte, eight in a word; scales are no parameters."""
    entries = [
        TensorEntry("a.gate_up_proj_blocks", "U8", (2, 8), 16, "m"),
        TensorEntry("a.gate_up_proj_scales", "U8", (2, 8), 16, "m"),
        TensorEntry("b.qweight", "I32", (2, 8), 64, "m"),
        TensorEntry("b.g_idx", "I32", (8,), 32, "m"),
    ]
    assert count_parameters({"model_type": "gpt_oss"}, entries).total == 32 + 128


def test_listed_sizes_are_used_by_the_corpus() -> None:
    """The two native formats stand in the list."""
    for architecture, method, sizes in (("gpt_oss", "mxfp4", GPT_OSS_20B), ("deepseek_v3", "fp8", DEEPSEEK_V3)):
        folder = Folder(architecture)
        native(architecture, method, **sizes)(folder)
        model = base_model(folder.config)
        assert model is not None
        assert model.native_quantisation == method


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=3))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_configuration_breaks_the_doctor(data: st.DataObject) -> None:
    """Whatever a field of config.json is, the answer is a list of findings, in bounded time."""
    folder = Folder(data.draw(st.sampled_from(sorted(ARCHITECTURES))))
    for key in data.draw(st.lists(st.sampled_from(sorted(folder.config)), max_size=4)):
        folder.config[key] = data.draw(values)
    reader = folder.reader()
    for finding in check(reader):
        assert len(finding.evidence) < 4000


DEEP = b"[" * 700 + b"]" * 700


@pytest.mark.parametrize(
    "field",
    [
        b'"hidden_size": ' + DEEP,
        b'"architectures": ' + DEEP,
        b'"dtype": ' + DEEP,
        b'"quantization_config": {"quant_method": ' + DEEP + b"}",
        b'"intermediate_size": ' + b"9" * 4000,
        b'"head_dim": ' + b"9" * 4000 + b', "num_key_value_heads": 1048576',
        b'"num_local_experts": 1000000000000',
    ],
)
def test_what_an_attacker_writes_is_only_a_finding(field: bytes) -> None:
    """Values too deep to be shown and numbers too long to be printed are survived."""
    for name in ("llama", "mixtral"):
        reader = Folder(name).reader()
        kept = {key: value for key, value in ARCHITECTURES[name]["config"].items() if f'"{key}"'.encode() not in field}
        reader.files["config.json"] = json.dumps(kept).encode()[:-1] + b", " + field + b"}"
        for finding in check(reader):
            assert len(finding.evidence) < 4000


def test_an_index_too_deep_to_be_shown_is_only_a_finding() -> None:
    """It is named as what it is."""
    folder = Folder("llama")
    folder.split()
    reader = folder.reader()
    reader.files["model.safetensors.index.json"] = b'{"weight_map": ' + DEEP + b"}"
    assert [finding.code for finding in check(reader)] == ["WEIGHTS_CORRUPT"]


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=60), shape=st.lists(st.integers(0, 50), max_size=4))
def test_no_tensor_name_breaks_the_doctor(name: str, shape: list[int]) -> None:
    """Any name is the table's or nobody's."""
    place_of(name)
    folder: Any = Folder("llama")
    if name != "__metadata__":
        folder.tensors[name] = ["F32", shape]
        json.dumps([finding.code for finding in check(folder.reader(), sample=True)])
