"""``headrace explain``: the page of an error code."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command
from headrace.resources.errors import CODES, page


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "explain", server=False, panel=LOOK)(explain)


def explain(
    invocation: Invocation,
    code: Annotated[str, typer.Argument(metavar="[CODE]", help="Such as WEIGHTS_TRUNCATED.", show_default=False)] = "",
) -> None:
    """What an error code means and what to do about it; without a code, all of them."""
    if code:
        text = page(code.upper())
        invocation.output.document({"code": code.upper(), "page": text})
        if not invocation.as_json:
            invocation.output.markdown(text)
        return
    meanings = {each: (kind.__doc__ or "").splitlines()[0].strip('"') for each, kind in sorted(CODES.items())}
    invocation.output.document(
        {
            "codes": [
                {"code": each, "http_status": CODES[each].http_status, "meaning": meanings[each]} for each in meanings
            ]
        }
    )
    rows = [(each, CODES[each].http_status, meaning) for each, meaning in meanings.items()]
    invocation.output.table(("CODE", "HTTP", "MEANING"), rows, empty="")
