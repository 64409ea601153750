"""The native API, for the command line and the console: our nouns as they are.

A route without a project in its path shows what the caller's key reaches; ``project`` and ``location`` narrow it down.
"""

from __future__ import annotations

from headrace.api.access import Route
from headrace.api.native import (
    catalogue,
    deployments,
    keys,
    models,
    operations,
    profiles,
    quotas,
    registry,
    rollouts,
    status,
    usage,
)
from headrace.resources.access import Permission

READ, DEPLOY, ADMINISTER = Permission.READ, Permission.DEPLOY, Permission.ADMINISTER
ROOT = "/headrace/v1"

ROUTES = (
    Route("GET", f"{ROOT}/version", READ, status.version),
    Route("GET", f"{ROOT}/whoami", READ, status.whoami),
    Route("GET", f"{ROOT}/status", READ, status.status),
    Route("GET", f"{ROOT}/nodes", READ, status.nodes, server_wide=True),
    Route("GET", f"{ROOT}/runtimes", READ, status.runtimes, server_wide=True),
    Route("GET", f"{ROOT}/models", READ, registry.models),
    Route("POST", f"{ROOT}/models", DEPLOY, models.upload_model),
    Route("GET", f"{ROOT}/endpoints", READ, registry.endpoints),
    Route("PATCH", f"{ROOT}/endpoints/{{endpoint}}", DEPLOY, registry.change_endpoint),
    Route("GET", f"{ROOT}/deployments", READ, deployments.list_deployments),
    Route("POST", f"{ROOT}/deployments", DEPLOY, deployments.create_deployment),
    Route("GET", f"{ROOT}/deployments/{{deployment}}", READ, deployments.get_deployment),
    Route("PATCH", f"{ROOT}/deployments/{{deployment}}", DEPLOY, deployments.change_deployment),
    Route("DELETE", f"{ROOT}/deployments/{{deployment}}", DEPLOY, deployments.delete_deployment),
    Route("GET", f"{ROOT}/rollouts", READ, rollouts.list_rollouts),
    Route("POST", f"{ROOT}/rollouts", DEPLOY, rollouts.create_rollout),
    Route("GET", f"{ROOT}/rollouts/{{rollout}}", READ, rollouts.get_rollout),
    Route("PATCH", f"{ROOT}/rollouts/{{rollout}}", DEPLOY, rollouts.change_rollout),
    Route("GET", f"{ROOT}/profiles", READ, profiles.list_profiles),
    Route("POST", f"{ROOT}/profiles", DEPLOY, profiles.create_profile),
    Route("GET", f"{ROOT}/profiles/{{profile}}", READ, profiles.get_profile),
    Route("DELETE", f"{ROOT}/profiles/{{profile}}", DEPLOY, profiles.delete_profile),
    Route("GET", f"{ROOT}/replicas/{{replica}}/logs", ADMINISTER, deployments.replica_logs),
    Route("GET", f"{ROOT}/operations", READ, operations.list_operations),
    Route("GET", f"{ROOT}/operations/{{operation}}", READ, operations.get_operation),
    Route("GET", f"{ROOT}/usage", READ, usage.get_usage),
    Route("GET", f"{ROOT}/keys", ADMINISTER, keys.list_keys),
    Route("POST", f"{ROOT}/keys", ADMINISTER, keys.create_key),
    Route("PATCH", f"{ROOT}/keys/{{key}}", ADMINISTER, keys.change_key),
    Route("DELETE", f"{ROOT}/keys/{{key}}", ADMINISTER, keys.revoke_key),
    Route("GET", f"{ROOT}/catalogue", READ, catalogue.list_catalogue),
    Route("GET", f"{ROOT}/catalogue/{{publisher}}/{{model}}", READ, catalogue.get_entry),
    Route("GET", f"{ROOT}/catalogue/{{publisher}}/{{model}}/notebook", READ, catalogue.get_notebook),
    Route("GET", f"{ROOT}/quota", READ, quotas.get_quota),
    Route("PUT", f"{ROOT}/quota", ADMINISTER, quotas.set_quota, server_wide=True),
)
"""Every route, with the permission that it demands."""
