"""Copies of the demo model's folder that differ from it in one thing."""

import json
import re
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


def shallow(source: Path, target: Path, layers: int) -> Path:
    """A copy with its first layers only: as large a vocabulary, answers without sense, and many times as fast."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": layers}
    (target / "config.json").write_text(json.dumps(config))
    with (source / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        begin = file.tell()
        kept, data = {"__metadata__": header.pop("__metadata__", {})}, bytearray()
        for name, tensor in header.items():
            layer = re.search(r"\.layers\.(\d+)\.", name)
            if layer is None or int(layer[1]) < layers:
                start, end = tensor["data_offsets"]
                kept[name] = tensor | {"data_offsets": [len(data), len(data) + end - start]}
                file.seek(begin + start)
                data += file.read(end - start)
    head = json.dumps(kept).encode()
    (target / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    return target
