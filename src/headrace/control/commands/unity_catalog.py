"""Unity Catalog's registry: models by names of three levels, versions that are uploaded, catalogs and schemas."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.control.commands.register import register_version
from headrace.control.commands.registry import change_model, change_version, merge_aliases, require_unused
from headrace.control.commands.texts import check_description, check_labels
from headrace.control.registration import Outcome, pending
from headrace.resources.aliases import DEFAULT_ALIAS, AliasChange, check_catalog_alias
from headrace.resources.errors import (
    BadField,
    HeadraceError,
    ModelNotFound,
    NamespaceNotFound,
    NameTaken,
    RoleMissing,
    StillInUse,
    VersionNotReady,
)
from headrace.resources.models import Model, ModelVersion, RegistrationState
from headrace.resources.names import Scope, new_id
from headrace.resources.unity_catalog import SYSTEM_CATALOG, SYSTEM_SCHEMA, FullName, Namespace, read_full_name
from headrace.store import Transaction

_MAX_SOURCE_CHARACTERS = 4096


def find_registered(tx: Transaction, scope: Scope, name: FullName) -> Model:
    """The registered model of a full name. Should several bear it (Vertex AI's names need not differ), the oldest.

    Raises:
        ModelNotFound: There is none.
    """
    found = tx.list(Model, scope=scope, display_name=str(name), limit=1)
    if not found:
        raise ModelNotFound(f"Registered model '{name}' does not exist.", fix="Names are looked up in lower case.")
    return found[0]


def find_registered_version(tx: Transaction, model: Model, reference: str) -> ModelVersion:
    """A version of a registered model, by its number or an alias.

    Raises:
        ModelNotFound: There is none.
    """
    for version in tx.list(ModelVersion, scope=model.scope, model_id=model.id):
        if reference == version.version or reference in version.aliases:
            return version
    raise ModelNotFound(f"Registered model '{model.display_name}' has no version or alias {reference[:80]!r}.")


def create_registered(
    tx: Transaction,
    scope: Scope,
    name: FullName,
    *,
    comment: str = "",
    tags: dict[str, str] | None = None,
    now: float,
) -> Model:
    """Register a name; it has no versions yet. Its catalog and schema need not have been made before.

    Raises:
        RoleMissing: It would be in the catalog of the server itself.
        NameTaken: There is one of this name.
        BadField: A text or tag is too long or not printable.
    """
    require_not_system(name.catalog)
    check_description("The model's comment", comment)
    check_labels(tags or {})
    if tx.list(Model, scope=scope, display_name=str(name), limit=1):
        raise NameTaken(f"Registered model '{name}' already exists.")
    model = Model(
        scope=scope,
        id=new_id(),
        display_name=str(name),
        description=comment,
        labels=tags or {},
        created_at=now,
        updated_at=now,
    )
    tx.insert(model)
    return model


def rename_registered(tx: Transaction, model: Model, name: FullName) -> Model:
    """Give a registered model another name.

    Raises:
        RoleMissing: It would be in the catalog of the server itself.
        NameTaken: There is one of this name.
    """
    if str(name) == model.display_name:
        return model
    require_not_system(name.catalog)
    if tx.list(Model, scope=model.scope, display_name=str(name), limit=1):
        raise NameTaken(f"Registered model '{name}' already exists.")
    return tx.update(msgspec.structs.replace(model, display_name=str(name)))


def delete_registered(tx: Transaction, model: Model) -> list[ModelVersion]:
    """Delete a registered model and all its versions; returns these, so that what was uploaded of them can go.

    Raises:
        StillInUse: A version of it is deployed, or its replicas are still draining.
    """
    require_unused(tx, model.scope, model.id, what=f"Registered model '{model.display_name}'")
    versions = tx.list(ModelVersion, scope=model.scope, model_id=model.id)
    for version in versions:
        tx.delete(version)
    tx.delete(model)
    return versions


def create_pending_version(
    tx: Transaction,
    model: Model,
    *,
    source: str,
    run_id: str = "",
    description: str = "",
    tags: dict[str, str] | None = None,
    key_id: str,
    now: float,
) -> ModelVersion:
    """Give a version its number, before its files come.

    Raises:
        BadField: A text or tag is too long or not printable.
    """
    check_description("The version's description", description)
    check_labels(tags or {})
    if max(len(source), len(run_id)) > _MAX_SOURCE_CHARACTERS:
        raise BadField("The version's source is too long.", evidence=f"{_MAX_SOURCE_CHARACTERS:,} are allowed.")
    version = pending(model, source=source, run_id=run_id, key_id=key_id, description=description, now=now)
    return register_version(tx, model, msgspec.structs.replace(version, labels=tags or {}))


def require_pending(version: ModelVersion) -> None:
    """Hold that a version's files may still be written.

    Raises:
        VersionNotReady: It is not being uploaded.
    """
    registration = version.registration
    if registration is not None and registration.state is RegistrationState.PENDING:
        return
    state = registration.state if registration is not None else "registered by its address"
    raise VersionNotReady(
        f"Version {version.version} of model {version.model_id} takes no files any more.",
        evidence=f"It is {state}; versions never change.",
        fix="Register another version.",
    )


def conclude_version(tx: Transaction, version: ModelVersion, outcome: Outcome) -> ModelVersion:
    """Write down what became of an upload, and nothing else of the row: tags and aliases are set meanwhile.

    Args:
        tx: An open transaction.
        version: As it was when its files were looked at.
        outcome: What became of them.

    Raises:
        ModelNotFound: It was deleted meanwhile.
        VersionNotReady: It has been concluded before.
    """
    now = tx.get(ModelVersion, scope=version.scope, model_id=version.model_id, version=version.version)
    if now is None:
        raise ModelNotFound(f"Version {version.version} of model {version.model_id} was deleted meanwhile.")
    require_pending(now)
    assert now.registration is not None, "as was held"
    registration = msgspec.structs.replace(now.registration, state=outcome.state, message=outcome.message)
    changed = msgspec.structs.replace(now, registration=registration, artifact_uri=outcome.artifact_uri)
    return tx.update(changed)


def delete_registered_version(tx: Transaction, model: Model, version: ModelVersion) -> None:
    """Delete a version, the last one too. If it was the default one, the newest that is left is that from now on.

    Raises:
        StillInUse: It is deployed, or its replicas are still draining.
    """
    what = f"Version {version.version} of '{model.display_name}'"
    require_unused(tx, model.scope, model.id, version=version.version, what=what)
    tx.delete(version)
    rest = tx.list(ModelVersion, scope=model.scope, model_id=model.id)
    if rest and DEFAULT_ALIAS in version.aliases:
        newest = max(rest, key=lambda each: int(each.version))
        tx.update(msgspec.structs.replace(newest, aliases=(*newest.aliases, DEFAULT_ALIAS)))


def set_registered_alias(tx: Transaction, model: Model, alias: str, number: str) -> ModelVersion:
    """Give an alias to a version; it leaves the one that had it.

    Raises:
        BadField: It is no alias.
        ModelNotFound: There is no such version.
    """
    check_catalog_alias(alias)
    version = tx.get(ModelVersion, scope=model.scope, model_id=model.id, version=number)
    if version is None:
        raise ModelNotFound(f"Registered model '{model.display_name}' has no version {number[:80]!r}.")
    merge_aliases(tx, model, version, AliasChange(added=frozenset({alias})))
    return find_registered_version(tx, model, number)


def delete_registered_alias(tx: Transaction, model: Model, alias: str) -> None:
    """Take an alias off whichever version has it.

    Raises:
        ModelNotFound: None has.
        StillInUse: It is the default one's, which one version of a model always has.
    """
    version = find_registered_version(tx, model, alias)
    if alias not in version.aliases:
        raise ModelNotFound(f"Registered model '{model.display_name}' has no alias {alias[:80]!r}.")
    merge_aliases(tx, model, version, AliasChange(removed=frozenset({alias})))


def tag_model(tx: Transaction, model: Model, *, added: dict[str, str], removed: Iterable[str] = ()) -> Model:
    """Give a registered model tags, and take some off it.

    Raises:
        BadField: There are too many, or one is too long or not printable.
    """
    return change_model(tx, model, labels=_tagged(model.labels, added, removed))


def tag_version(
    tx: Transaction, version: ModelVersion, *, added: dict[str, str], removed: Iterable[str] = ()
) -> ModelVersion:
    """The same for a version.

    Raises:
        BadField: As for `tag_model`.
    """
    return change_version(tx, version, labels=_tagged(version.labels, added, removed))


def _tagged(labels: dict[str, str], added: dict[str, str], removed: Iterable[str]) -> dict[str, str]:
    gone = frozenset(removed)
    return {key: value for key, value in (labels | added).items() if key not in gone}


def create_namespace(
    tx: Transaction, scope: Scope, name: str, *, comment: str = "", key_id: str, now: float
) -> Namespace:
    """Make a catalog, or a schema (``catalog.schema``) whose catalog need not be there.

    Raises:
        RoleMissing: It would be the server's own.
        NameTaken: It is there, also if only as part of a model's name.
        BadField: The comment is too long or not printable.
    """
    require_not_system(name.partition(".")[0])
    check_description("The comment", comment)
    if name in namespaces_of(tx, scope):
        raise NameTaken(f"{_kind(name)} '{name}' already exists.")
    made = Namespace(
        project=scope.project, name=name, comment=comment, created_by=key_id, created_at=now, updated_at=now
    )
    tx.insert(made)
    return made


def delete_namespace(tx: Transaction, scope: Scope, name: str, *, force: bool) -> None:
    """Delete a catalog or a schema that has no models.

    Args:
        tx: An open transaction.
        scope: Whose.
        name: Its name.
        force: Empty schemas of a catalog may go with it.

    Raises:
        RoleMissing: It is the server's own.
        NamespaceNotFound: There is none.
        StillInUse: Something is in it.
    """
    require_not_system(name.partition(".")[0])
    known = namespaces_of(tx, scope)
    if name not in known:
        raise namespace_not_found(name)
    below = [each for each in known if each == name or each.startswith(f"{name}.")]
    models = [each.display_name for each in registered_models(tx, scope) if each.display_name.startswith(f"{name}.")]
    inside = [*models, *([] if force else (each for each in below if each != name))]
    if inside:
        raise StillInUse(
            f"{_kind(name)} '{name}' is not empty.",
            evidence=f"In it: {', '.join(inside[:5])}{' and others' if len(inside) > 5 else ''}.",
            fix="Delete what is in it first; with force=true empty schemas go along.",
        )
    for each in below:
        row = tx.get(Namespace, project=scope.project, name=each)
        if row is not None:
            tx.delete(row)


def namespaces_of(tx: Transaction, scope: Scope) -> dict[str, Namespace | None]:
    """Every catalog and schema, by name: those that were made, and those that names of models begin with (None)."""
    found: dict[str, Namespace | None] = {SYSTEM_CATALOG: None, f"{SYSTEM_CATALOG}.{SYSTEM_SCHEMA}": None}
    for model in registered_models(tx, scope):
        name = read_full_name(model.display_name)
        found |= {name.catalog: None, f"{name.catalog}.{name.schema}": None}
    for row in tx.list(Namespace, project=scope.project):
        found.setdefault(row.name.partition(".")[0], None)
        found[row.name] = row
    return found


def registered_models(tx: Transaction, scope: Scope) -> list[Model]:
    """The models whose names have three levels, by name; those of the server's own catalog left out."""
    named: dict[str, Model] = {}
    for model in tx.list(Model, scope=scope):
        if is_registered(model):
            named.setdefault(model.display_name, model)
    return [named[name] for name in sorted(named)]


def is_registered(model: Model) -> bool:
    """Whether a model's name is one of three levels, and not the server's own."""
    parts = model.display_name.split(".")
    if len(parts) != 3 or parts[0] == SYSTEM_CATALOG or model.display_name != model.display_name.lower():
        return False
    try:
        read_full_name(model.display_name)
    except HeadraceError:
        return False
    return True


def require_not_system(catalog: str) -> None:
    """Hold that something is not in the server's own catalog.

    Raises:
        RoleMissing: It is.
    """
    if catalog == SYSTEM_CATALOG:
        raise RoleMissing(
            f"Nobody makes or changes anything in the catalog {SYSTEM_CATALOG!r}.",
            evidence="It shows what the server itself brings: the models of the Model Garden.",
            fix="Choose another catalog.",
        )


def namespace_not_found(name: str) -> NamespaceNotFound:
    """The error for a catalog or schema that is not there."""
    return NamespaceNotFound(f"{_kind(name)} '{name}' does not exist.", fix="Names are looked up in lower case.")


def _kind(name: str) -> str:
    return "Schema" if "." in name else "Catalog"
