"""Small models as folders: of Hugging Face's form, and as MLflow saves its flavour transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from small_models import llama_tensors

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 6,
    "vocab_size": 10,
    "max_position_embeddings": 128,
}
PYFUNC_ONLY = b"flavors:\n  python_function:\n    loader_module: mine\n"
MLMODEL = """artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.transformers
    model_binary: model
  transformers:
    code: null
    components:
    - tokenizer
    framework: pt
    instance_type: TextGenerationPipeline
    model_binary: model
    pipeline_model_type: LlamaForCausalLM
    source_model_name: mine
    task: text-generation
    tokenizer_type: PreTrainedTokenizerFast
signature:
  inputs: '[{"type": "string", "required": true}]'
  outputs: '[{"type": "string", "required": true}]'
"""


def hugging_face(folder: Path) -> Path:
    """The model as one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(llama_tensors(CONFIG), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokenizer(folder)
    return folder


def tokenizer(folder: Path) -> None:
    """Its tokenizer, with a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')


def mlflow(folder: Path) -> Path:
    """The same as MLflow saves it: the model in one folder, the tokenizer in another."""
    hugging_face(folder / "model")
    for path in (folder / "model").glob("tokenizer*"):
        path.unlink()
    tokenizer(folder / "components" / "tokenizer")
    (folder / "MLmodel").write_text(MLMODEL)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
