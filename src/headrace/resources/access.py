"""Who may do what: roles, permissions, and the routes that answer without a key.

Deny by default: a route needs a permission unless `PUBLIC_ROUTES` names it, with its reason.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from headrace.resources.errors import RoleMissing

EVERY_PROJECT = "*"
"""A key of this project reaches all of them."""

KEY_PREFIX = "hr-"


class Permission(StrEnum):
    """One thing that can be allowed."""

    READ = "read"  # see models, endpoints, deployments, operations, timelines
    PREDICT = "predict"  # send inference requests
    DEPLOY = "deploy"  # import, deploy, undeploy, delete
    ADMINISTER = "administer"  # keys, runtimes, nodes, logs of engines


class Role(StrEnum):
    """A bundle of permissions that a key has in its project."""

    VIEWER = "viewer"
    PREDICTOR = "predictor"
    DEPLOYER = "deployer"
    ADMIN = "admin"


ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.PREDICTOR: frozenset({Permission.READ, Permission.PREDICT}),
    Role.DEPLOYER: frozenset({Permission.READ, Permission.PREDICT, Permission.DEPLOY}),
    Role.ADMIN: frozenset(Permission),
}


class Principal(msgspec.Struct, frozen=True):
    """Who is asking: a key's owner, with the role it has in one project (or in `EVERY_PROJECT`).

    Attributes:
        key_id: Identifier of the key that was shown; safe to log.
        name: The name that the key's maker gave to its user.
        project: The project it reaches, or ``*``.
        role: What it may do there.
    """

    key_id: str
    name: str
    project: str
    role: Role

    def reaches(self, project: str) -> bool:
        """Whether the key is good for this project at all."""
        return self.project in (EVERY_PROJECT, project)

    def may(self, permission: Permission, project: str) -> bool:
        """Whether this principal may do this in this project. For server-wide things the project is ``*``."""
        return self.reaches(project) and permission in ROLE_PERMISSIONS[self.role]

    def require(self, permission: Permission, project: str) -> None:
        """Allow, or say what is missing.

        Raises:
            RoleMissing: The role lacks the permission, or the key is another project's.
        """
        if self.may(permission, project):
            return
        where = "server-wide" if project == EVERY_PROJECT else f"in project {project!r}"
        raise RoleMissing(
            f"{self.name!r} may not {permission} {where}.",
            evidence=f"Key {self.key_id} has the role {self.role} in project {self.project!r}.",
            fix="Ask an admin for a key with a role that allows it: `headrace keys create --role … --project …`.",
        )


def new_secret() -> str:
    """A fresh key: 256 random bits behind a prefix that secret scanners can find. Shown once, never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """What is stored of a key: SHA-256, hexadecimal. No salt or stretching is needed for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyFormat(StrEnum):
    """What the holder of a key has of it."""

    PLAIN = "plain"  # a text that is sent with each request
    SERVICE_ACCOUNT = "service-account"  # the file that Google's libraries read; its private key signs tokens


class Process(StrEnum):
    """The kinds of processes that listen anywhere."""

    GATEWAY = "gateway"  # TCP, the public port
    GATEWAY_ADMIN = "gateway-admin"  # unix socket: takes routing snapshots
    CONTROL = "control"  # unix socket
    SHIM = "shim"  # unix socket, one per replica
    ENGINE = "engine"  # unix socket, one per replica


PUBLIC_ROUTES: Mapping[tuple[Process, str, str], str] = {
    (
        Process.GATEWAY,
        "GET",
        "/",
    ): "Says to a browser what the port is; the same to everybody, nothing of what runs.",
    (Process.GATEWAY, "HEAD", "/"): "The same, without the body.",
    (Process.GATEWAY, "GET", "/healthz"): "A load balancer's probe; says only that the process runs.",
    (Process.GATEWAY, "HEAD", "/healthz"): "The same; load balancers ask without wanting a body.",
    (Process.GATEWAY, "GET", "/readyz"): "A load balancer's probe; says only whether it can route.",
    (Process.GATEWAY, "HEAD", "/readyz"): "The same; load balancers ask without wanting a body.",
    (
        Process.GATEWAY,
        "POST",
        "/token",
    ): "Takes what a service account's key signed, which is what it shows instead of a key; others are refused.",
    (
        Process.GATEWAY,
        "GET",
        "/.well-known/databricks-config",
    ): "Where Databricks' clients get tokens: the address that they asked at; the same to everybody.",
    (
        Process.GATEWAY,
        "GET",
        "/oidc/.well-known/oauth-authorization-server",
    ): "The same, as OAuth has it (RFC 8414); clients read it before they have a token.",
    (
        Process.GATEWAY,
        "GET",
        "/oidc/.well-known/openid-configuration",
    ): "The same, by the path that some clients ask at.",
    (
        Process.GATEWAY,
        "POST",
        "/oidc/v1/token",
    ): "Takes a client's id and secret, which is a key that is looked up; others are refused.",
    (
        Process.GATEWAY,
        "OPTIONS",
        "*",
    ): "What a browser asks before a page's request (CORS), if the operator named its origin; the same for every path.",
    (
        Process.CONTROL,
        "GET",
        "/healthz",
    ): "The supervisor's probe, on a socket in a 0700 folder; says only that it runs.",
    (
        Process.CONTROL,
        "GET",
        "/openapi.json",
    ): "Describes every route, as the documentation does; the same to everybody, nothing of what runs.",
    (
        Process.ENGINE,
        "GET",
        "/health",
    ): "The startup probe, on a socket in a 0700 folder; says only if a token was made.",
}
"""What answers without a key, and why. A test walks every route of every process and holds this table."""
