"""Whether a registered version can be served at all, as far as its row tells."""

from __future__ import annotations

import re

from headrace.resources.errors import NotSupported
from headrace.resources.models import ModelVersion

_KNOWN_IMAGES = re.compile(r"vllm|text-generation|tgi|sglang|transformers|openvino|headrace", re.IGNORECASE)
"""Words in the names of images that serve text models in the Hugging Face format: our runtimes stand in for them."""


def servable(version: ModelVersion) -> None:
    """Hold that one of our runtimes can take its container's place.

    Raises:
        NotSupported: It names a container image that we do not know, or has no artifacts.
    """
    image = str((version.spec.container or {}).get("imageUri") or "")
    name = image.rpartition("/")[2]
    if image and not _KNOWN_IMAGES.search(name):
        raise NotSupported(
            f"The container image {image[:200]!r} cannot be run yet.",
            evidence=f"Version {version.version} of model {version.model_id!r} names it; known are images of vLLM and "
            "of text-generation servers, in whose place Headrace's own runtimes serve the artifacts.",
            fix="Upload the model's files with an image of these, or without one.",
        )
    if not version.artifact_uri:
        raise NotSupported(
            f"Version {version.version} of model {version.model_id!r} has no artifacts.",
            fix="Upload a version with artifactUri.",
        )
