"""Run by the engine's Python: folders of one small model: safetensors, pickles that torch wrote, shards and no index.

Usage: ``python pickled_model.py SOURCE TARGET``: the source's first two layers, in each form, under TARGET/FORM.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LAYERS = 2


def main(source: Path, target: Path) -> None:
    """Write all."""
    state = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if (layer := re.search(r"\.layers\.(\d+)\.", name)) is None or int(layer[1]) < LAYERS
    }
    config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": LAYERS}
    for form in ("safetensors", "pickle", "saved", "unindexed"):
        folder = target / form
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        (folder / "config.json").write_text(json.dumps(config))
    save_file(state, target / "safetensors" / "model.safetensors", metadata={"format": "pt"})
    tied = state | {"lm_head.weight": state["model.embed_tokens.weight"]}  # as torch has it: one storage, two names
    torch.save(tied, target / "pickle" / "pytorch_model.bin")
    torch.save(tied, target / "saved" / "river.pt")
    half = len(state) // 2
    for number, names in enumerate((list(state)[:half], list(state)[half:]), start=1):
        part = {name: state[name] for name in names}
        save_file(part, target / "unindexed" / f"part-{number}.safetensors", metadata={"format": "pt"})


main(Path(sys.argv[1]), Path(sys.argv[2]))
