"""What the general conversion tells optimum-intel of checkpoints that are newer than its transformers."""

import json
from pathlib import Path

from headrace_engines.convert.amended import in_known_words


def folder_with(folder: Path, config: dict[str, object]) -> Path:
    """A model's folder, as far as it is looked at."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_new_word_is_told_as_the_old_one(tmp_path: Path) -> None:
    """The experts' number has the name that transformers 5.0 knows; all else is the folder's, which stays as it is."""
    config = {"model_type": "qwen3_moe", "num_local_experts": 4, "hidden_size": 32}
    source = folder_with(tmp_path, config)
    with in_known_words(source) as folder:
        told = json.loads((folder / "config.json").read_text())
        assert told == {"model_type": "qwen3_moe", "num_experts": 4, "hidden_size": 32}
        assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not folder.exists()
    assert json.loads((source / "config.json").read_text()) == config


def test_what_is_known_is_left_alone(tmp_path: Path) -> None:
    """A checkpoint with the old word, and one of another architecture, are read from where they lie."""
    for config in ({"model_type": "qwen3_moe", "num_experts": 4}, {"model_type": "mixtral", "num_local_experts": 4}):
        with in_known_words(folder_with(tmp_path, config)) as folder:
            assert folder == tmp_path
