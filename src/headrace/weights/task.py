"""What a model folder is for, told from its listing and its configuration."""

from __future__ import annotations

from collections.abc import Container

from headrace.resources.models import Task
from headrace.weights.config import ModelConfig

SENTENCE_TRANSFORMERS_FILE = "modules.json"
"""In every folder that the sentence-transformers library wrote: the steps from tokens to one vector."""

ENCODER_TYPES = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "distilbert",
        "electra",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    }
)
"""Families, by ``model_type``, whose models read a text and write none. The engine that serves them has the same list
(`headrace_engines.transformers.kinds`)."""

_DECODER_CLASSES = ("LMHeadModel", "ForCausalLM")
"""How the names of those classes end that make decoders of the same families."""


def task_of(config: ModelConfig, files: Container[str]) -> Task:
    """Whether a folder's model embeds texts or generates them.

    Args:
        config: The folder's configuration.
        files: The names of its files.
    """
    if SENTENCE_TRANSFORMERS_FILE in files:
        return "embed"
    decodes = any(name.endswith(_DECODER_CLASSES) for name in config.architectures)
    return "embed" if config.model_type in ENCODER_TYPES and not decodes else "generate"
