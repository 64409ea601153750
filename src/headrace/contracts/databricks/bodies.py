"""What Databricks' clients send of serving endpoints: both shapes of create, and both of an update.

https://docs.databricks.com/api/workspace/servingendpoints. A field that nothing here does is refused by name where it
says something, and so is one that Databricks does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from headrace.contracts.databricks.reading import wrong_field
from headrace.contracts.databricks.served import Config, ServedEntity, config_of
from headrace.resources.errors import BadField, BadJson, NotSupported

T = TypeVar("T", bound=msgspec.Struct)

Version = int | str | None
"""Of an entity: the documents' own script sends a number, the SDK a text."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object of the wire."""


class EntityBody(_Message, frozen=True, kw_only=True):
    """One of ``served_entities``."""

    entity_name: str | None = None
    entity_version: Version = None
    name: str | None = None
    min_provisioned_throughput: int | None = None
    max_provisioned_throughput: int | None = None
    provisioned_model_units: int | None = None
    burst_scaling_enabled: bool | None = None
    workload_size: str | None = None
    workload_type: str | None = None
    scale_to_zero_enabled: bool | None = None
    min_provisioned_concurrency: int | None = None
    max_provisioned_concurrency: int | None = None
    external_model: dict[str, Any] | None = None
    environment_vars: dict[str, Any] | None = None
    instance_profile_arn: str | None = None
    pt_auto_renew: Any = None
    pt_term: Any = None


class ServedModelBody(EntityBody, frozen=True, kw_only=True):
    """One of ``served_models``, the older name of the same."""

    model_name: str | None = None
    model_version: Version = None


class RouteBody(_Message, frozen=True, kw_only=True):
    """What share of the requests one entity gets."""

    traffic_percentage: int
    served_model_name: str | None = None
    served_entity_name: str | None = None


class TrafficBody(_Message, frozen=True, kw_only=True):
    """How the requests are shared out."""

    routes: tuple[RouteBody, ...] | None = None


class ConfigBody(_Message, frozen=True, kw_only=True):
    """What an endpoint serves."""

    name: str | None = None
    served_entities: tuple[EntityBody, ...] | None = None
    served_models: tuple[ServedModelBody, ...] | None = None
    traffic_config: TrafficBody | None = None
    auto_capture_config: dict[str, Any] | None = None

    def read(self) -> Config:
        """As what is to be served.

        Raises:
            BadField: Nothing is, or one of it cannot be, or the traffic is not all given away.
            NotSupported: Something is asked for that is not done here.
        """
        _refuse(self, _NOT_IN_CONFIG)
        bodies = (*(self.served_entities or ()), *(self.served_models or ()))
        if not bodies:
            raise BadField(
                "An endpoint serves at least one entity.",
                evidence="served_entities is empty.",
                fix='Give config.served_entities, e.g. [{"entity_name": "main.default.model", "entity_version": "1"}].',
            )
        return config_of([_entity(body) for body in bodies], _routes(self.traffic_config))


class UpdatePtBody(_Message, frozen=True, kw_only=True):
    """An update of an endpoint whose throughput was sold in model units: the config, wrapped."""

    config: ConfigBody


class TagBody(_Message, frozen=True, kw_only=True):
    """A key with a value, or without."""

    key: str
    value: str | None = None


class CreateBody(_Message, frozen=True, kw_only=True):
    """An endpoint that is to be made."""

    name: str
    config: ConfigBody | None = None
    tags: tuple[TagBody, ...] | None = None
    description: str | None = None
    route_optimized: bool | None = None
    ai_gateway: dict[str, Any] | None = None
    rate_limits: list[Any] | None = None
    budget_policy_id: str | None = None
    usage_policy_id: str | None = None
    email_notifications: dict[str, Any] | None = None
    telemetry_config: dict[str, Any] | None = None

    def read(self) -> Config:
        """What it is to serve.

        Raises:
            BadField: It is missing, or not to be served.
            NotSupported: Something is asked for that is not done here.
        """
        _refuse(self, _NOT_IN_CREATE)
        if self.config is None:
            raise BadField("An endpoint needs a config.", fix="Give config.served_entities.")
        return self.config.read()


_NOT_IN_ENTITY: Mapping[str, str] = {
    "external_model": "Deploy it with `headrace deploy --external URL`: the endpoint answers below the same paths.",
    "environment_vars": "Engines run in environments of ours: leave it out.",
    "instance_profile_arn": "Weights are opened with the project's credentials: `headrace credentials`.",
}
_NOT_IN_CONFIG: Mapping[str, str] = {
    "auto_capture_config": "Turn inference tables on by PUT …/{name}/ai-gateway once the endpoint is there.",
}
_NOT_IN_CREATE: Mapping[str, str] = {
    "route_optimized": "Every request goes straight to the gateway: leave it out.",
    "ai_gateway": "Set it by PUT …/{name}/ai-gateway once the endpoint is there.",
    "rate_limits": "Set them by PUT …/{name}/rate-limits once the endpoint is there.",
    "budget_policy_id": "Nothing is billed here: leave it out.",
    "usage_policy_id": "Nothing is billed here: leave it out.",
    "email_notifications": "No mail is sent here: wait for the state instead.",
    "telemetry_config": "Metrics are at /metrics, spans by `headrace serve --otlp-traces-endpoint`.",
}
"""What the wire has and nothing here does, and what to do instead."""


def read_body(body: bytes, shape: type[T]) -> T:
    """A body as its message.

    Raises:
        BadJson: It is not JSON.
        BadField: A field is missing, unknown or of the wrong type.
    """
    try:
        return msgspec.json.decode(body.strip() or b"{}", type=shape)
    except msgspec.ValidationError as error:
        raise wrong_field(error, shape) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(
            "The body is not valid JSON.", evidence=f"{error}."[:200], fix="Send one JSON object, in UTF-8."
        ) from error


def _refuse(body: msgspec.Struct, words: Mapping[str, str]) -> None:
    for name, instead in words.items():
        if _says_something(getattr(body, name)):
            raise NotSupported(f"{name} is not supported here.", evidence="The request gives it a value.", fix=instead)


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_says_something(each) for each in value.values())
    return bool(value)


def _entity(body: EntityBody) -> ServedEntity:
    _refuse(body, _NOT_IN_ENTITY)
    name, version = body.entity_name, body.entity_version
    if isinstance(body, ServedModelBody):
        name = body.model_name if name is None else name
        version = body.model_version if version is None else version
    return ServedEntity(
        name=body.name or "",
        entity_name=name or "",
        entity_version="" if version is None else str(version),
        min_provisioned_throughput=body.min_provisioned_throughput,
        max_provisioned_throughput=body.max_provisioned_throughput,
        provisioned_model_units=body.provisioned_model_units,
        burst_scaling_enabled=body.burst_scaling_enabled,
        workload_size=body.workload_size,
        workload_type=body.workload_type,
        scale_to_zero_enabled=body.scale_to_zero_enabled,
        min_provisioned_concurrency=body.min_provisioned_concurrency,
        max_provisioned_concurrency=body.max_provisioned_concurrency,
    )


def _routes(body: TrafficBody | None) -> dict[str, int] | None:
    if body is None or body.routes is None:
        return None
    shares: dict[str, int] = {}
    for route in body.routes:
        name = route.served_entity_name or route.served_model_name or ""
        if name in shares:
            raise BadField(
                "traffic_config has two routes to one entity.",
                evidence=f"It is {name[:80]!r}.",
                fix="Give it one, with the sum of both.",
            )
        shares[name] = route.traffic_percentage
    return shares
