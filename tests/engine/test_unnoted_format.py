"""Weights whose files do not note their format: what lets a deployment serve them without writing them anew."""

import json
import os
from pathlib import Path

from engine_launch import in_the_form_of
from engine_process import EngineProcess, start_engine

QUESTION = "Name three rivers of Europe."


def unnoted(source: Path, target: Path) -> Path:
    """The same folder with weights of which only the note is gone."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            os.link(path, target / path.name)
            continue
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        del header["__metadata__"]
        written = json.dumps(header).encode()
        (target / path.name).write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])
    return target


def test_every_engine_loads_it_and_answers_the_same(engine: EngineProcess, model_folder: Path, tmp_path: Path) -> None:
    """The greedy answer is that of the folder whose files note it."""
    folder = in_the_form_of(engine.name, unnoted(model_folder, tmp_path / "unnoted"))
    with start_engine(folder, engine=engine.name) as other:
        other.wait_ready()
        assert other.text(QUESTION, max_tokens=24, temperature=0) == engine.text(QUESTION, max_tokens=24, temperature=0)
