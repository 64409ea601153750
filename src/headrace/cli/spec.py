"""How a version is to be served: a template read from a file for it, and what was asked for as rows of a table."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.cli.exits import WrongUsage
from headrace.cli.output import size
from headrace.resources.models import CHAT_TEMPLATE_MAX_BYTES

ENGINE_PANEL = "How the engine runs it"


def read_template(path: Path) -> str:
    """The text of a chat template.

    Raises:
        WrongUsage: The file is none, or cannot be a template.
    """
    try:
        content = _beginning(path)
        text = content.decode() if len(content) <= CHAT_TEMPLATE_MAX_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(
            "The chat template cannot be read.",
            evidence=f"{path}: {getattr(error, 'strerror', None) or 'it is not text'}.",
            fix="Check --chat-template.",
        ) from error
    if not text.strip():
        what = f"longer than {size(CHAT_TEMPLATE_MAX_BYTES)}" if content.strip() else "empty"
        raise WrongUsage(
            "This is no chat template.",
            evidence=f"{path} is {what}.",
            fix="Name a file with the template alone, as chat_template.jinja is.",
        )
    return text


def _beginning(path: Path) -> bytes:
    """No more than a template may have and one byte, whatever was named by mistake."""
    if path.is_fifo():
        raise OSError(errno.EINVAL, "it is a pipe, which may never say anything")
    with path.open("rb") as file:
        return file.read(CHAT_TEMPLATE_MAX_BYTES + 1)


def rows(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was asked for: as the native API says it of a deployment, or Vertex AI's of a model."""
    template = spec.get("chat_template")
    template_bytes = spec.get("chatTemplateSizeBytes") if template is None else len(template.encode())
    devices = spec.get("tensor_parallel", spec.get("tensorParallel"))
    caching = spec.get("prefix_caching", spec.get("prefixCaching"))
    said = {
        "precision": spec.get("dtype"),
        "tensor parallel": devices and f"{devices} GPUs",
        "prefix caching": None if caching is None else "on" if caching else "off",
        "chat template": template_bytes and f"its own, {size(template_bytes)}",
        "tool parser": spec.get("tool_parser", spec.get("toolParser")),
        "own code": spec.get("allow_custom_code", spec.get("allowCustomCode")) and "runs: it was allowed",
        "specification": spec.get("software_specification", spec.get("softwareSpecification")),
    }
    return [(name, str(value)) for name, value in said.items() if value]
