"""Checks model folders where they lie, and chooses what the version leaves open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.capacity import PLANNED_SEQUENCES, Load, MemoryNeed, check_fit, context_tokens, need_of
from headrace.control.checking import Checked, require_deployable
from headrace.control.placement import plannable
from headrace.control.predicting import predicted
from headrace.control.sizes import if_too_small, require_size
from headrace.hardware import read_catalogue
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import ArtifactsChanged, BadField, ConfigInvalid
from headrace.resources.models import ModelVersion, ServingSpec, Task
from headrace.resources.nodes import Node
from headrace.runtimes import RUNTIMES, choose, computes_on_gpus, facts_of, machine_of
from headrace.runtimes.vllm.tool_calls import names_tools
from headrace.storage import Artifacts, fingerprint, open_artifacts, require_own
from headrace.weights import check, inspect
from headrace.weights.config import ModelConfig
from headrace.weights.custom_code import own_code
from headrace.weights.findings import raise_first_error
from headrace.weights.folder import ModelFolder
from headrace.weights.reader import ReadOnce
from headrace.weights.templates import read_template

_ANY = MachineSpec()


class FolderChecker:
    """A `Checker` that reads listings, small files and tensor headers, never the tensors.

    Args:
        data_dir: Where `headrace calibrate` keeps what it measured; None: nowhere.
        credentials: What a project's address is opened with, as `headrace.storage.Credentials.options`.
        ready: Called with each address first, to make what is at it where that is ours to make.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        credentials: Callable[[str, str], dict[str, str]] = lambda _project, _uri: {},
        ready: Callable[[str], None] = lambda _uri: None,
    ) -> None:
        self._data_dir = data_dir
        self._credentials = credentials
        self._ready = ready

    def check(self, version: ModelVersion, node: Node, machine: MachineSpec = _ANY) -> Checked:
        """As `Checker.check`. The whole of the node's memory counts: what others hold now may be free later."""
        require_deployable(version)
        uri = version.artifact_uri
        require_own(uri, version.scope.project, self._data_dir)
        self._ready(uri)
        artifacts = open_artifacts(uri, self._credentials(version.scope.project, uri))
        identity = fingerprint(artifacts)
        if version.fingerprint not in {"", identity}:
            raise ArtifactsChanged(
                f"The files at {version.artifact_uri} changed since version {version.version} was registered.",
                evidence=f"Their fingerprint was {version.fingerprint[:12]} and is {identity[:12]}.",
                fix="Register them as a new version.",
            )
        reader = ReadOnce(artifacts)
        code, certificate = version.spec.allow_custom_code, version.spec.software_specification
        findings = check(
            reader, allow_custom_code=code, specification=certificate, chat_template=version.spec.chat_template
        )
        raise_first_error(findings)
        folder = inspect(reader)
        facts, spec = facts_of(folder, version.spec, own_code(reader)), version.spec
        catalogue = read_catalogue(self._data_dir)
        require_size(folder, spec.dtype, machine, catalogue)
        _require_chats(facts.task, spec)
        _require_tools(artifacts, spec)
        has = machine_of(node)
        choice = choose(facts, has, spec.runtime, spec=spec)
        _require_divisible(folder.config, spec.tensor_parallel)
        context = context_tokens(folder.config, spec.max_model_len)
        load = Load(
            context, PLANNED_SEQUENCES, spec.dtype, choice.runtime, spec.tensor_parallel, on_cpu=has.device == "cpu"
        )
        alone = facts.model_type not in RUNTIMES[choice.runtime].model_types
        need = _need(folder, load, known_from_code_alone=alone)
        check_fit(need, _available_bytes(node, choice.runtime, spec.tensor_parallel))
        warnings = [finding.message for finding in findings]
        if alone:
            warnings.append(_planned_by_the_usual_fields(facts.model_type, need))
        return Checked(
            fingerprint=identity,
            runtime=choice.runtime,
            runtime_reason=choice.sentence,
            max_model_len=context,
            memory_bytes=need.total_bytes,
            model_bytes=artifacts.total_bytes,
            warnings=tuple(warnings),
            predicted=msgspec.structs.replace(
                predicted(folder, need, load, node, self._data_dir),
                if_too_small=if_too_small(folder, machine, spec.tensor_parallel, catalogue),
            ),
        )


def _available_bytes(node: Node, runtime: str, devices: int) -> int:
    """What a replica may take of GPUs that it computes on, the largest of one size; else of the machine's memory."""
    gpus = plannable(node) if computes_on_gpus(runtime, machine_of(node)) else {}
    sizes = [size for size, number in Counter(gpus.values()).items() if number >= devices]
    if not sizes and len(gpus) >= devices:
        return 0  # no so many are alike
    return max(sizes) * devices if sizes else node.memory_bytes


def _need(folder: ModelFolder, load: Load, *, known_from_code_alone: bool) -> MemoryNeed:
    """What a replica takes; of an architecture that only the folder's code knows by the fields that most use."""
    try:
        return need_of(folder, load, load.tensor_parallel or 1)
    except ConfigInvalid as error:
        if not known_from_code_alone:
            raise
        raise ConfigInvalid(
            "Only the model's own code knows what its cache takes, so no memory can be set aside for it.",
            evidence=error.evidence,
            fix="Write the sizes into config.json by their usual names, beside the code's own: num_hidden_layers, "
            "num_attention_heads, num_key_value_heads, and head_dim or hidden_size.",
        ) from error


def _planned_by_the_usual_fields(model_type: str, need: MemoryNeed) -> str:
    return (
        f"Only its own code knows the architecture {model_type}: its weights are planned as they are stored, and "
        f"{need.kv_bytes_per_token:,} bytes of cache a token by the usual fields of config.json."
    )


def _require_chats(task: Task, spec: ServingSpec) -> None:
    """Hold that a model that has no chats is given nothing for them."""
    if task == "embed" and spec.chat_template is not None:
        raise BadField(
            "An embedding model has no chats, so a chat template would do nothing.",
            evidence="The folder's files say that the model was made for embeddings.",
            fix="Leave out --chat-template.",
        )


def _require_tools(artifacts: Artifacts, spec: ServingSpec) -> None:
    """Hold that a parser of tool calls is named for a model that is shown tools: its engine would drop them unsaid."""
    if spec.tool_parser is None:
        return
    text = spec.chat_template
    if text is None:
        template = read_template(artifacts)
        text = f"{template.text}\n{template.for_tools}" if template else ""
    if names_tools(text):
        return
    raise BadField(
        "The chat template does nothing with tools, so a parser of their calls would do nothing.",
        evidence="No expression or statement of the template names `tools`." if text else "There is no chat template.",
        fix="Leave out --tool-parser, or give a template that shows the model its tools: --chat-template FILE.",
    )


def _require_divisible(config: ModelConfig, devices: int) -> None:
    """Hold that each device gets as many whole heads as the others: no engine divides a head.

    A model of fewer key/value heads than devices has each of them on several.
    """
    for name, heads in (("attention heads", config.heads), ("key/value heads", config.kv_heads)):
        if heads is None or heads % devices == 0 or (name != "attention heads" and devices % heads == 0):
            continue
        raise BadField(
            f"The model cannot be shared among {devices} devices: its {name} do not divide by that.",
            evidence=f"config.json gives {heads} {name}; tensor_parallel is {devices}.",
            fix=f"Ask for a --tensor-parallel that divides {heads}.",
        )
