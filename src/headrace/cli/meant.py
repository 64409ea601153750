"""The model or deployment that a person means: by its id, else by its display name.

The id is asked for first: only where there is none of it are the names looked through. So an id costs one request, and
no name takes another's id away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.cli.paths import segment
from headrace.resources.errors import BadName, DeploymentNotFound, ModelNotFound, NameAmbiguous

if TYPE_CHECKING:
    from headrace.cli.client import Client

T = TypeVar("T")

_SHOWN = 10


def of_model(client: Client, wanted: str, ask: Callable[[str], T]) -> T:
    """What `ask` gives for the model that is meant: an id, full name or display name, ``@version`` behind it or not.

    Args:
        client: Of the server.
        wanted: What the person wrote.
        ask: Takes the segment of a path that names the model.

    Raises:
        ModelNotFound: There is none, or no such version of it.
        NameAmbiguous: Several have the display name.
    """
    try:
        return ask(segment(_last_part(wanted)))
    except (ModelNotFound, BadName) as error:
        models = client.pages(f"/v1beta1/{client.login.scope}/models", "models")
        ids = [(each["displayName"], _last_part(each["name"])) for each in models if each.get("displayName")]
        name, at, version = _whole(wanted, ids) or wanted.rpartition("@")
        found = _one([identifier for called, identifier in ids if called == name], f"models have the name {name!r}")
        if found is None:
            if any(_last_part(each["name"]) == (name or wanted) for each in models):
                raise  # the model is there: it is the version that is not
            raise ModelNotFound(
                f"There is no model {wanted!r} in project {client.login.project!r}.",
                evidence=f"Models there: {_listed([f'{name} ({identifier})' for name, identifier in ids])}.",
                fix="`headrace models` lists them, ids first.",
            ) from error
    return ask(segment(f"{found}{at}{version}"))


def of_deployment(client: Client, wanted: str, ask: Callable[[str], T]) -> T:
    """What `ask` gives for the deployment that is meant, by its id, display name, or display name and ``@version``.

    Raises:
        DeploymentNotFound: There is none.
        NameAmbiguous: Several have the name.
    """
    try:
        return ask(segment(wanted))
    except (DeploymentNotFound, BadName) as error:
        scope = {"project": client.login.project, "location": client.login.location}
        deployments = client.get("/headrace/v1/deployments", **scope)["deployments"]
        named = [each["id"] for each in deployments if wanted in _names(each)]
        found = _one(named, f"deployments are of {wanted!r}")
        if found is None:
            there = [f"{each['display_name']}@{each['model_version']} ({each['id']})" for each in deployments]
            raise DeploymentNotFound(
                f"There is no deployment {wanted!r} in project {client.login.project!r}.",
                evidence=f"Deployments there: {_listed(there)}.",
                fix="`headrace deployments` lists them, ids first.",
            ) from error
    return ask(segment(found))


def _whole(wanted: str, ids: Sequence[tuple[str, str]]) -> tuple[str, str, str] | None:
    """The whole of it as a name: where no version is meant, or where it is a name that has an @ in it."""
    return (wanted, "", "") if "@" not in wanted or wanted in dict(ids) else None


def _names(deployment: dict[str, Any]) -> tuple[str, str]:
    name = deployment["display_name"]
    return name, f"{name}@{deployment['model_version']}"


def _one(found: list[str], told: str) -> str | None:
    """The one that there is; None where there is none.

    Raises:
        NameAmbiguous: There are several.
    """
    if len(found) > 1:
        raise NameAmbiguous(
            f"{len(found)} {told}.", evidence=f"Their ids: {', '.join(found)}.", fix="Give the id of one of them."
        )
    return found[0] if found else None


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1] if name.startswith("projects/") else name


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
