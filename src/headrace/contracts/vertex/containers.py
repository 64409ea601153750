"""``ModelContainerSpec``: how a model's container is run, kept whole for those who read it back."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.vertex.json_bodies import Duration, Int64, duration_s
from headrace.resources.deployments import LONGEST_DEADLINE_S
from headrace.resources.errors import BadField

_MAX_PORT = 65_535
_RHYTHM = ("period_seconds", "timeout_seconds", "failure_threshold", "success_threshold", "initial_delay_seconds")


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A message; a field at its default is absent from the wire."""


class EnvVar(_Message, frozen=True):
    """One environment variable."""

    name: str = ""
    value: str = ""


class Port(_Message, frozen=True):
    """One port that the container listens on."""

    container_port: int = 0


class ExecAction(_Message, frozen=True):
    """A probe that runs a command."""

    command: tuple[str, ...] = ()


class HttpHeader(_Message, frozen=True):
    """A header that a probe sends."""

    name: str = ""
    value: str = ""


class HttpGetAction(_Message, frozen=True):
    """A probe that asks over HTTP."""

    path: str = ""
    port: int = 0
    host: str = ""
    scheme: str = ""
    http_headers: tuple[HttpHeader, ...] = ()


class GrpcAction(_Message, frozen=True):
    """A probe that asks gRPC's health service."""

    port: int = 0
    service: str = ""


class TcpSocketAction(_Message, frozen=True):
    """A probe that only connects."""

    port: int = 0
    host: str = ""


class Probe(_Message, frozen=True):
    """A check of a container's health: one of four actions, and its rhythm."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    grpc: GrpcAction | None = None
    tcp_socket: TcpSocketAction | None = None
    period_seconds: int = 0
    timeout_seconds: int = 0
    failure_threshold: int = 0
    success_threshold: int = 0
    initial_delay_seconds: int = 0


class ContainerSpec(_Message, frozen=True):
    """The container of a model, with every field that the vendor's API has."""

    image_uri: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    ports: tuple[Port, ...] = ()
    predict_route: str = ""
    health_route: str = ""
    invoke_route_prefix: str = ""
    grpc_ports: tuple[Port, ...] = ()
    deployment_timeout: Duration | None = None
    shared_memory_size_mb: Int64 | None = None
    startup_probe: Probe | None = None
    health_probe: Probe | None = None
    liveness_probe: Probe | None = None

    @property
    def deployment_timeout_s(self) -> float | None:
        """Seconds that a deployment may take, or None when it does not say."""
        return None if self.deployment_timeout is None else duration_s(self.deployment_timeout)

    def json(self) -> dict[str, Any]:
        """The wire's JSON, in camelCase, without fields at their defaults."""
        wire: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return wire


def check_deployment_timeout(container: ContainerSpec, path: str) -> None:
    """Hold that a deployment may take as long as a container says.

    Raises:
        BadField: It may not.
    """
    timeout_s = container.deployment_timeout_s
    if timeout_s is not None and not 0 < timeout_s <= LONGEST_DEADLINE_S:
        raise BadField(
            f"{path}.deploymentTimeout must be more than 0s and at most {LONGEST_DEADLINE_S:.0f}s.",
            evidence=f"It is {timeout_s:.15g} s.",
        )


def check_container(container: ContainerSpec, path: str) -> None:
    """Hold what the vendor's reference says of a container.

    Args:
        container: The container.
        path: Where it stands in the body, for messages.

    Raises:
        BadField: It has no image, a port is none, its time-out is over at once or too long, or a probe has several
            actions or a negative number.
    """
    if not container.image_uri.strip():
        raise BadField(f"{path}.imageUri is missing.", fix="Name the image, or leave the whole container out.")
    for field, ports in {"ports": container.ports, "grpcPorts": container.grpc_ports}.items():
        for index, port in enumerate(ports):
            if not 1 <= port.container_port <= _MAX_PORT:
                raise BadField(
                    f"{path}.{field}[{index}].containerPort must be from 1 to {_MAX_PORT}.",
                    evidence=f"It is {port.container_port}.",
                )
    check_deployment_timeout(container, path)
    if container.shared_memory_size_mb is not None and int(container.shared_memory_size_mb) < 0:
        raise BadField(f"{path}.sharedMemorySizeMb must not be negative.")
    for name in ("startup_probe", "health_probe", "liveness_probe"):
        probe = getattr(container, name)
        if probe is not None:
            _check_probe(probe, f"{path}.{name.removesuffix('_probe')}Probe")


def _check_probe(probe: Probe, path: str) -> None:
    actions = {"exec": probe.exec, "httpGet": probe.http_get, "grpc": probe.grpc, "tcpSocket": probe.tcp_socket}
    given = [name for name, action in actions.items() if action is not None]
    if len(given) > 1:
        raise BadField(f"{path} has several actions.", evidence=", ".join(given), fix="Leave one of them.")
    if negative := [name for name in _RHYTHM if getattr(probe, name) < 0]:
        raise BadField(f"{path} has a negative number.", evidence=", ".join(negative))
