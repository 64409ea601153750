"""Model folders written anew: bit for bit what they were, the same bytes each time, whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conversion_folders import (
    CONFIG,
    contents,
    equal,
    folder,
    llama,
    pickled,
    sharded,
    weights_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import save
from written_pickles import saved, state, tensor, zipped

from headrace.resources.errors import Cancelled, HeadraceError
from headrace.storage import open_artifacts
from headrace.storage.converting import convert_folder
from headrace.weights import check
from headrace.weights.bfloat16 import to_bfloat16
from headrace.weights.conversion import (
    MARK_FILE,
    FolderPlan,
    Mark,
    Wanted,
    copying,
    plan_folder,
    read_mark,
    write_folder,
)

PICKLES = Path(__file__).with_name("fixtures_pickles")


def plan_of(source: Path, dtype: Wanted = "own", **options: int) -> FolderPlan:
    """What a folder becomes."""
    return plan_folder(open_artifacts(str(source)), dtype, **options)


def converted(source: Path, target: Path, dtype: Wanted = "own", **options: int) -> Path:
    """A folder, written anew."""
    target.mkdir()
    convert_folder(plan_of(source, dtype, **options), source, target)
    return target


def codes(root: Path) -> set[str]:
    """What the doctor says of the weights; the folder has no chat template and a tokenizer of one token."""
    found = {finding.code for finding in check(open_artifacts(str(root)))}
    return found - {"CHAT_TEMPLATE_MISSING"}


# --- what comes out -------------------------------------------------------------------------------------------------


def test_pickles_become_safetensors_bit_for_bit(tmp_path: Path) -> None:
    """The tensors are those that were saved, the small files come along, the pickle stays behind."""
    source = pickled(tmp_path / "source")
    assert codes(source) == {"WEIGHTS_PICKLED"}
    target = converted(source, tmp_path / "target")
    assert equal(weights_of(target), llama())
    assert codes(target) == set()
    before, after = contents(source), contents(target)
    assert set(after) == set(before) - {"pytorch_model.bin"} | {"model.safetensors", MARK_FILE}
    assert all(after[name] == before[name] for name in set(before) & set(after))
    mark = read_mark(open_artifacts(str(target)))
    assert mark == Mark("safetensors from a pickle")


def test_one_file_is_laid_out_as_the_safetensors_library_does(tmp_path: Path) -> None:
    """Header, order and padding are byte for byte those of the library, for every type that both know."""
    rng = np.random.default_rng(2)
    kinds = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    arrays = {f"{kind}.é{n}": rng.integers(0, 2, (3, n)).astype(kind) for kind in kinds for n in (1, 2)}
    target = converted(pickled(tmp_path / "source", llama() | arrays), tmp_path / "target")
    assert (target / "model.safetensors").read_bytes() == save(llama() | arrays, metadata={"format": "pt"})


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """However it was cut into pickles, and again and again: only the mark says from how many files it came."""
    whole, parts = pickled(tmp_path / "whole"), folder(tmp_path / "parts", sharded(llama()))
    results = [contents(converted(source, tmp_path / str(n))) for n, source in enumerate((whole, whole, parts))]
    assert results[0] == results[1]
    assert {name for name in results[0] if results[0][name] != results[2][name]} == {MARK_FILE}


def test_files_end_at_a_fixed_size_and_the_index_names_all(tmp_path: Path) -> None:
    """No file is larger than the rule says unless one tensor is; layers stay together; the doctor agrees."""
    source = pickled(tmp_path / "source", llama(layers=12), num_hidden_layers=12)
    target = converted(source, tmp_path / "target", shard_bytes=6000)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert equal(weights_of(target), llama(layers=12))
    files = sorted(target.glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert all(sum(array.nbytes for array in weights_of_file(file).values()) <= 6000 for file in files)
    order = [index["weight_map"][f"model.layers.{layer}.mlp.down_proj.weight"] for layer in range(12)]
    assert order == sorted(order)
    assert codes(target) == set()


def weights_of_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file."""
    from safetensors.numpy import load_file

    return load_file(path)


def test_both_forms_of_torch_give_what_torch_saved(tmp_path: Path) -> None:
    """The recorded files: a view is laid out anew, a second name for the same numbers gets its own copy of them."""
    found = []
    for form in ("zip", "legacy"):
        source = folder(tmp_path / form, {"pytorch_model.bin": (PICKLES / f"torch_{form}.bin").read_bytes()})
        plan = plan_of(source)
        target = tmp_path / f"{form}.out"
        target.mkdir()
        write_folder(plan, source, target)
        found.append((target / "model.safetensors").read_bytes())
    assert found[0] == found[1]
    header = json.loads(found[0][8 : 8 + int.from_bytes(found[0][:8], "little")])
    assert {name: each["shape"] for name, each in header.items() if name != "__metadata__"} == {
        "model.embed_tokens.weight": [10, 8],
        "lm_head.weight": [10, 8],
        "model.norm.weight": [8],
        "model.view": [6, 4],
    }


