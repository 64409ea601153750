"""PyTorch's pickles: described without being run, whatever they hold."""

import collections
import os
import pickle
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_pickles import state, tensor, zipped

from headrace.resources.errors import HeadraceError, PickleUnsafe, WeightsCorrupt, WeightsTruncated
from headrace.weights.pickles import check_unloaded, read_pickle
from headrace.weights.pickles.machine import MAX_INSTRUCTIONS

FIXTURES = Path(__file__).with_name("fixtures_pickles")
RECORDED = {path.stem: path.read_bytes() for path in FIXTURES.glob("*.bin")}
"""Written by torch 2.13 (`record_pickles.py`)."""

NAME = "pytorch_model.bin"


class Files:
    """A folder in memory that counts what is read of it."""

    def __init__(self, files):
        self.files = files
        self.read_bytes = 0

    def sizes(self):
        """The length of every file."""
        return {name: len(content) for name, content in self.files.items()}

    def read_range(self, name, start, length):
        """A slice of a file."""
        piece = self.files[name][start : start + length]
        self.read_bytes += len(piece)
        return piece


def read(content):
    """What a file's content describes."""
    return read_pickle(Files({NAME: content}), NAME)


# --- what torch wrote -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_what_torch_saved_is_described(form):
    """Both forms give names, types and shapes; tied tensors count once; strided views are understood."""
    found = read(RECORDED[f"torch_{form}"])
    shapes = {entry.name: (entry.dtype, entry.shape, entry.size_bytes) for entry in found.tensors}
    assert shapes == {
        "model.embed_tokens.weight": ("F16", (10, 8), 160),
        "lm_head.weight": ("F16", (10, 8), 160),
        "model.norm.weight": ("F32", (8,), 32),
        "model.view": ("BF16", (6, 4), 48),
    }
    assert (found.parameters, found.bytes_by_dtype) == (112, {"F16": 160, "F32": 32, "BF16": 48})
    assert found.legacy == (form == "legacy")


def test_parameters_scalars_and_new_types_are_described():
    """`nn.Parameter`, a scalar, 8-bit floats and an `OrderedDict` with a state of its own."""
    odd = {entry.name: (entry.dtype, entry.shape) for entry in read(RECORDED["torch_odd"]).tensors}
    assert odd == {"weight": ("F32", (2, 4)), "bias": ("F32", (2,)), "u": ("F8_E4M3", (3,)), "n": ("I64", ())}
    assert [entry.name for entry in read(RECORDED["torch_module"]).tensors] == ["weight", "bias"]


def test_the_numbers_are_not_read():
    """Of a large file only the zip's list and the pickle are read."""
    content = zipped(
        state(w=tensor(elements=4_000_000, shape=(2000, 2000), strides=(2000, 1))), [("data/0", b"\0" * 16_000_000)]
    )
    folder = Files({NAME: content})
    assert read_pickle(folder, NAME).parameters == 4_000_000
    assert folder.read_bytes < 4_000


# --- what would run -------------------------------------------------------------------------------------------------


class Evil:
    """Reduces to a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


ATTACKS = {
    "os.system": (lambda m: pickle.dumps(Evil(os.system, (f"touch {m}",))), "posix.system"),
    "builtins.eval": (lambda m: pickle.dumps(Evil(eval, (f"open({str(m)!r}, 'w')",))), "builtins.eval"),
    "protocol 0": (lambda m: pickle.dumps(Evil(os.system, (f"touch {m}",)), protocol=0), "posix.system"),
    "protocol 5": (lambda m: pickle.dumps(Evil(os.system, (f"touch {m}",)), protocol=5), "posix.system"),
    "among tensors": (
        lambda m: state(w=tensor(), x=pickle.dumps(Evil(os.system, (f"touch {m}",)), protocol=2)[2:-1]),
        "posix.system",
    ),
    "nested in an OrderedDict": (
        lambda m: pickle.dumps(collections.OrderedDict(a=[{"b": (Evil(os.system, (f"touch {m}",)),)}])),
        "posix.system",
    ),
    "a state": (
        lambda m: pickle.dumps(Evil(collections.OrderedDict, (), {"x": Evil(exec, (f"open({m!r})",))})),
        "builtins.exec",
    ),
    "INST": (lambda m: b"(S'touch " + str(m).encode() + b"'\nios\nsystem\n.", "os.system"),
    "OBJ": (lambda m: b"(cos\nsystem\nS'touch " + str(m).encode() + b"'\no.", "os.system"),
    "a name from the memo": (
        lambda _: b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x02id\x85R.",
        "os.system",
    ),
    "an extension": (lambda _: b"\x80\x02\x82\x01.", "copyreg.extension 1"),
    "a name with dots": (lambda _: b"\x80\x04\x8c\x05torch\x8c\x0dserialization\x93.", "torch.serialization"),
    "torch's own reader": (lambda _: b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
    "a getattr": (lambda _: b"c__builtin__\ngetattr\n.", "__builtin__.getattr"),
    "cut off afterwards": (lambda _: b"cos\nsystem\n", "os.system"),
    "thrown away": (lambda _: b"cos\nsystem\n0N.", "os.system"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["bare", "zipped"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_run_is_named_and_not_run(attack, packed, tmp_path):
    """Every way to ask for a callable outside the allow-list is named with module and name; nothing happens."""
    marker = tmp_path / "ran"
    write, named = ATTACKS[attack]
    content = write(marker)
    with pytest.raises(PickleUnsafe) as caught:
        read(zipped(content) if packed else content)
    assert named in caught.value.evidence
    assert caught.value.fix
    assert not marker.exists()


def test_a_pickle_that_nobody_loads_is_a_warning():
    """Beside safetensors a dangerous pickle is named; plain ones, and a training's own, are not."""
    folder = Files(
        {
            "model.safetensors": b"",
            "evil.pt": b"cos\nsystem\n.",
            "voice.pt": RECORDED["torch_zip"],
            "odd.bin": b"\xff" * 20,
            "training_args.bin": b"ctransformers.training_args\nTrainingArguments\n.",
        }
    )
    (found,) = check_unloaded(folder, ("model.safetensors",), ("training_args",))
    assert (found.code, found.severity, found.file) == ("PICKLE_UNSAFE", "warning", "evil.pt")


