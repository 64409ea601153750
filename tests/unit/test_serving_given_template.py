"""A chat template that is given beside the folder, in the engines' shell and in what starts vLLM."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from serving_fake import MODEL, PLAIN_TEMPLATE, Bytes, Saying

from headrace.runtimes import EngineEnd, find
from headrace_engines.serving.chat_prompt import ChatPrompt
from headrace_engines.serving.codec import ChatMessage
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.fatal import FatalError
from headrace_engines.serving.generator import LoadModel, ServedModel
from headrace_engines.serving.given_template import read_template, with_template

BROKEN = {
    "an open loop": ("{% for m in messages %}\n{{ m.content }}", "line 2"),
    "an open expression": ("{{ messages", "line 1"),
    "an unknown statement": ("a\nb\n{% translate %}", "line 3"),
}


def loading(template: str | None) -> LoadModel:
    """A model whose folder has this template."""
    return lambda *_: ServedModel(Saying("abc"), Bytes(template))


@pytest.mark.parametrize("folders_own", [None, PLAIN_TEMPLATE])
def test_it_takes_the_place_of_the_folders_own(tmp_path: Path, folders_own: str | None) -> None:
    """Prompts of chats are made by it, with tools and without, and also where the folder has none."""
    path = tmp_path / "own.jinja"
    path.write_text("<{{ messages[0].content }}>é\n")

    async def rendered() -> list[bytes]:
        deaths: list[FatalError] = []
        engine = Engine(MODEL, {"engine": "transformers"}, deaths.append)
        await engine.start(with_template(loading(folders_own), path))
        assert (engine.state, deaths) == ("ready", [])
        messages = [ChatMessage(role="user", content="Hi")]
        prompts = [ChatPrompt(messages=messages), ChatPrompt(messages=messages, tools=[{"type": "function"}])]
        return [bytes(await engine.encode_chat(prompt)) for prompt in prompts]

    assert asyncio.run(rendered()) == ["<Hi>é".encode()] * 2  # jinja drops the last line's end


@pytest.mark.parametrize("fault", BROKEN)
def test_one_that_does_not_parse_ends_the_engine_before_anything_is_loaded(tmp_path: Path, fault: str) -> None:
    """With a code of its own, the line and the parser's words."""
    template, line = BROKEN[fault]
    path = tmp_path / "own.jinja"
    path.write_text(template)
    deaths: list[FatalError] = []

    def never(*_: object) -> ServedModel:
        raise AssertionError

    engine = Engine(MODEL, {"engine": "transformers"}, deaths.append)
    asyncio.run(engine.start(with_template(never, path)))
    (fatal,) = deaths
    assert (engine.state, fatal.code) == ("dead", "CHAT_TEMPLATE_INVALID")
    assert line in fatal.evidence


def test_one_that_never_ends_or_refuses_is_looked_at_without_being_run(tmp_path: Path) -> None:
    """What it says of messages is the messages' affair: some refuse a chat without a system message."""
    path = tmp_path / "own.jinja"
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    for template in (loop, "{{ raise_exception('a system message first') }}", "{% generation %}{% endgeneration %}"):
        path.write_text(template)
        assert read_template(path) == template


def test_what_cannot_be_read_is_no_template(tmp_path: Path) -> None:
    """A file that is not there, and one that is no text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("nothing", "binary"):
        with pytest.raises(FatalError) as raised:
            read_template(tmp_path / name)
        assert raised.value.code == "CHAT_TEMPLATE_INVALID"


def test_what_starts_vllm_refuses_it_before_vllm_is_started(tmp_path: Path) -> None:
    """vLLM would become ready with it; the last line says why it did not start, and is understood."""
    path = tmp_path / "own.jinja"
    path.write_text("{% if %}")
    command = [sys.executable, "-P", "-m", "headrace_engines.vllm", "--chat-template", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert json.loads(lines[-1].removeprefix("HEADRACE_FATAL "))["code"] == "CHAT_TEMPLATE_INVALID"
    for runtime in ("vllm", "transformers", "openvino"):
        failure = find(runtime).classify(EngineEnd(exit_status=3, log_tail=lines))
        assert failure.code == "CHAT_TEMPLATE_INVALID"
        assert "line 1" in failure.evidence
        assert "--chat-template" in failure.fix
