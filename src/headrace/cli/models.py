"""``headrace models``: registered models and their versions."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.addresses import SCHEMES, artifact_uri
from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import YesOption, confirm, short_id
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.meant import of_model
from headrace.cli.output import visible
from headrace.cli.spec import rows as spec_rows
from headrace.resources.errors import HeadraceError
from headrace.resources.models import Dtype

if TYPE_CHECKING:
    from headrace.cli.client import Client

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its id or display name; with @version or @alias that version.")
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label. Can be repeated.")
]

_MERGE = ":mergeVersionAliases"
_DESCRIPTIONS = (("description", "description"), ("of this version", "versionDescription"))


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Registered models and their versions.")
    list_command(group)(list_models)
    command(group, "get")(get_model)
    command(group, "upload")(upload_model)
    command(group, "versions")(list_versions)
    command(group, "alias")(alias_version)
    command(group, "update")(update_model)
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
        found = of_model(client, model, lambda named: client.get(_path(client, named)))
    invocation.output.document(found)
    ours = found.get("headrace") or {}
    spec = ours.get("servingSpec") or {}
    asked = [("runtime", spec.get("runtime")), ("context", spec.get("maxModelLen"))]
    rows = [
        ("model", short_id(found["name"])),
        ("display name", found.get("displayName", "")),
        *((name, found[field]) for name, field in _DESCRIPTIONS if found.get(field)),
        ("version", found.get("versionId", "")),
        ("aliases", ", ".join(found.get("versionAliases") or [])),
        ("artifacts", found.get("artifactUri", "")),
        ("fingerprint", ours.get("fingerprint") or "(not checked yet)"),
        *((name, str(value)) for name, value in asked if value),
        *spec_rows(spec),
        *([("labels", _labels_shown(found["labels"]))] if found.get("labels") else []),
        *([("image", found["containerSpec"].get("imageUri", ""))] if found.get("containerSpec") else []),
        ("created", found.get("createTime", "")),
        *(("deployed on", short_id(each["endpoint"])) for each in found.get("deployedModels") or []),
    ]
    invocation.output.table(("", ""), rows, empty="")


def upload_model(
    invocation: Invocation,
    artifacts: Annotated[str, typer.Argument(metavar="DIR|URI", help=f"A model folder, or {SCHEMES}")],
    *,
    name: Annotated[str, typer.Option(help="Display name of the new model, else the folder's.")] = "",
    model_id: Annotated[str, typer.Option("--id", help="Id of the new model; else one is made.")] = "",
    parent: Annotated[str, typer.Option(metavar="MODEL", help="Id of a model, which gets another version.")] = "",
    alias: Annotated[
        list[str] | None,
        typer.Option(metavar="ALIAS", help="The version's; leaves the version that has it. Can be repeated."),
    ] = None,
    description: Annotated[str, typer.Option(help="Of the new model, or with --parent of the version.")] = "",
    label: LabelOption = None,
    runtime: Annotated[str, typer.Option(help="openvino, transformers or vllm; else the platform picks.")] = "",
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Longest context, in tokens.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the weights in memory.")] = "auto",
) -> None:
    """Register a model, or with --parent another version of one, without deploying it."""
    if parent and (name or model_id):
        raise typer.BadParameter("--parent names a model that has a name and an id: leave out --name and --id.")
    uri = artifact_uri(artifacts, "models upload")
    body: dict[str, Any] = {
        "artifact_uri": uri,
        "model_id": model_id,
        "parent": short_id(parent),
        "display_name": name or (Path(uri).name if "://" not in uri else ""),
        "version_description" if parent else "description": description,
        "labels": _labels(label),
        "aliases": alias or [],
        "runtime": runtime,
        "max_model_len": max_model_len,
        "dtype": dtype,
    }
    with invocation.client() as client:
        made = client.post(f"{ROOT}/models", body | in_scope(client))
    invocation.output.document(made)
    targets = made["targets"]
    invocation.output.line(f"Model {targets['model']} has version {targets['version']}, of {uri}.")
    for line in _looked_over(uri):
        print(visible(line), file=sys.stderr)


def _looked_over(uri: str) -> list[str]:
    """What the doctor says of a folder of this machine; nothing is refused for it. Headers only are read."""
    if "://" in uri:
        return []
    from headrace.storage import open_artifacts  # noqa: PLC0415  # only this command needs it
    from headrace.weights import check  # noqa: PLC0415  # ditto

    try:
        findings = check(open_artifacts(uri))
    except HeadraceError as error:
        return [f"warning {error.code}: {error.message}"]
    said = [f"warning {each.code}: {each.message}" + f" Fix: {each.fix}" * bool(each.fix) for each in findings]
    refused = any(each.severity == "error" for each in findings)
    more = "It is registered; deploying it would be refused as it is." if refused else "It can be deployed."
    return [*said, f"{more} `headrace doctor {shlex.quote(uri)}` says more."] if said else []


def list_versions(invocation: Invocation, model: ModelArgument) -> None:
    """All versions of a model, newest first."""
    with invocation.client() as client:
        versions = of_model(client, model, lambda named: client.pages(_path(client, named, ":listVersions"), "models"))
    invocation.output.document({"models": versions})
    rows = [
        (
            each.get("versionId", ""),
            ", ".join(each.get("versionAliases") or []),
            "yes" if each.get("deployedModels") else "no",
            each.get("versionDescription", ""),
            each.get("artifactUri", ""),
        )
        for each in versions
    ]
    columns = ("VERSION", "ALIASES", "DEPLOYED", "DESCRIPTION", "ARTIFACTS")
    invocation.output.table(columns, rows, empty="No versions.", paths=("ARTIFACTS",), spare=("DESCRIPTION",))


def alias_version(
    invocation: Invocation,
    version: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="A version, by its number or an alias.")],
    aliases: Annotated[
        list[str] | None, typer.Argument(metavar="[ALIAS]...", help="What to call it, too.", show_default=False)
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="ALIAS", help="What not to call it any more. Can be repeated.")
    ] = None,
) -> None:
    """Give a version aliases, which leave the versions that have them; `default` is what is meant without any."""
    changes = [*(aliases or []), *(f"-{each}" for each in remove or [])]
    if not changes:
        raise typer.BadParameter("Give aliases, or --remove ALIAS.")
    if "@" not in version:
        raise typer.BadParameter("An alias is one version's: write MODEL@VERSION.")
    with invocation.client() as client:
        body = {"versionAliases": changes}
        changed = of_model(client, version, lambda named: client.post(_path(client, named, _MERGE), body))
    invocation.output.document(changed)
    called = ", ".join(changed.get("versionAliases") or []) or "none"
    invocation.output.line(f"Version {changed['versionId']} of {short_id(changed['name'])} has the aliases: {called}.")


def update_model(
    invocation: Invocation,
    model: ModelArgument,
    *,
    name: Annotated[str | None, typer.Option(help="Display name of the model.")] = None,
    description: Annotated[str | None, typer.Option(help="Of the model, or of the version that is named.")] = None,
    label: LabelOption = None,
) -> None:
    """Change what a model, or with id@version a version, is called and said to be; labels replace those it has."""
    said = "versionDescription" if "@" in model else "description"
    given = {"displayName": name, said: description, "labels": None if label is None else _labels(label)}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("Give --name, --description or --label.")
    with invocation.client() as client:
        mask = ",".join(changes)
        changed = of_model(client, model, lambda named: client.patch(_path(client, named), changes, updateMask=mask))
    invocation.output.document(changed)
    invocation.output.line(f"Changed {model}.")


def delete_model(invocation: Invocation, model: ModelArgument, yes: YesOption = False) -> None:
    """Delete a model and all its versions, or with id@version that one; none may be deployed. The files stay."""
    what, method = (f"version {model}", ":deleteVersion") if "@" in model else (f"model {model}", "")
    with invocation.client() as client:
        confirm(invocation, f"Delete {what}?", yes=yes)
        answer = of_model(client, model, lambda named: client.delete(_path(client, named, method)))
    invocation.output.document(answer)
    invocation.output.line(f"Deleted {what}.")


def _path(client: Client, named: str, method: str = "") -> str:
    return f"/v1beta1/{client.login.scope}/models/{named}{method}"


def _labels(given: list[str] | None) -> dict[str, str]:
    labels = {}
    for each in given or []:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"--label {each}: write KEY=VALUE.")
        labels[key] = value
    return labels


def _labels_shown(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
