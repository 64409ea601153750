"""``headrace endpoints``: addresses and what stands behind them. Also finds the endpoint that a person means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.exits import WrongUsage
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.names import told_apart
from headrace.cli.throughput import told_throughput
from headrace.resources.errors import DeploymentNotFound, EndpointNotFound, NameAmbiguous, RoleMissing, Unavailable
from headrace.resources.states import ANSWERING

if TYPE_CHECKING:
    from headrace.cli.client import Client

EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id or display name.")]
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names that need no quotes in a shell or in JSON."""

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Addresses and what stands behind them.")
    list_command(group)(list_endpoints)
    command(group, "get")(get_endpoint)
    command(group, "delete")(delete_endpoint)
    app.add_typer(group, name="endpoints", rich_help_panel=LOOK)
    # which find endpoints by what is here
    from headrace.cli import endpoint_changes, endpoint_deploy, endpoint_throughput  # noqa: PLC0415

    endpoint_changes.register(group)
    endpoint_deploy.register(group)
    endpoint_throughput.register(group)


def list_endpoints(invocation: Invocation) -> None:
    """All endpoints of the project."""
    with invocation.client() as client:
        endpoints = fetch_endpoints(client)
    invocation.output.document({"endpoints": endpoints})
    rows = [
        (short_id(each["name"]), each.get("displayName", ""), standing(each), ", ".join(model_names(each)))
        for each in endpoints
    ]
    columns = ("ENDPOINT", "NAME", "STATE", "MODELS")
    invocation.output.table(columns, rows, empty="No endpoints. Make one: headrace deploy FOLDER")


def get_endpoint(invocation: Invocation, endpoint: EndpointArgument) -> None:
    """One endpoint: its state, its deployed models, its addresses."""
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        name = short_id(found["name"])
        model = unique_name(fetch_endpoints(client), name)
        url = client.login.url
    invocation.output.document(found)
    rows = [
        ("endpoint", name),
        ("display name", found.get("displayName", "")),
        ("state", standing(found)),
        *(
            ("model", f"{called_so}  {standing_of(each)}  {each.get('id')}")
            for each, called_so in zip(bindings(found), model_names(found), strict=True)
        ),
        *(("shared", _shared(each)) for each in bindings(found) if _shared(each)),
        *(("throughput", _sold(each)) for each in bindings(found) if _sold(each)),
        *([("description", found["description"])] if found.get("description") else []),
        *([("request log", logged(found))] if logged(found) else []),
        ("OpenAI", f"{url}/v1/chat/completions  (model: {model})"),
        ("Vertex AI", f"{url}/v1/{found['name']}:predict"),
    ]
    invocation.output.table(("", ""), rows, empty="")


def _shared(binding: dict[str, Any]) -> str:
    """Which other endpoints have a deployed model's deployment, too; empty if none has."""
    others = (binding.get("headrace") or {}).get("sharedWith") or []
    return (
        f"{binding.get('id')} with {', '.join(map(short_id, others))}: one deployment, its memory once"
        if others
        else ""
    )


def _sold(binding: dict[str, Any]) -> str:
    """The throughput that a deployed model was sold; empty if none was."""
    sold = (binding.get("headrace") or {}).get("throughput")
    return f"{binding.get('id')} {told_throughput(sold['minTokensPerS'], sold['maxTokensPerS'])}" if sold else ""


