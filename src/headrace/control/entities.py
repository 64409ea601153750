"""Entities of Databricks' clients as our models: ``catalog.schema.model`` or a plain name, and a version of it."""

from __future__ import annotations

from contextlib import suppress

from headrace.control.commands.unity_catalog import find_registered
from headrace.control.system_ai import find_published, name_of
from headrace.resources.errors import BadName, ModelNotFound
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.unity_catalog import read_full_name
from headrace.store import Transaction

_SHOWN = 10


def find_entity(tx: Transaction, scope: Scope, name: str, version: str) -> tuple[Model, ModelVersion]:
    """The version that a served entity names.

    Args:
        tx: An open transaction.
        scope: Where models are looked for.
        name: Of the model: its full name, by the registry's rule (`find_registered`, `find_published`); else its
            display name (of several the newest), else its id.
        version: Its number or an alias; empty: the newest.

    Raises:
        ModelNotFound: There is no such model, or no such version of it.
    """
    model = _find_model(tx, scope, name)
    if model is None:
        raise ModelNotFound(
            f"There is no model {name!r}.",
            evidence=f"Neither a name nor an id of a model in {scope} is that.",
            fix="Register it, or name one of `headrace models`.",
        )
    versions = tx.list(ModelVersion, scope=scope, model_id=model.id)
    for one in versions:
        if version == one.version or (version and version in one.aliases):
            return model, one
    if not version and versions:
        return model, max(versions, key=lambda one: int(one.version))
    raise ModelNotFound(
        f"There is no version {version!r} of model {name!r}." if version else f"Model {name!r} has no version.",
        evidence=f"It has: {', '.join(one.version for one in versions[-_SHOWN:]) or 'none'}.",
        fix="Give the number of one of these as entity_version, or an alias.",
    )


def _find_model(tx: Transaction, scope: Scope, name: str) -> Model | None:
    with suppress(BadName, ModelNotFound):
        full_name = read_full_name(name)
        return find_registered(tx, scope, name_of(find_published(full_name)) if full_name.of_system else full_name)
    called = tx.list(Model, scope=scope, display_name=name)
    return called[-1] if called else tx.get(Model, scope=scope, id=name)
