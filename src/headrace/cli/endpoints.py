"""``headrace endpoints``: addresses and what stands behind them. Also finds the endpoint that a person means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.invocation import Invocation, command, list_command
from headrace.resources.errors import BadName, EndpointNotFound, RoleMissing, Unavailable

if TYPE_CHECKING:
    from headrace.cli.client import Client

EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id or display name.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Addresses and what stands behind them.")
    list_command(group)(list_endpoints)
    command(group, "get")(get_endpoint)
    command(group, "delete")(delete_endpoint)
    app.add_typer(group, name="endpoints")


def list_endpoints(invocation: Invocation) -> None:
    """All endpoints of the project."""
    with invocation.client() as client:
        endpoints = fetch_endpoints(client)
    invocation.output.document({"endpoints": endpoints})
    rows = [(short_id(each["name"]), each.get("displayName", ""), standing(each), _models(each)) for each in endpoints]
    columns = ("ENDPOINT", "NAME", "STATE", "MODELS")
    invocation.output.table(columns, rows, empty="No endpoints. Make one: headrace deploy FOLDER")


def get_endpoint(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """One endpoint: its state, its deployed models, its addresses."""
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        url = client.login.url
    invocation.output.document(found)
    name = short_id(found["name"])
    rows = [
        ("endpoint", name),
        ("display name", found.get("displayName", "")),
        ("state", standing(found)),
        *(("model", f"{_model(each)}  {_binding_state(each)}  {each.get('id')}") for each in _bindings(found)),
        ("OpenAI", f"{url}/v1/chat/completions  (model: {name})"),
        ("Vertex AI", f"{url}/v1/{found['name']}:predict"),
    ]
    invocation.output.table(("", ""), rows, empty="")


def delete_endpoint(invocation: Invocation, endpoint: EndpointArgument, yes: YesOption = False) -> None:
    """Delete an endpoint that has nothing deployed; `headrace undeploy` also empties it."""
    with invocation.client() as client:
        name = find_endpoint(client, endpoint)["name"]
        confirm(invocation, f"Delete endpoint {short_id(name)}?", yes=yes)
        answer = client.delete(f"/v1/{name}")
    invocation.output.document(answer)
    invocation.output.line(f"Deleting endpoint {short_id(name)}.")


def confirm(invocation: Invocation, question: str, *, yes: bool) -> None:
    """Go on only when a person said so.

    Raises:
        typer.BadParameter: There is nobody to ask, and ``--yes`` was not given.
        typer.Abort: The answer is no.
    """
    import sys  # noqa: PLC0415

    if yes:
        return
    if invocation.as_json or not sys.stdin.isatty():
        raise typer.BadParameter("There is nobody to ask here: add --yes.")
    typer.confirm(question, abort=True, err=True)


def fetch_endpoints(client: Client) -> list[dict[str, Any]]:
    """All endpoints of the login's project, in Vertex AI's shape."""
    return client.pages(f"/v1beta1/{client.login.scope}/endpoints", "endpoints")


def find_endpoint(client: Client, wanted: str) -> dict[str, Any]:
    """The endpoint with this id, full name or display name.

    Raises:
        EndpointNotFound: There is none.
        BadName: Several have the display name.
    """
    endpoints = fetch_endpoints(client)
    for each in endpoints:
        if wanted in (each["name"], short_id(each["name"])):
            return each
    named = [each for each in endpoints if each.get("displayName") == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        raise BadName(
            f"{len(named)} endpoints have the display name {wanted!r}.",
            evidence=f"Their ids: {', '.join(short_id(each['name']) for each in named)}.",
            fix="Give the id of one of them.",
        )
    known = ", ".join(short_id(each["name"]) for each in endpoints) or "none"
    raise EndpointNotFound(
        f"There is no endpoint {wanted!r} in project {client.login.project!r}.",
        evidence=f"Endpoints there: {known}.",
        fix="`headrace endpoints list` shows them all; `headrace deploy FOLDER` makes one.",
    )


def endpoint_id(client: Client, wanted: str) -> str:
    """The id of the endpoint that is meant; taken at its word while the control plane cannot be asked."""
    try:
        return short_id(find_endpoint(client, wanted)["name"])
    except (Unavailable, RoleMissing):
        return short_id(wanted)


def short_id(name: str) -> str:
    """The last part of a resource name."""
    return name.rsplit("/", 1)[-1]


def standing(endpoint: dict[str, Any]) -> str:
    """How an endpoint is, in a word: its deployments' states, or what it is without any."""
    if (endpoint.get("headrace") or {}).get("deleting"):
        return "DELETING"
    return ", ".join(sorted({_binding_state(each) for each in _bindings(endpoint)})) or "EMPTY"


def _bindings(endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    return list(endpoint.get("deployedModels") or [])


def _binding_state(binding: dict[str, Any]) -> str:
    return str((binding.get("headrace") or {}).get("state") or "UNKNOWN")


def _models(endpoint: dict[str, Any]) -> str:
    return ", ".join(_model(each) for each in _bindings(endpoint))


def _model(binding: dict[str, Any]) -> str:
    name = binding.get("displayName") or short_id(str(binding.get("model", "")))
    return f"{name}@{binding['modelVersionId']}" if binding.get("modelVersionId") else str(name)
