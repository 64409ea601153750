"""Bodies that make an endpoint and change one.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from headrace.contracts.vertex.json_bodies import Duration, duration_s, parse_object, read
from headrace.resources.errors import BadField, NotSupported
from headrace.resources.request_log import RequestLog
from headrace.resources.traffic import WHOLE


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of the wire."""


class LoggingConfig(_Message, frozen=True):
    """``PredictRequestResponseLoggingConfig``."""

    enabled: bool = False
    sampling_rate: object = None
    bigquery_destination: dict[str, object] | None = None
    request_response_logging_schema_version: str = ""
    enable_otel_logging: bool = False


class ClientConnectionConfig(_Message, frozen=True):
    """How clients connect."""

    inference_timeout: Duration | None = None


class EndpointBody(_Message, frozen=True):
    """``Endpoint``. What only the server says is taken and not looked at: clients send back what they read."""

    name: str = ""
    display_name: str = ""
    description: str = ""
    deployed_models: object = None
    traffic_split: dict[str, int] = {}
    etag: str = ""
    labels: dict[str, str] = {}
    create_time: object = None
    update_time: object = None
    encryption_spec: dict[str, object] | None = None
    network: str = ""
    enable_private_service_connect: bool = False
    private_service_connect_config: dict[str, object] | None = None
    model_deployment_monitoring_job: object = None
    predict_request_response_logging_config: LoggingConfig | None = None
    dedicated_endpoint_enabled: bool | None = None
    dedicated_endpoint_dns: object = None
    client_connection_config: ClientConnectionConfig | None = None
    satisfies_pzs: object = None
    satisfies_pzi: object = None
    gdc_config: dict[str, object] | None = None
    gen_ai_advanced_features_config: dict[str, object] | None = None
    headrace: object = None


class NewEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint that is to be made, in our own nouns."""

    display_name: str
    description: str
    labels: dict[str, str]
    dedicated: bool
    request_log: RequestLog | None
    inference_timeout_s: float


class EndpointUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different about an endpoint.

    Attributes:
        changes: By name: ``display_name``, ``description``, ``labels``, ``split``, ``sampling_rate`` (of the request
            log; None: off), ``inference_timeout_s``.
        etag: Of the endpoint as the caller knows it; empty: however it is.
    """

    changes: dict[str, Any]
    etag: str


_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        spelling: name
        for name, encoded in zip(EndpointBody.__struct_fields__, EndpointBody.__struct_encode_fields__, strict=True)
        for spelling in (name, encoded)
    }
)
_CHANGEABLE: Mapping[str, str] = MappingProxyType(
    {
        "display_name": "displayName",
        "description": "description",
        "labels": "labels",
        "traffic_split": "trafficSplit",
        "predict_request_response_logging_config": "predictRequestResponseLoggingConfig",
        "client_connection_config": "clientConnectionConfig",
    }
)
"""What a mask may name."""


def read_endpoint(body: bytes) -> NewEndpoint:
    """What the body of ``endpoints.create`` asks for.

    An endpoint is a dedicated one unless the body says ``"dedicatedEndpointEnabled": false``: only of dedicated ones
    the vendor's SDK sends ``raw_predict`` and streams here, and it leaves ``false`` out where nobody said anything.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, of the wrong type or value, or cannot be there yet.
        NotSupported: It asks for what is not there yet, and would change what comes of it.
    """
    message = read(EndpointBody, parse_object(body))
    _refuse_unsupported(message)
    if message.deployed_models or message.traffic_split:
        raise BadField(
            "A new endpoint has no deployed models, and no traffic to split.",
            fix="Make it without them; :deployModel puts models on it, with their traffic.",
        )
    rate = _sampling_rate(message.predict_request_response_logging_config)
    return NewEndpoint(
        display_name=message.display_name,
        description=message.description,
        labels=message.labels,
        dedicated=message.dedicated_endpoint_enabled is not False,
        request_log=None if rate is None else RequestLog(sampling_rate=rate),
        inference_timeout_s=_timeout_s(message.client_connection_config),
    )


def read_endpoint_update(body: bytes, mask: str) -> EndpointUpdate:
    """What a ``PATCH`` asks for: those fields of the body that the mask names.

    Args:
        body: The endpoint, as much of it as the mask names.
        mask: The query's ``updateMask``: names between commas, in camelCase or snake_case.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: The mask is empty, or names what is unknown or cannot be changed; a field of the body is unknown, or
            of the wrong type or value.
        NotSupported: It asks for what is not there yet.
    """
    names = [_changeable(each.strip()) for each in mask.split(",")] if mask.strip() else []
    if not names:
        raise BadField(
            "updateMask is missing.",
            fix=f"Name what is to change: ?updateMask=… with {', '.join(_CHANGEABLE.values())}.",
        )
    message = read(EndpointBody, parse_object(body))
    return EndpointUpdate(changes=_changes(message, names), etag=message.etag)


