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
from headrace.weights.conversion.sources import require_writable
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
    lone_gguf,
    require_indexed_tensors,
    require_readable_tokenizer,
)
from headrace.weights.gguf_alone import gguf_error
from headrace.weights.header import SafetensorsHeader, TensorEntry, read_ahead, read_header
from headrace.weights.pickles import PickledFile, check_loaded, check_unloaded
from headrace.weights.pooling import pooling_findings
from headrace.weights.reader import FolderReader, read_once
from headrace.weights.structure import structure_findings
from headrace.weights.task import SENTENCE_TRANSFORMERS_FILE, task_of
from headrace.weights.templates import check_template, given_template, read_template
from headrace.weights.time_series import MODEL_TYPES, check_time_series
from headrace.weights.tokenizer import check_tokenizer


def check(
    reader: FolderReader,
    *,
    sample: bool = False,
    strict: bool = False,
    allow_custom_code: bool = False,
    specification: str = "",
    chat_template: str | None = None,
) -> list[Finding]:
    """Look at a folder's listing, headers and small files, and name every fault; errors come first.

    Args:
        reader: The folder.
        sample: Read the beginnings of tensors, too, and look for NaN and infinity.
        strict: Refuse base models that their publisher quantised.
        allow_custom_code: The folder's own code is to run, in its engine: hold that it is there, and say which it is.
        specification: The software specification of watsonx.ai that has to be certified for the model; empty: none.
        chat_template: The text of one that is used instead of the folder's.

    Raises:
        ArtifactsNotFound: The reader cannot read any more.
    """
    reader = read_once(reader)
    if gguf := lone_gguf(reader.sizes()):  # it brings its own configuration and tokenizer
        return [finding_of(gguf_error(reader, gguf), gguf[0])]
    headers: list[SafetensorsHeader] = []
    pickles: list[PickledFile] = []
    found = _config_findings(reader, allow_custom_code=allow_custom_code)
    found += [*_weights_findings(reader, headers, pickles), *_tokenizer_findings(reader, chat_template)]
    found += structure_findings(reader, headers, pickles, sample=sample, strict=strict, specification=specification)
    return sorted(found, key=lambda each: each.severity)


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Raise the first finding that is an error, as the exception of its code; warnings pass."""
    for each in findings:
        if each.severity == "error":
            raise error_from(Failure(each.code, each.message, each.evidence, each.fix))


def _config_findings(reader: FolderReader, *, allow_custom_code: bool) -> list[Finding]:
    found: list[Finding] = []
    config = attempt(partial(read_config, reader), CONFIG_FILE, found)
    if isinstance(config, ModelConfig):
        found += check_custom_code(reader, allowed=allow_custom_code)
        if config.model_type in MODEL_TYPES:
            found += check_time_series(reader, _tensors(reader))
    found += attempt(lambda: list(pooling_findings(reader)), SENTENCE_TRANSFORMERS_FILE, found) or ()
    return found


def _weights_findings(
    reader: FolderReader, headers: list[SafetensorsHeader], pickles: list[PickledFile]
) -> Iterator[Finding]:
    """What is wrong with the weight files; if all are whole, what they say is put into ``headers`` or ``pickles``."""
    found: list[Finding] = []
    weights = attempt(partial(find_weights, reader), "", found)
    if weights is None:
        yield from found
        return
    weights_format, names = weights
    if weights_format != "safetensors":
        yield from _pickle_findings(reader, names, pickles, loaded=weights_format == "bin")
        yield from check_unloaded(reader, names, NOT_THE_MODEL)
        return
    read_ahead(reader, names)
    read = [attempt(partial(read_header, reader, name), name, found) for name in names]
    whole = [header for header in read if header is not None]
    if not found:  # an index is held against whole files only: a cut file would be named twice
        tensors = tuple(tensor for header in whole for tensor in header.tensors)
        attempt(partial(require_indexed_tensors, reader, tensors), "", found)
    if not found:
        headers.extend(whole)
    yield from found
    yield from check_unloaded(reader, names, NOT_THE_MODEL)


def _pickle_findings(
    reader: FolderReader, names: tuple[str, ...], pickles: list[PickledFile], *, loaded: bool
) -> list[Finding]:
    """The same of pickles; those that no engine loads (``loaded``) have to be written anew, or are of no use."""
    found, files = check_loaded(reader, names)
    if len(files) == len(names):
        described = tuple(tensor for file in files for tensor in file.tensors)
        attempt(partial(require_indexed_tensors, reader, described, BIN_INDEX_FILE), "", found)
        refused: list[Finding] = []
        if not loaded:
            attempt(partial(require_writable, reader, files), "", refused)
        found = refused or found
    if not any(each.severity == "error" for each in found):
        pickles.extend(files)
    return found


def _tokenizer_findings(reader: FolderReader, chat_template: str | None) -> Iterator[Finding]:
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
        yield from _template_findings(reader, chat_template)


def _template_findings(reader: FolderReader, given: str | None) -> Iterator[Finding]:
    found: list[Finding] = []
    read = partial(read_template, reader) if given is None else partial(given_template, reader, given)
    template = attempt(read, "tokenizer_config.json", found)
    yield from found
    if template is not None:
        yield from check_template(template)
    elif not found:
        absent = ChatTemplateMissing(
            "The tokenizer has no chat template: completions work, chats do not.",
            evidence="Neither chat_template in tokenizer_config.json or chat_template.json, nor chat_template.jinja.",
            fix="For an instruction-tuned model, copy the publisher's tokenizer_config.json or chat_template.jinja.",
        )
        yield finding_of(absent, "tokenizer_config.json", "warning")


def _tensors(reader: FolderReader) -> tuple[TensorEntry, ...]:
    """What can be read of the weights' shapes; their own faults are told elsewhere."""
    folder = attempt(partial(inspect, reader), "", [])
    return folder.tensors if folder else ()
