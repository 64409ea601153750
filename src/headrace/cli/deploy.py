"""``headrace deploy`` and ``headrace undeploy``: from weights to an address that answers, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.endpoints import EndpointArgument, YesOption, confirm, find_endpoint, short_id
from headrace.cli.invocation import Invocation, command
from headrace.cli.progress import Steps
from headrace.resources.errors import ArtifactsNotFound

if TYPE_CHECKING:
    from headrace.cli.client import Client

_MACHINE = "Which machine (all three or none)"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "deploy")(deploy)
    command(app, "undeploy")(undeploy)


def deploy(
    invocation: Invocation,
    *,
    artifacts: Annotated[str, typer.Argument(metavar="DIR|URI", help="A model folder, or gs://… s3://… file://…")],
    name: Annotated[str, typer.Option(help="Display name of model and endpoint; else the folder's.")] = "",
    endpoint: Annotated[str, typer.Option(help="Id of the endpoint to make or to add to; else made up.")] = "",
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Longest context, in tokens.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    runtime: Annotated[str, typer.Option(help="Name of a runtime; else the platform picks.")] = "",
    replicas: Annotated[int, typer.Option(min=1, help="How many engines serve it.")] = 1,
    machine_type: Annotated[str, typer.Option(rich_help_panel=_MACHINE)] = "",
    accelerator_type: Annotated[str, typer.Option(rich_help_panel=_MACHINE)] = "",
    accelerator_count: Annotated[int, typer.Option(min=0, rich_help_panel=_MACHINE)] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the phases until it is READY.")] = True,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds to wait at most; else without limit.")] = None,
) -> None:
    """Import a model, check it, and serve it at an endpoint."""
    uri = artifact_uri(artifacts)
    body: dict[str, Any] = {
        "artifact_uri": uri,
        "model_display_name": name,
        "endpoint_display_name": name,
        "endpoint_id": endpoint,
        "runtime": runtime,
        "max_model_len": max_model_len,
        "dtype": dtype,
        "min_replicas": replicas,
        "max_replicas": replicas,
        "machine": {
            "machine_type": machine_type,
            "accelerator_type": accelerator_type,
            "accelerator_count": accelerator_count,
        },
    }
    with invocation.client() as client:
        operation = start_deployment(client, body)
        target = operation["targets"]["endpoint"]
        if not wait:
            invocation.output.document(operation)
            invocation.output.line(f"Deploying {uri} to endpoint {target}: operation {operation['id']}.")
            invocation.output.line(f"Watch it: headrace operations get {operation['id']} --wait")
            return
        from headrace.cli.phases import watch  # noqa: PLC0415  # brings the HTTP client

        steps = Steps(invocation.output, silent=invocation.as_json)
        operation = watch(client, operation["id"], steps, what=f"Deploying {uri}", timeout_s=timeout)
        invocation.output.document(operation)
        invocation.output.line(_what_now(client.login.url, operation["project"], operation["location"], target))


def start_deployment(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for a deployment in the login's project; returns the operation, which names all that it makes."""
    scope = {"project": client.login.project, "location": client.login.location}
    operation = client.post("/headrace/v1/deployments", {**body, **scope})
    assert isinstance(operation, dict)
    return operation


def artifact_uri(text: str) -> str:
    """What the server is to read: an address as it is, a local folder as an absolute path that exists.

    Raises:
        ArtifactsNotFound: There is no such folder on this machine.
    """
    if "://" in text:
        return text
    folder = Path(text).expanduser().absolute()
    if folder.is_dir():
        return str(folder.resolve())
    if folder.exists():
        raise ArtifactsNotFound(
            f"{folder} is not a folder.",
            evidence="A model is a folder with config.json, weights (*.safetensors) and a tokenizer.",
            fix="Name the folder. A GGUF file becomes one: `python -m headrace.weights.gguf FILE.gguf FOLDER`.",
        )
    nearest = next(parent for parent in folder.parents if parent.exists())
    raise ArtifactsNotFound(
        f"There is no folder {folder} on this machine.",
        evidence=f"{nearest} exists, {folder.relative_to(nearest).parts[0]!r} in it does not.",
        fix="Check the path. For a folder that only the server's machine has: file:///absolute/path.",
    )


def undeploy(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    keep_endpoint: Annotated[
        bool, typer.Option("--keep-endpoint", help="Keep the address, with nothing behind.")
    ] = False,
    yes: YesOption = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until nothing of it runs.")] = True,
) -> None:
    """Stop serving: running requests may finish; the endpoint goes too unless it is kept."""
    from headrace.cli.phases import watch  # noqa: PLC0415  # see above

    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        what = "the models of endpoint" if keep_endpoint else "endpoint"
        confirm(invocation, f"Undeploy {what} {found.get('displayName')!r} ({short_id(found['name'])})?", yes=yes)
        operations = _undeploy_models(client, found) if keep_endpoint else [_delete(client, found["name"])]
        steps = Steps(invocation.output, silent=invocation.as_json)
        done = [
            watch(client, short_id(each["name"]), steps, what=f"Undeploying {endpoint}") if wait else each
            for each in operations
        ]
    invocation.output.document({"operations": done})
    if not operations:
        invocation.output.line(f"Nothing was deployed on {endpoint}.")


def _delete(client: Client, name: str) -> dict[str, Any]:
    operation = client.delete(f"/v1beta1/{name}?force=true")
    assert isinstance(operation, dict)
    return operation


def _undeploy_models(client: Client, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        client.post(f"/v1beta1/{endpoint['name']}:undeployModel", {"deployedModelId": each["id"]})
        for each in endpoint.get("deployedModels") or []
    ]


def _what_now(url: str, project: str, location: str, endpoint: str) -> str:
    return f"""
READY at {url}/v1/projects/{project}/locations/{location}/endpoints/{endpoint}
OpenAI-compatible at {url}/v1, model {endpoint!r}. Try:
  headrace chat {endpoint}
  headrace predict {endpoint} --prompt 'The river'
  curl {url}/v1/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' \\
    -d '{{"model": "{endpoint}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'"""