class LongUpdateBody(_Message, frozen=True):
    """``UpdateEndpointLongRunningRequest``."""

    endpoint: EndpointBody | None = None


def read_long_update(body: bytes) -> EndpointUpdate:
    """What ``:update`` asks for: as Vertex AI has it, ``clientConnectionConfig`` is all that it changes.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: It has no endpoint with that; a field is unknown, or of the wrong type or value.
    """
    endpoint = read(LongUpdateBody, parse_object(body)).endpoint
    if endpoint is None or endpoint.client_connection_config is None:
        raise BadField(
            "endpoint.clientConnectionConfig is missing.",
            evidence="It is what :update changes.",
            fix="Change other fields by PATCH, with an updateMask.",
        )
    return EndpointUpdate(changes=_changes(endpoint, ("client_connection_config",)), etag=endpoint.etag)


def read_split(split: Mapping[str, int], *, empty: bool = False) -> dict[str, int]:
    """Percents by deployed model that add up to 100.

    Args:
        split: As the body has it.
        empty: Whether nobody may get any: then they add up to 0.

    Raises:
        BadField: One is below 0, or they add up to something else.
    """
    negative = [name for name, share in split.items() if share < 0]
    if negative:
        raise BadField(f"trafficSplit.{negative[0]} must not be negative.", evidence=f"It is {split[negative[0]]}.")
    total = sum(split.values())
    if total != WHOLE and (total or not empty):
        raise BadField(
            "The percents of trafficSplit must add up to 100.",
            evidence=f"They add up to {total}.",
            fix="Give each deployed model its percent; one that is not named gets nothing.",
        )
    return dict(split)


def _changes(message: EndpointBody, names: Collection[str]) -> dict[str, Any]:
    """What an endpoint is to be, of those fields."""
    changes: dict[str, Any] = {
        name: getattr(message, name) for name in ("display_name", "description", "labels") if name in names
    }
    if "traffic_split" in names:
        changes["split"] = read_split(message.traffic_split, empty=True)
    if "predict_request_response_logging_config" in names:
        changes["sampling_rate"] = _sampling_rate(message.predict_request_response_logging_config)
    if "client_connection_config" in names:
        changes["inference_timeout_s"] = _timeout_s(message.client_connection_config)
    return changes


def _changeable(path: str) -> str:
    name = _SPELLINGS.get(path, "")
    if name in _CHANGEABLE:
        return name
    known = f"These can: {', '.join(_CHANGEABLE.values())}."
    if name:
        raise BadField(f"updateMask names {path!r}, which cannot be changed.", evidence=known, fix="Leave it out.")
    raise BadField(f"updateMask names {path[:100]!r}, which an endpoint does not have.", evidence=known)


def _sampling_rate(config: LoggingConfig | None) -> float | None:
    """Our request log stands for the vendor's: of both a share of the requests is written down; None: nothing."""
    if config is None or not config.enabled:
        return None
    if config.bigquery_destination:
        raise NotSupported(
            "predictRequestResponseLoggingConfig.bigqueryDestination is not supported.",
            fix="Leave it out: requests are logged on the server, see docs/request-log.md.",
        )
    rate = 1.0 if config.sampling_rate is None else config.sampling_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise BadField("predictRequestResponseLoggingConfig.samplingRate must be a number.")
    return float(rate)


def _timeout_s(config: ClientConnectionConfig | None) -> float:
    if config is None or config.inference_timeout is None:
        return 0.0
    timeout_s = duration_s(config.inference_timeout)
    if timeout_s <= 0:
        raise BadField("clientConnectionConfig.inferenceTimeout must be more than 0s.")
    return timeout_s


def _refuse_unsupported(message: EndpointBody) -> None:
    """Refuse what would change the outcome if it were ignored."""
    asked = {
        "encryptionSpec": message.encryption_spec,
        "network": message.network,
        "enablePrivateServiceConnect": message.enable_private_service_connect,
        "privateServiceConnectConfig": message.private_service_connect_config,
        "gdcConfig": message.gdc_config,
        "genAiAdvancedFeaturesConfig": message.gen_ai_advanced_features_config,
    }
    for field, value in asked.items():
        if value:
            raise NotSupported(f"{field} is not supported yet.", fix="Leave it out.")
