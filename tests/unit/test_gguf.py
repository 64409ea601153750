"""GGUF files become Hugging Face folders: small files made here, so that each rule can be seen alone."""

from __future__ import annotations

import json
import re
import shlex
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headrace.cli.app import run
from headrace.resources.errors import ArtifactsNotFound, ConversionFailed, WeightsCorrupt
from headrace.storage import open_artifacts
from headrace.weights import check, inspect
from headrace.weights.bfloat16 import to_bfloat16
from headrace.weights.conversion import MARK_FILE
from headrace.weights.gguf import convert_gguf
from headrace.weights.gguf.shards import write_shards

HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, LAYERS = 64, 4, 2, 96, 2
HEAD_DIM = HIDDEN // HEADS
ALPHABET = [chr(0x21 + n) for n in range(94)]
TOKENS = ["<|end|>", "<|im_start|>", "<think>", *ALPHABET, "Ġ", "Ċ", "he", "ll", "ĠĠ", "Ġhe"]
MERGES = ["h e", "l l", "Ġ Ġ", "Ġ he"]
TOKEN_TYPES = [3, 3, 4, *([1] * (len(TOKENS) - 3))]

Array = npt.NDArray[np.float32]


def tensors(rng: np.random.Generator) -> dict[str, Array]:
    """The tensors of a llama under llama.cpp's names."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(TOKENS), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm": (HIDDEN,),
            f"blk.{layer}.attn_q": (HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"blk.{layer}.attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"blk.{layer}.attn_output": (HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_norm": (HIDDEN,),
            f"blk.{layer}.ffn_gate": (FEED_FORWARD, HIDDEN),
            f"blk.{layer}.ffn_up": (FEED_FORWARD, HIDDEN),
            f"blk.{layer}.ffn_down": (HIDDEN, FEED_FORWARD),
        }
    return {f"{name}.weight": rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    extra: Mapping[str, str | int | bool] | None = None,
    change: Callable[[dict[str, Array]], None] = lambda _tensors: None,
    pre: str = "gpt-2",
    model: str = "gpt2",
    quantisation: gguf.GGMLQuantizationType | None = None,
) -> dict[str, Array]:
    """Write a small model and return its tensors as they were before quantisation."""
    content = tensors(np.random.default_rng(7))
    change(content)
    writer = gguf.GGUFWriter(path, architecture)
    for key, size in {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": HIDDEN,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }.items():
        writer.add_uint32(f"{architecture}.{key}", size)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{architecture}.rope.freq_base", 10000.0)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types(TOKEN_TYPES)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    for key, value in (extra or {}).items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32}[type(value)]
        add(key, value)
    for name, tensor in content.items():
        if quantisation is not None and tensor.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(tensor, quantisation), raw_dtype=quantisation)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return content


def load(folder: Path) -> dict[str, Array]:
    """The converted tensors as float32, read by hand: NumPy has no bfloat16."""
    found: dict[str, Array] = {}
    for file in folder.glob("*.safetensors"):
        raw = file.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header: dict[str, Any] = json.loads(raw[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "pt"}
        for name, tensor in header.items():
            assert tensor["dtype"] == "BF16"
            start, end = tensor["data_offsets"]
            words = np.frombuffer(raw[8 + length + start : 8 + length + end], np.uint16)
            found[name] = (words.astype(np.uint32) << 16).view(np.float32).reshape(tensor["shape"])
    return found


def interleave(weights: Array, heads: int) -> Array:
    """llama.cpp's own `LlamaModel.permute`, as its converter has it."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def test_a_converted_folder_is_a_healthy_model(tmp_path: Path) -> None:
    """Our own check finds nothing wrong with it, and its shape is the file's."""
    template = {"tokenizer.chat_template": "{{ messages }}"}
    write_gguf(tmp_path / "m.gguf", extra=template)
    seen: list[tuple[int, int]] = []
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", lambda done, total: seen.append((done, total)))
    artifacts = open_artifacts(str(folder))
    assert check(artifacts) == []
    model = inspect(artifacts)
    assert (model.config.layers, model.config.kv_heads, model.config.head_dim) == (LAYERS, KV_HEADS, HEAD_DIM)
    assert model.config.tied_embeddings
    assert seen[-1][0] == seen[-1][1]
    assert json.loads((folder / "config.json").read_bytes())["rms_norm_eps"] == 1e-5
    assert json.loads((folder / "generation_config.json").read_bytes()) == {"bos_token_id": 1, "eos_token_id": 0}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_values_names_and_rows_come_back(tmp_path: Path) -> None:
    """Q and K, interleaved as llama.cpp does it, come out in transformers' order; everything else is as it was."""
    original = tensors(np.random.default_rng(7))

    def permute(content: dict[str, Array]) -> None:
        for name, weights in content.items():
            if ".attn_q." in name or ".attn_k." in name:
                content[name] = interleave(weights, HEADS if ".attn_q." in name else KV_HEADS)

    write_gguf(tmp_path / "m.gguf", change=permute)
    converted = load(convert_gguf(tmp_path / "m.gguf", tmp_path / "out"))
    assert len(converted) == len(original)
    for gguf_name, hf_name in {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
        "blk.1.attn_k.weight": "model.layers.1.self_attn.k_proj.weight",
        "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
        "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    }.items():
        np.testing.assert_allclose(converted[hf_name], original[gguf_name], rtol=2**-8)


def test_quantised_blocks_are_undone(tmp_path: Path) -> None:
    """What comes out is what `gguf` itself dequantises, rounded to bfloat16."""
    kind = gguf.GGMLQuantizationType.Q8_0
    original = write_gguf(tmp_path / "m.gguf", quantisation=kind)
    converted = load(convert_gguf(tmp_path / "m.gguf", tmp_path / "out"))
    packed = gguf.quants.quantize(original["blk.0.ffn_up.weight"], kind)
    expected = gguf.quants.dequantize(packed, kind)
    np.testing.assert_allclose(converted["model.layers.0.mlp.up_proj.weight"], expected, rtol=2**-8)


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    """A file with output.weight becomes an untied model with lm_head."""

    def untie(content: dict[str, Array]) -> None:
        content["output.weight"] = content["token_embd.weight"] * 2

    write_gguf(tmp_path / "m.gguf", change=untie)
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert "lm_head.weight" in load(folder)
    assert json.loads((folder / "config.json").read_bytes())["tie_word_embeddings"] is False


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two conversions are equal byte for byte."""
    write_gguf(tmp_path / "m.gguf")
    one, two = (convert_gguf(tmp_path / "m.gguf", tmp_path / name) for name in ("one", "two"))
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_large_models_become_shards(tmp_path: Path) -> None:
    """Past the limit a new file begins, with an index that our own check accepts."""
    words = {f"t{n}": np.full((4, 8), n, np.uint16) for n in range(5)}
    write_shards(tmp_path, words.items(), shard_bytes=128)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)), "model.safetensors.index.json"]
    assert len(load(tmp_path)) == 5
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert inspect(open_artifacts(str(tmp_path))).parameters == 5 * 32


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"architecture": "qwen2"}, "'qwen2'"),
    "layers without end": ({"extra": {"llama.block_count": 2**32 - 1}}, "more layers than any model"),
    "experts": ({"extra": {"llama.expert_count": 8}}, "mixture of experts"),
    "scaled positions": ({"extra": {"llama.rope.scaling.type": "yarn"}}, "yarn"),
    "one of several files": ({"extra": {"split.count": 2}}, "one part of several"),
    "scaling folded into a tensor": (
        {"change": lambda content: content.update({"rope_freqs.weight": np.ones(8, np.float32)})},
        "rope_freqs.weight",
    ),
    "a bias": (
        {"change": lambda content: content.update({"blk.0.attn_q.bias": np.ones(64, np.float32)})},
        "attn_q.bias",
    ),
    "a tensor missing": ({"change": lambda content: content.pop("blk.1.ffn_up.weight")}, "blk.1.ffn_up.weight"),
    "numbers that are none": (
        {"change": lambda content: content["blk.0.ffn_up.weight"].__setitem__(0, np.nan)},
        "blk.0.ffn_up.weight",
    ),
    "a SentencePiece tokenizer": ({"model": "llama"}, "byte-level BPE"),
    "an unknown pre-tokenizer": ({"pre": "tekken"}, "tekken"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_come_out_wrong_is_refused(name: str, tmp_path: Path) -> None:
    """A file that cannot be converted faithfully is refused with the reason, and nothing is left behind."""
    arguments, evidence = REFUSED[name]
    write_gguf(tmp_path / "m.gguf", **arguments)
    with pytest.raises(ConversionFailed) as caught:
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert evidence in f"{caught.value.message} {caught.value.evidence}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf"]


def test_a_damaged_file_is_corrupt(tmp_path: Path) -> None:
    """Cut anywhere, empty or something else: one clear error."""
    write_gguf(tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    bad = tmp_path / "bad.gguf"
    for damaged in (b"", b"GGUF", content[:100], content[:1000], content[:-1000], b"X" + content[1:], content[:4] * 9):
        bad.write_bytes(damaged)
        with pytest.raises(WeightsCorrupt):
            convert_gguf(bad, tmp_path / "out")
    with pytest.raises(ArtifactsNotFound):
        convert_gguf(tmp_path / "none.gguf", tmp_path / "out")


def text(value: bytes) -> bytes:
    """A text as GGUF writes it."""
    return struct.pack("<Q", len(value)) + value


ENDLESS: dict[str, bytes] = {
    "keys": struct.pack("<QQ", 0, 2**40),
    "tensors": struct.pack("<QQ", 2**40, 0),
    "numbers": struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 0, 2**40),
    "a text": struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IQ", 8, 2**40),
    "arrays in arrays": struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_says_it_has_more_than_any_model_is_corrupt(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is: of what it says there is, no more is read than a model may have."""
    monkeypatch.setattr("headrace.weights.gguf.bounded.MAX_VALUES", 100)
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + struct.pack("<I", 3) + ENDLESS[name])
    with bad.open("r+b") as file:
        file.truncate(2**41)  # of zeros, which take no room
    with pytest.raises(WeightsCorrupt):
        convert_gguf(bad, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """What is there stays as it is."""
    write_gguf(tmp_path / "m.gguf")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConversionFailed, match="exists"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_command_converts_and_marks_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`headrace convert FILE.gguf FOLDER` gives the same weights; the folder and the doctor say so."""
    write_gguf(tmp_path / "m.gguf", quantisation=gguf.GGMLQuantizationType.Q8_0)
    assert run(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "new")]) == 0
    convert_gguf(tmp_path / "m.gguf", tmp_path / "old")
    made = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    mark = json.loads(made.pop(MARK_FILE))
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    assert mark["dequantised"] is True
    assert "Q8_0" in mark["made"]
    capsys.readouterr()
    assert run(["doctor", str(tmp_path / "new")]) == 0
    assert "made by        headrace convert: safetensors from m.gguf, dequantised from" in capsys.readouterr().out
    (tmp_path / "folder").mkdir()
    (tmp_path / "m.gguf").rename(tmp_path / "folder" / "m.gguf")
    assert run(["convert", str(tmp_path / "folder"), str(tmp_path / "again")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir() if path.name != MARK_FILE} == made
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, or not")
    assert run(["convert", str(tmp_path / "broken.gguf"), str(tmp_path / "nothing")]) == 1
    assert not (tmp_path / "nothing").exists()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_rounding_is_to_the_nearest_even(values: list[float]) -> None:
    """No bfloat16 is nearer, and of two that are equally near the one with an even last bit is taken."""
    for value in values:
        (word,) = (int(w) for w in to_bfloat16(np.array([value], np.float32)))
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        below = bits >> 16
        remainder = bits & 0xFFFF
        up = remainder > 0x8000 or (remainder == 0x8000 and below & 1)
        assert word == below + bool(up)


def tokenizer(tmp_path: Path, pre: str, **extra: bool) -> Tokenizer:
    """The tokenizer of a converted file."""
    write_gguf(tmp_path / "m.gguf", pre=pre, extra={f"tokenizer.ggml.{key}": value for key, value in extra.items()})
    return Tokenizer.from_file(str(convert_gguf(tmp_path / "m.gguf", tmp_path / "out") / "tokenizer.json"))


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "hell 12", ["he", "ll", "Ġ", "1", "2"]),
        ("gpt-2", "a  1", ["a", "Ġ", "Ġ", "1"]),
        ("smollm", "a  1", ["a", "ĠĠ", "1"]),  # every digit stands alone, so both spaces stay together
        ("llama-bpe", "a  he", ["a", "Ġ", "Ġhe"]),
        ("gpt-2", "<|im_start|>he<think>", ["<|im_start|>", "he", "<think>"]),
    ],
)
def test_text_is_cut_as_the_named_pre_tokenizer_does(tmp_path: Path, pre: str, text: str, pieces: list[str]) -> None:
    """Merges, special tokens and the cut before merges are the file's."""
    built = tokenizer(tmp_path, pre)
    encoded = built.encode(text)
    assert encoded.tokens == pieces
    assert built.decode(encoded.ids, skip_special_tokens=False) == text


def test_a_first_token_is_added_where_the_file_says_so(tmp_path: Path) -> None:
    """add_bos_token puts the first token before every text."""
    assert tokenizer(tmp_path, "gpt-2", add_bos_token=True).encode("he").tokens == ["<|im_start|>", "he"]


def test_a_folder_with_only_a_gguf_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    """One finding; the command in its fix, run as it stands, makes a folder that the doctor lets pass."""
    source = tmp_path / "the river"
    source.mkdir()
    write_gguf(source / "river Q4.gguf")
    (finding,) = check(open_artifacts(str(source)))
    assert (finding.code, finding.severity, finding.file) == ("WEIGHTS_QUANTISED", "error", "river Q4.gguf")
    command = re.search("`headrace (.*)`", finding.fix)
    assert command
    words = shlex.split(command[1])
    assert words == ["convert", f"{source}/river Q4.gguf", "./river Q4"]
    assert run([*words[:-1], str(tmp_path / "made")]) == 0
    assert {finding.severity for finding in check(open_artifacts(str(tmp_path / "made")))} == {"warning"}


def test_a_gguf_that_cannot_be_converted_is_not_told_to_be(tmp_path: Path) -> None:
    """Of another architecture, or no GGUF at all: the fix names no command that would fail."""
    write_gguf(tmp_path / "a.gguf", architecture="qwen2")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    (finding,) = check(open_artifacts(str(tmp_path)))
    assert finding.evidence == "a.gguf; general.architecture is 'qwen2'; 2 such files."
    assert "only the llama architecture" in finding.fix
    (tmp_path / "a.gguf").unlink()
    (finding,) = check(open_artifacts(str(tmp_path)))
    assert finding.evidence == "b.gguf."


def test_parts_of_a_gguf_are_to_be_joined_first(tmp_path: Path) -> None:
    """One part is not converted, so no command for it is told, but the one that joins them."""
    for part in (1, 2):
        write_gguf(tmp_path / f"m-0000{part}-of-00002.gguf")
    (finding,) = check(open_artifacts(str(tmp_path)))
    assert "`llama-gguf-split --merge m-00001-of-00002.gguf m.gguf`" in finding.fix
    assert "headrace convert" not in finding.fix


def test_a_plan_of_a_gguf_says_what_the_doctor_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not that a config.json is missing, which it needs none of; of the file by its name, both commands."""
    (tmp_path / "q").mkdir()
    write_gguf(tmp_path / "q" / "m.gguf")
    (finding,) = check(open_artifacts(str(tmp_path / "q")))
    assert run(["plan", str(tmp_path / "q"), "--json"]) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["fix"]) == (finding.code, finding.fix)
    assert run(["plan", str(tmp_path / "q" / "m.gguf"), "--json"]) == 3
    assert "headrace convert" in json.loads(capsys.readouterr().err)["error"]["fix"]


def test_a_gguf_that_is_deployed_by_its_name_is_told_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`headrace deploy FILE.gguf` ends with both commands, made for this file."""
    write_gguf(tmp_path / "m.gguf")
    assert run(["deploy", str(tmp_path / "m.gguf"), "--url", "http://127.0.0.1:9", "--key", "k", "--json"]) == 3
    fix = json.loads(capsys.readouterr().err)["error"]["fix"]
    assert fix == f"Make one of it: `headrace convert {tmp_path}/m.gguf ./m`, then `headrace deploy ./m`."