@pytest.mark.parametrize(("tied", "kept"), [(True, False), (False, True), (None, True)])
def test_a_tied_head_is_left_out_where_the_configuration_ties_it(tmp_path: Path, tied: object, kept: bool) -> None:
    """As transformers leaves it out; where config.json does not say so, both names keep their numbers."""
    arrays = llama()
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"][:]
    target = converted(pickled(tmp_path / "source", arrays, tie_word_embeddings=tied), tmp_path / "target")
    assert equal(weights_of(target), arrays if kept else {n: a for n, a in arrays.items() if n != "lm_head.weight"})
    assert codes(target) == set()


def test_a_head_with_numbers_of_its_own_stays(tmp_path: Path) -> None:
    """Whatever the configuration says: what differs from the embedding is not thrown away."""
    target = converted(pickled(tmp_path / "source", tie_word_embeddings=True), tmp_path / "target")
    assert equal(weights_of(target), llama())


# --- safetensors that are not quite in order ------------------------------------------------------------------------


def wrong_index(files: dict[str, bytes]) -> dict[str, bytes]:
    """Two tensors are said to be in each other's file."""
    name = "model.safetensors.index.json"
    index = json.loads(files[name])
    first, last = next(iter(index["weight_map"])), list(index["weight_map"])[-1]
    weight_map = index["weight_map"]
    weight_map[first], weight_map[last] = weight_map[last], weight_map[first]
    return files | {name: json.dumps(index).encode()}


def short_index(files: dict[str, bytes]) -> dict[str, bytes]:
    """Two tensors of the named files are not in it; a file that it does not name is nobody's."""
    name = "model.safetensors.index.json"
    index = json.loads(files[name])
    index["weight_map"] = dict(list(index["weight_map"].items())[1:-1])
    stray = save({"model.norm.weight": np.zeros(8, np.float32)}, metadata={"format": "pt"})
    return files | {name: json.dumps(index).encode(), "stray.safetensors": stray}


CURABLE: dict[str, tuple[Callable[[], dict[str, bytes]], str]] = {
    "no index": (lambda: sharded(llama(), "safetensors", index=False), "INDEX_MISSING"),
    "an index that is wrong": (lambda: wrong_index(sharded(llama(), "safetensors")), "WEIGHTS_MISSING"),
    "an index that is none": (
        lambda: sharded(llama(), "safetensors") | {"model.safetensors.index.json": b"{}"},
        "WEIGHTS_CORRUPT",
    ),
    "an index that lacks some": (lambda: short_index(sharded(llama(), "safetensors")), "TENSORS_UNINDEXED"),
    "another name": (lambda: {"weights.safetensors": save(llama(), metadata={"format": "pt"})}, "INDEX_MISSING"),
    "no format": (lambda: {"model.safetensors": save(llama())}, "WEIGHTS_FORMAT"),
}


@pytest.mark.parametrize("case", CURABLE)
def test_what_is_missing_around_the_weights_is_written(case: str, tmp_path: Path) -> None:
    """The doctor names the fault before, and none afterwards; the tensors are the same."""
    make, code = CURABLE[case]
    source = folder(tmp_path / "source", make())
    assert codes(source) == {code}
    target = converted(source, tmp_path / "target")
    assert codes(target) == set()
    assert equal(weights_of(target), llama())


def test_float32_is_rounded_on_request(tmp_path: Path) -> None:
    """Every float32 and float16 number to the nearest bfloat16; what is computed with in float32 stays."""
    arrays = llama() | {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.linspace(0, 1, 4, dtype=np.float32),
        "half": np.linspace(-1, 1, 7, dtype=np.float16),
        "counts": np.arange(5),
    }
    source = folder(tmp_path / "source", {"model.safetensors": save(arrays, metadata={"format": "pt"})})
    target = converted(source, tmp_path / "target", "bfloat16")
    header = (target / "model.safetensors").read_bytes()
    fields = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    kinds = {name: each["dtype"] for name, each in fields.items() if name != "__metadata__"}
    assert {name for name, kind in kinds.items() if kind != "BF16"} == {
        "counts",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    }
    begin, end = fields["half"]["data_offsets"]
    data = header[8 + int.from_bytes(header[:8], "little") :]
    assert data[begin:end] == to_bfloat16(arrays["half"].astype(np.float32)).tobytes()
    assert json.loads((target / "config.json").read_text()) == CONFIG | {"torch_dtype": "bfloat16"}


