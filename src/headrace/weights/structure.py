"""All that tensors and configuration say about each other, in the order in which it makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.resources.errors import ConfigInvalid
from headrace.weights.config import CONFIG_FILE, parse_config
from headrace.weights.file_set import dtype_findings, file_set_findings
from headrace.weights.finding import Finding
from headrace.weights.header import SafetensorsHeader
from headrace.weights.not_finite import not_finite_findings
from headrace.weights.quantisation import method_of, quantisation_finding
from headrace.weights.reader import FolderReader, read_json_object
from headrace.weights.shapes import shape_findings


def structure_findings(
    reader: FolderReader, headers: Sequence[SafetensorsHeader], *, sample: bool = False, strict: bool = False
) -> Iterator[Finding]:
    """Hold whole weight files against each other and against a configuration that can be read.

    Args:
        reader: The folder.
        headers: Of all weight files; none where one of them is broken, or where they are not safetensors.
        sample: Read the beginnings of tensors, too, and look for NaN and infinity.
        strict: Refuse base models that their publisher quantised.
    """
    yield from file_set_findings(reader, headers)
    if sample:
        yield from not_finite_findings(reader, headers)
    if CONFIG_FILE not in reader.sizes():
        return
    try:
        raw = read_json_object(reader, CONFIG_FILE, ConfigInvalid)
        parse_config(raw)
    except ConfigInvalid:
        return  # told by its own finding
    tensors = [tensor for header in headers for tensor in header.tensors]
    method = method_of(raw, tensors)
    if method is not None:
        yield quantisation_finding(raw, *method, strict=strict)
    elif tensors:
        yield from dtype_findings(raw, tensors)
        yield from shape_findings(raw, tensors)
