"""``headrace usage``: how many tokens each key, endpoint and model used."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import typer

from headrace.cli.deployments import ROOT
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command

_SPAN = re.compile(r"(\d{1,6})([mhd])")
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
_HEADINGS = {"key": "KEY", "endpoint": "ENDPOINT", "model": "MODEL"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "usage", panel=LOOK)(usage)


def usage(
    invocation: Invocation,
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 30d. Whole hours are counted.")] = "24h",
    by: Annotated[str, typer.Option(help="What to tell apart: any of key, endpoint, model.")] = "key,endpoint,model",
) -> None:
    """Requests and tokens by key, endpoint and model, as the engines told them."""
    begin_at = max(0, int(time.time()) - _seconds(since))
    with invocation.client() as client:
        query: dict[str, str | int] = {"from": begin_at, "by": by, "project": client.login.project}
        found = client.get(f"{ROOT}/usage", **query)
    invocation.output.document(found)
    kinds = [kind for kind in _HEADINGS if kind in found["by"]]
    columns = (*(_HEADINGS[kind] for kind in kinds), "REQUESTS", "UNFINISHED", "PROMPT TOKENS", "OUTPUT TOKENS")
    rows = [(*(_name(each, kind) for kind in kinds), *_counts(each)) for each in found["usage"]]
    begin = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found["from"]))
    invocation.output.table(columns, rows, empty=f"No requests since {begin} UTC.", spare=("UNFINISHED",))
    if any(each["inexact"] for each in found["usage"]):
        invocation.output.line("\n≥: at least; where an answer broke off, its engine did not come to tell the tokens.")


def _name(each: dict[str, Any], kind: str) -> str:
    """Its name; without one its id, which of an endpoint or a model means that it was deleted."""
    known = each.get(f"{kind}_name")
    name = str(known or each[f"{kind}_id"])
    version = f"@{each['model_version']}" if kind == "model" else ""
    return f"{name}{version}" if known or kind == "key" else f"{name}{version} (deleted)"


def _counts(each: dict[str, Any]) -> tuple[str, ...]:
    least = "≥ " if each["inexact"] else ""
    tokens = (f"{least}{each[field]:,}" for field in ("prompt_tokens", "completion_tokens"))
    return f"{each['requests']:,}", f"{each['unfinished']:,}", *tokens


def _seconds(span: str) -> int:
    found = _SPAN.fullmatch(span.strip())
    if found is None:
        raise typer.BadParameter(f"--since takes a number of minutes, hours or days like 24h, not {span!r}.")
    return int(found[1]) * _UNITS_S[found[2]]
