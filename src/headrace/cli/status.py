"""``headrace status`` and ``headrace logs``: what runs, and what it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.autoscaling import scale_lines
from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import find_endpoint, short_id
from headrace.cli.exits import failure_in, text_of
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command
from headrace.cli.names import told_apart
from headrace.cli.output import age, size
from headrace.cli.paths import segment
from headrace.cli.throughput import sold_lines
from headrace.resources.errors import EndpointNotFound, NotReady, ReplicaNotFound
from headrace.resources.external import EXTERNAL

if TYPE_CHECKING:
    from headrace.cli.client import Client

_FOLLOW_EVERY_S = 1.0
_HOLDS_NOTHING = frozenset({"FAILED", "GONE"})
"""States of replicas that reserve no memory; one that sleeps keeps what it had, one that was stopped is gone."""

_NOT_SHOWN = "Nodes are shown to keys of every project only, and this key is one project's."

_FOLLOW_LINES = 10_000
"""The most that the server gives at a time; more than that within a second is lost to a follower."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "status", panel=LOOK)(status)
    command(app, "logs", panel=LOOK)(logs)


def status(invocation: Invocation) -> None:
    """Endpoints, replicas, memory, the last error."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/status", **in_scope(client))
        login = client.login
    invocation.output.document({"url": login.url, "project": login.project, **found})
    invocation.output.line(f"{login.url}  headrace {found['version']}  project {login.project}\n")
    rows = [row for endpoint in found["endpoints"] for row in _rows(endpoint)]
    columns = ("ENDPOINT", "NAME", "STATE", "TRAFFIC", "REPLICAS", "RESIDENT", "RESERVED")
    empty = "No endpoints. Make one: headrace deploy FOLDER"
    invocation.output.table(columns, rows, empty=empty, spare=("RESERVED",), paths=("NAME",))
    for name in _running_own_code(found["endpoints"]):
        invocation.output.line(f"{name} runs code out of its model's folder: --allow-custom-code.")
    for line in sold_lines(found["endpoints"]):
        invocation.output.line(line)
    for line in _scales(found["endpoints"]):
        invocation.output.line(line)
    invocation.output.line()
    nodes = [
        (
            each["id"],
            size(each["memory_bytes"]),
            each["cores"],
            _model_cache(each.get("model_cache") or {}),
            f"{age(found['at'] - each['last_seen_at'])} ago",
        )
        for each in found["nodes"]
    ]
    of_nodes = ("NODE", "MEMORY", "CORES", "MODEL CACHE", "LAST SEEN")
    none = "No node has reported yet." if found.get("nodes_shown", True) else _NOT_SHOWN
    invocation.output.table(of_nodes, nodes, empty=none)
    invocation.output.line(f"\nReplicas hold {size(found['resident_bytes'])} of memory.")
    if error := found.get("last_error"):
        invocation.output.line(f"\nLast error, {age(found['at'] - error['at'])} ago, {error['kind']} {error['id']}:")
        invocation.output.line(text_of(failure_in(error["failure"])))


def _model_cache(cache: dict[str, Any]) -> str:
    """Bytes, limit, and how many of the models are in use: those cannot be evicted."""
    models = cache.get("models") or []
    used = sum(model["in_use"] for model in models)
    limit = f" of {size(cache['limit_bytes'])}" if cache.get("limit_bytes") is not None else ""
    held = f"{len(models)} model{'' if len(models) == 1 else 's'}, {used} in use"
    return f"{size(sum(model['size_bytes'] for model in models))}{limit}: {held}" if models else f"empty{limit}"


def _running_own_code(endpoints: list[dict[str, Any]]) -> list[str]:
    return [
        endpoint["display_name"] or endpoint["id"]
        for endpoint in endpoints
        if any((each.get("deployment") or {}).get("allow_custom_code") for each in endpoint["deployed_models"])
    ]


def _scales(endpoints: list[dict[str, Any]]) -> list[str]:
    """How many replicas each deployment that scales has, and why; one that several endpoints share is told once."""
    pools = [each["deployment"] for endpoint in endpoints for each in endpoint["deployed_models"]]
    told = {pool["id"]: pool for pool in pools if pool and pool.get("wanted_replicas")}
    return [line for pool in told.values() for line in scale_lines(pool["display_name"] or pool["id"], pool)]


def _rows(endpoint: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row; of an endpoint with several models another below it for each, by the id that undeploying goes by."""
    bound, itself = endpoint["deployed_models"], (endpoint["id"], endpoint["display_name"])
    if not bound:
        return [(*itself, "EMPTY", "", "", "", "")]
    if len(bound) == 1:  # one alone is what the endpoint's name says
        return [(*itself, *_pool(bound[0]))]
    named = told_apart([(_model(each), (each.get("deployment") or {}).get("model_id", "")) for each in bound])
    below = [(f"  {each['id']}", name, *_pool(each)) for each, name in zip(bound, named, strict=True)]
    return [(*itself, "", "", "", "", ""), *below]


