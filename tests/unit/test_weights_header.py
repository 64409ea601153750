"""The safetensors header parser: right on what writers write, and calm about everything else."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from headrace.resources.errors import WeightsCorrupt, WeightsTruncated
from headrace.weights import read_header
from headrace.weights.beginnings import BEGINNING_BYTES
from headrace.weights.reader import ReadOnce


class Files:
    """A folder in memory that remembers how much was asked of it."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.asked_bytes = 0

    def sizes(self) -> Mapping[str, int]:
        """The length of every file."""
        return {name: len(content) for name, content in self.files.items()}

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """A slice of a file."""
        self.asked_bytes += length
        return self.files[name][start : start + length]


def one_file(header: Any, data: bytes = b"") -> Files:
    """A file with this header, given as JSON or as raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return Files({"m": len(raw).to_bytes(8, "little") + raw + data})


def described(start: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, Any]:
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def test_it_reads_what_the_reference_implementation_writes() -> None:
    """Names, types, shapes, sizes and metadata come back as they were saved."""
    content = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)}, metadata={"format": "pt"})
    header = read_header(Files({"m": content}), "m")
    assert {(t.name, t.dtype, t.shape, t.size_bytes, t.elements) for t in header.tensors} == {
        ("a", "F32", (2, 3), 24, 6),
        ("b", "I64", (), 8, 1),
    }
    assert header.metadata == {"format": "pt"}


@given(kept=st.integers(min_value=0))
def test_every_cut_of_a_file_is_named_truncated(kept: int) -> None:
    """Whatever the length at which a copy stopped, it is called truncated and not corrupt."""
    content = save({"a": np.ones((4, 4), np.float32), "b": np.ones(7, np.float16)})
    with pytest.raises(WeightsTruncated):
        read_header(Files({"m": content[: kept % len(content)]}), "m")


def test_a_cut_file_says_how_much_is_missing() -> None:
    """The evidence has the exact numbers and the first tensor that is cut."""
    files = one_file({"a": described(0, 10), "b": described(10, 30)}, data=bytes(25))
    with pytest.raises(WeightsTruncated) as caught:
        read_header(files, "m")
    assert "take 30 bytes and 25 are there (5 are missing)" in caught.value.evidence
    assert "the first that is cut is b" in caught.value.evidence


@pytest.mark.parametrize(
    ("header", "evidence"),
    [
        ({"a": described(0, 10), "b": described(5, 15)}, "b begins at 5 and overlaps"),
        ({"a": described(0, 4), "b": described(6, 10)}, "b begins at 6 and leaves a gap"),
        ({"a": described(0, 4)}, "6 bytes follow"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [4, 2]}}, "before it begins"),
        ({"a": described(0, 10, shape=[3])}, "takes 3 bytes and its offsets give it 10"),
        ({"a": described(0, 10, dtype="X9")}, "unknown element type X9"),
        ({"a": described(0, 10, shape=[2**62, 2**62])}, "more elements than a file can hold"),
        ({"a": described(0, 10, dtype="F4", shape=[3])}, "whole byte"),
        ({"a": described(0, 10, shape=[1] * 65)}, "cannot be read"),
        ({"a": described(-1, 9)}, "cannot be read"),
        ({"a": described(0, 10) | {"data_offsets": [0, 2**70]}}, "cannot be read"),
        ({"__metadata__": {"format": 3}}, "cannot be read"),
        ({"__metadata__": 7}, "cannot be read"),
        ({"a": 7}, "cannot be read"),
        ([1], "cannot be read"),
        (b"not json at all", "cannot be read"),
        (b'{"\xff": 1}', "cannot be read"),
        (b'{"a":' + b"[" * 200_000, "cannot be read"),
        (b'{"a":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}}", "cannot be read"),
        (b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,10]}}', "cannot be read"),
    ],
)
def test_each_fault_of_a_header_is_named(header: Any, evidence: str) -> None:
    """A header that no writer wrote is corrupt, and the evidence says where."""
    with pytest.raises(WeightsCorrupt) as caught:
        read_header(one_file(header, data=bytes(10)), "m")
    assert evidence in caught.value.evidence
    assert len(caught.value.evidence) < 500


def test_a_git_lfs_pointer_is_recognised() -> None:
    """A clone without Git LFS has a text of three lines where the weights should be; the fix says so."""
    with pytest.raises(WeightsTruncated) as caught:
        read_header(Files({"m": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}), "m")
    assert "git lfs pull" in caught.value.fix


def test_a_header_announced_too_long_is_not_read() -> None:
    """The announced length is compared before anything is read or allocated, but for the first bytes."""
    files = Files({"m": (2**63).to_bytes(8, "little") + bytes(10_000)})
    with pytest.raises(WeightsCorrupt, match="at most 100,000,000 are read"):
        read_header(files, "m")
    assert files.asked_bytes == 8 + BEGINNING_BYTES


def test_more_tensors_than_any_model_has_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one file, told before it is decoded, however its names are written; and of all files of a folder together."""
    monkeypatch.setattr("headrace.weights.header.MAX_TENSORS", 5)
    header = {f"t{number}": described(0, 0) for number in range(4)}
    many = {f"t{number}": described(0, 0) for number in range(6)}
    hidden = json.dumps(many).replace("data_offsets", "data\\u005foffsets").encode()
    for files in (one_file(many), one_file(hidden)):
        with pytest.raises(WeightsCorrupt, match="more tensors") as caught:
            read_header(files, "m")
        assert "6 tensors in its header" in caught.value.evidence
    folder = ReadOnce(Files({name: one_file(header).files["m"] for name in ("a", "b")}))
    assert len(read_header(folder, "a").tensors) == 4
    with pytest.raises(WeightsCorrupt, match="more tensors"):
        read_header(folder, "b")


