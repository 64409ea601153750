"""How a noun becomes a record of its table, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Column, Table

from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField
from headrace.resources.licences import LicenceAcceptance
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.nodes import Node
from headrace.resources.operations import ApiKey, Operation
from headrace.resources.profiles import Profile
from headrace.resources.quotas import Quota
from headrace.resources.rollouts import Rollout
from headrace.resources.unity_catalog import Namespace
from headrace.store import schema

Row = (
    Model
    | ModelVersion
    | Endpoint
    | Deployment
    | DeployedModel
    | Replica
    | Operation
    | Rollout
    | ApiKey
    | Node
    | Profile
    | Quota
    | LicenceAcceptance
    | Namespace
)
"""Every noun that is stored."""

Stateful = Deployment | Replica | Operation | Rollout
"""Those with a state, and so with a timeline."""

R = TypeVar("R", bound=Row)
S = TypeVar("S", bound=Stateful)


class Noun(Generic[R]):
    """One noun and its table.

    Args:
        kind: The noun's class. Its field ``scope`` is the columns ``project`` and ``location``; every other field is
            the column of its name.
        table: Where it is kept.

    Attributes:
        labelled: Whether lists of it are looked up by its labels.
    """

    def __init__(self, kind: type[R], table: Table) -> None:
        self.kind = kind
        self.table = table
        self.key: tuple[str, ...] = tuple(column.name for column in table.primary_key)
        self.scoped = "location" in table.columns
        self._columns = tuple(table.columns.keys())
        self.labelled = kind in (Model, Endpoint)
        self.word = kind.__name__.lower()
        first = ("created_at",) if "created_at" in table.columns else ()
        self.order: tuple[Column[Any], ...] = tuple(table.columns[name] for name in (*first, *self.key))

    def record(self, row: R) -> dict[str, Any]:
        """The row as column values."""
        record = {name: getattr(row, name) for name in row.__struct_fields__ if name != "scope"}
        if isinstance(row, ApiKey | Node | Quota | LicenceAcceptance | Namespace):
            return record
        return record | columns_of(scope=row.scope)

    def row(self, values: Sequence[Any]) -> R:
        """The values of all columns, in the table's order, as the noun."""
        fields = dict(zip(self._columns, values, strict=True))
        if self.scoped:
            fields["scope"] = _scope(fields.pop("project"), fields.pop("location"))
        return self.kind(**fields)

    def key_of(self, row: R) -> dict[str, Any]:
        """The columns that name the row."""
        record = self.record(row)
        return {name: record[name] for name in self.key}


@lru_cache(maxsize=256)
def _scope(project: str, location: str) -> Scope:
    """The same again for each row of a list: it need not be looked at each time."""
    return Scope(project, location)


def columns_of(**fields: Any) -> dict[str, Any]:
    """Fields of a noun as columns: a scope becomes two."""
    if "scope" in fields:
        scope: Scope = fields.pop("scope")
        fields |= {"project": scope.project, "location": scope.location}
    return fields


NOUNS: Mapping[type[Any], Noun[Any]] = {
    kind: Noun(kind, table)
    for kind, table in (
        (Model, schema.models),
        (ModelVersion, schema.model_versions),
        (Endpoint, schema.endpoints),
        (Deployment, schema.deployments),
        (DeployedModel, schema.deployed_models),
        (Replica, schema.replicas),
        (Operation, schema.operations),
        (Rollout, schema.rollouts),
        (ApiKey, schema.api_keys),
        (Node, schema.nodes),
        (Profile, schema.profiles),
        (Quota, schema.quotas),
        (LicenceAcceptance, schema.licence_acceptances),
        (Namespace, schema.namespaces),
    )
}


def cursor(row: Row) -> str:
    """An opaque mark of a row's place in its list, for `Transaction.list`'s ``after``; good even once it is deleted."""
    noun = NOUNS[type(row)]
    record = noun.record(row)
    return base64.urlsafe_b64encode(msgspec.json.encode([record[column.name] for column in noun.order])).decode()


def place(noun: Noun[Any], mark: str) -> list[Any]:
    """What a cursor stands for: values of the columns that the list is ordered by.

    Raises:
        BadField: It is not a cursor of this noun's list.
    """
    try:
        values: Any = msgspec.json.decode(base64.urlsafe_b64decode(mark))
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError):
        values = None
    wanted = [column.type.python_type for column in noun.order]
    if not isinstance(values, list) or [type(value) for value in values] != wanted:
        raise BadField("The page token is not one that this list gave.", evidence=f"It is {mark[:80]!r}.")
    return values
