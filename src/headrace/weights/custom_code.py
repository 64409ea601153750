"""Python files in a model's folder: named, never executed."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.resources.errors import CustomCodeIgnored
from headrace.weights.config import CONFIG_FILE, ModelConfig
from headrace.weights.finding import Finding, finding_of
from headrace.weights.reader import FolderReader


def check_custom_code(reader: FolderReader, config: ModelConfig) -> Iterator[Finding]:
    """Say which code would be executed elsewhere (``trust_remote_code``) and is not here."""
    if not config.custom_code:
        return  # files that config.json does not ask for are nobody's to execute: examples, conversions
    files = sorted(name for name in reader.sizes() if name.endswith(".py"))
    there = f"{', '.join(files[:6])}{' …' if len(files) > 6 else ''}" if files else "none in the folder"
    ignored = CustomCodeIgnored(
        "The model brings Python code of its own, which is never executed.",
        evidence=f"config.json has an auto_map; *.py files: {there}.",
        fix="It works if the runtime has this architecture itself; else use a checkpoint in its native form.",
    )
    yield finding_of(ignored, CONFIG_FILE, "warning")
