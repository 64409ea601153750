"""Everything wrong with a folder, at once, before anything is copied or started."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from headrace.resources.errors import (
    ChatTemplateMissing,
    Failure,
    TokenizerMissing,
    error_from,
)
from headrace.weights.config import CONFIG_FILE, ModelConfig, read_config
from headrace.weights.custom_code import check_custom_code
from headrace.weights.finding import Finding, attempt, finding_of
from headrace.weights.folder import (
    BIN_INDEX_FILE,
    NOT_THE_MODEL,
    TOKENIZER_FILES,
    TOKENIZER_JSON,
    find_tokenizer,
    find_weights,
    inspect,
    require_indexed_tensors,
    require_readable_tokenizer,
)
from headrace.weights.header import SafetensorsHeader, TensorEntry, read_header
from headrace.weights.pickles import check_loaded, check_unloaded
from headrace.weights.reader import FolderReader
from headrace.weights.structure import structure_findings
from headrace.weights.task import task_of
from headrace.weights.templates import check_template, read_template
from headrace.weights.time_series import MODEL_TYPES, check_time_series
from headrace.weights.tokenizer import check_tokenizer


def check(reader: FolderReader, *, sample: bool = False, strict: bool = False) -> list[Finding]:
    """Look at a folder's listing, headers and small files, and name every fault; errors come first.

    Args:
        reader: The folder.
        sample: Read the beginnings of tensors, too, and look for NaN and infinity.
        strict: Refuse base models that their publisher quantised.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    headers: list[SafetensorsHeader] = []
    found = [*_config_findings(reader), *_weights_findings(reader, headers), *_tokenizer_findings(reader)]
    found += structure_findings(reader, headers, sample=sample, strict=strict)
    return sorted(found, key=lambda each: each.severity)


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Raise the first finding that is an error, as the exception of its code; warnings pass."""
    for each in findings:
        if each.severity == "error":
            raise error_from(Failure(each.code, each.message, each.evidence, each.fix))


def _config_findings(reader: FolderReader) -> Iterator[Finding]:
    found: list[Finding] = []
    config = attempt(partial(read_config, reader), CONFIG_FILE, found)
    yield from found
    if isinstance(config, ModelConfig):
        yield from check_custom_code(reader, config)
        if config.model_type in MODEL_TYPES:
            yield from check_time_series(reader, _tensors(reader))


def _weights_findings(reader: FolderReader, headers: list[SafetensorsHeader]) -> Iterator[Finding]:
    """What is wrong with the weight files; their headers are put into ``headers`` if they are whole."""
    found: list[Finding] = []
    weights = attempt(partial(find_weights, reader), "", found)
    if weights is None:
        yield from found
        return
    weights_format, names = weights
    if weights_format == "bin":
        pickled, files = check_loaded(reader, names)
        if len(files) == len(names):
            described = tuple(tensor for file in files for tensor in file.tensors)
            attempt(partial(require_indexed_tensors, reader, described, BIN_INDEX_FILE), "", pickled)
        yield from pickled
        yield from check_unloaded(reader, names, NOT_THE_MODEL)
        return
    read = [attempt(partial(read_header, reader, name), name, found) for name in names]
    whole = [header for header in read if header is not None]
    if not found:  # an index is held against whole files only: a cut file would be named twice
        tensors = tuple(tensor for header in whole for tensor in header.tensors)
        attempt(partial(require_indexed_tensors, reader, tensors), "", found)
    if not found:
        headers.extend(whole)
    yield from found
    yield from check_unloaded(reader, names, NOT_THE_MODEL)


def _tokenizer_findings(reader: FolderReader) -> Iterator[Finding]:
    config = attempt(partial(read_config, reader), CONFIG_FILE, [])  # its own faults are told elsewhere
    if config and config.model_type in MODEL_TYPES:
        return  # numbers are not cut into tokens
    if not find_tokenizer(reader.sizes()):
        missing = TokenizerMissing(
            "The folder has no tokenizer.",
            evidence=f"None of {', '.join(TOKENIZER_FILES)} is there.",
            fix="Copy the tokenizer's files from the model's source beside config.json.",
        )
        yield finding_of(missing)
        return
    found: list[Finding] = []
    attempt(partial(require_readable_tokenizer, reader), TOKENIZER_JSON, found)
    if not found:
        yield from check_tokenizer(reader, config)
    yield from found
    if not (config and task_of(config, reader.sizes()) == "embed"):
        yield from _template_findings(reader)


def _template_findings(reader: FolderReader) -> Iterator[Finding]:
    found: list[Finding] = []
    template = attempt(partial(read_template, reader), "tokenizer_config.json", found)
    yield from found
    if template is not None:
        yield from check_template(template)
    elif not found:
        absent = ChatTemplateMissing(
            "The tokenizer has no chat template: completions work, chats do not.",
            evidence="Neither chat_template in tokenizer_config.json nor chat_template.jinja.",
            fix="For an instruction-tuned model, copy the publisher's tokenizer_config.json or chat_template.jinja.",
        )
        yield finding_of(absent, "tokenizer_config.json", "warning")


def _tensors(reader: FolderReader) -> tuple[TensorEntry, ...]:
    """What can be read of the weights' shapes; their own faults are told elsewhere."""
    folder = attempt(partial(inspect, reader), "", [])
    return folder.tensors if folder else ()
