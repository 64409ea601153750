"""The tables: one per noun, real columns for what is queried, JSON text for what is nested.

The migrations make them; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
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
from headrace.store.columns import (
    int_column,
    json_column,
    name_column,
    scope_columns,
    scoped_key,
    text_column,
    time_column,
)

metadata = MetaData()

models = Table(
    "models",
    metadata,
    *scope_columns(),
    text_column("id"),
    text_column("display_name"),
    text_column("description"),
    json_column("labels", dict[str, str]),
    int_column("last_version"),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    scoped_key("id"),
    Index("models_by_time", "project", "location", "created_at", "id"),
    Index("models_by_update", "project", "location", "updated_at", "id"),
    Index("models_by_display_name", "project", "location", "display_name"),
)

model_versions = Table(
    "model_versions",
    metadata,
    *scope_columns(),
    text_column("model_id"),
    text_column("version"),
    text_column("artifact_uri"),
    text_column("fingerprint"),
    json_column("spec", ServingSpec),
    json_column("aliases", tuple[str, ...]),
    text_column("description"),
    json_column("labels", dict[str, str]),
    json_column("kept", dict[str, Any]),
    text_column("user_id"),
    json_column("registration", Registration, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    scoped_key("model_id", "version"),
    ForeignKeyConstraint(["project", "location", "model_id"], ["models.project", "models.location", "models.id"]),
)

endpoints = Table(
    "endpoints",
    metadata,
    *scope_columns(),
    text_column("id"),
    text_column("display_name"),
    text_column("description"),
    json_column("labels", dict[str, str]),
    Column("dedicated", Boolean, nullable=False),
    Column("inference_timeout_s", Double, nullable=False),
    Column("deleting", Boolean, nullable=False),
    json_column("request_log", RequestLog, nullable=True),
    json_column("kept", dict[str, Any]),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    scoped_key("id"),
    Index("endpoints_by_time", "project", "location", "created_at", "id"),
    Index("endpoints_by_display_name", "project", "location", "display_name"),
)

# Without a foreign key to its model version: the record of a deployment that is GONE outlives its model.
deployments = Table(
    "deployments",
    metadata,
    *scope_columns(),
    text_column("id"),
    text_column("model_id"),
    text_column("model_version"),
    text_column("display_name"),
    json_column("machine", MachineSpec),
    int_column("min_replicas"),
    int_column("max_replicas"),
    int_column("initial_replicas"),
    Column("scale_to_zero_after_s", Double, nullable=False),
    json_column("autoscaling", Autoscaling, nullable=True),
    json_column("scaling", Scaling, nullable=True),
    text_column("runtime"),
    int_column("max_model_len"),
    int_column("memory_bytes"),
    int_column("model_bytes"),
    json_column("predicted", Predicted, nullable=True),
    json_column("carried", Carried, nullable=True),
    name_column("state", DeploymentState),
    json_column("failure", Failure, nullable=True),
    int_column("restarts"),
    time_column("deadline_at"),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    scoped_key("id"),
    Index("deployments_by_state", "state"),
    Index("deployments_by_model", "project", "location", "model_id"),
)

deployed_models = Table(
    "deployed_models",
    metadata,
    *scope_columns(),
    text_column("id"),
    text_column("endpoint_id"),
    text_column("deployment_id"),
    text_column("display_name"),
    int_column("traffic"),
    json_column("settings", dict[str, Any]),
    json_column("provision", Provision, nullable=True),
    time_column("created_at"),
    int_column("resource_version"),
    scoped_key("id"),
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
    *scope_columns(),
    text_column("id"),
    text_column("deployment_id"),
    text_column("node_id"),
    json_column("gpus", tuple[str, ...]),
    int_column("machine_bytes"),
    int_column("epoch"),
    text_column("nonce"),
    name_column("state", ReplicaState),
    text_column("address"),
    int_column("pid"),
    int_column("resident_bytes"),
    json_column("warmup", Warmup, nullable=True),
    json_column("failure", Failure, nullable=True),
    Column("exit_status", BigInteger),
    json_column("log_tail", tuple[str, ...]),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
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
    *scope_columns(),
    text_column("id"),
    text_column("parent"),
    text_column("kind"),
    text_column("contract"),
    json_column("targets", dict[str, str]),
    name_column("state", OperationState),
    json_column("failure", Failure, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    scoped_key("id"),
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
    *scope_columns(),
    text_column("id"),
    text_column("endpoint_id"),
    text_column("deployed_model_id"),
    json_column("plan", RolloutPlan),
    name_column("state", RolloutState),
    int_column("stage"),
    time_column("stage_began_at"),
    json_column("traffic_before", dict[str, int]),
    json_column("tallies", Tallies),
    json_column("failure", Failure, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    scoped_key("id"),
    Index("rollouts_by_state", "state"),
    Index("rollouts_by_endpoint", "project", "location", "endpoint_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    text_column("id"),
    text_column("name"),
    text_column("secret_hash"),
    text_column("hint"),
    text_column("project"),
    name_column("role", Role),
    time_column("created_at"),
    Column("revoked_at", Double),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    text_column("public_key"),
    int_column("resource_version"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("secret_hash", name="api_keys_one_per_secret"),
)

licence_acceptances = Table(
    "licence_acceptances",
    metadata,
    text_column("project"),
    text_column("publisher_model"),
    text_column("accepted_by"),
    time_column("created_at"),
    int_column("resource_version"),
    PrimaryKeyConstraint("project", "publisher_model"),
)

# Without a foreign key to its model version: a profile tells the past.
profiles = Table(
    "profiles",
    metadata,
    *scope_columns(),
    text_column("id"),
    text_column("model_id"),
    text_column("model_version"),
    text_column("runtime"),
    text_column("hardware"),
    text_column("engine"),
    json_column("carried", Carried),
    json_column("points", tuple[Point, ...]),
    Column("mean_error", Double, nullable=False),
    Column("worst_error", Double, nullable=False),
    time_column("created_at"),
    int_column("resource_version"),
    scoped_key("id"),
    Index("profiles_by_version", "project", "location", "model_id", "model_version", "created_at"),
)

namespaces = Table(
    "namespaces",
    metadata,
    text_column("project"),
    text_column("name"),
    text_column("comment"),
    text_column("created_by"),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    PrimaryKeyConstraint("project", "name"),
)

quotas = Table(
    "quotas",
    metadata,
    text_column("project"),
    Column("shares", Double, nullable=False),
    time_column("created_at"),
    time_column("updated_at"),
    int_column("resource_version"),
    PrimaryKeyConstraint("project"),
)

nodes = Table(
    "nodes",
    metadata,
    text_column("id"),
    text_column("boot_id"),
    int_column("memory_bytes"),
    int_column("cores"),
    json_column("hardware", dict[str, Any]),
    json_column("runtimes", tuple[RuntimeReport, ...]),
    json_column("model_cache", ModelCacheReport),
    time_column("last_seen_at"),
    int_column("resource_version"),
    PrimaryKeyConstraint("id"),
)

# Integer, not BigInteger: SQLite counts up by itself only in an INTEGER PRIMARY KEY.
transitions = Table(
    "transitions",
    metadata,
    Column("sequence", Integer, primary_key=True),
    text_column("kind"),
    text_column("resource_id"),
    text_column("state"),
    time_column("at"),
    text_column("detail"),
    json_column("failure", Failure, nullable=True),
    Index("transitions_by_resource", "kind", "resource_id", "sequence"),
    Index("transitions_by_time", "at"),
)

# What stands in the labels of models and endpoints, one row each: what their lists are looked up by.
labels = Table(
    "labels",
    metadata,
    *scope_columns(),
    text_column("kind"),
    text_column("resource_id"),
    text_column("key"),
    text_column("value"),
    PrimaryKeyConstraint("project", "location", "kind", "resource_id", "key"),
    Index("labels_by_value", "kind", "key", "value", "project", "location", "resource_id"),
)

counters = Table("counters", metadata, Column("name", Text, primary_key=True), int_column("value"))

# What was used within one hour by one key, at one endpoint, of one version of a model. Outlives all of them.
usage_hours = Table(
    "usage_hours",
    metadata,
    *scope_columns(),
    text_column("key_id"),
    text_column("endpoint_id"),
    text_column("model_id"),
    text_column("model_version"),
    int_column("hour_at"),
    int_column("requests"),
    int_column("unfinished"),
    int_column("inexact"),
    int_column("prompt_tokens"),
    int_column("completion_tokens"),
    scoped_key("key_id", "endpoint_id", "model_id", "model_version", "hour_at"),
    Index("usage_hours_by_hour", "hour_at"),
)

# How much of a gateway's segment is in these sums.
usage_segments = Table("usage_segments", metadata, Column("name", Text, primary_key=True), int_column("read_bytes"))
