"""The direct way: the graph is written out and the checkpoint's own numbers are put into it. No torch, seconds.

``python -P -m headrace_engines.convert.direct SOURCE TARGET --parent PID``, in the OpenVINO engine's environment. For
SmolLM2-135M (269 MB, two cores of an AMD EPYC, 2026-11-21) it takes 2 s of one core, most of them for the tokenizer
and 400 MB of memory, most of them pages of the file: weights in bfloat16 and float16 are never copied.
"""

from __future__ import annotations

import json
from pathlib import Path

import openvino as ov

from headrace_engines.convert.checkpoint import open_checkpoint
from headrace_engines.convert.decoder import read_decoder
from headrace_engines.convert.graph import build_model
from headrace_engines.convert.program import Progress, Stored, run
from headrace_engines.convert.tokenizer import write_tokenizer
from headrace_engines.convert.weights import Weights


def convert(source: Path, target: Path, stored: Stored, tell: Progress) -> None:
    """Write the model and its tokenizer into `target`.

    Raises:
        FatalError: ``CONVERSION_FAILED``: it is not one that is built here; the general way may know it.
    """
    tell("Writing the graph and its weights")
    decoder = read_decoder(json.loads((source / "config.json").read_bytes()))
    weights = Weights(decoder, open_checkpoint(source), stored)
    ov.save_model(build_model(decoder, weights), target / "openvino_model.xml", compress_to_fp16=False)
    tell("Writing the tokenizer")
    write_tokenizer(source, target)


if __name__ == "__main__":
    run("direct", convert)
