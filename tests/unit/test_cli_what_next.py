"""After a deployment, only what the model answers is offered to be tried."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.what_next import Kind, kind_of, what_next


def folder(path: Path, config: dict[str, Any], **files: str) -> Path:
    """A model's folder with just what is looked at."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    head = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"\0\0")
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def test_the_kind_is_told_from_the_folder(tmp_path: Path) -> None:
    """An encoder embeds, a decoder with a chat template chats, one without completes; what is far away may be any."""
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    assert kind_of(str(folder(tmp_path / "bert", {"model_type": "bert", "architectures": ["BertModel"]}))) == "embed"
    assert kind_of(str(folder(tmp_path / "base", llama))) == "complete"
    assert kind_of(str(folder(tmp_path / "chat", llama, chat_template__jinja="x"))) == "chat"
    assert kind_of("gs://bucket/model") == "chat"
    assert kind_of(str(tmp_path / "nothing")) == "chat"


@pytest.mark.parametrize(
    ("kind", "path", "offered"),
    [
        ("chat", "chat/completions", "headrace chat"),
        ("complete", "completions", "predict"),
        ("embed", "embeddings", ""),
    ],
)
def test_each_kind_gets_its_own_requests(kind: Kind, path: str, offered: str) -> None:
    """The curl command goes to the route that the model answers, with a body that is JSON."""
    said = what_next("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/endpoints/1", "river", kind)
    assert offered in said
    command = shlex.split(said[said.index("curl ") :].replace("\\\n", " "))
    assert command[1] == f"http://127.0.0.1:8080/v1/{path}"
    assert json.loads(command[-1])["model"] == "river"
    if kind == "embed":
        assert "headrace chat" not in said
