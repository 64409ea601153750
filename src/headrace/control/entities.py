"""Entities of Databricks' clients as our models: ``catalog.schema.model`` or a plain name, and a version of it."""

from __future__ import annotations

from headrace.resources.errors import BadName, ModelNotFound
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.unity_catalog import read_full_name
from headrace.store import Transaction

_SHOWN = 10


def _of_three_levels(tx: Transaction, scope: Scope, name: str) -> list[Model]:
    """The models of Unity Catalog with this name, whose case does not count."""
    try:
        return tx.list(Model, scope=scope, display_name=str(read_full_name(name)))
    except BadName:
        return []


def find_entity(tx: Transaction, scope: Scope, name: str, version: str) -> tuple[Model, ModelVersion]:
    """The version that a served entity names.

    Args:
        tx: An open transaction.
        scope: Where models are looked for.
        name: Of the model: its display name (of several the newest), else its id.
        version: Its number or an alias; empty: the newest.

    Raises:
        ModelNotFound: There is no such model, or no such version of it.
    """
    called = tx.list(Model, scope=scope, display_name=name) or _of_three_levels(tx, scope, name)
    model = called[-1] if called else tx.get(Model, scope=scope, id=name)
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
