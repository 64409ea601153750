"""Time-series models (TinyTimeMixer): their two configurations agree with each other and with the weights.

watsonx.ai asks for ``tsfm_config.json`` beside ``config.json`` (W1 of the requirements); the models' publishers on the
Hub do not write it, so a folder without is only told what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from headrace.resources.errors import ArchitectureUnsupported, TimeSeriesConfig
from headrace.weights.config import CONFIG_FILE
from headrace.weights.finding import Finding, attempt, finding_of
from headrace.weights.header import TensorEntry
from headrace.weights.reader import FolderReader, read_json_object

MODEL_TYPES = frozenset({"tinytimemixer"})
TSFM_FILE = "tsfm_config.json"

_SIZES = ("context_length", "prediction_length", "num_input_channels", "d_model")
_FIX = "Copy config.json, tsfm_config.json and the weights from the same revision of the model."


def check_time_series(reader: FolderReader, tensors: Iterable[TensorEntry]) -> Iterator[Finding]:
    """Name what is missing or does not agree in a time-series model's folder.

    Args:
        reader: The folder; its ``config.json`` can be read.
        tensors: Those of its weights that could be read.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    found: list[Finding] = []
    config = attempt(partial(read_json_object, reader, CONFIG_FILE, TimeSeriesConfig), CONFIG_FILE, found) or {}
    if TSFM_FILE in reader.sizes():
        more = attempt(partial(read_json_object, reader, TSFM_FILE, TimeSeriesConfig), TSFM_FILE, found) or {}
        found += _disagreements(config, more)
    else:
        missing = TimeSeriesConfig(
            "The folder has no tsfm_config.json, which watsonx.ai asks for.",
            evidence=f"config.json has the model_type {config.get('model_type')}.",
            fix="Copy tsfm_config.json from the model's source, if it has one.",
        )
        found.append(finding_of(missing, TSFM_FILE, "warning"))
    yield from found
    yield from _invalid_sizes(config)
    yield from _against_tensors(config, tensors)
    unserved = ArchitectureUnsupported(
        "No runtime serves time-series models yet.",
        evidence=f"config.json has the model_type {config.get('model_type')}.",
        fix="`headrace runtimes` lists what there is.",
    )
    yield finding_of(unserved, CONFIG_FILE, "warning")


def _disagreements(config: dict[str, Any], more: dict[str, Any]) -> Iterator[Finding]:
    for field in _SIZES:
        ours, theirs = config.get(field), more.get(field)
        if _is_size(ours) and theirs is not None and ours != theirs:
            evidence = f"{field} is {_shown(ours)} in config.json and {_shown(theirs)} in {TSFM_FILE}."
            yield finding_of(
                TimeSeriesConfig("The two configurations disagree.", evidence=evidence, fix=_FIX), TSFM_FILE
            )


def _invalid_sizes(config: dict[str, Any]) -> Iterator[Finding]:
    for field in _SIZES:
        value = config.get(field)
        if value is not None and not _is_size(value):
            evidence = f"{field} is {_shown(value)}."
            yield finding_of(
                TimeSeriesConfig("A size is not a whole number above zero.", evidence=evidence, fix=_FIX), CONFIG_FILE
            )


def _against_tensors(config: dict[str, Any], tensors: Iterable[TensorEntry]) -> Iterator[Finding]:
    """``backbone.encoder.patcher`` turns a patch into ``d_model`` numbers (``TinyTimeMixerEncoder`` of tsfm_public)."""
    width = config.get("d_model")
    for entry in tensors:
        if not entry.name.endswith("encoder.patcher.weight") or len(entry.shape) != 2 or not isinstance(width, int):
            continue
        if entry.shape[0] != width:
            evidence = f"d_model is {width} in config.json; {entry.name} has the shape {list(entry.shape)}."
            disagree = TimeSeriesConfig("config.json and the weights disagree.", evidence=evidence, fix=_FIX)
            yield finding_of(disagree, CONFIG_FILE)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40


def _shown(value: Any) -> str:
    """A value for the evidence: neither deep lists nor numbers of a thousand digits become text."""
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    return repr(value[:40]) if isinstance(value, str) else f"no size but a {type(value).__name__}"
