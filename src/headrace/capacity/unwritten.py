"""A model of which there is only the configuration, as a folder of the weights that it would have."""

from __future__ import annotations

from headrace.capacity.parameters import Parameters, count_parameters
from headrace.resources.errors import ConfigInvalid
from headrace.weights.config import ModelConfig
from headrace.weights.folder import ModelFolder

_STORED = {"float32": ("F32", 4.0), "float16": ("F16", 2.0)}

_MXFP4_BYTES = 17 / 32
"""32 numbers of four bits share a scale of eight (OCP Microscaling Formats 1.0): 4.25 bits each."""

_FP8_BYTES = 1 + 4 / 128**2
"""One byte, and a float32 scale for each block of 128 × 128 (arXiv:2412.19437, section 3.3)."""


def unwritten(config: ModelConfig) -> ModelFolder:
    """The folder that a publisher would have written for this configuration.

    Raises:
        ConfigInvalid: The number of parameters cannot be told from it.
    """
    parameters = count_parameters(config)
    if parameters is None:
        raise ConfigInvalid(
            "The folder has no weights, and their size cannot be told from its configuration.",
            evidence=f"model_type is {config.model_type}.",
            fix="Put the weights beside it, or at least the sizes that its family takes.",
        )
    stored = str(config.text.get("dtype") or config.text.get("torch_dtype") or "bfloat16")
    name, number_bytes = _STORED.get(stored, ("BF16", 2.0))
    weight_bytes = _bytes(parameters, config.quantisation, number_bytes)
    return ModelFolder(
        config=config,
        weights_format="safetensors",
        weight_files=(),
        weight_bytes=weight_bytes,
        parameters=parameters.total,
        bytes_by_dtype={name: weight_bytes},
        tensors=(),
        files={},
        tokenizer_files=(),
        has_chat_template=False,
    )


def _bytes(parameters: Parameters, quantisation: str | None, number_bytes: float) -> int:
    """In the formats that publishers of V2's list use themselves: gpt-oss's experts in MXFP4, DeepSeek V3 in FP8."""
    if quantisation == "mxfp4":
        rest = parameters.total - parameters.routed
        return round(parameters.routed * _MXFP4_BYTES + rest * number_bytes)
    if quantisation == "fp8":
        return round(parameters.total * _FP8_BYTES)
    return round(parameters.total * number_bytes)
