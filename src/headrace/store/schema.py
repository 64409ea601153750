"""The tables: one per noun, real columns for what is queried, JSON text for what is nested.

The migrations make them; a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from headrace.resources.access import Role
from headrace.resources.assignments import ModelCacheReport, RuntimeReport
from headrace.resources.autoscaling import Autoscaling, Scaling
from headrace.resources.deployments import MachineSpec, Predicted, Warmup
from headrace.resources.errors import Failure
from headrace.resources.models import Registration, ServingSpec
from headrace.resources.profiles import Carried, Point, Provision
from headrace.resources.request_log import RequestLog
from headrace.resources.rollouts import RolloutPlan, Tallies
from headrace.resources.states import DeploymentState, OperationState, ReplicaState, RolloutState

_ENCODER = msgspec.json.Encoder()


class Json(TypeDecorator[Any]):
    """A nested value as JSON text; None is NULL."""

    impl = Text
    cache_ok = True

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target
        self._decoder = msgspec.json.Decoder(target)  # once: to understand the type takes longer than a value

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To text."""
        return None if value is None else _ENCODER.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - as above
        """And back."""
        return None if value is None else self._decoder.decode(value)


class Name(TypeDecorator[Any]):
    """A member of an enumeration, as its text."""

    impl = Text
    cache_ok = True

    def __init__(self, target: type[StrEnum]) -> None:
        super().__init__()
        self.target = target

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To text; a name that is no member is refused."""
        return None if value is None else str(self.target(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - as above
        """And back."""
        return None if value is None else self.target(value)


metadata = MetaData()


def _scope() -> tuple[Column[str], Column[str]]:
    return _text("project"), _text("location")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _int(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _time(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


def _json(name: str, target: Any, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Json(target), nullable=nullable)


def _name(name: str, target: type[StrEnum]) -> Column[Any]:
    return Column(name, Name(target), nullable=False)


def _scoped_key(*names: str) -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint("project", "location", *names)


models = Table(
    "models",
    metadata,
    *_scope(),
    _text("id"),
    _text("display_name"),
    _text("description"),
    _json("labels", dict[str, str]),
    _int("last_version"),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    _scoped_key("id"),
    Index("models_by_time", "project", "location", "created_at", "id"),
    Index("models_by_update", "project", "location", "updated_at", "id"),
    Index("models_by_display_name", "project", "location", "display_name"),
)

model_versions = Table(
    "model_versions",
    metadata,
    *_scope(),
    _text("model_id"),
    _text("version"),
    _text("artifact_uri"),
    _text("fingerprint"),
    _json("spec", ServingSpec),
    _json("aliases", tuple[str, ...]),
    _text("description"),
    _json("labels", dict[str, str]),
    _json("kept", dict[str, Any]),
    _text("user_id"),
    _json("registration", Registration, nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    _scoped_key("model_id", "version"),
    ForeignKeyConstraint(["project", "location", "model_id"], ["models.project", "models.location", "models.id"]),
)

endpoints = Table(
    "endpoints",
    metadata,
    *_scope(),
    _text("id"),
    _text("display_name"),
    _text("description"),
    _json("labels", dict[str, str]),
    Column("dedicated", Boolean, nullable=False),
    Column("inference_timeout_s", Double, nullable=False),
    Column("deleting", Boolean, nullable=False),
    _json("request_log", RequestLog, nullable=True),
    _json("kept", dict[str, Any]),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    _scoped_key("id"),
    Index("endpoints_by_time", "project", "location", "created_at", "id"),
    Index("endpoints_by_display_name", "project", "location", "display_name"),
)

# Without a foreign key to its model version: the record of a deployment that is GONE outlives its model.
deployments = Table(
    "deployments",
    metadata,
    *_scope(),
    _text("id"),
    _text("model_id"),
    _text("model_version"),
    _text("display_name"),
    _json("machine", MachineSpec),
    _int("min_replicas"),
    _int("max_replicas"),
    _int("initial_replicas"),
    Column("scale_to_zero_after_s", Double, nullable=False),
    _json("autoscaling", Autoscaling, nullable=True),
    _json("scaling", Scaling, nullable=True),
    _text("runtime"),
    _int("max_model_len"),
    _int("memory_bytes"),
    _int("model_bytes"),
    _json("predicted", Predicted, nullable=True),
    _json("carried", Carried, nullable=True),
    _name("state", DeploymentState),
    _json("failure", Failure, nullable=True),
    _int("restarts"),
    _time("deadline_at"),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    _scoped_key("id"),
    Index("deployments_by_state", "state"),
    Index("deployments_by_model", "project", "location", "model_id"),
)

deployed_models = Table(
    "deployed_models",
    metadata,
    *_scope(),
    _text("id"),
    _text("endpoint_id"),
    _text("deployment_id"),
    _text("display_name"),
    _int("traffic"),
    _json("settings", dict[str, Any]),
    _json("provision", Provision, nullable=True),
    _time("created_at"),
    _int("resource_version"),
    _scoped_key("id"),
    ForeignKeyConstraint(
        ["project", "location", "endpoint_id"], ["endpoints.project", "endpoints.location", "endpoints.id"]
    ),
    ForeignKeyConstraint(
        ["project", "location", "deployment_id"], ["deployments.project", "deployments.location", "deployments.id"]
    ),
    Index("deployed_models_by_endpoint", "project", "location", "endpoint_id"),
    Index("deployed_models_by_deployment", "project", "location", "deployment_id"),
)

replicas = Table(
    "replicas",
    metadata,
    *_scope(),
    _text("id"),
    _text("deployment_id"),
    _text("node_id"),
    _int("epoch"),
    _text("nonce"),
    _name("state", ReplicaState),
    _text("address"),
    _int("pid"),
    _int("resident_bytes"),
    _json("warmup", Warmup, nullable=True),
    _json("failure", Failure, nullable=True),
    Column("exit_status", BigInteger),
    _json("log_tail", tuple[str, ...]),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(
        ["project", "location", "deployment_id"], ["deployments.project", "deployments.location", "deployments.id"]
    ),
    UniqueConstraint("project", "location", "deployment_id", "epoch", name="replicas_one_per_epoch"),
    Index("replicas_by_node", "node_id", "state"),
)

operations = Table(
    "operations",
    metadata,
    *_scope(),
    _text("id"),
    _text("parent"),
    _text("kind"),
    _text("contract"),
    _json("targets", dict[str, str]),
    _name("state", OperationState),
    _json("failure", Failure, nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    _scoped_key("id"),
    Index("operations_by_state", "state"),
    Index("operations_by_id", "id"),
    Index("operations_by_state_in_time", "project", "location", "state", "created_at", "id"),
    Index("operations_by_time", "project", "location", "created_at", "id"),
    Index("operations_by_parent", "project", "location", "parent", "created_at", "id"),
)

# Without foreign keys: the record of a rollout outlives its endpoint.
rollouts = Table(
    "rollouts",
    metadata,
    *_scope(),
    _text("id"),
    _text("endpoint_id"),
    _text("deployed_model_id"),
    _json("plan", RolloutPlan),
    _name("state", RolloutState),
    _int("stage"),
    _time("stage_began_at"),
    _json("traffic_before", dict[str, int]),
    _json("tallies", Tallies),
    _json("failure", Failure, nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    _scoped_key("id"),
    Index("rollouts_by_state", "state"),
    Index("rollouts_by_endpoint", "project", "location", "endpoint_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _text("id"),
    _text("name"),
    _text("secret_hash"),
    _text("hint"),
    _text("project"),
    _name("role", Role),
    _time("created_at"),
    Column("revoked_at", Double),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    _text("public_key"),
    _int("resource_version"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("secret_hash", name="api_keys_one_per_secret"),
)

licence_acceptances = Table(
    "licence_acceptances",
    metadata,
    _text("project"),
    _text("publisher_model"),
    _text("accepted_by"),
    _time("created_at"),
    _int("resource_version"),
    PrimaryKeyConstraint("project", "publisher_model"),
)

# Without a foreign key to its model version: a profile tells the past.
profiles = Table(
    "profiles",
    metadata,
    *_scope(),
    _text("id"),
    _text("model_id"),
    _text("model_version"),
    _text("runtime"),
    _text("hardware"),
    _text("engine"),
    _json("carried", Carried),
    _json("points", tuple[Point, ...]),
    Column("mean_error", Double, nullable=False),
    Column("worst_error", Double, nullable=False),
    _time("created_at"),
    _int("resource_version"),
    _scoped_key("id"),
    Index("profiles_by_version", "project", "location", "model_id", "model_version", "created_at"),
)

namespaces = Table(
    "namespaces",
    metadata,
    _text("project"),
    _text("name"),
    _text("comment"),
    _text("created_by"),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    PrimaryKeyConstraint("project", "name"),
)

quotas = Table(
    "quotas",
    metadata,
    _text("project"),
    Column("shares", Double, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    _int("resource_version"),
    PrimaryKeyConstraint("project"),
)

nodes = Table(
    "nodes",
    metadata,
    _text("id"),
    _text("boot_id"),
    _int("memory_bytes"),
    _int("cores"),
    _json("hardware", dict[str, Any]),
    _json("runtimes", tuple[RuntimeReport, ...]),
    _json("model_cache", ModelCacheReport),
    _time("last_seen_at"),
    _int("resource_version"),
    PrimaryKeyConstraint("id"),
)

# Integer, not BigInteger: SQLite counts up by itself only in an INTEGER PRIMARY KEY.
transitions = Table(
    "transitions",
    metadata,
    Column("sequence", Integer, primary_key=True),
    _text("kind"),
    _text("resource_id"),
    _text("state"),
    _time("at"),
    _text("detail"),
    _json("failure", Failure, nullable=True),
    Index("transitions_by_resource", "kind", "resource_id", "sequence"),
)

# What stands in the labels of models and endpoints, one row each: what their lists are looked up by.
labels = Table(
    "labels",
    metadata,
    *_scope(),
    _text("kind"),
    _text("resource_id"),
    _text("key"),
    _text("value"),
    PrimaryKeyConstraint("project", "location", "kind", "resource_id", "key"),
    Index("labels_by_value", "kind", "key", "value", "project", "location", "resource_id"),
)

counters = Table("counters", metadata, Column("name", Text, primary_key=True), _int("value"))

# What was used within one hour by one key, at one endpoint, of one version of a model. Outlives all of them.
usage_hours = Table(
    "usage_hours",
    metadata,
    *_scope(),
    _text("key_id"),
    _text("endpoint_id"),
    _text("model_id"),
    _text("model_version"),
    _int("hour_at"),
    _int("requests"),
    _int("unfinished"),
    _int("inexact"),
    _int("prompt_tokens"),
    _int("completion_tokens"),
    _scoped_key("key_id", "endpoint_id", "model_id", "model_version", "hour_at"),
    Index("usage_hours_by_hour", "hour_at"),
)

# How much of a gateway's segment is in these sums.
usage_segments = Table("usage_segments", metadata, Column("name", Text, primary_key=True), _int("read_bytes"))
