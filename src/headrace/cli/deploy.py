"""``headrace deploy`` and ``headrace undeploy``: from weights to an address that answers, and back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.addresses import SCHEMES, artifact_uri
from headrace.cli.autoscaling import autoscaling_body
from headrace.cli.deployments import ROOT, in_scope, show_measured
from headrace.cli.endpoints import (
    EndpointArgument,
    YesOption,
    bindings,
    called,
    confirm,
    fetch_endpoints,
    find_deployed_model,
    find_endpoint,
    is_ready,
    short_id,
    standing_of,
    unique_name,
)
from headrace.cli.exits import WorkFailed
from headrace.cli.external import EXTERNAL_PANEL, Outward
from headrace.cli.help import SERVE
from headrace.cli.invocation import Invocation, command
from headrace.cli.progress import Steps
from headrace.cli.spec import ENGINE_PANEL, read_template
from headrace.cli.throughput import ThroughputOption
from headrace.cli.what_next import Kind, kind_of, what_next
from headrace.resources.errors import HeadraceError, NameAmbiguous
from headrace.resources.models import Dtype
from headrace.resources.traffic import share_out

if TYPE_CHECKING:
    from headrace.cli.client import Client

_MACHINE = "Which machine (none; all three; or a type that has no accelerators, such as WX-S)"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "deploy", panel=SERVE)(deploy)
    command(app, "undeploy", panel=SERVE)(undeploy)


def deploy(
    invocation: Invocation,
    *,
    artifacts: Annotated[
        str,
        typer.Argument(
            metavar="[DIR|URI|MODEL]",
            help=f"A model folder, or {SCHEMES}, or garden:MODEL (`headrace garden`), hf:OWNER/NAME",
            show_default=False,
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help="Name of model and endpoint, else the folder's; an endpoint that has it gets the model.")
    ] = "",
    endpoint: Annotated[str, typer.Option(help="Id or name of the endpoint to add to; else the id of a new one.")] = "",
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Longest context, in tokens.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the weights in memory.")] = "auto",
    runtime: Annotated[str, typer.Option(help="openvino, transformers or vllm; else the platform picks.")] = "",
    replicas: Annotated[int, typer.Option(min=1, help="How many engines serve it.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="The most: from --replicas on it scales by what there is to do.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="What it scales by, for one replica; may be repeated."),
    ] = None,
    throughput: ThroughputOption = "",
    scale_to_zero_after: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Stop its engines when nobody asked for as long; the next request starts them, and waits. 0: never.",
        ),
    ] = 0.0,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs of one machine that share the model.", rich_help_panel=ENGINE_PANEL)
    ] = 1,
    prefix_caching: Annotated[
        bool | None,
        typer.Option(
            "--prefix-caching/--no-prefix-caching",
            help="Compute the beginning that prompts have in common once; else the engine's own choice.",
            rich_help_panel=ENGINE_PANEL,
            show_default=False,
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Jinja template, instead of the folder's own.", rich_help_panel=ENGINE_PANEL),
    ] = None,
    tool_parser: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="vLLM's parser of tool calls; so vllm serves it.", rich_help_panel=ENGINE_PANEL
        ),
    ] = "",
    allow_custom_code: Annotated[
        bool,
        typer.Option(
            "--allow-custom-code",
            help="Run the folder's own Python code in the engine, with the server's rights; for admins.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = False,
    specification: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Software specification of watsonx.ai that must be certified for it.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = "",
    machine_type: Annotated[
        str, typer.Option(help="Machine's type, as Vertex AI names it.", rich_help_panel=_MACHINE)
    ] = "",
    accelerator_type: Annotated[
        str, typer.Option(help="GPU's type, as Vertex AI names it.", rich_help_panel=_MACHINE)
    ] = "",
    accelerator_count: Annotated[int, typer.Option(min=0, help="GPUs of a machine.", rich_help_panel=_MACHINE)] = 0,
    external: Annotated[
        str, typer.Option(metavar="URL", help="Base URL, such as https://host/v1.", rich_help_panel=EXTERNAL_PANEL)
    ] = "",
    external_model: Annotated[
        str, typer.Option(metavar="NAME", help="The server's own name for it.", rich_help_panel=EXTERNAL_PANEL)
    ] = "",
    external_key_env: Annotated[
        str, typer.Option(metavar="VAR", help="Variable that has its key.", rich_help_panel=EXTERNAL_PANEL)
    ] = "",
    external_key_file: Annotated[
        Path | None, typer.Option(help="File that has it; else it is asked for.", rich_help_panel=EXTERNAL_PANEL)
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You accept the licence that the model's publisher asks for.")
    ] = False,
    no_traffic: Annotated[
        bool,
        typer.Option("--no-traffic", help="Leave the endpoint's traffic alone; `rollouts start` gives it, in stages."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the phases until it is READY.")] = True,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds to wait at most; else without limit.")] = None,
) -> None:
    """Import a model, check it, and serve it at an endpoint; or put a server that has one behind an endpoint."""
    outward = Outward(url=external, model=external_model, key_variable=external_key_env, key_file=external_key_file)
    outward.check(artifacts)
    uri = external or artifact_uri(artifacts)
    if runtime:
        from headrace.runtimes import find  # noqa: PLC0415  # brings the table of runtimes

        find(runtime)
    body: dict[str, Any] = {
        "artifact_uri": "" if external else uri,
        "model_display_name": name,
        "endpoint_display_name": name,
        "endpoint_id": endpoint,
        "runtime": runtime,
        "max_model_len": max_model_len,
        "dtype": dtype,
        "tensor_parallel": tensor_parallel,
        "prefix_caching": prefix_caching,
        "chat_template": read_template(chat_template) if chat_template else None,
        "tool_parser": tool_parser or None,
        "allow_custom_code": allow_custom_code,
        "software_specification": specification,
        "min_replicas": replicas,
        "max_replicas": max_replicas or replicas,
        "scale_to_zero_after_s": scale_to_zero_after,
        "machine": {
            "machine_type": machine_type,
            "accelerator_type": accelerator_type,
            "accelerator_count": accelerator_count,
        },
    }
    if target:
        body["autoscaling"] = autoscaling_body(target, None)
    if throughput:
        body["throughput"] = throughput
    if no_traffic:
        body["no_traffic"] = True
    if accept_licence:
        body["accept_licence"] = True
    if external:
        body["external"] = outward.body(ask=not invocation.as_json)
    with invocation.client() as client:
        meant = endpoint or name
        known = _existing(client, meant) if meant else None
        if known is not None:
            body["endpoint_id"] = short_id(known["name"])
            invocation.output.line(_beside(meant) if no_traffic else _taking_over(meant, known))
        operation = start_deployment(client, body)
        target = operation["targets"]["endpoint"]
        if not wait:
            invocation.output.document(operation)
            invocation.output.line(f"Deploying {uri} to endpoint {target}: operation {operation['id']}.")
            invocation.output.line(f"Watch it: headrace operations get {operation['id']} --wait")
            return
        kind: Kind = "chat" if external or chat_template else kind_of(uri)
        _wait(invocation, client, operation, f"Deploying {name or Path(uri).name or uri}", timeout, kind=kind)
    if no_traffic:
        invocation.output.line(f"\nIt has no traffic yet. Give it some, in stages: headrace rollouts start {target}")


def _wait(
    invocation: Invocation, client: Client, operation: dict[str, Any], what: str, timeout_s: float | None, *, kind: Kind
) -> None:
    """Show the phases until it is READY, and then what to try."""
    from headrace.cli.phases import watch  # noqa: PLC0415  # brings the HTTP client

    target = operation["targets"]["endpoint"]
    steps = Steps(invocation.output, silent=invocation.as_json)
    try:
        operation = watch(client, operation["id"], steps, what=what, timeout_s=timeout_s)
    except WorkFailed:
        with contextlib.suppress(HeadraceError):  # that it failed is the news
            invocation.output.line(_what_is_left(fetch_endpoints(client), target))
        raise
    except KeyboardInterrupt:  # it is the watching that ends
        invocation.output.line(f"The deployment goes on. Watch it: headrace operations get {operation['id']} --wait")
        raise
    invocation.output.document(operation)
    if deployment := operation["targets"].get("deployment"):
        with contextlib.suppress(HeadraceError):  # that it is READY is the news
            show_measured(invocation, client.get(f"{ROOT}/deployments/{deployment}", **in_scope(client)))
    scope = f"projects/{operation['project']}/locations/{operation['location']}"
    address = f"{client.login.url}/v1/{scope}/endpoints/{target}"
    name = unique_name(fetch_endpoints(client), target)
    invocation.output.line(what_next(client.login.url, address, name, kind))


def _existing(client: Client, name: str) -> dict[str, Any] | None:
    """The endpoint that has this name already and that the model is meant for.

    Raises:
        NameAmbiguous: Several have it, and not just one of them is READY.
    """
    living = [each for each in fetch_endpoints(client) if not (each.get("headrace") or {}).get("deleting")]
    found = called(living, name)
    if len(found) > 1:
        raise NameAmbiguous(
            f"{len(found)} endpoints have the name {name!r}.",
            evidence=f"Their ids: {', '.join(short_id(each['name']) for each in found)}.",
            fix="Say which one: `--endpoint ID`.",
        )
    return found[0] if found else None


def _taking_over(name: str, endpoint: dict[str, Any]) -> str:
    if is_ready(endpoint):
        return f"{name} exists: the new model takes its traffic once it is READY; the old one stays deployed beside it."
    return f"{name} exists, and nothing on it is READY: the new model takes its traffic once it is READY."


def _beside(name: str) -> str:
    return f"{name} exists: the new model stands beside what is there, and takes no traffic."


def _what_is_left(endpoints: list[dict[str, Any]], target: str) -> str:
    name = unique_name(endpoints, target)
    if any(is_ready(each) for each in endpoints if short_id(each["name"]) == target):
        return (
            f"\nEndpoint {name} goes on with what was READY before; the model that failed stays listed there, "
            f"until: headrace undeploy {name} --failed --yes"
        )
    return (
        f"\nEndpoint {name} is left, with nothing that answers. Once what failed is mended, deploy again with "
        f"`--name {name}`\nand it takes its place; or remove what is left: headrace undeploy {name} --yes"
    )


def start_deployment(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for a deployment in the login's project; returns the operation, which names all that it makes."""
    scope = {"project": client.login.project, "location": client.login.location}
    operation = client.post("/headrace/v1/deployments", {**body, **scope})
    assert isinstance(operation, dict)
    return operation