# --- what is broken -------------------------------------------------------------------------------------------------

BROKEN = {
    "empty": (b"", WeightsTruncated),
    "HTML": (b"<!DOCTYPE html><html>404</html>", WeightsCorrupt),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", WeightsTruncated),
    "a plain pickle": (pickle.dumps({"a": 1}), WeightsCorrupt),
    "zip cut": (RECORDED["torch_zip"][:-200], WeightsTruncated),
    "legacy cut": (RECORDED["torch_legacy"][:-20], WeightsTruncated),
    "legacy cut in its pickle": (RECORDED["torch_legacy"][:300], WeightsTruncated),
    "no pickle": (zipped(b"", name="archive/other"), WeightsCorrupt),
    "pickle cut": (zipped(state(w=tensor())[:-5]), WeightsTruncated),
    "no dict": (zipped(b"\x80\x02N."), WeightsCorrupt),
    "no tensor": (zipped(b"\x80\x02}."), WeightsCorrupt),
    "storage missing": (zipped(state(w=tensor("7"))), WeightsCorrupt),
    "storage short": (zipped(state(w=tensor()), [("data/0", b"\0" * 60)]), WeightsTruncated),
    "beyond its storage": (zipped(state(w=tensor(offset=1))), WeightsCorrupt),
    "huge": (zipped(state(w=tensor(shape=(2**62,) * 60, strides=(0,) * 60))), WeightsCorrupt),
    "negative": (zipped(state(w=tensor(shape=(-4, 4)))), WeightsCorrupt),
    "memo empty": (zipped(b"\x80\x02h\x05."), WeightsCorrupt),
    "memo far away": (zipped(b"\x80\x02}r\xff\xff\xff\xff."), WeightsCorrupt),
    "no mark": (zipped(b"\x80\x02}u."), WeightsCorrupt),
    "no value": (zipped(b"\x80\x02R."), WeightsCorrupt),
    "length beyond the end": (zipped(b"\x80\x02X\xff\xff\xff\xff."), WeightsTruncated),
    "a number of 4 GB": (zipped(b"\x80\x02\x8b\xff\xff\xff\x7f."), WeightsCorrupt),
    "a bomb": (zipped(b"N" * 50_000_000, method=zipfile.ZIP_DEFLATED), WeightsCorrupt),
    "packed oddly": (zipped(state(w=tensor()), method=zipfile.ZIP_LZMA), WeightsCorrupt),
    "a dict in itself": (zipped(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."), WeightsCorrupt),
    "tuples in tuples": (zipped(b"\x80\x02)" + b"\x85" * 1_000_000 + b"."), WeightsCorrupt),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_has_a_clear_code(name):
    """A file that torch did not write, or that did not arrive whole, is named with its evidence."""
    content, kind = BROKEN[name]
    with pytest.raises(kind) as caught:
        read(content)
    assert type(caught.value) is kind
    assert NAME in caught.value.evidence


def test_a_trainings_checkpoint_is_told_from_a_model():
    """Tensors one level deeper are not those of the model by name; the evidence says where they are."""
    nested = zipped(state(state_dict=state(w=tensor(), v=tensor())[2:-1], epoch=b"K\x03"))
    with pytest.raises(WeightsCorrupt) as caught:
        read(nested)
    assert caught.value.message.endswith("is a training checkpoint: its weights are under 'state_dict'.")
    assert "'state_dict' (2 tensors)" in caught.value.evidence
    assert "weights_only=True)" in caught.value.fix


def test_a_lone_tensor_beside_a_trainings_weights_does_not_hide_them():
    """A loss that is a tensor is no model; the weights are found where they lie, in a dict within a dict, too."""
    within = state(net=state(w=tensor(), v=tensor())[2:-1])[2:-1]
    with pytest.raises(WeightsCorrupt) as caught:
        read(zipped(state(loss=tensor(), model=within)))
    assert "under 'model' / 'net'" in caught.value.message
    assert '["model"]["net"]' in caught.value.fix


def test_two_pickles_of_one_name_are_refused():
    """Readers disagree on which of two records counts, so neither does."""
    with pytest.warns(UserWarning, match="Duplicate"):
        content = zipped(state(w=tensor()), [("data/0", b"\0" * 64), ("data.pkl", b"cos\nsystem\n.")])
    with pytest.raises(WeightsCorrupt):
        read(content)


def test_memory_and_work_are_bounded():
    """Instructions that only make values end at a limit."""
    content = zipped(b"\x80\x02" + b"N" * (MAX_INSTRUCTIONS + 10) + b".")
    tracemalloc.start()
    try:
        with pytest.raises(WeightsCorrupt, match="instructions"):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_no_bytes_make_it_crash(content, packed, prefixed):
    """Whatever the bytes are, they are described or refused."""
    content = b"\x80\x02" + content if prefixed else content
    with suppress(HeadraceError):
        read(zipped(content) if packed else content)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(RECORDED)),
    st.lists(st.tuples(st.integers(0, 2600), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_damage_makes_it_crash(name, damages):
    """Neither does a true file with some bytes changed."""
    content = bytearray(RECORDED[name])
    for place, value in damages:
        content[place % len(content)] = value
    with suppress(HeadraceError):
        read(bytes(content))
