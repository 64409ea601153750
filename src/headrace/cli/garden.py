"""``headrace garden``: the models that can be deployed by name, where each has room, and a notebook for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.cli.exits import WrongUsage
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import size
from headrace.cli.serve import DataDirOption
from headrace.resources.errors import HeadraceError
from headrace.resources.layout import default_data_dir

if TYPE_CHECKING:
    from headrace.catalogue import Entry, Option

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="PUBLISHER/MODEL[@VERSION], or the version alone.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="The models that can be deployed by name: headrace deploy garden:MODEL.")
    list_command(group, server=False)(list_entries)
    command(group, "show", server=False)(show)
    command(group, "options", server=False)(options)
    command(group, "notebook", server=False)(notebook)
    app.add_typer(group, name="garden", rich_help_panel=LOOK)


def list_entries(
    invocation: Invocation,
    search: Annotated[str, typer.Option(metavar="TEXT", help="Only those with this in their names.")] = "",
) -> None:
    """Every version of every model, with its size and licence."""
    from headrace.catalogue import entries, entry_json  # noqa: PLC0415  # brings NumPy

    wanted = search.lower()
    found = [entry for entry in entries() if wanted in f"{entry.id} {entry.display_name} {entry.hub}".lower()]
    invocation.output.document({"models": [entry_json(entry) for entry in found]})
    rows = [
        (
            entry.id,
            _billions(entry.parameters),
            size(entry.folder.weight_bytes),
            f"{entry.context_tokens:,}",
            entry.licence.name,
            "to be accepted" if entry.licence.accept else "",
        )
        for entry in found
    ]
    columns = ("MODEL", "PARAMETERS", "WEIGHTS", "CONTEXT", "LICENCE", "")
    invocation.output.table(columns, rows, empty=f"None has {search!r} in its names.", spare=("CONTEXT", "LICENCE"))


def show(invocation: Invocation, *, model: ModelArgument) -> None:
    """What is known of one model."""
    from headrace.catalogue import entry_json, find_entry, option_json, options_of  # noqa: PLC0415  # see above

    entry = find_entry(model)
    machines = options_of(entry)
    invocation.output.document(entry_json(entry) | {"options": [option_json(each) for each in machines]})
    invocation.output.table(("", ""), list(_facts(entry, machines)), empty="")
    invocation.output.line(f"\nDeploy it: {_deploy_command(entry)}")


def options(
    invocation: Invocation,
    *,
    model: ModelArgument,
    context: Annotated[int | None, typer.Option(min=1, metavar="N", help="Longest sequence, in tokens.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, metavar="N", help="Such sequences at once; else 8.")] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Whether a model has room on this machine, why not, and on which of Vertex AI's machines it has."""
    from headrace.catalogue import find_entry, option_json, options_of  # noqa: PLC0415  # see above
    from headrace.cli.planning import Machines, Wish  # noqa: PLC0415  # see above
    from headrace.hardware import THIS_MACHINE  # noqa: PLC0415  # see above

    entry = find_entry(model)
    wish = Wish(machine=THIS_MACHINE, context_tokens=context, concurrency=concurrency)
    here = _here(entry, wish, Machines(data_dir or default_data_dir()))
    machines = options_of(entry, context, concurrency)
    invocation.output.document(
        {"model": entry.id, "this_machine": here, "options": [option_json(each) for each in machines]}
    )
    rows = [
        (THIS_MACHINE, here["runtime"], _gigabytes(here["need_bytes"]), "", here["verdict"]),
        *((each.shape.label, each.runtime, *_room(each), "fits") for each in machines),
    ]
    invocation.output.table(("MACHINE", "RUNTIME", "NEEDS", "USD/H", "VERDICT"), rows, empty="", spare=("USD/H",))


def notebook(
    invocation: Invocation,
    *,
    model: ModelArgument,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="The file to write; else stdout.")] = None,
) -> None:
    """A notebook that deploys the model with Vertex AI's own client, asks it something, and undoes both."""
    from headrace.catalogue import find_entry, notebook_of  # noqa: PLC0415  # see above

    made = msgspec.json.format(msgspec.json.encode(notebook_of(find_entry(model))), indent=1)
    if output is None:
        print(made.decode())
        return
    if output.exists():
        raise WrongUsage(f"{output} is there already.", evidence="It is not overwritten.", fix="Name another file.")
    output.write_bytes(made + b"\n")
    invocation.output.document({"notebook": str(output)})
    invocation.output.line(f"Written to {output}. It reads HEADRACE_URL and HEADRACE_API_KEY.")


def _here(entry: Entry, wish: Any, machines: Any) -> dict[str, Any]:
    """How an entry does on this machine."""
    from headrace.cli.planning import plan_model  # noqa: PLC0415  # see above

    try:
        answer = plan_model(entry.folder, wish, machines)
    except HeadraceError as error:
        return {"fits": False, "runtime": "", "need_bytes": None, "code": error.code, "verdict": error.message}
    verdict, code = "fits", ""
    if answer.refusal is not None:
        verdict, code = answer.refusal.message, answer.refusal.code
    elif not answer.plan.fits:
        verdict, code = f"lacks {-answer.plan.margin_bytes / 1e9:.1f} GB", "DOES_NOT_FIT"
    return {
        "fits": answer.deployable,
        "runtime": answer.load.runtime,
        "need_bytes": answer.plan.need.total_bytes,
        "code": code,
        "verdict": verdict,
    }


def _facts(entry: Entry, machines: tuple[Option, ...]) -> list[tuple[str, str]]:
    licence = f"{entry.licence.name}{', which is to be accepted' if entry.licence.accept else ''}: {entry.licence.url}"
    stored = f", in {quantisation}" if (quantisation := entry.folder.config.quantisation) else ""
    return [
        ("model", entry.id),
        ("name", f"{entry.display_name}, by {entry.publisher_name}"),
        ("family", f"{entry.family}, {'taught to follow instructions' if entry.instruct else 'a base model'}"),
        ("licence", licence),
        ("parameters", f"{entry.parameters:,}"),
        ("weights", f"{size(entry.folder.weight_bytes)}{stored}"),
        ("context", f"{entry.context_tokens:,} tokens"),
        ("Hugging Face Hub", entry.hub),
        ("machines", ", ".join(each.shape.label for each in machines)),
    ]


def _deploy_command(entry: Entry) -> str:
    return f"headrace deploy garden:{entry.id}{' --accept-licence' if entry.licence.accept else ''}"


def _room(option: Option) -> tuple[str, str]:
    price = option.shape.usd_per_h
    return _gigabytes(option.plan.need.total_bytes), f"{price:.2f}" if price is not None else ""


def _gigabytes(count: int | None) -> str:
    return "" if count is None else size(count)


def _billions(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
