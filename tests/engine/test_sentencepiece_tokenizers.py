"""A folder that had a SentencePiece model only is loaded by transformers, which has no library for those here."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from engine_process import run_in_engine_environment

from headrace.storage import open_artifacts
from headrace.weights.sentencepiece import convertible_model, tokenizer_json
from sentencepiece_models import TEXTS, trained

FOLDERS: dict[str, tuple[str, str, str | None]] = {
    "llama": ("llama", "llama", "LlamaTokenizer"),
    "gemma": ("gemma", "gemma", "GemmaTokenizer"),
    "t5": ("t5", "t5", "T5Tokenizer"),
    "mistral": ("llama", "mistral", "LlamaTokenizer"),
    "mixtral, no class": ("llama", "mixtral", None),
    "phi3": ("llama", "phi3", "LlamaTokenizer"),
    "gemma3, no class": ("gemma", "gemma3_text", None),
    "mt5, no class": ("t5", "mt5", None),
}
"""How the model is trained, ``model_type``, and ``tokenizer_class`` if there is one."""


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What transformers makes of the texts, by folder."""
    folders: list[str] = []
    for family, model_type, named in FOLDERS.values():
        folder = tmp_path_factory.mktemp(model_type)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        said = {"tokenizer_class": named} if named else {}
        said |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        (folder / "tokenizer.model").write_bytes(trained(family))
        opened = open_artifacts(str(folder))
        name = convertible_model(opened)
        assert name is not None
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(opened, name)))
        (folder / "tokenizer.model").unlink()
        folders.append(str(folder))
    program = Path(__file__).parent / "sentencepiece_ids.py"
    return dict(zip(FOLDERS, run_in_engine_environment(program, *folders, given=list(TEXTS)), strict=True))


@pytest.mark.parametrize("name", FOLDERS)
def test_transformers_cuts_texts_as_sentencepiece(name: str, ids: dict[str, Any]) -> None:
    """The class of each family, given the file that we wrote, says what the model's own library says.

    But for texts that begin with a space: the Llama class of transformers 5 puts no other in front of that one.
    """
    family = FOLDERS[name][0]
    model = sentencepiece.SentencePieceProcessor(model_proto=trained(family))
    different = [(text, made, model.encode(text)) for text, made in zip(TEXTS, ids[name], strict=True)
                 if made != model.encode(text) and not (family == "llama" and text.startswith((" ", "▁")))]  # fmt: skip
    assert not different
