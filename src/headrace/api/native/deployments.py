"""Deployments: make, list, watch, undo; and the logs of their engines."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.garden import locate, read_published, with_weights
from headrace.api.log_tail import engine_log, tail
from headrace.api.managing import require_manager, require_manager_of_deployment
from headrace.api.native.bodies import read_body
from headrace.api.native.nouns import deployment_json, noun_json, reach
from headrace.api.native.status import LIVING_DEPLOYMENTS
from headrace.api.requests import answer, context_of, flag, number, principal_of
from headrace.api.viewing import hidden_from, require_viewer_of_deployment
from headrace.control import commands
from headrace.control.autoscaling.pending import pending_text
from headrace.control.doubt import doubt
from headrace.control.predicting import compare
from headrace.control.standing import version_of
from headrace.resources.access import EVERY_PROJECT, Permission, Principal
from headrace.resources.autoscaling import Autoscaling, read_autoscaling
from headrace.resources.deployments import Deployment, MachineSpec, Replica, Transition
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, DeploymentNotFound, NotSupported, ReplicaNotFound, RoleMissing
from headrace.resources.external import EXTERNAL, ExternalServer, read_base_url
from headrace.resources.models import Dtype, ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope
from headrace.resources.operations import Operation
from headrace.resources.throughput import read_throughput
from headrace.storage import require_openable
from headrace.store import Transaction

CONTRACT = "native/v1"


class ExternalBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server to put behind the endpoint, instead of artifacts.

    Attributes:
        base_url: As OpenAI's clients take it, such as ``https://api.example.com/v1``.
        model: The name that the server knows the model by.
        key: What it wants as ``Authorization: Bearer``; empty for none. Never given back by any answer.
    """

    base_url: str
    model: str
    key: str = ""

    def __repr__(self) -> str:
        return f"ExternalBody({self.base_url!r}, {self.model!r})"  # never the key


class AutoscalingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what the number of replicas goes; what is left out stays.

    Attributes:
        targets: What each metric should be at, for one replica, by its name; none: the default.
        lower_after_s: How long fewer replicas must have been enough before there are fewer.
    """

    targets: dict[str, int] | None = None
    lower_after_s: float | None = None

    def read(self, before: Autoscaling | None = None) -> Autoscaling:
        """As the noun.

        Raises:
            BadField: There is no such metric, or a number is out of its range.
        """
        before = before or Autoscaling()
        targets = {str(one.metric): one.target for one in before.targets} if self.targets is None else self.targets
        return read_autoscaling(targets, before.lower_after_s if self.lower_after_s is None else self.lower_after_s)


class DeployBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to serve, and how.

    Attributes:
        artifact_uri: Where the model's files are; empty with `external`. Or a published model by its name: that of the
            catalogue (``garden:PUBLISHER/MODEL@VERSION``) or of the Hugging Face Hub (``hf:OWNER/NAME``).
        accept_licence: Whoever asks accepts the licence of the published model.
        initial_replicas: How many run at first, and when it wakes from zero, until its work says how many; 0: the
            fewest.
        scale_to_zero_after_s: How long nobody must have asked before no replica runs; 0: never.
        autoscaling: By what it scales between `min_replicas` and `max_replicas`; None: as by default.
        tensor_parallel: As in `ServingSpec`; so the five that follow.
        timeout_s: How long it may take until it is READY, at most 30 days; None for the platform's own limit.
        throughput: What is sold of it, ``MIN:MAX`` in tokens a second or, as in ``1x:2x``, in chunks; empty: nothing.
            The numbers of replicas follow from it.
        no_traffic: Whether it is to have none of its endpoint's traffic when it is READY, as a canary has none.
    """

    artifact_uri: str = ""
    accept_licence: bool = False
    external: ExternalBody | None = None
    project: str = DEFAULT_PROJECT
    location: str = DEFAULT_LOCATION
    model_id: str = ""
    model_display_name: str = ""
    endpoint_id: str = ""
    endpoint_display_name: str = ""
    labels: dict[str, str] = {}
    machine: MachineSpec = MachineSpec()
    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int = 0
    scale_to_zero_after_s: float = 0.0
    autoscaling: AutoscalingBody | None = None
    runtime: str = ""
    max_model_len: int | None = None
    dtype: Dtype = "auto"
    tensor_parallel: int = 1
    prefix_caching: bool | None = None
    chat_template: str | None = None
    tool_parser: str | None = None
    allow_custom_code: bool = False
    software_specification: str = ""
    dedicated: bool = True
    timeout_s: float | None = None
    throughput: str = ""
    no_traffic: bool = False


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different about a deployment; what is left out stays.

    Attributes:
        scale_to_zero_after_s: As in `DeployBody`.
        min_replicas: The fewest engines that run from now on.
        max_replicas: The most; left out, as many as before, or ``min_replicas`` where the two were equal.
        autoscaling: As in `DeployBody`.
    """

    scale_to_zero_after_s: float | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    autoscaling: AutoscalingBody | None = None


async def create_deployment(request: Request) -> Response:
    """Deploy; the answer is the operation."""
    context = context_of(request)
    body = await read_body(request, DeployBody)
    principal = principal_of(request)
    principal.require(Permission.DEPLOY, body.project)
    if body.allow_custom_code:
        _require_operator(principal)
    order = _order(body)
    if body.external is not None:
        # Whoever administers every project may also name servers in private networks: they are theirs.
        order = _outward(order, body, body.external, anywhere=principal.may(Permission.ADMINISTER, EVERY_PROJECT))
    elif wanted := read_published(body.artifact_uri, accepted=body.accept_licence):
        order = with_weights(order, await locate(context, wanted, body.project))
    elif body.artifact_uri:  # what needs no looking is told here and leaves nothing behind
        await asyncio.to_thread(require_openable, body.artifact_uri)

    def begin(tx: Transaction) -> Operation:
        require_manager(tx, request, order.scope, order.endpoint_id)
        return commands.deploy(tx, order, now=context.clock(), data_dir=context.layout.data_dir)

    return answer(noun_json(await context.write(begin)))


def _require_operator(principal: Principal) -> None:
    """Hold that whoever lets a model's own code run may do everything here: so may that code, from then on.

    Raises:
        RoleMissing: It is no admin of every project.
    """
    if principal.may(Permission.ADMINISTER, EVERY_PROJECT):
        return
    raise RoleMissing(
        f"{principal.name!r} may not let a model's own code run: it has the server's rights, over every project.",
        evidence=f"Key {principal.key_id} has the role {principal.role} in project {principal.project!r}.",
        fix="Have an admin of every project deploy it, as the server's first key is; or leave out allow_custom_code.",
    )


def _order(body: DeployBody) -> commands.DeployRequest:
    limits: dict[str, Any] = {} if body.timeout_s is None else {"timeout_s": body.timeout_s}
    return commands.DeployRequest(
        scope=Scope(body.project, body.location),
        contract=CONTRACT,
        artifact_uri=body.artifact_uri,
        model_id=body.model_id,
        model_display_name=body.model_display_name,
        model_user_id=body.model_id,
        endpoint_id=body.endpoint_id,
        endpoint_display_name=body.endpoint_display_name,
        labels=body.labels,
        machine=body.machine,
        min_replicas=body.min_replicas,
        max_replicas=body.max_replicas,
        initial_replicas=body.initial_replicas,
        scale_to_zero_after_s=body.scale_to_zero_after_s,
        autoscaling=body.autoscaling.read() if body.autoscaling else None,
        spec=ServingSpec(
            runtime=body.runtime,
            max_model_len=body.max_model_len,
            dtype=body.dtype,
            tensor_parallel=body.tensor_parallel,
            prefix_caching=body.prefix_caching,
            chat_template=body.chat_template,
            tool_parser=body.tool_parser,
            allow_custom_code=body.allow_custom_code,
            software_specification=body.software_specification,
        ),
        dedicated=body.dedicated,
        no_traffic=body.no_traffic,
        provision=read_throughput(body.throughput) if body.throughput else None,
        **limits,
    )


def _outward(
    order: commands.DeployRequest, body: DeployBody, external: ExternalBody, *, anywhere: bool
) -> commands.DeployRequest:
    given = {"artifact_uri": bool(body.artifact_uri), "machine": body.machine != MachineSpec()}
    said = msgspec.to_builtins(order.spec)  # what is left at its default is not in it
    if wrong := [*(name for name, is_given in given.items() if is_given), *said]:
        raise BadField(
            "An external server has its model already.",
            evidence=f"The request also has {', '.join(wrong)}.",
            fix="Leave that out, or leave out `external`.",
        )
    base_url = str(read_base_url(external.base_url))
    server = ExternalServer(base_url=base_url, model=external.model, anywhere=anywhere)
    return msgspec.structs.replace(
        order,
        artifact_uri=base_url,
        spec=ServingSpec(runtime=EXTERNAL, external=server),
        external_key=external.key,
    )


async def list_deployments(request: Request) -> Response:
    """Deployments that are not gone; with ``all=true`` the others too."""
    conditions = reach(request)
    if not flag(request, "all"):
        conditions["state"] = LIVING_DEPLOYMENTS
    within = reach(request)

    def read(tx: Transaction) -> list[Deployment]:
        hidden = hidden_from(tx, request, **within).deployments
        return [one for one in tx.list(Deployment, **conditions) if (one.scope, one.id) not in hidden]

    return answer({"deployments": [deployment_json(one) for one in await context_of(request).read(read)]})


async def get_deployment(request: Request) -> Response:
    """One deployment with its timeline and its replicas, those gone included."""

    def read(tx: Transaction) -> dict[str, Any]:
        deployment = _deployment(tx, request)
        require_viewer_of_deployment(tx, request, deployment.scope, deployment.id)
        version = version_of(tx, deployment)
        replicas = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id)
        return {
            **deployment_json(deployment),
            "external": _external_json(version),
            "spec": _spec_json(version),
            "pending": pending_text(tx, deployment),
            "doubt": doubt(tx, deployment),
            "timeline": timeline_json(tx.timelines.shown("deployment", deployment.id)),
            "replicas": [_replica_json(deployment, one, tx.timelines.shown("replica", one.id)) for one in replicas],
        }

    return answer(await context_of(request).read(read))


def _replica_json(deployment: Deployment, replica: Replica, timeline: list[Transition]) -> dict[str, Any]:
    """A replica with its timeline, and what was predicted of it beside what was measured."""
    measured = msgspec.to_builtins(compare(deployment, replica, timeline))
    return {**noun_json(replica), "timeline": timeline_json(timeline), "measured": measured}


def _external_json(version: ModelVersion | None) -> dict[str, str] | None:
    """The server behind it, if it is not ours."""
    if version is None or version.spec.external is None:
        return None
    return {"base_url": version.spec.external.base_url, "model": version.spec.external.model}


def _spec_json(version: ModelVersion | None) -> dict[str, Any] | None:
    """How it was to be served: what was said of it, and not what was left open."""
    if version is None:
        return None
    said = msgspec.structs.replace(version.spec, external=None, container=None)  # these are shown elsewhere
    spec = msgspec.to_builtins(said)
    assert isinstance(spec, dict)
    return spec


async def change_deployment(request: Request) -> Response:
    """Change how many replicas a deployment has, by what, or when it scales to zero. The answer is the deployment."""
    body = await read_body(request, ChangeBody)
    if body == ChangeBody():
        raise BadField("Nothing is to be changed.", fix=f"Give one of: {', '.join(ChangeBody.__struct_fields__)}.")

    def change(tx: Transaction) -> Deployment:
        one = _deployment(tx, request)
        require_manager_of_deployment(tx, request, one.scope, one.id)
        if body.scale_to_zero_after_s is not None:
            one = commands.scale_to_zero(tx, one.scope, one.id, body.scale_to_zero_after_s)
        if body.autoscaling is not None:
            one = commands.autoscale(tx, one.scope, one.id, body.autoscaling.read(one.autoscaling))
        return commands.resize(tx, one.scope, one.id, least=body.min_replicas, most=body.max_replicas)

    return answer(deployment_json(await context_of(request).write(change)))


async def delete_deployment(request: Request) -> Response:
    """Take a deployment off every endpoint that has it; it drains then. The answer lists the operations."""
    context = context_of(request)

    def undeploy(tx: Transaction) -> list[Operation]:
        one = _deployment(tx, request)
        require_manager_of_deployment(tx, request, one.scope, one.id)
        return [
            commands.undeploy(tx, one.scope, bound.endpoint_id, bound.id, contract=CONTRACT, now=context.clock())
            for bound in tx.list(DeployedModel, scope=one.scope, deployment_id=one.id)
        ]

    operations = await context.write(undeploy)
    return answer({"operations": [noun_json(one) for one in operations]})


async def replica_logs(request: Request) -> Response:
    """The last lines of a replica's engine, from this machine's file or, when that is gone, from its record."""
    context = context_of(request)
    count = int(number(request, "lines", default=100, most=10_000))

    def read(tx: Transaction) -> Replica:
        replica = tx.get(Replica, id=request.path_params["replica"])
        if replica is None or not principal_of(request).reaches(replica.scope.project):
            raise ReplicaNotFound(f"There is no replica {request.path_params['replica']!r}.")
        if not replica.node_id:
            raise NotSupported(
                "An external server keeps its own log.", evidence=f"This replica is the server at {replica.address}."
            )
        return replica

    replica = await context.read(read)
    path = engine_log(context.layout, replica.id)
    lines = await asyncio.to_thread(tail, path, count)
    if lines is None:
        lines = list(replica.log_tail[-count:]) if count else []
    return answer({"replica": replica.id, "path": str(path), "lines": lines})


def timeline_json(timeline: list[Transition]) -> list[dict[str, Any]]:
    """Moves with their times; a state that comes again tells of progress within it."""
    return [
        {"state": one.state, "at": one.at, "detail": one.detail, "failure": msgspec.to_builtins(one.failure)}
        for one in timeline
    ]


def _deployment(tx: Transaction, request: Request) -> Deployment:
    """The deployment in the path; those of other projects are not there."""
    wanted = request.path_params["deployment"]
    found = tx.list(Deployment, id=wanted, **reach(request))
    if not found:
        raise DeploymentNotFound(f"There is no deployment {wanted!r}.", fix="`headrace deployments` lists them.")
    return found[0]