def test_more_names_than_tensors_have_are_not_decoded() -> None:
    """What is no tensor takes a dictionary's room, too: told before anything is made of it."""
    keys = b",".join(b'"%x":0' % number for number in range(1_300_000))
    for header in (b"{%s}" % keys, b'{"__metadata__":{%s}}' % keys.replace(b":0", b':""')):
        with pytest.raises(WeightsCorrupt, match="names and texts"):
            read_header(one_file(header), "m")


def test_a_listing_that_lies_about_a_length_is_truncated() -> None:
    """A source that gives fewer bytes than it listed is a truncated file, not a crash."""

    class Lying(Files):
        def sizes(self) -> Mapping[str, int]:
            return {"m": 10_000}

    with pytest.raises(WeightsTruncated):
        read_header(Lying({"m": (5000).to_bytes(8, "little") + b"{}"}), "m")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
descriptions = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F4", "BF16", "F32", "C64", "nope"]) | json_values,
        "shape": st.lists(st.integers(-2, 2**65) | st.integers(0, 4), max_size=5) | json_values,
        "data_offsets": st.lists(st.integers(0, 40) | st.integers(-1, 2**65), min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), descriptions | json_values, max_size=4)
raw_headers = st.binary(max_size=200) | headers.map(lambda value: json.dumps(value).encode())
announced = st.none() | st.integers(0, 300) | st.integers(0, 2**64 - 1)


@given(raw=raw_headers, length=announced, data=st.binary(max_size=60))
def test_no_input_breaks_the_parser(raw: bytes, length: int | None, data: bytes) -> None:
    """Any bytes are either a header or one of two errors; never more is asked for than the file has."""
    prefix = (len(raw) if length is None else length).to_bytes(8, "little")
    files = Files({"m": prefix + raw + data})
    try:
        header = read_header(files, "m")
    except (WeightsTruncated, WeightsCorrupt):
        pass
    else:
        assert sum(tensor.size_bytes for tensor in header.tensors) <= len(data) + len(raw)
    assert files.asked_bytes <= 8 + len(files.files["m"])


@settings(deadline=None)
@given(raw=raw_headers, repeated=st.integers(1, 200), length=announced, data=st.binary(max_size=60))
def test_no_input_makes_it_allocate_much_more_than_it_read(
    raw: bytes, repeated: int, length: int | None, data: bytes
) -> None:
    """Whatever lengths, shapes and offsets it claims: some kilobytes, and a small multiple of the bytes there are."""
    raw *= repeated  # no JSON any more, but for one
    prefix = (len(raw) if length is None else length).to_bytes(8, "little")
    files = Files({"m": prefix + raw + data})
    tracemalloc.start()
    try:
        with contextlib.suppress(WeightsTruncated, WeightsCorrupt):
            read_header(files, "m")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 32 * 1024 + 16 * files.asked_bytes


@given(cut=st.integers(0, 400), position=st.integers(0, 400), byte=st.integers(0, 255))
def test_damage_to_a_real_file_gives_one_of_the_two_errors(cut: int, position: int, byte: int) -> None:
    """One changed byte, with or without a cut, is survived."""
    content = bytearray(save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.uint8)}))
    content[position % len(content)] = byte
    with contextlib.suppress(WeightsTruncated, WeightsCorrupt):
        read_header(Files({"m": bytes(content[: len(content) - cut % 8])}), "m")


def test_memory_is_bounded_by_what_was_read() -> None:
    """A header of 2 MB of nested and repeated fields costs a small multiple of itself."""
    raw = json.dumps({f"t{i}": described(0, 0, shape=[0] * 64) for i in range(6000)}).encode()
    files = one_file(raw)
    tracemalloc.start()
    try:
        read_header(files, "m")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 * len(raw)