def logged(endpoint: dict[str, Any]) -> str:
    """What of an endpoint's requests is logged, for a person; empty if nothing is."""
    log = (endpoint.get("headrace") or {}).get("requestLog")
    if not log:
        return ""
    share = "all requests" if log["samplingRate"] == 1 else f"{100 * log['samplingRate']:g} % of requests"
    redacted = [*log["redactFields"], *(f"/{pattern}/" for pattern in log["redactPatterns"])]
    return f"{share}, redacted: {', '.join(redacted)}" if redacted else share


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
        WrongUsage: There is nobody to ask, and ``--yes`` was not given.
        typer.Abort: The answer is no.
    """
    import sys  # noqa: PLC0415

    if yes:
        return
    if invocation.as_json or not sys.stdin.isatty():
        raise WrongUsage(
            "This destroys something, and there is nobody to ask here.",
            evidence="--json was given." if invocation.as_json else "stdin is no terminal.",
            fix="Add --yes.",
        )
    typer.confirm(question, abort=True, err=True)


def fetch_endpoints(client: Client) -> list[dict[str, Any]]:
    """All endpoints of the login's project, in Vertex AI's shape."""
    return client.pages(f"/v1beta1/{client.login.scope}/endpoints", "endpoints")


def find_endpoint(client: Client, wanted: str) -> dict[str, Any]:
    """The endpoint with this id, full name or display name; of several with the name, the one that is READY.

    Raises:
        EndpointNotFound: There is none.
        NameAmbiguous: Several have the display name.
    """
    endpoints = fetch_endpoints(client)
    named = called(endpoints, wanted)
    if len(named) == 1:
        return named[0]
    if named:
        raise NameAmbiguous(
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


def called(endpoints: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """The endpoints that a person may mean, best first: by id or full name, else the READY ones of that display name.

    Where none of the name is READY, all of the name.
    """
    exact = [each for each in endpoints if wanted in (each["name"], short_id(each["name"]))]
    named = exact or [each for each in endpoints if each.get("displayName") == wanted]
    return [each for each in named if is_ready(each)] or named


def is_ready(endpoint: dict[str, Any]) -> bool:
    """Whether something on it is READY, or asleep until somebody asks."""
    return any(standing_of(each) in ANSWERING for each in bindings(endpoint))


def unique_name(endpoints: list[dict[str, Any]], identifier: str) -> str:
    """What to call the endpoint with this id: its display name where that means no other, else the id."""
    name = next((each.get("displayName") for each in endpoints if short_id(each["name"]) == identifier), "")
    means = [each for each in endpoints if name and name in (each.get("displayName"), short_id(each["name"]))]
    return str(name) if len(means) == 1 and _PLAIN.fullmatch(str(name)) else identifier


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
    return ", ".join(sorted({standing_of(each) for each in bindings(endpoint)})) or "EMPTY"


def bindings(endpoint: dict[str, Any], *, state: str = "") -> list[dict[str, Any]]:
    """The deployed models of an endpoint; those in a state, where one is named."""
    return [each for each in endpoint.get("deployedModels") or [] if not state or standing_of(each) == state]


def standing_of(binding: dict[str, Any]) -> str:
    """The state of a deployed model's deployment."""
    return str((binding.get("headrace") or {}).get("state") or "UNKNOWN")


def find_deployed_model(endpoint: dict[str, Any], wanted: str) -> dict[str, Any]:
    """The one of an endpoint's deployed models with this id, or of the model with this name or id, or ``NAME@VERSION``.

    Raises:
        NameAmbiguous: Several are of it.
        DeploymentNotFound: None is.
    """
    bound = bindings(endpoint)
    found = [each for each in bound if each.get("id") == wanted] or [each for each in bound if wanted in _names(each)]
    if len(found) == 1:
        return found[0]
    named = zip(bound, model_names(endpoint), strict=True)
    shown = ", ".join(f"{each['id']} ({name})" for each, name in named if each in found or not found)
    if found:
        raise NameAmbiguous(
            f"{len(found)} deployed models of endpoint {short_id(endpoint['name'])} are called {wanted!r}.",
            evidence=f"They are {shown}.",
            fix="Give the id of one of them.",
        )
    raise DeploymentNotFound(
        f"Endpoint {short_id(endpoint['name'])} has no deployed model {wanted!r}.",
        evidence=f"It has {shown or 'none'}.",
        fix="Give one of these ids.",
    )


def _names(binding: dict[str, Any]) -> set[str]:
    """What a person may call the model of a deployed model."""
    plain = {str(binding.get("displayName", "")), short_id(str(binding.get("model", "")))} - {""}
    return plain | {f"{name}@{binding.get('modelVersionId')}" for name in plain}


def model_names(endpoint: dict[str, Any]) -> list[str]:
    """What to call each of its models."""
    return told_apart([(_model(each), short_id(str(each.get("model", "")))) for each in bindings(endpoint)])


def _model(binding: dict[str, Any]) -> str:
    name = binding.get("displayName") or short_id(str(binding.get("model", "")))
    return f"{name}@{binding['modelVersionId']}" if binding.get("modelVersionId") else str(name)
