"""CHECKING: everything that can be known to fail, before a byte is copied or a process started."""

from __future__ import annotations

from typing import Protocol

import msgspec

from headrace.resources.deployments import MachineSpec, Predicted
from headrace.resources.errors import BadField, VersionNotReady
from headrace.resources.models import ModelVersion, RegistrationState
from headrace.resources.nodes import Node
from headrace.runtimes.images import require_served


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What CHECKING found and chose.

    Attributes:
        fingerprint: Identity of the files.
        runtime_reason: The sentence that says why this runtime.
        memory_bytes: What one replica is to reserve.
        model_bytes: Size of the files.
        warnings: Sentences about what will not work.
        predicted: What a replica will take, and how fast it will be; None where that is not known.
    """

    fingerprint: str
    runtime: str
    runtime_reason: str = ""
    max_model_len: int
    memory_bytes: int
    model_bytes: int
    warnings: tuple[str, ...] = ()
    predicted: Predicted | None = None


def require_deployable(version: ModelVersion) -> None:
    """Hold that a version can be deployed at all, as far as its row tells; CHECKING reads its files.

    Raises:
        NotSupported: No runtime here stands in for its container.
        BadField: It has no artifacts.
        VersionNotReady: It is being uploaded, or its registration failed.
    """
    require_registered(version)
    require_served(version.spec)
    if not version.artifact_uri:
        raise BadField(
            f"Version {version.version} of model {version.model_id} has no artifacts.",
            evidence="It was registered without artifactUri, and its container's arguments name no model.",
            fix="Register a version with the address of the weights.",
        )


def require_registered(version: ModelVersion) -> None:
    """Hold that a version that was uploaded is all there.

    Raises:
        VersionNotReady: It is not.
    """
    registration = version.registration
    if registration is None or registration.state is RegistrationState.READY:
        return
    failed = registration.state is RegistrationState.FAILED
    raise VersionNotReady(
        f"Version {version.version} of model {version.model_id} "
        + ("cannot be served: its registration failed." if failed else "is still being uploaded."),
        evidence=f"{registration.state}{f': {registration.message}' if registration.message else ''}",
        fix="Register another version." if failed else "Finish the upload (model-versions/finalize), or delete it.",
    )


class Checker(Protocol):
    """Looks at a version's artifacts for a node; called in a thread."""

    def check(self, version: ModelVersion, node: Node, machine: MachineSpec) -> Checked:
        """What it takes to serve this version on this node.

        Args:
            version: What is served.
            node: Where.
            machine: What its deployer asked for.

        Raises:
            HeadraceError: It cannot be served there, with the reason that its user is told.
        """
        ...
