"""``headrace models``: registered models and their versions."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.endpoints import YesOption, confirm, short_id
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.paths import segment
from headrace.cli.spec import rows as spec_rows

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, or id@version.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Registered models and their versions.")
    list_command(group)(list_models)
    command(group, "get")(get_model)
    command(group, "delete")(delete_model)
    app.add_typer(group, name="models", rich_help_panel=LOOK)


def list_models(invocation: Invocation) -> None:
    """All models of the project, each at its default version."""
    with invocation.client() as client:
        models = client.pages(f"/v1beta1/{client.login.scope}/models", "models")
    invocation.output.document({"models": models})
    rows = [
        (
            short_id(each["name"]),
            each.get("displayName", ""),
            each.get("versionId", ""),
            "yes" if each.get("deployedModels") else "no",
            each.get("artifactUri", ""),
        )
        for each in models
    ]
    columns = ("MODEL", "NAME", "VERSION", "DEPLOYED", "ARTIFACTS")
    empty = "No models. Import and deploy one: headrace deploy FOLDER"
    invocation.output.table(columns, rows, empty=empty, paths=("ARTIFACTS",), spare=("VERSION",))


def get_model(invocation: Invocation, model: ModelArgument) -> None:
    """One model version."""
    with invocation.client() as client:
        found = client.get(f"/v1beta1/{client.login.scope}/models/{segment(model)}")
    invocation.output.document(found)
    ours = found.get("headrace") or {}
    spec = ours.get("servingSpec") or {}
    asked = [("runtime", spec.get("runtime")), ("context", spec.get("maxModelLen"))]
    rows = [
        ("model", short_id(found["name"])),
        ("display name", found.get("displayName", "")),
        ("version", found.get("versionId", "")),
        ("aliases", ", ".join(found.get("versionAliases") or [])),
        ("artifacts", found.get("artifactUri", "")),
        ("fingerprint", ours.get("fingerprint") or "(not checked yet)"),
        *((name, str(value)) for name, value in asked if value),
        *spec_rows(spec),
        ("created", found.get("createTime", "")),
        *(("deployed on", short_id(each["endpoint"])) for each in found.get("deployedModels") or []),
    ]
    invocation.output.table(("", ""), rows, empty="")


def delete_model(invocation: Invocation, model: ModelArgument, yes: YesOption = False) -> None:
    """Delete a model and all its versions; none may be deployed. The files at its address stay."""
    with invocation.client() as client:
        confirm(invocation, f"Delete model {model}?", yes=yes)
        answer = client.delete(f"/v1beta1/{client.login.scope}/models/{segment(model)}")
    invocation.output.document(answer)
    invocation.output.line(f"Deleting model {model}.")
