"""Where a folder keeps its chat template, and the special tokens that templates write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.resources.errors import ChatTemplateInvalid, ConfigInvalid
from headrace.weights.reader import FolderReader, read_json_object

TEMPLATE_FILE = "chat_template.jinja"
OLDER_FILE = "chat_template.json"
"""Where processors had their template before there was the other. transformers' tokenizers do not look into it, so a
node hands the engine what is in it (`headrace.node.chat_template`)."""

TEMPLATE_MAX_BYTES = 1024 * 1024
"""The longest template that is looked at; the longest published ones have about 30 kB."""

GIVEN = "--chat-template"
"""In place of a file's name, for a template that is not the folder's."""

_CONFIG = "tokenizer_config.json"
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Template(msgspec.Struct, frozen=True):
    """A folder's chat template.

    Attributes:
        file: The file that has it.
        text: The template for chats.
        for_tools: That for chats with tools, where the folder has another for them; else empty.
        tokens: The special tokens' texts by their names in ``tokenizer_config.json``; empty ones are not there.
    """

    file: str
    text: str
    for_tools: str
    tokens: dict[str, str]


def read_template(reader: FolderReader) -> Template | None:
    """The chat template that an engine uses: a file of its own, then ``tokenizer_config.json``, last `OLDER_FILE`.

    Raises:
        ChatTemplateInvalid: It is too long, or not text.
        ConfigInvalid: The file that holds it is not a JSON object.
    """
    sizes = reader.sizes()
    config = read_json_object(reader, _CONFIG, ConfigInvalid) if _CONFIG in sizes else {}
    file, named = _CONFIG, _named(config.get("chat_template"))
    if TEMPLATE_FILE in sizes:
        file, named = TEMPLATE_FILE, {"default": _text(reader, TEMPLATE_FILE)}
        if (tools := "additional_chat_templates/tool_use.jinja") in sizes:
            named |= {"tool_use": _text(reader, tools)}
    elif not any(named.values()) and OLDER_FILE in sizes:
        file, named = OLDER_FILE, _named(read_json_object(reader, OLDER_FILE, ConfigInvalid).get("chat_template"))
    text = named.get("default") or next(iter(named.values()), "")
    if not text:
        return None
    if max(len(each) for each in named.values()) > TEMPLATE_MAX_BYTES:
        raise ChatTemplateInvalid(
            "The chat template is too long to be one.", evidence=f"{file}: more than {TEMPLATE_MAX_BYTES:,} bytes."
        )
    return Template(file, text, named.get("tool_use", ""), _tokens(config))


def given_template(reader: FolderReader, text: str) -> Template:
    """One that stands for all that the folder has, with the folder's special tokens.

    Raises:
        ConfigInvalid: ``tokenizer_config.json`` is not a JSON object.
    """
    config = read_json_object(reader, _CONFIG, ConfigInvalid) if _CONFIG in reader.sizes() else {}
    return Template(GIVEN, text, "", _tokens(config))


def _named(value: Any) -> dict[str, str]:
    """One template, or several in a list of objects with a name."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, dict):
        return {name: text for name, text in value.items() if isinstance(text, str)}
    found: dict[str, str] = {}
    for each in value if isinstance(value, list) else ():
        if not isinstance(each, dict):
            continue
        name, text = each.get("name"), each.get("template")
        if isinstance(name, str) and isinstance(text, str):
            found[name] = text
    return found


def _text(reader: FolderReader, file: str) -> str:
    size_bytes = min(reader.sizes()[file], TEMPLATE_MAX_BYTES + 1)
    try:
        return reader.read_range(file, 0, size_bytes).decode()
    except UnicodeDecodeError as error:
        raise ChatTemplateInvalid(
            f"{file} is not text.", evidence=f"{file}: {error}.", fix="Copy it from the model's source again."
        ) from error


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _TOKENS:
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        found[name] = content if isinstance(content, str) else ""
    return found
