"""Deployed models: put on an endpoint, changed there, taken off."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from headrace.api.managing import require_manager, require_manager_of_deployed_model
from headrace.api.requests import answer, body_of, context_of, scope_of
from headrace.contracts.vertex.deploy_model import DeployModelWish, read_deploy_model, read_mutate
from headrace.contracts.vertex.endpoints import read_undeploy
from headrace.contracts.vertex.json_bodies import Duration, duration_s
from headrace.contracts.vertex.models import pick_version
from headrace.contracts.vertex.operations import contract_of, operation_json
from headrace.control import commands
from headrace.resources.deployments import LONGEST_DEADLINE_S
from headrace.resources.errors import ModelNotFound
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.store import Transaction


async def deploy_model(request: Request) -> Response:
    """Deploy a registered version onto an endpoint that is there."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    wish = read_deploy_model(await body_of(request), scope)
    contract = contract_of(request.path_params["version"])

    def deploy(tx: Transaction) -> Operation:
        require_manager(tx, request, scope, endpoint_id)
        version = _version(tx, scope, wish)
        order = commands.VersionRequest(
            scope=scope,
            contract=contract,
            endpoint_id=endpoint_id,
            model_id=version.model_id,
            version=version.version,
            deployed_model_id=wish.deployed_model_id,
            display_name=wish.display_name,
            machine=wish.machine,
            min_replicas=wish.min_replicas,
            max_replicas=wish.max_replicas,
            initial_replicas=wish.initial_replicas,
            scale_to_zero_after_s=wish.scale_to_zero_after_s,
            autoscaling=wish.autoscaling,
            split=wish.split,
            settings=wish.settings,
            own=wish.own,
            provision=wish.provision,
            **_limits(version),
        )
        return commands.deploy_version(tx, order, now=context.clock(), data_dir=context.layout.data_dir)

    return answer(operation_json(await context.write(deploy)))


async def mutate_deployed_model(request: Request) -> Response:
    """Change the numbers of a deployed model's replicas, or its autoscaling."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    wish = read_mutate(await body_of(request))
    contract = contract_of(request.path_params["version"])

    def mutate(tx: Transaction) -> Operation:
        require_manager_of_deployed_model(tx, request, scope, endpoint_id, wish.deployed_model_id)
        return commands.mutate_deployed_model(
            tx,
            scope,
            endpoint_id,
            wish.deployed_model_id,
            contract=contract,
            now=context.clock(),
            least=wish.least,
            most=wish.most,
            autoscaling=wish.autoscaling,
        )

    return answer(operation_json(await context.write(mutate)))


async def undeploy_model(request: Request) -> Response:
    """Take one deployed model off its endpoint; what traffic it has, the body must give to others that are there."""
    context, scope, endpoint_id = context_of(request), scope_of(request), request.path_params["endpoint"]
    deployed_model_id, traffic = read_undeploy(await body_of(request))
    contract = contract_of(request.path_params["version"])

    def undeploy(tx: Transaction) -> Operation:
        require_manager(tx, request, scope, endpoint_id)
        return commands.undeploy(
            tx,
            scope,
            endpoint_id,
            deployed_model_id,
            contract=contract,
            now=context.clock(),
            traffic=traffic,
            strict=True,
        )

    return answer(operation_json(await context.write(undeploy)))


def _version(tx: Transaction, scope: Scope, wish: DeployModelWish) -> ModelVersion:
    """The version that is meant: by number, by alias, or the default one."""
    model = tx.get(Model, scope=scope, id=wish.model_id)
    if model is None:
        raise ModelNotFound(
            f"There is no model {scope.name('models', wish.model_id)}.",
            evidence="Models are found by their id; several may have one name.",
            fix="`headrace models` lists them, ids first.",
        )
    return pick_version(model, tx.list(ModelVersion, scope=scope, model_id=model.id), wish.reference)


def _limits(version: ModelVersion) -> dict[str, Any]:
    """How long it may take until it is READY, where its container says so; old versions may say more than may be."""
    told = (version.spec.container or {}).get("deploymentTimeout")
    return {"timeout_s": min(duration_s(Duration(told)), LONGEST_DEADLINE_S)} if told else {}
