"""The general way: optimum-intel traces the model in torch and exports it, in an environment of its own.

``python -P -m headrace_engines.convert.general SOURCE TARGET --parent PID``. Everything is loaded from the folder; code
out of it is never run. Matrices come out in float16, as optimum-intel writes them: a checkpoint with numbers beyond its
range is refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from headrace_engines.convert.amended import amend_exporter, in_known_words, whole_checkpoints_only
from headrace_engines.convert.checkpoint import StoredTensor, open_checkpoint
from headrace_engines.convert.program import Progress, Stored, run
from headrace_engines.serving.fatal import FatalError

_FLOAT16_MAX = 65504.0


def convert(source: Path, target: Path, _stored: Stored, tell: Progress) -> None:
    """Export the model and its tokenizer into `target`.

    Args:
        source: The model's folder.
        target: Where to.
        _stored: There is one form here.
        tell: Told what is done.

    Raises:
        FatalError: ``CONVERSION_FAILED``: its numbers do not fit, or the export made no tokenizer.
            ``ENGINE_BAD_TENSOR``: it lacks tensors.
    """
    require_float16(source)
    tell("Starting the exporter")
    # Imported here: torch takes seconds, and a refusal should not wait for it.
    from optimum.exporters.openvino import main_export  # noqa: PLC0415
    from optimum.intel.openvino.configuration import OVConfig  # noqa: PLC0415

    warnings.filterwarnings("ignore")  # a trace warns of every branch that it takes
    tell("Tracing the model and writing its weights")
    amend_exporter()
    with in_known_words(source) as folder, whole_checkpoints_only():
        main_export(
            str(folder),
            target,
            task="text-generation-with-past",
            local_files_only=True,
            trust_remote_code=False,
            stateful=True,
            convert_tokenizer=True,
            library_name="transformers",
            ov_config=OVConfig(dtype="fp16"),
        )
    # optimum-intel says of a tokenizer that it cannot convert no more than a line in its debug log
    for made in ("openvino_model.xml", "openvino_tokenizer.xml", "openvino_detokenizer.xml"):
        if not (target / made).exists():
            raise FatalError("CONVERSION_FAILED", "optimum-intel could not convert all of it.", evidence=f"No {made}.")


def require_float16(source: Path) -> None:
    """Refuse numbers that float16 would make infinite.

    Raises:
        FatalError: There is one.
    """
    for tensor in open_checkpoint(source).values():
        if tensor.values.size and (largest := _largest(tensor)) > _FLOAT16_MAX:
            raise FatalError(
                "CONVERSION_FAILED",
                "The checkpoint's numbers do not fit float16.",
                evidence=f"{tensor.name} reaches {largest:.4g}; float16 ends at {_FLOAT16_MAX:.0f}.",
            )


def _largest(tensor: StoredTensor) -> float:
    if tensor.dtype == "BF16":  # without its sign, a bfloat16's word grows with the number
        word = np.uint32((tensor.values & 0x7FFF).max()) << 16
        return float(np.array([word], np.uint32).view(np.float32)[0])
    return float(np.abs(tensor.values).max())


if __name__ == "__main__":
    run("general", convert)
