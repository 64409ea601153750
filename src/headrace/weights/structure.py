"""All that tensors and configuration say about each other, in the order in which it makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.resources.errors import ConfigInvalid
from headrace.weights.architectures import HEADS, place_of
from headrace.weights.config import CONFIG_FILE, parse_config
from headrace.weights.file_set import dtype_findings, duplicate_findings, file_set_findings
from headrace.weights.finding import Finding
from headrace.weights.header import SafetensorsHeader, TensorEntry
from headrace.weights.not_finite import not_finite_findings
from headrace.weights.pickles import PickledFile
from headrace.weights.quantisation import method_of, quantisation_finding
from headrace.weights.reader import FolderReader, read_json_object
from headrace.weights.shapes import shape_findings
from headrace.weights.specifications import specification_findings
from headrace.weights.task import task_of


def structure_findings(
    reader: FolderReader,
    headers: Sequence[SafetensorsHeader],
    pickles: Sequence[PickledFile] = (),
    *,
    sample: bool = False,
    strict: bool = False,
    specification: str = "",
) -> Iterator[Finding]:
    """Hold whole weight files against each other and against a configuration that can be read.

    Args:
        reader: The folder.
        headers: Of all weight files; none where one of them is broken, or where they are not safetensors.
        pickles: What the weight files describe where they are pickles; none where one of them is broken.
        sample: Read the beginnings of tensors, too, and look for NaN and infinity.
        strict: Refuse base models that their publisher quantised.
        specification: The software specification that has to be certified for the model; empty: none.
    """
    yield from file_set_findings(reader, headers)
    yield from duplicate_findings(pickles)
    if sample:
        yield from not_finite_findings(reader, headers, pickles)
    if CONFIG_FILE not in reader.sizes():
        return
    try:
        raw = read_json_object(reader, CONFIG_FILE, ConfigInvalid)
        config = parse_config(raw)
    except ConfigInvalid:
        return  # told by its own finding
    tensors = [tensor for header in headers for tensor in header.tensors]
    tensors += _of_pickles(pickles, tied=raw.get("tie_word_embeddings") is True)
    if specification:
        yield from specification_findings(raw, specification)
    method = method_of(raw, tensors)
    if method is not None:
        yield quantisation_finding(raw, *method, strict=strict, specification=specification)
    elif tensors:
        yield from dtype_findings(raw, tensors)
        generates = task_of(config, reader.sizes()) == "generate"
        yield from shape_findings(raw, tensors, generates=generates)


def _of_pickles(pickles: Sequence[PickledFile], *, tied: bool) -> Iterator[TensorEntry]:
    """All tensors but a tied head, which is a second name for the embedding's numbers and none that is thrown away."""
    for file in pickles:
        for tensor in file.tensors:
            if not (tied and tensor.name in file.shared and place_of(tensor.name).pattern in HEADS):
                yield tensor
