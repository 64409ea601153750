"""Checks model folders where they lie, and chooses what the version leaves open."""

from __future__ import annotations

from headrace.capacity import DEFAULT_CONTEXT_TOKENS, PLANNED_SEQUENCES, check_fit, estimate
from headrace.control.checking import Checked
from headrace.resources.errors import (
    ArtifactsChanged,
    BadField,
    ChatTemplateInvalid,
    ChatTemplateLimited,
    ChatTemplateMissing,
)
from headrace.resources.models import ModelVersion, ServingSpec, Task
from headrace.resources.nodes import Node
from headrace.runtimes import choose, facts_of, machine_of
from headrace.storage import fingerprint, open_artifacts
from headrace.weights import check, inspect, task_of
from headrace.weights.config import ModelConfig
from headrace.weights.finding import Finding
from headrace.weights.findings import raise_first_error

_TEMPLATE_CODES = frozenset({ChatTemplateInvalid.code, ChatTemplateLimited.code, ChatTemplateMissing.code})


class FolderChecker:
    """A `Checker` that reads listings, small files and tensor headers, never the tensors."""

    def check(self, version: ModelVersion, node: Node) -> Checked:
        """As `Checker.check`. The whole of the node's memory counts: what others hold now may be free later."""
        artifacts = open_artifacts(version.artifact_uri)
        identity = fingerprint(artifacts)
        if version.fingerprint not in {"", identity}:
            raise ArtifactsChanged(
                f"The files at {version.artifact_uri} changed since version {version.version} was registered.",
                evidence=f"Their fingerprint was {version.fingerprint[:12]} and is {identity[:12]}.",
                fix="Register them as a new version.",
            )
        findings = [finding for finding in check(artifacts) if not _settled(finding, version.spec)]
        raise_first_error(findings)
        folder = inspect(artifacts)
        facts = facts_of(
            folder.config.model_type,
            folder.bytes_by_dtype,
            task=task_of(folder.config, folder.files),
            wanted=version.spec.dtype,
            quantisation=folder.config.quantisation,
        )
        spec = version.spec
        _require_chats(facts.task, spec)
        choice = choose(facts, machine_of(node), spec.runtime, spec=spec)
        _require_divisible(folder.config, spec.tensor_parallel)
        context = _context_tokens(folder.config, spec.max_model_len)
        need = estimate(
            folder,
            context,
            PLANNED_SEQUENCES,
            spec.dtype,
            runtime=choice.runtime,
            tensor_parallel=spec.tensor_parallel,
        )
        check_fit(need, node.memory_bytes)
        return Checked(
            fingerprint=identity,
            runtime=choice.runtime,
            runtime_reason=choice.sentence,
            max_model_len=context,
            memory_bytes=need.total_bytes,
            model_bytes=artifacts.total_bytes,
            warnings=tuple(finding.message for finding in findings),
        )


def _settled(finding: Finding, spec: ServingSpec) -> bool:
    """Whether the spec brings what the folder lacks."""
    return finding.code in _TEMPLATE_CODES and spec.chat_template is not None


def _require_chats(task: Task, spec: ServingSpec) -> None:
    """Hold that a model that has no chats is given nothing for them."""
    if task == "embed" and spec.chat_template is not None:
        raise BadField(
            "An embedding model has no chats, so a chat template would do nothing.",
            evidence="The folder's files say that the model was made for embeddings.",
            fix="Leave out --chat-template.",
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


def _context_tokens(config: ModelConfig, wanted: int | None) -> int:
    longest = config.max_positions
    if wanted is None:
        return min(DEFAULT_CONTEXT_TOKENS, longest or DEFAULT_CONTEXT_TOKENS)
    if wanted < 1 or (longest is not None and wanted > longest):
        raise BadField(
            f"A context of {wanted:,} tokens is not one that this model has.",
            evidence=f"config.json gives {longest or 'no'} positions.",
            fix=f"Ask for 1 to {longest or DEFAULT_CONTEXT_TOKENS} tokens.",
        )
    return wanted
