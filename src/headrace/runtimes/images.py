"""Container images that our runtimes stand in for, and what their arguments ask of a version.

No image is run. One of vLLM or of Hugging Face's text generation is read as a wish: which weights, how long a context,
in which precision. Which runtime serves them is chosen as for any version. docs/vertex.md has the table; an argument
that is not in it would change the answers, so a version that has one is kept, and not deployed.

The arguments are vLLM's (https://docs.vllm.ai/en/stable/cli/serve.html) and text-generation-launcher's
(https://huggingface.co/docs/text-generation-inference/reference/launcher).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_args

import msgspec

from headrace.resources.errors import BadField, NotSupported
from headrace.resources.models import Dtype, ServingSpec

ARTIFACTS_VARIABLE = "$(AIP_STORAGE_URI)"
"""Where a container finds what the model's artifact URI names."""

_FLAG = "true"
"""The value of an option that is given without one."""


class Family(msgspec.Struct, frozen=True):
    """Images that are started alike.

    Attributes:
        name: For people.
        image: What their addresses look like, without tag and digest.
        words: What may stand before the options: how the program is started.
        mapped: Options that ask something of ours: each one's field of `StandIn`.
        variables: Environment variables that stand for options.
        idle: Options that say where it listens, what it logs or how it uses its machine: our runtimes see to that.
    """

    name: str
    image: re.Pattern[str]
    words: frozenset[str]
    mapped: Mapping[str, str]
    variables: Mapping[str, str]
    idle: frozenset[str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FAMILIES = (
    Family(
        name="vLLM",
        image=re.compile(
            r"(?:.+/)?(?:vllm/vllm-openai(?:-[a-z0-9]+)?"
            r"|vertex-vision-model-garden-dockers/pytorch-(?:hf-)?vllm(?:-[a-z]+)*-serve"
            r"|vertex-model-garden/(?:pytorch-)?vllm-[^/]+)"
        ),
        words=_words(
            "python python3 -m vllm serve vllm.entrypoints.api_server vllm.entrypoints.openai.api_server "
            "vllm.entrypoints.cli.main"
        ),
        mapped=MappingProxyType(
            {
                "model": "model",
                "max-model-len": "max_model_len",
                "dtype": "dtype",
                "tensor-parallel-size": "tensor_parallel",
                "tp": "tensor_parallel",
                "enable-prefix-caching": "prefix_caching",
                "no-enable-prefix-caching": "no_prefix_caching",
                "tool-call-parser": "tool_parser",
            }
        ),
        variables=MappingProxyType({"MODEL_ID": "model"}),
        idle=_words(
            "host port uds root-path served-model-name swap-space gpu-memory-utilization max-num-seqs "
            "max-num-batched-tokens max-seq-len-to-capture block-size enforce-eager enable-chunked-prefill "
            "no-enable-chunked-prefill disable-log-stats disable-log-requests enable-log-requests "
            "no-enable-log-requests disable-fastapi-docs uvicorn-log-level max-log-len seed trust-remote-code "
            "enable-auto-tool-choice distributed-executor-backend max-parallel-loading-workers download-dir "
            "cpu-offload-gb disable-custom-all-reduce num-scheduler-steps use-v2-block-manager "
            "disable-frontend-multiprocessing api-server-count"
        ),
    ),
    Family(
        name="text generation inference",
        image=re.compile(
            r"(?:.+/)?(?:huggingface/text-generation-inference|huggingface-text-generation-inference[^/]*"
            r"|pytorch-tgi-serve|huggingface-tgi-serve)"
        ),
        words=_words("text-generation-launcher"),
        mapped=MappingProxyType(
            {
                "model-id": "model",
                "max-total-tokens": "max_model_len",
                "dtype": "dtype",
                "num-shard": "tensor_parallel",
                "prefix-caching": "prefix_caching",
            }
        ),
        variables=MappingProxyType(
            {
                "MODEL_ID": "model",
                "MAX_TOTAL_TOKENS": "max_model_len",
                "DTYPE": "dtype",
                "NUM_SHARD": "tensor_parallel",
            }
        ),
        idle=_words(
            "hostname port master-addr master-port sharded max-concurrent-requests max-input-tokens max-input-length "
            "max-batch-prefill-tokens max-batch-total-tokens max-batch-size max-waiting-tokens waiting-served-ratio "
            "cuda-memory-fraction cuda-graphs validation-workers json-output disable-custom-kernels trust-remote-code "
            "huggingface-hub-cache weights-cache-override shard-uds-path max-client-batch-size"
        ),
    ),
)
"""The images that are known, in the order in which they are tried."""

_DTYPES: Mapping[str, str] = {**{name: name for name in get_args(Dtype)}, "half": "float16", "float": "float32"}
_LENGTH = re.compile(r"(\d{1,9})([kKmM]?)")
_FACTORS = {"": 1, "k": 1000, "K": 1024, "m": 1_000_000, "M": 1_048_576}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class StandIn(msgspec.Struct, frozen=True, kw_only=True):
    """What a container asks of our runtimes.

    Attributes:
        fields: Of `ServingSpec`.
        model: The address of the weights that its arguments name; empty where they name none.
        obstacle: Why it is not served, as a sentence; empty where it is.
        fix: What to do about that.
    """

    fields: dict[str, Any] = {}
    model: str = ""
    obstacle: str = ""
    fix: str = ""


def stand_in(container: Mapping[str, Any]) -> StandIn:
    """What one of our runtimes has to do in a container's place.

    Args:
        container: Vertex AI's ``ModelContainerSpec`` as JSON.
    """
    image = str(container.get("imageUri") or "")
    if not image:
        return StandIn()
    family = family_of(image)
    if family is None:
        return StandIn(
            obstacle=f"No runtime here stands in for the image {image[:200]}.",
            fix=f"Images of {' and of '.join(one.name for one in FAMILIES)} are known; or register the weights alone.",
        )
    try:
        return _read(family, container)
    except BadField as error:
        return StandIn(
            obstacle=f"The image {image[:200]} is known, and {error.message}",
            fix=error.fix or "Register the version without it; docs/vertex.md lists what is understood.",
        )


def family_of(image: str) -> Family | None:
    """The family that an image is of, whatever registry it lies in and whatever its tag."""
    address = image.partition("@")[0]
    folder, slash, name = address.rpartition("/")
    untagged = folder + slash + name.partition(":")[0]
    return next((family for family in FAMILIES if family.image.fullmatch(untagged)), None)


def with_wishes(spec: ServingSpec) -> ServingSpec:
    """The specification with what its container asks of our runtimes; as it was where that has an obstacle."""
    return msgspec.structs.replace(spec, **stand_in(spec.container).fields) if spec.container else spec


def require_served(spec: ServingSpec) -> None:
    """Hold that something here stands in for a version's container.

    Raises:
        NotSupported: Nothing does; the image is named, or the argument.
    """
    wish = stand_in(spec.container) if spec.container else StandIn()
    if wish.obstacle:
        raise NotSupported(wish.obstacle, fix=wish.fix)


def _read(family: Family, container: Mapping[str, Any]) -> StandIn:
    said: dict[str, str] = {}
    for each in container.get("env") or ():
        if field := family.variables.get(each.get("name", "")):
            said[field] = str(each.get("value", ""))
    for option, value in _options(family, [*(container.get("command") or ()), *(container.get("args") or ())]):
        if field := family.mapped.get(option):
            said[field] = value
        elif option not in family.idle:
            raise BadField(f"nothing here does what its argument --{option} asks for.")
    model = said.pop("model", "")
    fields: dict[str, Any] = {}
    for field, value in said.items():
        name = field.removeprefix("no_")
        fields[name] = _value(field, value)
    return StandIn(fields=fields, model=_address(model))


def _options(family: Family, words: list[str]) -> Iterator[tuple[str, str]]:
    """Options and their values; the word behind ``serve`` is the model."""
    waiting = ""
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option.startswith("-") and word not in family.words:
            if waiting:
                yield waiting, _FLAG
            waiting = option.lstrip("-").replace("_", "-")
            if equals:
                yield waiting, value
                waiting = ""
        elif waiting:
            yield waiting, word
            waiting = ""
        elif place and words[place - 1] == "serve":
            yield "model", word
        elif word.rpartition("/")[2] not in family.words:
            raise BadField(f"nothing here starts {word[:100]!r}.")
    if waiting:
        yield waiting, _FLAG


def _value(field: str, value: str) -> Any:
    if field in {"prefix_caching", "no_prefix_caching"}:
        if value.lower() not in {"true", "false", "1", "0"}:
            raise BadField(f"its {field} is {value[:40]!r}.")
        return (value.lower() in {"true", "1"}) is (field == "prefix_caching")
    if field == "dtype":
        if value not in _DTYPES:
            raise BadField(f"its dtype is {value[:40]!r}; {', '.join(_DTYPES)} are understood.")
        return _DTYPES[value]
    if field == "tool_parser":
        return value
    match = _LENGTH.fullmatch(value)
    number = int(match[1]) * _FACTORS[match[2]] if match else 0
    if number < 1:
        raise BadField(f"its {field} is {value[:40]!r}, which is no number of 1 or more.")
    return number


def _address(model: str) -> str:
    """Where a model lies that is named as these programs name it: an address, a path, or a name on the Hub."""
    if model == ARTIFACTS_VARIABLE or not model:
        return ""
    if "://" in model or model.startswith("/"):
        return model
    return f"hf://{model}" if _HUB_NAME.fullmatch(model) else ""
