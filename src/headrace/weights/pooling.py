"""A sentence-transformers folder's steps from tokens to one vector, held against those that the engine has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from headrace.resources.errors import ArchitectureUnsupported, ConfigInvalid
from headrace.weights.finding import Finding, finding_of
from headrace.weights.reader import SMALL_FILE_BYTES, FolderReader, read_json_object
from headrace.weights.task import SENTENCE_TRANSFORMERS_FILE

STEPS = ("Transformer", "Pooling", "Dense", "Normalize")
VECTOR = "sentence_embedding"
ACTIVATIONS = ("GELU", "Identity", "ReLU", "Sigmoid", "Tanh")
MODES = ("cls", "max", "mean", "lasttoken")
"""What our transformers engine computes, the only one that embeds (`headrace_engines.transformers.pooling`)."""

_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


def pooling_findings(reader: FolderReader) -> Iterator[Finding]:
    """What such a folder asks for and no engine has.

    Raises:
        ConfigInvalid: The configuration of its pooling, or of a dense layer, is not one.
    """
    sizes = reader.sizes()
    size_bytes = sizes.get(SENTENCE_TRANSFORMERS_FILE)
    if size_bytes is None:
        return
    try:
        content = reader.read_range(SENTENCE_TRANSFORMERS_FILE, 0, min(size_bytes, SMALL_FILE_BYTES))
        modules = msgspec.json.decode(content, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        invalid = ConfigInvalid(
            f"{SENTENCE_TRANSFORMERS_FILE} is not a list of steps.",
            evidence=f"{error}",
            fix=f"Copy {SENTENCE_TRANSFORMERS_FILE} from the model's source again.",
        )
        yield finding_of(invalid, SENTENCE_TRANSFORMERS_FILE)
        return
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := sorted(set(kinds) - set(STEPS)):
        yield finding_of(_unserved(f"the step {unknown[0][:80]}", STEPS), SENTENCE_TRANSFORMERS_FILE)
    if "Pooling" in kinds:
        path = f"{modules[kinds.index('Pooling')].get('path', '')}/config.json".removeprefix("/")
        if path not in sizes:
            missing = ConfigInvalid(
                "The folder does not say how it pools.",
                evidence=f"{SENTENCE_TRANSFORMERS_FILE} names {path[:200]}, which is not there.",
                fix="Copy the file from the model's source.",
            )
            yield finding_of(missing, SENTENCE_TRANSFORMERS_FILE)
        elif wrong := _unknown_modes(read_json_object(reader, path, ConfigInvalid)):
            yield finding_of(_unserved(f"the pooling {wrong[:80]}", MODES), path)
    yield from _step_findings(reader, modules, kinds)


def _step_findings(
    reader: FolderReader, modules: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> Iterator[Finding]:
    """What stands where there is no vector yet, and dense layers that no engine takes."""
    pooled = kinds.index("Pooling") if "Pooling" in kinds else len(kinds)
    for place, (module, kind) in enumerate(zip(modules, kinds, strict=True)):
        if (kind == "Dense" and place < pooled) or (kind == "Normalize" and place < pooled < len(kinds)):
            early = _unserved(f"the step {kind} without a pooling before it", STEPS)
            yield finding_of(early, SENTENCE_TRANSFORMERS_FILE)
        elif kind == "Dense" and not str(module["type"]).startswith("sentence_transformers."):
            yield finding_of(_unserved(f"the step {str(module['type'])[:80]}", STEPS), SENTENCE_TRANSFORMERS_FILE)
        elif kind == "Dense":
            yield from _dense_findings(reader, str(module.get("path", "")))


def _dense_findings(reader: FolderReader, path: str) -> Iterator[Finding]:
    """What a dense layer lacks, or has and no engine takes."""
    config, weights = f"{path}/config.json", f"{path}/model.safetensors"
    if lacking := [name for name in (config, weights) if name not in reader.sizes()]:
        pickled = f"{path}/pytorch_model.bin" in reader.sizes()
        missing = ConfigInvalid(
            "A dense layer of the folder is not whole.",
            evidence=f"{SENTENCE_TRANSFORMERS_FILE} names {path[:200]}, and {' and '.join(lacking)[:200]} is missing"
            f"{'; a pickle is there, and pickles of layers are not read' if pickled else ''}.",
            fix="Save the model with sentence-transformers 3 or newer, which writes model.safetensors for each layer."
            if pickled
            else "Copy the files from the model's source.",
        )
        yield finding_of(missing, SENTENCE_TRANSFORMERS_FILE)
        return
    said = read_json_object(reader, config, ConfigInvalid)
    where, _, name = (told := str(said.get("activation_function", "torch.Tanh"))).rpartition(".")
    if name not in ACTIVATIONS or where.partition(".")[0] != "torch":
        yield finding_of(_unserved(f"the activation {told[:80]}", ACTIVATIONS), config)
    for side in ("module_input_name", "module_output_name"):
        if said.get(side) not in (None, VECTOR):
            yield finding_of(_unserved(f"{side} {str(said[side])[:80]}", (VECTOR,)), config)


def _unknown_modes(config: Mapping[str, Any]) -> str:
    """The modes that are none of ours, or that there is none; empty where all is well."""
    named = config.get("pooling_mode")
    if named is None:
        asked = [flag for flag, value in config.items() if flag.startswith("pooling_mode_") and value is True]
    else:
        asked = [str(one) for one in named] if isinstance(named, list) else [str(named)]
    modes = {_OLD_NAMES.get(one, one) for one in asked}
    return ", ".join(sorted(modes - set(MODES))) if modes else "nothing"


def _unserved(what: str, known: tuple[str, ...]) -> ArchitectureUnsupported:
    return ArchitectureUnsupported(
        "The folder's vectors are made in a way that no engine here has.",
        evidence=f"It asks for {what}; there are {', '.join(known)}.",
        fix="Use a model whose vectors are made of these alone: without the step they would be others.",
    )
