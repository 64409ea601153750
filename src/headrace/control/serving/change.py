"""Make a serving endpoint, give it another config, delete it: what is asked for in one transaction.

A config comes to hold in steps (`headrace.control.serving.progress`): its entities are deployed beside those that
serve, which keep all the traffic until every new one answers. One that stays, at another scale, is changed in place.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.contracts.databricks.kept import with_kept
from headrace.contracts.databricks.served import Config, ServedEntity, check_endpoint_name
from headrace.contracts.databricks.state import Pending, ServingState, state_in, with_state
from headrace.control.commands.deploy_version import VersionRequest, deploy_version
from headrace.control.commands.endpoint import EndpointRequest, create_endpoint
from headrace.control.commands.provision import sell
from headrace.control.commands.remove import delete_endpoint
from headrace.control.entities import find_entity
from headrace.control.rollouts.life import require_no_rollout
from headrace.control.serving.rescale import CONTRACT, rescale
from headrace.control.serving.scale import Scale, scale_of
from headrace.control.traffic import set_split
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadName, EndpointNotFound, NameTaken, UpdateRunning
from headrace.resources.models import ModelVersion
from headrace.resources.names import Scope, check_id
from headrace.resources.operations import Operation
from headrace.resources.profiles import Provision
from headrace.resources.states import DeploymentState
from headrace.store import Transaction

_ENDING = frozenset({DeploymentState.FAILED, DeploymentState.DRAINING, DeploymentState.GONE})


class ServingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint that is to be there.

    Attributes:
        name: As its clients call it.
        creator: Who asks, by the name of the key.
        tags: As they are kept: objects with ``key`` and ``value``.
    """

    scope: Scope
    name: str
    creator: str
    config: Config
    description: str = ""
    tags: tuple[dict[str, str], ...] = ()


def find_serving_endpoint(tx: Transaction, scope: Scope, name: str) -> Endpoint:
    """The endpoint that is called so: by its id, else by its display name (of several the newest).

    Raises:
        EndpointNotFound: There is none, or it is being deleted.
    """
    found = _find(tx, scope, name)
    if found is None:
        raise EndpointNotFound(
            f"Endpoint with name {name[:80]!r} does not exist.", fix="List them to see what is there."
        )
    return found


def create_serving_endpoint(
    tx: Transaction, request: ServingRequest, *, now: float, data_dir: Path | None = None
) -> Endpoint:
    """Make an endpoint, and deploy what it is to serve.

    Raises:
        BadField: The name is none, or something of the config cannot be.
        NameTaken: There is an endpoint of this name.
        ModelNotFound: An entity, or its version, is not there.
        NotOptimizable: A throughput is bought of what none can be stated of.
        QuotaExceeded: The project has no room for it.
    """
    check_endpoint_name(request.name)
    if _find(tx, request.scope, request.name) is not None:
        raise NameTaken(
            f"Endpoint with name {request.name!r} already exists.",
            fix="Choose another name, or update its config.",
        )
    order = EndpointRequest(
        scope=request.scope,
        contract=CONTRACT,
        endpoint_id=_id_for(tx, request.scope, request.name),
        display_name=request.name,
        description=request.description,
        dedicated=False,
    )
    endpoint_id = create_endpoint(tx, order, now=now).targets["endpoint"]
    endpoint = tx.get(Endpoint, scope=request.scope, id=endpoint_id)
    assert endpoint is not None, "it was inserted in this transaction"
    kept = with_kept(endpoint.kept, {"tags": list(request.tags) or None})
    endpoint = tx.update(msgspec.structs.replace(endpoint, kept=kept))
    return _begin(tx, endpoint, ServingState(creator=request.creator), request.config, now=now, data_dir=data_dir)


def update_serving_config(
    tx: Transaction, scope: Scope, name: str, config: Config, *, now: float, data_dir: Path | None = None
) -> Endpoint:
    """Have an endpoint serve another config, as soon as all of it answers; until then it serves what it serves.

    Raises:
        EndpointNotFound: There is no such endpoint.
        UpdateRunning: Another config does not hold yet.
        RolloutRunning: A rollout decides on its traffic.
        ModelNotFound: An entity, or its version, is not there.
        BadField: Something of the config cannot be.
        NotOptimizable: A throughput is bought of what none can be stated of.
        QuotaExceeded: The project has no room for it.
    """
    endpoint = find_serving_endpoint(tx, scope, name)
    require_no_rollout(tx, scope, endpoint.id)
    state = state_in(endpoint.kept)
    if state.pending is not None:
        entities = ", ".join(
            f"{one.name} ({one.entity_name} {one.entity_version})" for one in state.pending.config.entities
        )
        raise UpdateRunning(
            f"Endpoint {name!r} is being updated.",
            evidence=f"Since {now - state.pending.started_at:.0f} s it is on its way to serve {entities}.",
            fix="Wait until state.config_update is NOT_UPDATING, then update it.",
        )
    return _begin(tx, endpoint, state, config, now=now, data_dir=data_dir)


