"""Which of vLLM's parsers reads a model's tool calls: told by what its chat template shows the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
"""Where a template may lie, in the order in which vLLM looks for that of a chat with tools: a tokenizer's own. A node
hands it what is in the last (`headrace.node.chat_template`)."""

_LLAMA_4 = r"<\|python_start\|>|<\|header_start\|>"
_PYTHONIC = r"\[func_name1?\("

# In the order of trial. Names and marks: vllm/tool_parsers/__init__.py:24 and the files that it names, vLLM 0.32.0.
# The words of an example go before a marker that several formats share, as in `headrace_engines.serving.tools.formats`.
_SIGNS = (
    (r"<tool_call>.*<function=", "qwen3_coder"),
    (r"<tool_call>", "hermes"),
    (r"\[TOOL_CALLS\]", "mistral"),
    (rf"(?:{_LLAMA_4}).*{_PYTHONIC}|{_PYTHONIC}.*(?:{_LLAMA_4})", "llama4_pythonic"),
    (_PYTHONIC, "pythonic"),
    (r"<\|python_tag\|>|\"parameters\": dictionary of argument name", "llama3_json"),
    (r"<\|python_start\|>", "llama4_pythonic"),
    (r"<｜tool▁calls▁begin｜>", "deepseek_v3"),
    (r"<\|channel\|>.*<\|call\|>|<\|call\|>.*<\|channel\|>", "openai"),
)


TOOL_PARSERS = (
    *("apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4"),
    *("deepseek_v41", "dots", "ernie45", "functiongemma", "gemma4", "gigachat3", "glm45", "glm47", "granite"),
    *("granite-20b-fc", "granite4", "hermes", "hf", "hunyuan_a13b", "hy_v3", "hy_v4", "inkling", "internlm", "jamba"),
    *("k2_horizon", "kimi_k2", "kimi_k3", "lfm2", "ling3", "llama3_json", "llama4_json", "llama4_pythonic", "longcat"),
    *("mimo", "minicpm5", "minimax_m2", "minimax_m3", "mistral", "muse_glimmer", "olmo3", "openai", "phi4_mini_json"),
    *("plamo3", "poolside_v1", "pythonic", "qwen3_coder", "qwen3_json", "qwen3_xml", "seed_oss", "step3", "step3p5"),
    "xlam",
)
"""All that vLLM 0.32.0 registers (vllm/tool_parsers/__init__.py); a test holds the two against each other."""


_NAMES_TOOLS = re.compile(r"\{[{%][^{}%]*\btools\b")
"""A template does something with tools; as in `headrace_engines.serving.tools.formats`."""


def names_tools(template: str) -> bool:
    """Whether a chat template does something with the tools of a request."""
    return _NAMES_TOOLS.search(template) is not None


def tool_call_parser(model_dir: Path, given_template: Path | None = None, asked_for: str | None = None) -> str:
    """The parser's name; empty for a model whose template shows no form of calls that is known here.

    A parser that is asked for is of no use to a model that does not see the tools: vLLM would drop them without a word,
    where without a parser our gate refuses them.

    Args:
        model_dir: The model's folder.
        given_template: A file with the template that takes the place of the folder's; None without one.
        asked_for: The parser that the version names.
    """
    template = _template(model_dir) if given_template is None else _text(given_template)
    if asked_for:
        return asked_for if names_tools(template) else ""
    return next((parser for sign, parser in _SIGNS if re.search(sign, template, re.DOTALL)), "")


def _template(model_dir: Path) -> str:
    for name in _TEMPLATE_FILES:
        path = model_dir / name
        if not path.is_file():
            continue
        text = _text(path)
        if path.suffix == ".jinja":
            return text
        if template := _in_json(text):
            return template
    return ""


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _in_json(text: str) -> str:
    try:
        fields = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return ""
    template: Any = fields.get("chat_template") if isinstance(fields, dict) else None
    if isinstance(template, list):  # several by name, the default among them
        template = "\n".join(str(each.get("template", "")) for each in template if isinstance(each, dict))
    return template if isinstance(template, str) else ""
