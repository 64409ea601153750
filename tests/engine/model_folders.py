"""Copies of the demo model's folder that differ from it in one thing."""

import json
import shutil
from pathlib import Path

TOOL_TEMPLATE = (Path(__file__).parent / "tool_template.jinja").read_text()
"""SmolLM2's own, word for word, as long as there are no tools; these it shows and reads as Hermes models do."""


def with_template(source: Path, target: Path, template: str) -> Path:
    """A copy with another chat template, wherever the folder keeps its own; weights are linked, not copied."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in {".safetensors", ".bin"}:
            (target / path.name).symlink_to(path.resolve())
        else:
            shutil.copyfile(path, target / path.name)
    if (target / "chat_template.jinja").exists():
        (target / "chat_template.jinja").write_text(template)
    config = target / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template}))
    return target
