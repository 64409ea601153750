"""Which models could take images, for engines that serve only the text of any."""

from __future__ import annotations

from collections.abc import Iterable

from headrace_engines.serving.capabilities import engines_that_honour
from headrace_engines.serving.errors import BadRequest

IMAGE_TYPES = frozenset(
    [
        "aria",
        "blip-2",
        "cohere2_vision",
        "cohere_compass",
        "cosmos3_edge",
        "diffusion_gemma",
        "ernie4_5_vl_moe",
        "exaone4_5",
        "gemma3",
        "gemma3n",
        "gemma4",
        "gemma4_unified",
        "glm4v",
        "glm4v_moe",
        "glm5_next",
        "glm_ocr",
        "granite4_vision",
        "idefics3",
        "internvl",
        "lfm2_vl",
        "llama4",
        "llava",
        "llava_next",
        "llava_next_video",
        "llava_onevision",
        "minicpmv4_6",
        "minicpmv4_7",
        "minimax_m3_vl",
        "mistral3",
        "muse_glimmer",
        "nemotron_h_omni",
        "paddleocr_vl",
        "paligemma",
        "qianfan_ocr",
        "qwen2_5_omni",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_omni_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
        "qwen4_exp",
        "smolvlm",
        "step3p7",
    ]
)
"""By ``model_type``: whose images vLLM takes; control has the same list (`headrace.runtimes.vllm.model_types`)."""


class ImagesNotHonoured(BadRequest):
    """An image for an engine that serves text; the message says whether another takes those of this very model."""

    def __init__(self, *, param: str, engine: str, sees: bool) -> None:
        able = " and ".join(engines_that_honour("images"))
        which = (
            f"which serves the text of this model alone; {able} takes its images: deploy it with --runtime {able}."
            if sees
            else f"and this model takes text alone, on every engine; deploy one that takes images, with {able}."
        )
        super().__init__(
            f"`{param}` (images) is not honoured by {engine}, {which}", param=param, code="unsupported_parameter"
        )


def sees(model_type: str, architectures: Iterable[str] | None) -> bool:
    """Whether a folder's model takes images, on an engine that passes them.

    Args:
        model_type: As its configuration says.
        architectures: The classes that it names. A causal language model of such a family is its text part alone.
    """
    return model_type in IMAGE_TYPES and not any(name.endswith("ForCausalLM") for name in architectures or ())