def undeploy(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    keep_endpoint: Annotated[
        bool, typer.Option("--keep-endpoint", help="Keep the address, with nothing behind.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only the models on it that failed; the endpoint and the others stay.")
    ] = False,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Only this one: a deployed model's id, or its model's name or id.")
    ] = "",
    yes: YesOption = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until nothing of it runs.")] = True,
) -> None:
    """Stop serving: running requests may finish; the endpoint goes too unless it is kept."""
    from headrace.cli.phases import watch  # noqa: PLC0415  # see above

    if model and failed:
        raise typer.BadParameter("Give --model or --failed: each says which models.")
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        chosen, what = _chosen(found, model=model, failed=failed, all_models=keep_endpoint)
        confirm(invocation, f"Undeploy {what} {found.get('displayName')!r} ({short_id(found['name'])})?", yes=yes)
        operations = [_delete(client, found["name"])] if chosen is None else _undeploy_models(client, found, chosen)
        steps = Steps(invocation.output, silent=invocation.as_json)
        done = [
            watch(client, short_id(each["name"]), steps, what=f"Undeploying {endpoint}") if wait else each
            for each in operations
        ]
    invocation.output.document({"operations": done})
    if not operations:
        invocation.output.line(f"Nothing {'on it failed' if failed else 'was deployed on it'}: {endpoint}.")