def delete_serving_endpoint(tx: Transaction, scope: Scope, name: str, *, now: float) -> None:
    """Delete an endpoint with all that it serves; requests under way may finish.

    Raises:
        EndpointNotFound: There is no such endpoint.
    """
    endpoint = find_serving_endpoint(tx, scope, name)
    delete_endpoint(tx, scope, endpoint.id, force=True, contract=CONTRACT, now=now)


def _find(tx: Transaction, scope: Scope, name: str) -> Endpoint | None:
    by_id = tx.get(Endpoint, scope=scope, id=name)
    if by_id is not None and not by_id.deleting:
        return by_id
    called = tx.list(Endpoint, scope=scope, display_name=name, deleting=False)
    return called[-1] if called else None


def _id_for(tx: Transaction, scope: Scope, name: str) -> str:
    """The name, if it can be an id that nobody has; else empty, and one is made up."""
    try:
        check_id(name, field="name")
    except BadName:
        return ""
    return "" if tx.get(Endpoint, scope=scope, id=name) is not None else name  # one that is being deleted has it


def _begin(
    tx: Transaction, endpoint: Endpoint, state: ServingState, config: Config, *, now: float, data_dir: Path | None
) -> Endpoint:
    """Deploy what is not there, change what is, and write down what that is to come to."""
    beside = tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)
    bound: dict[str, str] = {}
    operations: dict[str, str] = {}
    before: dict[str, Provision] = {}
    later: dict[str, Provision] = {}
    found: list[ServedEntity] = []
    for asked in config.entities:
        _, version = find_entity(tx, endpoint.scope, asked.entity_name, asked.entity_version)
        entity = msgspec.structs.replace(asked, entity_version=version.version)
        found.append(entity)
        scale = scale_of(tx, version, entity, data_dir=data_dir)
        there = _there(tx, beside, state, entity, version)
        if there is None:
            taken = any(one.display_name == entity.name for one in beside)
            order = _deploy(tx, endpoint, entity, version, scale, taken=taken, now=now, data_dir=data_dir)
            bound[entity.name] = order.targets["deployed_model"]
            operations |= {entity.name: order.id} if entity.provisioned else {}  # READY is less than carried
        else:
            bound[entity.name] = there.id
            if scale.provision is None or there.provision is None:
                continue
            if _more(scale.provision, there.provision):
                operation = rescale(tx, there, scale, now=now, data_dir=data_dir)
                operations |= {entity.name: operation.id} if operation else {}
                before[there.id] = there.provision
            else:
                sell(tx, version, MachineSpec(), scale.provision, data_dir=data_dir)  # that it can be is told now
                later[there.id] = scale.provision
    if not any(one.traffic for one in beside):  # nobody loses anything: what comes is told how far the model is
        set_split(tx, endpoint.scope, endpoint.id, {bound[name]: share for name, share in config.routes.items()})
    pending = Pending(
        config=msgspec.structs.replace(config, entities=tuple(found)),
        bound=bound,
        operations=operations,
        before=before,
        later=later,
        started_at=now,
    )
    state = msgspec.structs.replace(state, pending=pending, failed=None)
    return tx.update(msgspec.structs.replace(endpoint, kept=with_state(endpoint.kept, state)))


def _more(wish: Provision, sold: Provision) -> bool:
    """Whether it is to be sold more than it is: then that is waited for. Less would break what holds until then."""
    return wish.min_tokens_per_s > sold.min_tokens_per_s or wish.max_tokens_per_s > sold.max_tokens_per_s


def _there(
    tx: Transaction, beside: list[DeployedModel], state: ServingState, entity: ServedEntity, version: ModelVersion
) -> DeployedModel | None:
    """What serves this entity already, and can be brought to its scale in place."""
    for one in beside:
        deployment = tx.get(Deployment, scope=one.scope, id=one.deployment_id)
        if deployment is None or deployment.state in _ENDING or one.id not in state.served:
            continue
        same = (deployment.model_id, deployment.model_version) == (version.model_id, version.version)
        alone = entity.provisioned or len(tx.list(DeployedModel, scope=one.scope, deployment_id=deployment.id)) == 1
        kind = (one.provision is not None) == entity.provisioned
        if same and kind and alone and state.served[one.id].entity.name == entity.name:
            return one
    return None


def _deploy(
    tx: Transaction,
    endpoint: Endpoint,
    entity: ServedEntity,
    version: ModelVersion,
    scale: Scale,
    *,
    taken: bool,
    now: float,
    data_dir: Path | None,
) -> Operation:
    """Deploy one entity, without a name where one that is to go has it (`taken`)."""
    order = VersionRequest(
        scope=endpoint.scope,
        contract=CONTRACT,
        endpoint_id=endpoint.id,
        model_id=version.model_id,
        version=version.version,
        display_name="" if taken else entity.name,
        min_replicas=scale.min_replicas,
        max_replicas=scale.max_replicas,
        scale_to_zero_after_s=scale.idle_s,
        provision=scale.provision,
    )
    return deploy_version(tx, order, now=now, data_dir=data_dir)
