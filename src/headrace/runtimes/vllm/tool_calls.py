"""Which of vLLM's parsers reads a model's tool calls: told by what its chat template shows the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a template may lie, in the order in which transformers looks for it."""

# In the order of trial. Names and marks: vllm/tool_parsers/__init__.py:24 and the files that it names, vLLM 0.32.0.
_SIGNS = (
    (r"<tool_call>.*<function=", "qwen3_coder"),
    (r"<tool_call>", "hermes"),
    (r"\[TOOL_CALLS\]", "mistral"),
    (r"<\|python_tag\|>|\"parameters\": dictionary of argument name", "llama3_json"),
    (r"<｜tool▁calls▁begin｜>", "deepseek_v3"),
    (r"<\|channel\|>.*<\|call\|>|<\|call\|>.*<\|channel\|>", "openai"),
)


def tool_call_parser(model_dir: Path) -> str:
    """The parser's name; empty for a model whose template shows no form of calls that is known here."""
    template = _template(model_dir)
    return next((parser for sign, parser in _SIGNS if re.search(sign, template, re.DOTALL)), "")


def _template(model_dir: Path) -> str:
    for name in _TEMPLATE_FILES:
        path = model_dir / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".jinja":
            return text
        if template := _in_json(text):
            return template
    return ""


def _in_json(text: str) -> str:
    try:
        fields = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return ""
    template: Any = fields.get("chat_template") if isinstance(fields, dict) else None
    if isinstance(template, list):  # several by name, the default among them
        template = "\n".join(str(each.get("template", "")) for each in template if isinstance(each, dict))
    return template if isinstance(template, str) else ""