def _chosen(
    endpoint: dict[str, Any], *, model: str, failed: bool, all_models: bool
) -> tuple[list[dict[str, Any]] | None, str]:
    """The deployed models to take off an endpoint, None for it and all of them; and what that is, for a person.

    Raises:
        NameAmbiguous: Several are called like the one that was asked for.
        DeploymentNotFound: None is.
    """
    if model:
        return [one := find_deployed_model(endpoint, model)], f"model {model} ({one['id']}) of endpoint"
    if failed:
        return bindings(endpoint, state="FAILED"), "what failed of endpoint"
    return (bindings(endpoint), "the models of endpoint") if all_models else (None, "endpoint")


def _delete(client: Client, name: str) -> dict[str, Any]:
    operation = client.delete(f"/v1beta1/{name}?force=true")
    assert isinstance(operation, dict)
    return operation


def _undeploy_models(client: Client, endpoint: dict[str, Any], deployed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Undeploy these, those without traffic first; what one of them has goes to those that are left, in proportion."""
    told = endpoint.get("trafficSplit") or {}
    split: dict[str, int] = {
        each["id"]: told.get(each["id"], 0) for each in bindings(endpoint) if standing_of(each) != "DRAINING"
    }
    operations = []
    for each in sorted(deployed, key=lambda one: split.get(one["id"], 0)):
        body: dict[str, Any] = {"deployedModelId": each["id"]}
        share = split.pop(each["id"], 0)
        if share and split:
            split = share_out(split)
            body["trafficSplit"] = split
        operations.append(client.post(f"/v1beta1/{endpoint['name']}:undeployModel", body))
    return operations
