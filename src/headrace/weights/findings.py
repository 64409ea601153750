"""Everything wrong with a folder, at once, before anything is copied or started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, TypeVar

import msgspec

from headrace.resources.errors import (
    ArtifactsNotFound,
    ChatTemplateMissing,
    CustomCodeIgnored,
    Failure,
    HeadraceError,
    TokenizerMissing,
    WeightsPickled,
    WeightsQuantised,
    error_from,
)
from headrace.weights.config import CONFIG_FILE, ModelConfig, read_config
from headrace.weights.folder import (
    TOKENIZER_FILES,
    TOKENIZER_JSON,
    find_tokenizer,
    find_weights,
    has_chat_template,
    require_indexed_tensors,
    require_readable_tokenizer,
)
from headrace.weights.header import TensorEntry, read_header
from headrace.weights.reader import FolderReader
from headrace.weights.task import task_of

T = TypeVar("T")


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong or odd about a folder.

    Attributes:
        code: A key of `headrace.resources.errors.CODES`.
        severity: An error keeps the model from being deployed; a warning tells what is lost.
        message: One sentence.
        file: The file that it is about; empty for the folder as a whole.
        evidence: What was seen.
        fix: What to do.
    """

    code: str
    severity: Literal["error", "warning"]
    message: str
    file: str = ""
    evidence: str = ""
    fix: str = ""


def check(reader: FolderReader) -> list[Finding]:
    """Look at a folder's listing, headers and small files, and name every fault; errors come first.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    found = [*_config_findings(reader), *_weights_findings(reader), *_tokenizer_findings(reader)]
    return sorted(found, key=lambda finding: finding.severity)


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Raise the first finding that is an error, as the exception of its code; warnings pass."""
    for finding in findings:
        if finding.severity == "error":
            raise error_from(Failure(finding.code, finding.message, finding.evidence, finding.fix))


def _config_findings(reader: FolderReader) -> Iterator[Finding]:
    found: list[Finding] = []
    config = _try(partial(read_config, reader), CONFIG_FILE, found)
    yield from found
    if isinstance(config, ModelConfig):
        yield from _config_contents(config)


def _config_contents(config: ModelConfig) -> Iterator[Finding]:
    if config.quantisation:
        quantised = WeightsQuantised(
            f"The weights are quantised with {config.quantisation}.",
            evidence=f"config.json has a quantization_config with quant_method {config.quantisation!r}.",
            fix="Import the model's 16- or 32-bit checkpoint.",
        )
        yield _finding(quantised, CONFIG_FILE)
    if config.custom_code:
        ignored = CustomCodeIgnored(
            "The model brings Python code of its own, which is never executed.",
            evidence="config.json has an auto_map.",
            fix="It works if the runtime has this architecture itself; else use a checkpoint in its native form.",
        )
        yield _finding(ignored, CONFIG_FILE, severity="warning")


def _weights_findings(reader: FolderReader) -> Iterator[Finding]:
    found: list[Finding] = []
    weights = _try(partial(find_weights, reader), "", found)
    if weights is None:
        yield from found
        return
    weights_format, names = weights
    if weights_format == "bin":
        pickled = WeightsPickled(
            "The weights are pickles, of which only the sizes are known.",
            evidence=f"{len(names)} *.bin files, {sum(reader.sizes()[name] for name in names):,} bytes.",
            fix="Save the model as safetensors to have it checked before it is deployed.",
        )
        yield _finding(pickled, names[0], severity="warning")
        return
    tensors: list[TensorEntry] = []
    for name in names:
        header = _try(partial(read_header, reader, name), name, found)
        tensors.extend(header.tensors if header else ())
    if not found:  # an index is held against whole files only: a cut file would be named twice
        _try(partial(require_indexed_tensors, reader, tuple(tensors)), "", found)
    yield from found


def _tokenizer_findings(reader: FolderReader) -> Iterator[Finding]:
    if not find_tokenizer(reader.sizes()):
        missing = TokenizerMissing(
            "The folder has no tokenizer.",
            evidence=f"None of {', '.join(TOKENIZER_FILES)} is there.",
            fix="Copy the tokenizer's files from the model's source beside config.json.",
        )
        yield _finding(missing)
        return
    found: list[Finding] = []
    _try(partial(require_readable_tokenizer, reader), TOKENIZER_JSON, found)
    template = _try(partial(has_chat_template, reader), "tokenizer_config.json", found)
    yield from found
    config = _try(partial(read_config, reader), CONFIG_FILE, [])  # its own faults are told elsewhere
    if template is False and not (config and task_of(config, reader.sizes()) == "embed"):
        absent = ChatTemplateMissing(
            "The tokenizer has no chat template: completions work, chats do not.",
            evidence="Neither chat_template in tokenizer_config.json nor chat_template.jinja.",
            fix="For an instruction-tuned model, copy the publisher's tokenizer_config.json or chat_template.jinja.",
        )
        yield _finding(absent, "tokenizer_config.json", severity="warning")


def _try(step: Callable[[], T], file: str, found: list[Finding]) -> T | None:
    try:
        return step()
    except ArtifactsNotFound:
        raise
    except HeadraceError as error:
        found.append(_finding(error, file))
        return None


def _finding(error: HeadraceError, file: str = "", severity: Literal["error", "warning"] = "error") -> Finding:
    return Finding(error.code, severity, error.message, file, error.evidence, error.fix)
