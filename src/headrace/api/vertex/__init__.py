"""Vertex AI's control plane: the routes, each with the permission that it demands."""

from __future__ import annotations

from headrace.api.access import Route
from headrace.api.vertex import (
    deploy,
    deployed_models,
    endpoints,
    eula,
    models,
    operations,
    publishers,
    quota_infos,
    unsupported,
)
from headrace.api.vertex.paths import (
    ENDPOINT,
    EULA,
    LOCATION,
    MODEL,
    PUBLISHER_MODELS,
    QUOTA_INFO,
    REST,
    TIME_SERIES,
    UI_LOCATION,
)
from headrace.resources.access import Permission

READ, DEPLOY = Permission.READ, Permission.DEPLOY

_OPERATIONS = tuple(
    route
    for parent in (
        f"{LOCATION}/operations",
        f"{MODEL}/operations",
        f"{ENDPOINT}/operations",
        # The vendor's REST transport polls here, without a version.
        f"{UI_LOCATION}/operations",
        f"{UI_LOCATION}/models/{{model:id}}/operations",
        f"{UI_LOCATION}/endpoints/{{endpoint:id}}/operations",
    )
    for route in (
        Route("GET", parent, READ, operations.list_operations),
        Route("GET", f"{parent}/{{operation:id}}", READ, operations.get_operation),
        Route("POST", f"{parent}/{{operation:id}}:wait", READ, operations.wait_operation),
        Route("POST", f"{parent}/{{operation:id}}:cancel", DEPLOY, operations.cancel_operation),
        Route("DELETE", f"{parent}/{{operation:id}}", DEPLOY, operations.delete_operation),
    )
)

ROUTES = (
    Route("POST", f"{LOCATION}:deploy", DEPLOY, deploy.deploy),
    *_OPERATIONS,
    Route("GET", f"{LOCATION}/models", READ, models.list_models),
    Route("POST", f"{LOCATION}/models:upload", DEPLOY, models.upload_model),
    Route("GET", MODEL, READ, models.get_model),
    Route("PATCH", MODEL, DEPLOY, models.update_model),
    Route("GET", f"{MODEL}:listVersions", READ, models.list_versions),
    Route("POST", f"{MODEL}:mergeVersionAliases", DEPLOY, models.merge_version_aliases),
    Route("DELETE", f"{MODEL}:deleteVersion", DEPLOY, models.delete_version),
    Route("DELETE", MODEL, DEPLOY, models.delete_model),
    Route("GET", f"{LOCATION}/endpoints", READ, endpoints.list_endpoints),
    Route("POST", f"{LOCATION}/endpoints", DEPLOY, endpoints.create_endpoint),
    Route("GET", ENDPOINT, READ, endpoints.get_endpoint),
    Route("PATCH", ENDPOINT, DEPLOY, endpoints.update_endpoint),
    Route("POST", f"{ENDPOINT}:update", DEPLOY, endpoints.update_endpoint_long_running),
    Route("DELETE", ENDPOINT, DEPLOY, endpoints.delete_endpoint),
    Route("GET", PUBLISHER_MODELS, READ, publishers.list_publisher_models),
    Route("GET", f"{PUBLISHER_MODELS}/{{model:id}}", READ, publishers.get_publisher_model),
    Route("POST", f"{EULA}:check", READ, eula.check),
    Route("POST", f"{EULA}:accept", DEPLOY, eula.accept),
    Route("GET", QUOTA_INFO, READ, quota_infos.get_quota_info),
    Route("GET", TIME_SERIES, READ, quota_infos.list_time_series),
    Route("POST", f"{ENDPOINT}:deployModel", DEPLOY, deployed_models.deploy_model),
    Route("POST", f"{ENDPOINT}:mutateDeployedModel", DEPLOY, deployed_models.mutate_deployed_model),
    Route("POST", f"{ENDPOINT}:undeployModel", DEPLOY, deployed_models.undeploy_model),
    *(Route(method, REST, READ, unsupported.unsupported) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
)
"""In the order in which they are tried; the last ones take every path that is left below ``/v1`` and ``/v1beta1``."""
