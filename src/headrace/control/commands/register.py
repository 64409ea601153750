"""Register: artifacts become the first version of a model, or its next one. Nothing is read of them here."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.control.commands.spec import check_spec
from headrace.control.commands.texts import check_address, check_description, check_labels, check_text
from headrace.resources.aliases import DEFAULT_ALIAS, AliasChange, check_aliases, merged
from headrace.resources.errors import ModelNotFound, NameTaken
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import Scope, check_model_id, new_id
from headrace.resources.operations import Operation
from headrace.resources.states import OperationState
from headrace.store import Transaction


class UploadRequest(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be registered.

    Attributes:
        contract: The API it was asked through, e.g. ``vertex/v1``.
        model_id: Id of the model to make, or of the one that gets a version; empty: made up.
        new_version: The model is there, and this is to be another version of it.
        display_name: Of a model that is made; with its description and labels it belongs to the model, not to the
            version, so that another version leaves the three as they are.
        version_labels: Of the version.
        aliases: Of the version. A first version is the default one in any case.
        artifact_uri: May be empty where the spec has a container.
        kept: As `ModelVersion.kept`.
    """

    scope: Scope
    contract: str
    artifact_uri: str = ""
    model_id: str = ""
    new_version: bool = False
    display_name: str
    description: str = ""
    version_description: str = ""
    labels: dict[str, str] = {}
    version_labels: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    spec: ServingSpec = ServingSpec()
    kept: dict[str, Any] = {}


def upload(tx: Transaction, request: UploadRequest, *, now: float) -> Operation:
    """Store a version; the operation is done at once.

    Raises:
        BadField: There is neither an address nor a container, a text is too long or not printable, or an alias is none.
        BadName: The model's id is not well formed.
        ModelNotFound: The model that is to get a version is not there.
        NameTaken: The model that is to be made is there already.
    """
    _check(request)
    there = tx.get(Model, scope=request.scope, id=request.model_id) if request.model_id else None
    if request.new_version and there is None:
        raise ModelNotFound(
            f"There is no model {request.scope.name('models', request.model_id)} to add a version to.",
            fix="`headrace models` lists them, ids first; leave the parent out to make a model.",
        )
    if there is not None and not request.new_version:
        raise NameTaken(
            f"There is a model {request.model_id!r} already.",
            evidence=f"It has {there.last_version} versions and is called {there.display_name!r}.",
            fix=f"To add a version to it, name it as the parent: {there.name}.",
        )
    version = register_version(
        tx,
        there or _new_model(request, now),
        ModelVersion(
            scope=request.scope,
            model_id="",
            version="",
            artifact_uri=request.artifact_uri,
            spec=request.spec,
            aliases=request.aliases,
            description=request.version_description,
            labels=request.version_labels,
            kept=request.kept,
            created_at=now,
        ),
    )
    operation = Operation(
        scope=request.scope,
        id=new_id(),
        parent=request.scope.name("models", version.model_id),
        kind="upload_model",
        contract=request.contract,
        targets={"model": version.model_id, "version": version.version},
        created_at=now,
        updated_at=now,
    )
    tx.insert(operation)
    return tx.move(operation, OperationState.SUCCEEDED)


def register_version(tx: Transaction, model: Model, version: ModelVersion) -> ModelVersion:
    """Give a version the next number of its model, and store both.

    Args:
        tx: An open transaction.
        model: As read, or a new one, which is stored with it; its ``last_version`` is 0 then.
        version: All but its number and its model. Its aliases leave the versions that had them; the only version of a
            model is the default one whatever it says.

    Raises:
        BadField: It has too many aliases.
    """
    number = model.last_version + 1
    counted = msgspec.structs.replace(model, last_version=number)
    if tx.get(Model, scope=model.scope, id=model.id) is not None:
        tx.update(counted)
    else:
        tx.insert(counted)
    alone = not tx.list(ModelVersion, scope=model.scope, model_id=model.id, limit=1)
    added = frozenset(version.aliases) | ({DEFAULT_ALIAS} if alone else frozenset())
    others = tx.list(ModelVersion, scope=model.scope, model_id=model.id) if added and not alone else []
    new = msgspec.structs.replace(version, model_id=model.id, version=str(number), aliases=())
    for one in merged([*others, new], new.version, AliasChange(added)):
        if one.version == new.version:
            new = one
        else:
            tx.update(one)
    tx.insert(new)
    return new


def _new_model(request: UploadRequest, now: float) -> Model:
    return Model(
        scope=request.scope,
        id=request.model_id or new_id(),
        display_name=request.display_name,
        description=request.description,
        labels=request.labels,
        created_at=now,
        updated_at=now,
    )


def _check(request: UploadRequest) -> None:
    if request.artifact_uri or request.spec.container is None:
        check_address(request.artifact_uri)
    check_spec(request.spec)
    check_text("The model's display name", request.display_name)
    check_description("The model's description", request.description)
    check_description("The version's description", request.version_description)
    check_labels(request.labels)
    check_labels(request.version_labels)
    check_aliases(request.aliases, field="versionAliases")
    if request.model_id and not request.new_version:
        check_model_id(request.model_id, field="The model's id")
