"""SentencePiece models written as `tokenizer.json`: the tokenizers library says what the sentencepiece one does."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from conversion_folders import CONFIG, folder, llama, weights_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from tokenizers import Tokenizer

from headrace.resources.errors import HeadraceError
from headrace.storage import open_artifacts
from headrace.storage.converting import convert_folder
from headrace.weights.conversion import plan_folder
from headrace.weights.sentencepiece import convertible_model, tokenizer_json
from sentencepiece_models import FAMILIES, TEXTS, trained


class Files:
    """A folder in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def sizes(self) -> dict[str, int]:
        """The length of every file."""
        return {name: len(content) for name, content in self.files.items()}

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """A slice of a file."""
        return self.files[name][start : start + length]


def reader(model: bytes, **config: Any) -> Files:
    """A folder with a model and its configuration."""
    return Files({"tokenizer.model": model, "tokenizer_config.json": json.dumps(config).encode()})


@lru_cache
def both(family: str) -> tuple[sentencepiece.SentencePieceProcessor, Tokenizer]:
    """The model by its own library, and what was made of it."""
    opened = reader(trained(family), tokenizer_class=FAMILIES[family][0])
    name = convertible_model(opened)
    assert name == "tokenizer.model"
    made = Tokenizer.from_str(json.dumps(tokenizer_json(opened, name)))
    return sentencepiece.SentencePieceProcessor(model_proto=trained(family)), made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_cut_as_by_sentencepiece(family: str, text: str) -> None:
    """The same ids in every script, with spaces at every place, and back again the same text where all is known."""
    theirs, made = both(family)
    ids = made.encode(text, add_special_tokens=False).ids
    assert ids == theirs.encode(text)
    if theirs.unk_id() not in ids:  # that one is a special token here, and ⁇ there
        assert made.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.text(st.sampled_from("aeriwtv  \n12東ßé🌊½"), max_size=40))
def test_any_text_is_cut_as_by_sentencepiece(family: str, text: str) -> None:
    """Not only those above."""
    theirs, made = both(family)
    assert made.encode(text, add_special_tokens=False).ids == theirs.encode(text)


@pytest.mark.parametrize(
    ("family", "config", "around"),
    [
        ("llama", {}, ([1], [])),
        ("llama", {"add_bos_token": False}, ([], [])),
        ("llama", {"add_eos_token": True, "eos_token": {"content": "</s>"}}, ([1], [2])),
        ("t5", {}, ([], [1])),
        ("gemma", {"bos_token": "<s>"}, ([1], [])),
    ],
)
def test_what_a_family_puts_around_a_text_is_put(
    family: str, config: dict[str, Any], around: tuple[list[int], list[int]]
) -> None:
    """The family's own habit, unless the folder's configuration says otherwise; control tokens are told as such."""
    opened = reader(trained(family), tokenizer_class=FAMILIES[family][0] + "Fast", **config)
    made = Tokenizer.from_str(json.dumps(tokenizer_json(opened, "tokenizer.model")))
    inner = made.encode("river", add_special_tokens=False).ids
    assert made.encode("river").ids == [*around[0], *inner, *around[1]]
    end = made.token_to_id("</s>")
    assert made.encode("</s>", add_special_tokens=False).ids == [end]
    assert made.decode([*inner, end]) == "river"


@pytest.mark.parametrize(
    ("family", "model_type"),
    [
        *(("llama", model_type) for model_type in ("llama", "mistral", "mixtral", "phi3")),
        *(("gemma", model_type) for model_type in ("gemma2", "gemma3")),
        ("t5", "mt5"),
    ],
)
def test_a_folder_that_names_no_class_has_that_of_its_model(family: str, model_type: str) -> None:
    """Also one without a tokenizer_config.json: the same file as where the class is named."""
    named = reader(trained(family), tokenizer_class=FAMILIES[family][0])
    config = json.dumps({"model_type": model_type}).encode()
    unnamed = Files({"tokenizer.model": trained(family), "config.json": config})
    assert convertible_model(unnamed) == "tokenizer.model"
    assert tokenizer_json(unnamed, "tokenizer.model") == tokenizer_json(named, "tokenizer.model")


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (trained("llama"), {"tokenizer_class": "XLMRobertaTokenizer"}),
        (trained("llama"), {}),
        (b"IQ== 0\nIg== 1\n", {"tokenizer_class": "LlamaTokenizer"}),
    ],
)
def test_what_is_not_known_is_left_as_it_is(model: bytes, config: dict[str, Any]) -> None:
    """A family that shifts ids, one that is not named, and OpenAI's form of the same name."""
    assert convertible_model(reader(model, **config)) is None


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_no_bytes_make_it_fail_otherwise(content: bytes, cut: int) -> None:
    """Garbage, and a model that is cut, have an error of ours or none."""
    for model in (content, trained("t5")[:cut], trained("t5")[:cut] + content):
        opened = reader(model, tokenizer_class="T5Tokenizer")
        try:
            if name := convertible_model(opened):
                tokenizer_json(opened, name)
        except HeadraceError:
            continue


def test_a_folder_gets_its_tokenizer(tmp_path: Path) -> None:
    """`headrace convert` writes it beside the model's own, and the doctor reads it; the weights stay as they are."""
    weights = save(llama(), metadata={"format": "pt"})
    source = folder(tmp_path / "source", {"model.safetensors": weights, "tokenizer.model": trained("llama")})
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (source / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 10}))
    plan = plan_folder(open_artifacts(str(source)))
    assert plan.what == "tokenizer.json from tokenizer.model"
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(HeadraceError, match="could not be deployed"):  # 500 tokens, ten rows
        convert_folder(plan, source, target)
    assert Tokenizer.from_file(str(target / "tokenizer.json")).get_vocab_size() > 256
    assert (target / "model.safetensors").read_bytes() == weights
    assert weights_of(target).keys() == llama().keys()
