"""A tiny Llama whose architecture only the Python code in its own folder knows, and which tells when that code ran."""

import json
import shutil
from pathlib import Path

CONFIGURATION = """
from transformers import LlamaConfig


class RiverConfig(LlamaConfig):
    model_type = "river"
"""

MODELLING = """
from transformers import LlamaForCausalLM

from .configuration_river import RiverConfig

with open({marker!r}, "a") as file:
    file.write("run\\n")


class RiverForCausalLM(LlamaForCausalLM):
    config_class = RiverConfig
"""

AUTO_MAP = {"AutoConfig": "configuration_river.RiverConfig", "AutoModelForCausalLM": "modeling_river.RiverForCausalLM"}


def own_code_folder(llama: Path, target: Path, marker: Path) -> Path:
    """A copy of a Llama that calls itself a river; its code writes to ``marker`` when it is imported."""
    shutil.copytree(llama, target)
    config = json.loads((llama / "config.json").read_text())
    config |= {"model_type": "river", "architectures": ["RiverForCausalLM"], "auto_map": AUTO_MAP}
    (target / "config.json").write_text(json.dumps(config))
    (target / "configuration_river.py").write_text(CONFIGURATION)
    (target / "modeling_river.py").write_text(MODELLING.format(marker=str(marker)))
    return target
