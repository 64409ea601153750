"""Deploy a version that is registered already onto an endpoint that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.control.checking import require_deployable
from headrace.control.commands.pool import PoolWish, check_deadline, new_pool
from headrace.control.commands.provision import check_scale, follow_newest, sell_if
from headrace.control.commands.quota import require_quota
from headrace.control.commands.scale import check_idle_s, check_replicas
from headrace.control.commands.texts import check_text
from headrace.control.operations import deploy_runs
from headrace.control.rollouts.life import require_no_rollout
from headrace.control.sharing import PoolShape, shared_deployment
from headrace.control.splits import as_target, drop_older_splits
from headrace.control.timeline import note
from headrace.control.traffic import WHOLE, set_split
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField, EndpointNotFound, ModelNotFound, NameTaken, NotSupported
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import new_id
from headrace.resources.operations import Operation
from headrace.resources.profiles import Provision
from headrace.resources.throughput import Wish
from headrace.store import Transaction

THE_NEW_ONE = "0"
"""What stands for the new deployed model in a split that is asked for together with it."""

_DEPLOYED_ID = re.compile(r"[0-9]{1,10}")


class VersionRequest(PoolWish, kw_only=True, frozen=True):
    """Which version, where, and at what scale.

    Attributes:
        contract: The API it was asked through.
        version: The version's number.
        deployed_model_id: For the deployed model; empty: made up.
        display_name: Of the deployed model; empty: the model's.
        split: The endpoint's traffic once the model is READY, by deployed model, itself as `THE_NEW_ONE`; None: the
            traffic stays as it is.
        settings: A vendor's own, kept whole.
        provision: The throughput that it is sold, in tokens a second or in chunks; None: none. Then there are as many
            replicas as it takes, and the two numbers of them are left at 1. Of a least of 0, it scales to zero after
            `scale_to_zero_after_s`, or half an hour where that is 0.
        own: It is to have a deployment of its own, even where it could share one.
    """

    contract: str
    endpoint_id: str
    model_id: str
    version: str
    deployed_model_id: str = ""
    display_name: str = ""
    split: dict[str, int] | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    own: bool = False
    provision: Wish | None = None

    def shape(self, sold: Provision | None) -> PoolShape:
        """What it asks of its deployment, with the throughput that is sold."""
        return PoolShape(
            machine=self.machine,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            initial_replicas=self.initial_replicas,
            scale_to_zero_after_s=self.scale_to_zero_after_s,
            autoscaling=self.autoscaling,
            settings=self.settings,
            provision=sold,
        )


def deploy_version(tx: Transaction, request: VersionRequest, *, now: float, data_dir: Path | None = None) -> Operation:
    """Bind a version to an endpoint, by a deployment that is there (`shared_deployment`) or a new one.

    Args:
        tx: An open transaction, in which the project's quota is counted too.
        request: The wish.
        now: Unix seconds.
        data_dir: Where an operator's own machine types may be; None for the catalogue's alone.

    Raises:
        EndpointNotFound: There is no such endpoint, or it is being deleted.
        ModelNotFound: There is no such version.
        NotSupported: No runtime takes the place of the version's container, or it is another server's and nothing
            serves it now.
        BadField: The split is not one, the numbers of replicas or the deadline make no sense, a text cannot be shown,
            or there is no such machine; or the throughput is none (`sell`), or numbers of replicas stand beside it.
        NotOptimizable: No throughput of the version can be stated.
        ThroughputTooHigh: The machine could never carry it.
        MachineSpecIncomplete: The machine is named in part.
        NameTaken: There is a deployed model of this id, or this version is on the endpoint under this name already.
        RolloutRunning: It is to change the endpoint's traffic, on which a rollout decides.
        QuotaExceeded: The project has no room for another deployment of this size.
    """
    endpoint = tx.get(Endpoint, scope=request.scope, id=request.endpoint_id)
    if endpoint is None or endpoint.deleting:
        raise EndpointNotFound(f"There is no endpoint {request.endpoint_id!r} that goes on.")
    model, version = _version(tx, request)
    require_deployable(version)
    _check(request, external=version.spec.external is not None)
    beside = tx.list(DeployedModel, scope=request.scope, endpoint_id=endpoint.id)
    name = request.display_name or model.display_name
    _require_free_name(tx, request, beside)
    if request.split is not None:
        _check_split(request.split, beside)
        require_no_rollout(tx, request.scope, endpoint.id)
    carried, sold = sell_if(tx, version, request.machine, request.provision, data_dir=data_dir)
    shape = request.shape(sold)
    shared = None if request.own else shared_deployment(tx, version, shape, endpoint)
    joins = shared is not None and not deploy_runs(tx, shared)  # before this one runs, too
    deployment = shared or _new_deployment(tx, request, model, version, now=now, data_dir=data_dir)
    deployed = DeployedModel(
        scope=request.scope,
        id=request.deployed_model_id or new_id(),
        endpoint_id=endpoint.id,
        deployment_id=deployment.id,
        display_name=name,
        traffic=0,
        settings=request.settings,
        provision=sold,
        created_at=now,
    )
    tx.insert(deployed)
    if shared is not None:
        note(tx, shared, f"Endpoint {endpoint.id} shares it from now on, as deployed model {deployed.id}.")
    operation = _operation(request, endpoint, deployed, joins=joins, now=now)
    if carried is not None:
        follow_newest(tx, deployment, carried)
    if request.split is not None:
        split = _renamed(request.split, deployed.id)
        drop_older_splits(tx, request.scope, endpoint.id)
        if any(one.traffic for one in beside):
            operation = msgspec.structs.replace(operation, targets=operation.targets | {"split": as_target(split)})
        else:  # nobody loses anything: what comes meanwhile is told how far the model is
            set_split(tx, request.scope, endpoint.id, split)
    tx.insert(operation)
    return operation


def _version(tx: Transaction, request: VersionRequest) -> tuple[Model, ModelVersion]:
    model = tx.get(Model, scope=request.scope, id=request.model_id)
    version = tx.get(ModelVersion, scope=request.scope, model_id=request.model_id, version=request.version)
    if model is None or version is None:
        raise ModelNotFound(
            f"There is no version {request.version} of model {request.model_id!r}.",
            fix="`headrace models` lists models with their versions.",
        )
    return model, version


def _check(request: VersionRequest, *, external: bool) -> None:
    check_text("The deployed model's display name", request.display_name)
    check_text("The machine type", request.machine.machine_type)
    check_replicas(request.min_replicas, request.max_replicas, first=request.initial_replicas)
    check_idle_s(request.scale_to_zero_after_s, external=external)
    check_scale(request.provision, request.min_replicas, request.max_replicas)
    check_deadline(request.timeout_s)
    wanted = request.deployed_model_id
    if wanted and (not _DEPLOYED_ID.fullmatch(wanted) or wanted == THE_NEW_ONE):
        raise BadField(
            "A deployed model's id is 1 to 10 digits, and not 0.",
            evidence=f"It is {wanted[:40]!r}.",
            fix="Leave it out to have one made.",
        )


def _require_free_name(tx: Transaction, request: VersionRequest, beside: Sequence[DeployedModel]) -> None:
    """Hold that one version is not on an endpoint twice under one name that somebody chose."""
    for one in beside:
        pool = tx.get(Deployment, scope=one.scope, id=one.deployment_id)
        same = pool is not None and (pool.model_id, pool.model_version) == (request.model_id, request.version)
        if same and request.display_name and one.display_name == request.display_name:
            raise NameTaken(
                f"Version {request.version} of model {request.model_id!r} is deployed there under this name already.",
                evidence=f"Deployed model {one.id} of endpoint {request.endpoint_id!r} is called {one.display_name!r}.",
                fix="Give another displayName, or change the one that is there with :mutateDeployedModel.",
            )


def _check_split(split: Mapping[str, int], beside: Sequence[DeployedModel]) -> None:
    unknown = sorted(set(split) - {one.id for one in beside} - {THE_NEW_ONE})
    if unknown:
        raise BadField(
            "The traffic split names a model that is not deployed here.",
            evidence=f"Unknown: {', '.join(unknown)}.",
            fix=f"Give ids of the endpoint's deployed models, and {THE_NEW_ONE!r} for the new one.",
        )
    if any(share < 0 for share in split.values()) or sum(split.values()) != WHOLE:
        raise BadField("A traffic split must add up to 100.", evidence=f"It adds up to {sum(split.values())}.")


def _renamed(split: Mapping[str, int], deployed_id: str) -> dict[str, int]:
    return {deployed_id if name == THE_NEW_ONE else name: share for name, share in split.items()}


def _new_deployment(
    tx: Transaction, request: VersionRequest, model: Model, version: ModelVersion, *, now: float, data_dir: Path | None
) -> Deployment:
    if version.spec.external is not None:
        raise NotSupported(
            "A server that is not ours is deployed together with its key.",
            evidence=f"Version {version.version} of model {model.id!r} is at {version.spec.external.base_url}.",
            fix="`headrace deploy --external URL` makes an endpoint for it; others can share that.",
        )
    require_quota(tx, request.scope.project, request.machine, data_dir)
    title = version.user_id or model.display_name
    deployment = new_pool(request, version, display_name=title, now=now)
    tx.insert(deployment)
    return deployment


def _operation(
    request: VersionRequest, endpoint: Endpoint, deployed: DeployedModel, *, joins: bool, now: float
) -> Operation:
    targets = {
        "endpoint": endpoint.id,
        "model": request.model_id,
        "version": request.version,
        "deployment": deployed.deployment_id,
        "deployed_model": deployed.id,
        "display_name": deployed.display_name,
    }
    return Operation(
        scope=request.scope,
        id=new_id(),
        parent=endpoint.name,
        kind="deploy_model",
        contract=request.contract,
        targets=targets
        | ({"joins": "serving"} if joins else {})
        | ({} if deployed.provision is None else {"until": repr(now + request.timeout_s)}),
        created_at=now,
        updated_at=now,
    )
