"""``headrace endpoints create|update|traffic``: an address by itself, and who answers at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import (
    EndpointArgument,
    bindings,
    find_deployed_model,
    find_endpoint,
    logged,
    model_names,
    short_id,
    standing_of,
)
from headrace.cli.invocation import Invocation, command
from headrace.cli.paths import segment

if TYPE_CHECKING:
    from headrace.cli.client import Client

DescriptionOption = Annotated[str | None, typer.Option(metavar="TEXT", help="What people should know of it.")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; KEY= takes it away. Can be repeated.")
]
_LOG = "Its request log"


def register(group: typer.Typer) -> None:
    """Add the commands to the group of endpoints."""
    command(group, "create")(create_endpoint)
    command(group, "update")(update_endpoint)
    command(group, "traffic")(traffic)


def create_endpoint(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its display name.")],
    *,
    identifier: Annotated[
        str, typer.Option("--id", metavar="ID", help="Lower-case letters, digits, hyphens; else made up.")
    ] = "",
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="Not a dedicated endpoint: Vertex AI's SDK sends its requests to the API's own address."
        ),
    ] = False,
    description: DescriptionOption = None,
    label: LabelOption = None,
) -> None:
    """Make an address with nothing behind it yet."""
    body: dict[str, Any] = {"displayName": name, "dedicatedEndpointEnabled": not shared}
    body |= {"description": description} if description is not None else {}
    body |= {"labels": _labels({}, label)} if label else {}
    query = f"?endpointId={segment(identifier)}" if identifier else ""
    with invocation.client() as client:
        operation = client.post(f"/v1beta1/{client.login.scope}/endpoints{query}", body)
        made = client.get(f"/v1beta1/{operation['response']['name']}")
    invocation.output.document(made)
    invocation.output.line(f"Endpoint {short_id(made['name'])} is there, with nothing behind it.")
    invocation.output.line(f"Put a model on it: headrace deploy FOLDER --endpoint {short_id(made['name'])}")


def update_endpoint(
    invocation: Invocation,
    endpoint: EndpointArgument,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its display name from now on.")] = None,
    description: DescriptionOption = None,
    label: LabelOption = None,
    request_log: Annotated[
        bool | None,
        typer.Option(
            "--request-log/--no-request-log",
            help="Write its requests and answers down, or not.",
            rich_help_panel=_LOG,
        ),
    ] = None,
    sampling_rate: Annotated[
        float | None,
        typer.Option(
            max=1.0, metavar="RATE", help="Of which share of them: above 0, up to 1 (all).", rich_help_panel=_LOG
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Have length and hash stand for the values of this field, such as messages.content. Can be repeated.",
            rich_help_panel=_LOG,
        ),
    ] = None,
    redact_pattern: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX", help="Replace what this regular expression matches. Can be repeated.", rich_help_panel=_LOG
        ),
    ] = None,
    no_redaction: Annotated[
        bool, typer.Option("--no-redaction", help="Write everything as it is.", rich_help_panel=_LOG)
    ] = False,
) -> None:
    """Change what an endpoint is called, or log its requests on the server; what you do not name stays."""
    redacted: dict[str, Any] = {"redact_fields": [], "redact_patterns": []} if no_redaction else {}
    given = {"sampling_rate": sampling_rate, "redact_fields": redact, "redact_patterns": redact_pattern}
    of_log = redacted | {key: value for key, value in given.items() if value is not None}
    renames = name is not None or description is not None or bool(label)
    logs = request_log is not None or bool(of_log)
    if not renames and not logs:
        raise typer.BadParameter("Give --name, --description, --label, --request-log, or one of the options for it.")
    if request_log is False and of_log:
        raise typer.BadParameter("--no-request-log goes with no option for the request log.")
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        if renames:
            _rename(client, found, name, description, label)
        if logs:
            path = f"{ROOT}/endpoints/{segment(short_id(found['name']))}"
            changed = client.patch(path, {"request_log": None if request_log is False else of_log}, **in_scope(client))
        found = find_endpoint(client, short_id(found["name"]))
    invocation.output.document(changed if logs and not renames else found)
    if renames:
        invocation.output.line(f"Endpoint {short_id(found['name'])} is {found.get('displayName')!r}.")
    if logs:
        told = f"logs {logged(found)}" if logged(found) else "logs no requests"
        invocation.output.line(f"Endpoint {short_id(found['name'])} {told}.")


def _rename(
    client: Client, found: dict[str, Any], name: str | None, description: str | None, label: Sequence[str] | None
) -> None:
    body: dict[str, Any] = {}
    body |= {"displayName": name} if name is not None else {}
    body |= {"description": description} if description is not None else {}
    body |= {"labels": _labels(found.get("labels") or {}, label)} if label else {}
    client.patch(f"/v1beta1/{found['name']}", body, updateMask=",".join(body))


def traffic(
    invocation: Invocation,
    endpoint: EndpointArgument,
    shares: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL=PERCENT]…",
            help="A deployed model's id, or its model's name or id, and its share; 100 in all. The others get nothing.",
        ),
    ] = None,
) -> None:
    """Share an endpoint's requests out among its deployed models, or show how they are shared out."""
    asked = [_share(each) for each in shares or []]
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        if asked:
            split = {find_deployed_model(found, model)["id"]: percent for model, percent in asked}
            if len(split) < len(asked):
                raise typer.BadParameter("A deployed model is named twice.")
            path = f"{ROOT}/endpoints/{segment(short_id(found['name']))}"
            client.patch(path, {"traffic": split}, **in_scope(client))
            found = find_endpoint(client, short_id(found["name"]))
    invocation.output.document({"trafficSplit": found.get("trafficSplit") or {}})
    split = found.get("trafficSplit") or {}
    rows = [
        (each["id"], called, standing_of(each), f"{split.get(each['id'], 0)} %")
        for each, called in zip(bindings(found), model_names(found), strict=True)
    ]
    empty = f"Nothing is deployed on it. Deploy: headrace deploy FOLDER --endpoint {short_id(found['name'])}"
    invocation.output.table(("DEPLOYED MODEL", "MODEL", "STATE", "TRAFFIC"), rows, empty=empty)


def _share(text: str) -> tuple[str, int]:
    """``MODEL=PERCENT``; the name may have an ``=`` of its own.

    Raises:
        typer.BadParameter: It is something else.
    """
    model, equals, percent = text.rpartition("=")
    if not equals or not model or not percent.isascii() or not percent.isdecimal() or int(percent) > 100:
        raise typer.BadParameter(f"{text!r} is not MODEL=PERCENT, with 0 to 100.")
    return model, int(percent)


def _labels(before: dict[str, str], given: Sequence[str] | None) -> dict[str, str]:
    """Labels with what the command line says; raises `typer.BadParameter` for what is no ``KEY=VALUE``."""
    labels = dict(before)
    for each in given or ():
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE.")
        labels[key] = value
    return {key: value for key, value in labels.items() if value}