def _model(binding: dict[str, Any]) -> str:
    pool = binding.get("deployment") or {}
    name, version = binding.get("display_name") or pool.get("model_id", ""), pool.get("model_version")
    return f"{name}@{version}" if version else str(name)


def _pool(binding: dict[str, Any]) -> tuple[object, ...]:
    pool = binding.get("deployment")
    traffic = f"{binding['traffic']}%"
    if pool is None:
        return "GONE", traffic, "", "", ""
    ready = sum(replica["state"] == "READY" and not replica.get("failure") for replica in pool["replicas"])
    asleep = sum(replica["state"] == "ASLEEP" for replica in pool["replicas"])
    replicas = f"{ready}/{pool.get('wanted_replicas', pool['min_replicas'])}" + (f", {asleep} asleep" if asleep else "")
    holding = sum(replica["state"] not in _HOLDS_NOTHING for replica in pool["replicas"])
    reserved = size(holding * pool["memory_bytes"]) if holding and pool["memory_bytes"] else ""
    resident = "external" if pool.get("runtime") == EXTERNAL else size(pool["resident_bytes"])
    return pool["state"], traffic, replicas, resident, reserved


def logs(
    invocation: Invocation,
    wanted: Annotated[str, typer.Argument(metavar="REPLICA|ENDPOINT", help="An endpoint means its newest replica.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """The last lines that an engine wrote; those of a dead one are kept."""
    with invocation.client() as client:
        replica = _replica(client, wanted)
        found = _log(client, replica, lines)
        if not follow:
            invocation.output.document(found)
            for line in found["lines"]:
                invocation.output.line(line)
            return
        shown: list[str] = []
        while True:
            for line in new_lines(shown, found["lines"]):
                invocation.output.line(line)
                invocation.output.event({"replica": replica, "line": line})
            shown = found["lines"]
            time.sleep(_FOLLOW_EVERY_S)
            found = _log(client, replica, _FOLLOW_LINES)


def _log(client: Client, replica: str, lines: int) -> dict[str, Any]:
    try:
        found = client.get(f"{ROOT}/replicas/{segment(replica)}/logs", lines=lines)
    except ReplicaNotFound as error:
        raise ReplicaNotFound(
            f"There is no replica or endpoint {replica!r}.",
            evidence=f"Neither an endpoint of project {client.login.project!r} nor a replica has this name.",
            fix="`headrace status` shows endpoints, `headrace deployments get ID` their replicas.",
        ) from error
    assert isinstance(found, dict)
    return found


def new_lines(shown: list[str], now: list[str]) -> list[str]:
    """The lines of a log's end that were not in the end seen before.

    >>> new_lines(["a", "b"], ["a", "b", "c"])
    ['c']
    """
    for end in range(len(now), 0, -1):
        overlap = min(end, len(shown))
        if overlap and now[end - overlap : end] == shown[-overlap:]:
            return now[end:]
    return now


def _replica(client: Client, wanted: str) -> str:
    try:
        endpoint = find_endpoint(client, wanted)
    except EndpointNotFound:
        return wanted
    replicas = [
        replica
        for binding in endpoint.get("deployedModels") or []
        for replica in _replicas(client, short_id(binding["headrace"]["deployment"]))
    ]
    if not replicas:
        raise NotReady(
            f"Endpoint {wanted} has no replica yet.",
            evidence="Nothing was started for it.",
            fix="`headrace deployments list` shows how far it is.",
        )
    return str(max(replicas, key=lambda replica: replica["created_at"])["id"])


def _replicas(client: Client, deployment: str) -> list[dict[str, Any]]:
    found = client.get(f"{ROOT}/deployments/{segment(deployment)}", **in_scope(client))
    return list(found.get("replicas") or [])