@settings(deadline=None)  # the first example waits for NumPy's
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_rounding_is_to_the_nearest_and_keeps_what_is_no_number(patterns: list[int]) -> None:
    """Of every pattern of bits: a NaN stays one with its sign; else no other bfloat16 is nearer, and ties are even."""
    values = np.array(patterns, np.uint32).view(np.float32)
    words = to_bfloat16(values)
    back = (words.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(np.isnan(back), np.isnan(values))
    assert np.array_equal(np.signbit(back), np.signbit(values))
    for value, word in zip(values.tolist(), words.tolist(), strict=True):
        if np.isfinite(value):
            neighbours = {word - 1, word, word + 1} if word & 0x7FFF else {word, word + 1}
            distances = {near: abs(as_float(near) - value) for near in neighbours}
            nearest = min(distances.values())
            assert distances[word] == nearest
            assert word % 2 == 0 or list(distances.values()).count(nearest) == 1


def as_float(word: int) -> float:
    """A bfloat16's number; infinity stands for the power of two above the largest, as in IEEE 754's rounding."""
    if word & 0x7FFF == 0x7F80:
        return -(2.0**128) if word & 0x8000 else 2.0**128
    if word & 0x7FFF > 0x7F80:
        return float("inf")
    return float(np.array([word << 16], np.uint32).view(np.float32)[0])


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """A view of an array: sliced with steps, transposed, an axis repeated without being copied."""
    kind = draw(st.sampled_from(["float64", "float32", "float16", "uint8", "complex64"]))
    shape = draw(arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    view = draw(arrays_of.arrays(np.dtype(kind), shape, elements=st.integers(0, 100)))
    for axis in range(view.ndim):
        step = draw(st.integers(1, 3))
        view = view[(slice(None),) * axis + (slice(draw(st.integers(0, 2)), None, step),)]
    if view.ndim:
        view = view.transpose(draw(st.permutations(range(view.ndim))))
    if draw(st.booleans()) and view.size:
        view = np.broadcast_to(view, (draw(st.integers(1, 4)), *view.shape))
    return view


@given(st.lists(views(), min_size=1, max_size=4), st.sampled_from([1, 24, 256, 2**24]))
@settings(max_examples=150, deadline=None)
def test_any_view_is_laid_out_as_numpy_does(found: list[np.ndarray], piece_bytes: int) -> None:
    """Whatever type, shape, strides and offset a saved view has, and in however small pieces it is copied."""
    import tempfile

    arrays = {f"w{number}": view for number, view in enumerate(found)}
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "PIECE_BYTES", max(piece_bytes, 8))
        source = pickled(Path(scratch) / "source", arrays)
        target = Path(scratch) / "target"
        target.mkdir()
        write_folder(plan_of(source), source, target)
        content = (target / "model.safetensors").read_bytes()
        header = json.loads(content[8 : (start := 8 + int.from_bytes(content[:8], "little"))])
        for name, view in arrays.items():
            begin, end = header[name]["data_offsets"]
            assert header[name]["shape"] == list(view.shape)
            assert content[start + begin : start + end] == np.ascontiguousarray(view).tobytes()


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(source: Path, dtype: Wanted = "own") -> HeadraceError:
    """Why a folder cannot be converted."""
    with pytest.raises(HeadraceError) as caught:
        plan_of(source, dtype)
    assert caught.value.evidence
    assert caught.value.fix
    return caught.value


def quantised() -> dict[str, bytes]:
    """A model of FP8 blocks whose scales are float32."""
    arrays = llama() | {"model.layers.0.mlp.down_proj.weight_scale_inv": np.ones((1, 1), np.float32)}
    return {"model.safetensors": save(arrays, metadata={"format": "pt"})}


EVIL = zipped(state(w=tensor())[:-1] + b"cos\nsystem\n(X\x04\x00\x00\x00trueoR0.")
HOSTILE: dict[str, tuple[dict[str, bytes], Wanted, str]] = {
    "in order": ({"model.safetensors": save(llama(), metadata={"format": "pt"})}, "own", "NOTHING_TO_CONVERT"),
    "bfloat16 already": (
        {"model.safetensors": save({"n": np.arange(3)}, metadata={"format": "pt"})},
        "bfloat16",
        "NOTHING_TO_CONVERT",
    ),
    "nothing": ({}, "own", "WEIGHTS_MISSING"),
    "a GGUF": ({"model.gguf": b"GGUF"}, "own", "WEIGHTS_QUANTISED"),
    "a pickle that runs": ({"pytorch_model.bin": EVIL}, "own", "PICKLE_UNSAFE"),
    "a pickle that is cut": ({"pytorch_model.bin": saved(llama())[:-500]}, "own", "WEIGHTS_TRUNCATED"),
    "a compressed pickle": ({"pytorch_model.bin": saved(llama(), method=8)}, "own", "CONVERSION_FAILED"),
    "a view beyond its storage": (
        {"pytorch_model.bin": zipped(state(w=tensor(shape=(5, 4))))},
        "own",
        "WEIGHTS_CORRUPT",
    ),
    "tensors in a collection": (
        {"pytorch_model.bin": zipped(state(w=tensor(), model=state(v=tensor())[2:-1]))},
        "own",
        "CONVERSION_FAILED",
    ),
    "no dense tensor": (
        {
            "pytorch_model.bin": zipped(
                state(w=tensor(), s=b"ctorch._utils\n_rebuild_sparse_tensor\n(ctorch\nsparse_coo\n)tR")
            )
        },
        "own",
        "CONVERSION_FAILED",
    ),
    "big-endian": ({"pytorch_model.bin": zipped(state(w=tensor()), [("data/0", b"\0" * 64), ("byteorder", b"big")])},
                   "own", "CONVERSION_FAILED"),
    "a tensor in two files": (
        {"a.safetensors": save(llama()), "b.safetensors": save(llama())},
        "own",
        "TENSORS_DUPLICATED",
    ),
    "TensorFlow's": ({"model.safetensors": save(llama(), metadata={"format": "tf"})}, "own", "WEIGHTS_FORMAT"),
    "quantised": (quantised(), "bfloat16", "CONVERSION_FAILED"),
    "an index of what is nowhere": (
        {
            "model.safetensors": save({"n": np.arange(3)}),
            "model.safetensors.index.json": b'{"weight_map": {"w": "other.safetensors"}}',
        },
        "own",
        "WEIGHTS_MISSING",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_converted_faithfully_is_refused_before_the_first_byte(case: str, tmp_path: Path) -> None:
    """Each with its own code, evidence and fix; nothing that a pickle asks for is run."""
    weights, dtype, code = HOSTILE[case]
    assert refused(folder(tmp_path / "source", weights), dtype).code == code


def test_a_result_that_could_not_be_deployed_is_not_kept(tmp_path: Path) -> None:
    """The doctor looks at what came out: a model whose layers are not all there gets no name."""
    arrays = {name: array for name, array in llama().items() if "layers.1" not in name}
    source = pickled(tmp_path / "source", arrays)
    (tmp_path / "target").mkdir()
    with pytest.raises(HeadraceError, match="could not be deployed") as caught:
        convert_folder(plan_of(source), source, tmp_path / "target")
    assert "TENSORS_MISSING" in caught.value.evidence


def test_a_conversion_stops_when_it_is_not_wanted_any_more(tmp_path: Path) -> None:
    """Between two pieces, with the error that says so."""
    source = pickled(tmp_path / "source")
    (tmp_path / "target").mkdir()
    with pytest.raises(Cancelled):
        convert_folder(plan_of(source), source, tmp_path / "target", cancelled=lambda: True)


def test_memory_stays_far_below_the_file(tmp_path: Path) -> None:
    """Of 300 MB in one pickle, half of it a transposed view, a child holds less than one shard and a tenth."""
    big = np.ones((6000, 6250), np.float32)
    arrays = llama() | {"straight": big, "turned": np.ones((6250, 6000), np.float32).T}
    source = pickled(tmp_path / "source", arrays)
    del arrays, big
    program = (
        "import re, sys; from pathlib import Path\n"
        "from headrace.storage import open_artifacts; from headrace.storage.converting import convert_folder\n"
        "from headrace.weights.conversion import plan_folder\n"
        "source, target = Path(sys.argv[1]), Path(sys.argv[2]); target.mkdir()\n"
        "plan = plan_folder(open_artifacts(str(source)), sys.argv[3])\n"
        "convert_folder(plan, source, target)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024)\n"
    )
    shard_bytes = (source / "pytorch_model.bin").stat().st_size
    for dtype in ("own", "bfloat16"):
        command = [sys.executable, "-c", program, str(source), str(tmp_path / dtype), dtype]
        peak_bytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{dtype}: peak {peak_bytes / shard_bytes:.2f} of the shard")
        assert peak_bytes < 1.1 * shard_bytes
    assert os.path.getsize(tmp_path / "bfloat16" / "model.safetensors") < 0.51 * shard_bytes
