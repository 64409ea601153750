"""Checks model folders where they lie, and chooses what the version leaves open."""

from __future__ import annotations

from headrace.capacity import PLANNED_SEQUENCES, check_fit, estimate
from headrace.control.checking import Checked
from headrace.resources.errors import ArtifactsChanged, BadField
from headrace.resources.models import ModelVersion
from headrace.resources.nodes import Node
from headrace.runtimes import choose, facts_of, machine_of
from headrace.storage import fingerprint, open_artifacts
from headrace.weights import check, inspect, task_of
from headrace.weights.config import ModelConfig
from headrace.weights.findings import raise_first_error

DEFAULT_CONTEXT_TOKENS = 4096
"""The context length of a version that asks for none, unless its model was made for less. Memory for the cache is set
aside for it, and models are made for up to 10 million tokens: the maximum would make small models fit nowhere."""


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
        findings = check(artifacts)
        raise_first_error(findings)
        folder = inspect(artifacts)
        facts = facts_of(
            folder.config.model_type,
            folder.bytes_by_dtype,
            task=task_of(folder.config, folder.files),
            wanted=version.spec.dtype,
            quantisation=folder.config.quantisation,
        )
        choice = choose(facts, machine_of(node), version.spec.runtime)
        context = _context_tokens(folder.config, version.spec.max_model_len)
        need = estimate(folder, context, PLANNED_SEQUENCES, version.spec.dtype, runtime=choice.runtime)
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
