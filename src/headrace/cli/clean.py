"""``headrace clean``: what can go from the disk of this machine, with sizes, before it asks."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from headrace.cli.contexts import local_login, server_runs
from headrace.cli.endpoints import YesOption, confirm
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command
from headrace.cli.output import age, size
from headrace.cli.serve import DataDirOption
from headrace.resources.access import EVERY_PROJECT
from headrace.resources.errors import HeadraceError
from headrace.resources.layout import Layout, default_data_dir
from headrace.storage import ModelCache
from headrace.storage.addresses import folder_of
from headrace.storage.uploads import remove_tree

_ENVIRONMENT = re.compile(r"[a-z0-9-]+-[0-9a-f]{12}")


class Item(msgspec.Struct, frozen=True):
    """Something on the disk that can go.

    Attributes:
        kind: ``model``, ``upload``, ``replica log`` or ``runtime``.
        name: Of a model: what it was registered as, and its source's address; empty where nobody knows any more.
        why: A sentence for a person: why nobody misses it.
    """

    kind: str
    path: str
    size_bytes: int
    why: str
    name: str = ""


class Uses(msgspec.Struct, frozen=True):
    """What a server uses now.

    Attributes:
        fingerprints: Staged models of living deployments; None where no server runs that could say.
        replicas: Living replicas.
        runtimes: Names of runtimes that deployments run on.
        names: What registered models are called and where they come from, by fingerprint.
        versions: Registered versions, as project, model's id and number; None as of `fingerprints`.
        addresses: Where their artifacts are.
    """

    fingerprints: frozenset[str] | None = None
    replicas: frozenset[str] = frozenset()
    runtimes: frozenset[str] = frozenset()
    names: dict[str, str] = {}
    versions: frozenset[tuple[str, str, str]] | None = None
    addresses: frozenset[str] = frozenset()


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "clean", server=False, panel=MANAGE)(clean)


def clean(
    invocation: Invocation,
    data_dir: DataDirOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also runtimes that are up to date and that nothing runs on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what could go.")] = False,
    yes: YesOption = False,
) -> None:
    """Remove staged models, uploads of deleted versions, logs of dead replicas, old runtimes; nothing that is in use.

    While the server runs it is asked what is in use; when it cannot say, nothing is removed.
    """
    layout = Layout(data_dir or default_data_dir())
    uses = current_uses(layout)
    items = find_items(layout, uses, everything=everything)
    total_bytes = sum(item.size_bytes for item in items)
    rows = [(item.kind, size(item.size_bytes), item.name, item.path, item.why) for item in items]
    invocation.output.table(
        ("WHAT", "SIZE", "MODEL", "WHERE", "WHY"), rows, empty="Nothing to clean.", paths=("WHERE",), spare=("WHY",)
    )
    if uses.fingerprints is None:
        invocation.output.line(
            "Staged models are left out, as uploads are: which of them are in use only a running server can say."
        )
    if items and dry_run:
        invocation.output.line(f"{len(items)} in all, {size(total_bytes)}. Nothing was removed.")
    if items and not dry_run:
        confirm(invocation, f"Remove all of this, {size(total_bytes)}?", yes=yes)
        removed = _remove_all(layout, items)
        total_bytes = sum(item.size_bytes for item in removed)
        for item in items:
            if item not in removed:
                invocation.output.line(f"{item.path} stays: it came into use meanwhile.")
        invocation.output.line(f"{size(total_bytes)} freed.")
    invocation.output.document(
        {"items": msgspec.to_builtins(items), "size_bytes": total_bytes, "removed": not dry_run and bool(items)}
    )


def find_items(layout: Layout, uses: Uses, *, everything: bool) -> list[Item]:
    """All that nobody uses now, the largest first."""
    found = [
        *_models(layout, uses),
        *(_item("upload", path, "the version that it was uploaded for was deleted") for path in _uploads(layout, uses)),
        *_replicas(layout, uses),
        *_runtimes(layout, uses, everything=everything),
    ]
    return sorted(found, key=lambda item: -item.size_bytes)


def current_uses(layout: Layout) -> Uses:
    """What the server of this data directory uses; when it does not run, that nobody knows what of the models is.

    Raises:
        HeadraceError: It runs and cannot say.
    """
    if not server_runs(layout):
        return Uses()
    from headrace.cli.client import Client  # noqa: PLC0415  # only where a server is to be asked

    with Client(local_login(layout.data_dir)) as client:
        deployments = client.get("/headrace/v1/deployments")["deployments"]
        models = client.get("/headrace/v1/models", project=EVERY_PROJECT)["models"]  # refused to a key that sees fewer
        pools = [client.get(f"/headrace/v1/deployments/{each['id']}") for each in deployments]
    return _uses(pools, models)


def _uses(pools: list[dict[str, Any]], models: list[dict[str, Any]]) -> Uses:
    versions = [each for model in models for each in model["versions"]]
    deployed = {(each["model_id"], each["model_version"]) for each in pools}
    return Uses(
        fingerprints=frozenset(
            each["fingerprint"] for each in versions if (each["model_id"], each["version"]) in deployed
        ),
        replicas=frozenset(each["id"] for pool in pools for each in pool["replicas"] if each["state"] != "GONE"),
        runtimes=frozenset(each["runtime"] for each in pools),
        names={
            each["fingerprint"]: f"{model['display_name']}, {each['artifact_uri']}"
            for model in models
            for each in model["versions"]
        },
        versions=frozenset((each["project"], each["model_id"], each["version"]) for each in versions),
        addresses=frozenset(each["artifact_uri"] for each in versions),
    )


def _models(layout: Layout, uses: Uses) -> Iterator[Item]:
    if uses.fingerprints is None:
        return
    for model in ModelCache(layout.models_dir).models():
        if model.fingerprint not in uses.fingerprints:
            unused = f"no deployment uses it, for {age(time.time() - model.used_at)}; copied again when needed"
            path, name = str(layout.models_dir / model.fingerprint), uses.names.get(model.fingerprint, "")
            yield Item("model", path, model.size_bytes, unused, name)


def _uploads(layout: Layout, uses: Uses) -> list[Path]:
    """What clients uploaded for versions that are no more, and that no other version names as its artifacts."""
    if uses.versions is None:
        return []
    root = layout.uploads_dir.resolve()
    named = [path for address in uses.addresses if (path := _path_of(address)) is not None]
    found = []
    for kind in ("models", "served"):
        for folder in _folders(root, f"*/{kind}/*/[!.]*"):  # with a dot: what control is making or removing
            project, _, model_id, number = folder.relative_to(root).parts
            used = any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in named)
            if not used and (project, model_id, number) not in uses.versions:
                found.append(folder)
    return found


def _path_of(address: str) -> Path | None:
    """Where an address leads on this machine; None elsewhere."""
    try:
        folder = folder_of(address)
    except HeadraceError:
        return None
    return folder.resolve() if folder is not None else None


def _replicas(layout: Layout, uses: Uses) -> Iterator[Item]:
    for path in _folders(layout.replica_dir("any").parent):
        if path.name not in uses.replicas and not _anyone_at(path):
            yield _item("replica log", path, "the replica is gone")


def _runtimes(layout: Layout, uses: Uses, *, everything: bool) -> Iterator[Item]:
    from headrace.runtimes import CONVERTERS, RUNTIMES, Environments  # noqa: PLC0415  # brings the table of runtimes

    environments = Environments(layout.runtimes_dir)
    current = {environments.inspect(each).path: each.name for each in (*RUNTIMES.values(), *CONVERTERS)}
    for path in _folders(layout.runtimes_dir):
        name = current.get(str(path))
        if not _ENVIRONMENT.fullmatch(path.name) or name in uses.runtimes or _anyone_at(path):
            continue
        if name is None:
            yield _item("runtime", path, "made by another version of Headrace or Python, or never finished")
        elif everything:
            yield _item("runtime", path, "up to date; nothing runs on it")


def _anyone_at(folder: Path) -> bool:
    """Whether a process of ours works in a folder: a shim, an engine, a pip."""
    import psutil  # noqa: PLC0415

    prefix = f"{folder}/"
    return any(
        f"{argument}/".startswith(prefix)
        for process in psutil.process_iter(["cmdline"])
        for argument in process.info["cmdline"] or []
    )


def _folders(parent: Path, pattern: str = "*") -> list[Path]:
    return [path for path in sorted(parent.glob(pattern)) if path.is_dir()]


def _item(kind: str, path: Path, why: str) -> Item:
    size_bytes = sum(file.lstat().st_blocks * 512 for file in path.rglob("*"))
    return Item(kind, str(path), size_bytes, why)


def _remove_all(layout: Layout, items: list[Item]) -> list[Item]:
    """Those that are still of no use to anybody; returns them. Of uploads the server is asked once more."""
    uploads = any(item.kind == "upload" for item in items)
    unused = {str(path) for path in _uploads(layout, current_uses(layout))} if uploads else set()
    return [item for item in items if (item.kind != "upload" or item.path in unused) and _remove(item, layout)]


def _remove(item: Item, layout: Layout) -> bool:
    """First out of sight, so that half of it is never taken for the whole; not a model that is in use by now."""
    path = Path(item.path)
    if item.kind == "model":
        return ModelCache(layout.models_dir).remove(path.name)
    if item.kind == "upload":
        remove_tree(path)  # as control does, which may be at it
        return True
    doomed = path.with_name(f".{path.name}.removing")
    path.rename(doomed)
    shutil.rmtree(doomed)
    return True
