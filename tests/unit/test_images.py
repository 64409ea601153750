"""Container images that our runtimes stand in for, and what their arguments ask."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.control.checking import require_deployable
from headrace.resources.errors import BadField, NotSupported
from headrace.resources.models import ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.runtimes.images import FAMILIES, family_of, require_served, stand_in, with_wishes

GOOGLE_VLLM = "us-docker.pkg.dev/vertex-ai/vertex-vision-model-garden-dockers/pytorch-vllm-serve:20241007_2233_RC00"
TGI = "us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-cu124.2-4.py311"


def vllm(*args: str, **fields: Any) -> dict[str, Any]:
    """A container of vLLM."""
    return {"imageUri": GOOGLE_VLLM, "args": list(args), **fields}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (GOOGLE_VLLM, "vLLM"),
        (
            "us-docker.pkg.dev/vertex-ai-restricted/vertex-vision-model-garden-dockers/pytorch-vllm-optimized-serve",
            "vLLM",
        ),
        ("us-docker.pkg.dev/deeplearning-platform-release/vertex-model-garden/vllm-inference.cu124:x", "vLLM"),
        ("vllm/vllm-openai:v0.11.0", "vLLM"),
        ("docker.io/vllm/vllm-openai@sha256:00", "vLLM"),
        ("registry.local:5000/mirror/vllm/vllm-openai:latest", "vLLM"),
        (TGI, "text generation inference"),
        ("ghcr.io/huggingface/text-generation-inference:3.0", "text generation inference"),
    ],
)
def test_known_images(image: str, name: str) -> None:
    """Google's and the projects' own images are known, in any registry and with any tag."""
    family = family_of(image)
    assert family is not None
    assert family.name == name


@pytest.mark.parametrize(
    "image", ["vllm", "example.com/mine:1", "evil/vllm-openai", "vllm/vllm-openai/other", "x/notvllm/vllm-openai-", ""]
)
def test_unknown_images(image: str) -> None:
    """An image that only looks like one is not taken for it; a version of it is refused, and it is named."""
    assert family_of(image) is None
    if image:
        with pytest.raises(NotSupported, match=image):
            require_served(ServingSpec(container={"imageUri": image}))


def test_what_vllm_is_told() -> None:
    """Model, context, precision, devices, cache and tool parser are understood; where it listens is not our matter."""
    container = vllm(
        "--host=0.0.0.0",
        "--model=gs://bkt/m",
        "--max_model_len=32k",
        "--dtype",
        "half",
        "--trust-remote-code",
        "--tensor-parallel-size",
        "2",
        "--enable-prefix-caching",
        "--tool-call-parser=hermes",
        "--disable-log-stats",
        command=["python", "-m", "vllm.entrypoints.api_server"],
    )
    spec = with_wishes(ServingSpec(container=container))
    assert (spec.max_model_len, spec.dtype, spec.tensor_parallel) == (32_000, "float16", 2)
    assert (spec.prefix_caching, spec.tool_parser, spec.allow_custom_code) == (True, "hermes", False)
    assert (spec.container, spec.runtime) == (container, "")
    assert stand_in(container).model == "gs://bkt/m"
    require_served(spec)


def test_what_tgi_is_told() -> None:
    """Its arguments and its variables."""
    said = {"imageUri": TGI, "env": [{"name": "MODEL_ID", "value": "google/gemma-2b"}, {"name": "X", "value": "y"}]}
    wish = stand_in({**said, "args": ["--max-total-tokens=2048", "--num-shard", "2", "--sharded", "true"]})
    assert (wish.fields, wish.model) == ({"max_model_len": 2048, "tensor_parallel": 2}, "hf://google/gemma-2b")
    assert stand_in({**said, "args": ["--model-id=/models/m"]}).model == "/models/m"


@pytest.mark.parametrize(
    ("args", "model"),
    [
        (["vllm", "serve", "google/gemma-2b", "--port", "8080"], "hf://google/gemma-2b"),
        (["--model=$(AIP_STORAGE_URI)"], ""),
        (["--model", "s3://b/m"], "s3://b/m"),
        (["--model=x"], ""),
        ([], ""),
    ],
)
def test_where_the_model_is(args: list[str], model: str) -> None:
    """An address, a path or a name on the Hub; where the artifacts are is no other place."""
    assert (stand_in(vllm(*args)).model, stand_in(vllm(*args)).obstacle) == (model, "")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--quantization=awq"], "--quantization"),
        (["--enable-lora"], "--enable-lora"),
        (["--reasoning-parser", "qwen3"], "--reasoning-parser"),
        (["--max-model-len=many"], "'many'"),
        (["--max-model-len=0"], "'0'"),
        (["--max-model-len"], "'true'"),
        (["--dtype=int4"], "int4"),
        (["sh", "-c", "vllm serve m"], "'sh'"),
        (["curl"], "'curl'"),
    ],
)
def test_arguments_that_nothing_here_does(args: list[str], told: str) -> None:
    """A version whose arguments would change its answers is kept and not deployed; the argument is named."""
    spec = with_wishes(ServingSpec(container=vllm(*args)))
    assert spec == ServingSpec(container=vllm(*args))
    with pytest.raises(NotSupported) as raised:
        require_served(spec)
    assert told in raised.value.message
    assert GOOGLE_VLLM in raised.value.message


def test_what_a_version_lacks_to_be_deployed() -> None:
    """Without a container it needs artifacts; without artifacts it is refused; a container alone may time out only."""
    version = ModelVersion(scope=DEFAULT_SCOPE, model_id="m", version="1", artifact_uri="/m", created_at=1.0)
    require_deployable(version)
    with pytest.raises(BadField, match="no artifacts"):
        require_deployable(
            ModelVersion(scope=DEFAULT_SCOPE, model_id="m", version="1", artifact_uri="", created_at=1.0)
        )
    require_served(ServingSpec(container={"deploymentTimeout": "600s"}))


WORDS = st.sampled_from([option for family in FAMILIES for option in (*family.mapped, *family.idle)]).map("--{}".format)


@given(st.lists(WORDS | st.text(max_size=8), max_size=8), st.sampled_from([GOOGLE_VLLM, TGI]))
def test_any_arguments(words: list[str], image: str) -> None:
    """Whatever the arguments are, they are understood or refused by name, and what is understood is a specification."""
    wish = stand_in({"imageUri": image, "args": words})
    ServingSpec(**wish.fields)
    assert not (wish.obstacle and wish.fields)
