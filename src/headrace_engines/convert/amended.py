"""What the general way tells the exporter that it does not know: newer words, phi's heads, that nothing is made up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace_engines.serving.fatal import FatalError

_SHOWN = 3

RENAMED = {"qwen3_moe": {"num_local_experts": "num_experts"}}
"""By ``model_type``, and by the name in ``config.json`` that transformers 5.23 writes: the one that 5.0 reads.

Of the other architectures of `runtimes.conversions` no field has another name (both versions' classes compared).
"""


@contextmanager
def in_known_words(source: Path) -> Iterator[Path]:
    """A model's folder as the converter's transformers reads it: itself, or links to its files beside other words."""
    config = json.loads((source / "config.json").read_bytes())
    names = RENAMED.get(config.get("model_type"), {})
    unknown = {new: old for new, old in names.items() if new in config and old not in config}
    if not unknown:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="headrace-convert-") as scratch:
        folder = Path(scratch)
        for path in source.iterdir():
            if path.name != "config.json":
                (folder / path.name).symlink_to(path.absolute())
        known = {unknown.get(name, name): value for name, value in config.items()}
        (folder / "config.json").write_text(json.dumps(known))
        yield folder


def amend_exporter() -> None:
    """Have optimum-intel trace phi with as many heads for keys as it has.

    It traces it with a cache of as many as there are for queries, to which the model's own keys cannot be added.
    """
    from optimum.exporters.openvino.model_configs import Phi3OpenVINOConfig, PhiOpenVINOConfig  # noqa: PLC0415

    PhiOpenVINOConfig.DUMMY_INPUT_GENERATOR_CLASSES = Phi3OpenVINOConfig.DUMMY_INPUT_GENERATOR_CLASSES
    PhiOpenVINOConfig.DUMMY_PKV_GENERATOR_CLASS = Phi3OpenVINOConfig.DUMMY_PKV_GENERATOR_CLASS


@contextmanager
def whole_checkpoints_only() -> Iterator[None]:
    """While it lasts transformers refuses a checkpoint that is not whole: it would make up what is missing.

    Of tied tensors, and of those that a class itself says need not be there, none is missed.

    Raises:
        FatalError: ``ENGINE_BAD_TENSOR``: within it, a checkpoint was loaded that lacks tensors.
    """
    from transformers import PreTrainedModel  # noqa: PLC0415

    own = PreTrainedModel.__dict__["from_pretrained"]

    def load_whole(kind: Any, *arguments: Any, **options: Any) -> Any:
        model, told = own.__func__(kind, *arguments, **options, output_loading_info=True)
        if missing := sorted(told["missing_keys"]):
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise FatalError(
                "ENGINE_BAD_TENSOR",
                f"The checkpoint lacks tensors of {kind.__name__}.",
                evidence=f"{', '.join(missing[:_SHOWN])}{more}.",
            )
        return model

    PreTrainedModel.from_pretrained = classmethod(load_whole)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = own
