"""What of registered models may change: names, descriptions, labels and aliases; and how a version goes."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.control.commands.texts import check_description, check_labels, check_text
from headrace.resources.aliases import DEFAULT_ALIAS, AliasChange, merged
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, StillInUse
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope, new_id
from headrace.resources.operations import Operation
from headrace.resources.states import DeploymentState, OperationState
from headrace.store import Transaction

_SHOWN = 5
"""Users of a model that a refusal names."""


def change_model(
    tx: Transaction,
    model: Model,
    *,
    display_name: str | None = None,
    description: str | None = None,
    labels: dict[str, str] | None = None,
) -> Model:
    """Change what a model is called and said to be; what is None stays.

    Raises:
        BadField: A text is too long, not printable, or the name is empty.
    """
    if display_name is not None:
        if not display_name.strip():
            raise BadField("A model needs a display name.", evidence=f"It would be {display_name!r}.")
        check_text("The model's display name", display_name)
    if description is not None:
        check_description("The model's description", description)
    if labels is not None:
        check_labels(labels)
    given = {"display_name": display_name, "description": description, "labels": labels}
    changed = msgspec.structs.replace(model, **{name: value for name, value in given.items() if value is not None})
    return model if changed == model else tx.update(changed)


def change_version(
    tx: Transaction,
    version: ModelVersion,
    *,
    description: str | None = None,
    labels: dict[str, str] | None = None,
) -> ModelVersion:
    """Change what a version is said to be; what is None stays.

    Raises:
        BadField: A text is too long or not printable.
    """
    if description is not None:
        check_description("The version's description", description)
    if labels is not None:
        check_labels(labels)
    given = {"description": description, "labels": labels}
    changed = msgspec.structs.replace(version, **{name: value for name, value in given.items() if value is not None})
    return version if changed == version else tx.update(changed)


def merge_aliases(tx: Transaction, model: Model, version: ModelVersion, change: AliasChange) -> None:
    """Give a version aliases, which leave the versions that have them now, and take some off it.

    Raises:
        StillInUse: The model would have no default version any more.
        BadField: The version would have too many.
    """
    versions = tx.list(ModelVersion, scope=model.scope, model_id=model.id)
    for one in merged(versions, version.version, change):
        tx.update(one)


def delete_version(tx: Transaction, model: Model, version: ModelVersion, *, contract: str, now: float) -> Operation:
    """Delete one of several versions; the files at its address are left alone. The operation is done at once.

    Raises:
        StillInUse: It is deployed, or its replicas are still draining; or it is the default one, or the last.
    """
    what = f"Version {version.version} of model {model.id!r}"
    require_unused(tx, model.scope, model.id, version=version.version, what=what)
    if len(tx.list(ModelVersion, scope=model.scope, model_id=model.id, limit=2)) == 1:
        raise StillInUse(f"{what} is its last one.", fix="Delete the model itself.")
    if DEFAULT_ALIAS in version.aliases:
        raise StillInUse(
            f"{what} is the default one, of which every model has one.",
            fix=f"Give the alias {DEFAULT_ALIAS!r} to another version first.",
        )
    operation = Operation(
        scope=model.scope,
        id=new_id(),
        parent=model.name,
        kind="delete_model_version",
        contract=contract,
        targets={"model": model.id, "version": version.version},
        created_at=now,
        updated_at=now,
    )
    tx.insert(operation)
    tx.delete(version)
    return tx.move(operation, OperationState.SUCCEEDED)


def require_unused(tx: Transaction, scope: Scope, model_id: str, *, version: str = "", what: str) -> None:
    """Hold that nothing serves a model, or one version of it.

    Raises:
        StillInUse: Something does, or its replicas are still draining; the endpoints are named.
    """
    conditions: dict[str, Any] = {"model_version": version} if version else {}
    found = tx.list(Deployment, scope=scope, model_id=model_id, **conditions)
    users = {one.id: one for one in found if one.state is not DeploymentState.GONE}
    if not users:
        return
    bound = tx.list(DeployedModel, scope=scope, deployment_id=tuple(users))
    places = [f"{scope.name('endpoints', one.endpoint_id)} as deployed model {one.id}" for one in bound]
    places += [f"deployment {one.id}, which is {one.state}" for one in users.values()]
    raise StillInUse(
        f"{what} is deployed.",
        evidence=f"On {', '.join(places[:_SHOWN])}{' and elsewhere' if len(places) > _SHOWN else ''}.",
        fix="Undeploy it, wait for that operation, and delete it then.",
    )
