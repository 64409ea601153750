"""A tokenizer whose pattern backtracks without end: the texts that it fails on are refused, and the engine lives."""

import json
from pathlib import Path

import pytest
from engine_launch import ENGINES, folder_for
from engine_process import chat_body, completion_body, start_engine
from model_folders import TOOL_TEMPLATE, with_template

ENDLESS = {"type": "Split", "pattern": {"Regex": "(?:(x+x+)+)+y"}, "behavior": "Isolated", "invert": False}
LONG = "x" * 60


@pytest.mark.parametrize("name", ENGINES)
def test_a_text_that_the_tokenizer_fails_on_is_refused(name: str, tmp_path: Path) -> None:
    """400 with the parameter and the tokenizer's own words on every route that reads text; other texts are answered."""
    folder = with_template(folder_for(name), tmp_path / "model", TOOL_TEMPLATE)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"].insert(0, ENDLESS)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with start_engine(folder, engine=name) as engine:
        engine.wait_ready()
        for path, body, param in (
            ("/tokenize", {"model": "smol", "prompt": LONG}, "prompt"),
            ("/tokenize", {"model": "smol", "messages": [{"role": "user", "content": LONG}]}, None),
            ("/v1/completions", completion_body(LONG), "prompt"),
            ("/v1/chat/completions", chat_body(LONG), "messages"),
            ("/v1/chat/completions", chat_body(LONG, stream=True), "messages"),
        ):
            answer = engine.client.post(path, json=body)
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert error["code"] == "tokenizer_failed"
            assert "retry-limit-in-match over" in error["message"]
            assert param in (None, error["param"])
        assert engine.text("Hi", max_tokens=2)
