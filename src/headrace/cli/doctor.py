"""``headrace doctor``: all that is wrong with a model's folder, before anything is copied or started."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.cli.addresses import SCHEMES, artifact_uri
from headrace.cli.exits import ExitCode, exit_code_of
from headrace.cli.help import SERVE
from headrace.cli.invocation import Invocation, command
from headrace.cli.output import in_one_line, size
from headrace.resources.errors import ArtifactsNotFound, Failure, HeadraceError, WeightsQuantised, error_from
from headrace.resources.layout import Layout, default_data_dir
from headrace.resources.models import ServingSpec

if TYPE_CHECKING:
    from headrace.runtimes.device import Device
    from headrace.weights import Finding, ModelFolder
    from headrace.weights.reader import FolderReader


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", server=False, panel=SERVE)(doctor)


def doctor(
    invocation: Invocation,
    *,
    artifacts: Annotated[str, typer.Argument(metavar="DIR|URI", help=f"A model folder, or {SCHEMES}")],
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as errors.")] = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="Also read the beginnings of tensors, for NaN and infinity.")
    ] = False,
    machine: Annotated[
        str, typer.Option(metavar="SHAPE", help="Also whether it fits there: as for `headrace plan`, this-machine too.")
    ] = "",
    runtime: Annotated[str, typer.Option(metavar="R", help="Also whether this one serves it, such as vllm.")] = "",
    allow_custom_code: Annotated[
        bool, typer.Option("--allow-custom-code", help="As if a deployment let the folder's own Python code run.")
    ] = False,
    specification: Annotated[
        str, typer.Option(metavar="NAME", help="Software specification of watsonx.ai that must be certified for it.")
    ] = "",
) -> None:
    """Look a model over without a server: headers and small files only, nothing of it is run.

    Every finding has a code, its evidence and a fix; a deployment is refused for the same errors.
    """
    from headrace.storage import open_artifacts  # noqa: PLC0415  # other commands start without it
    from headrace.weights import check, require_specification  # noqa: PLC0415  # ditto
    from headrace.weights.reader import ReadOnce  # noqa: PLC0415  # ditto

    wanted = _wanted(machine, runtime)
    if specification:
        require_specification(specification)
    opened = open_artifacts(artifact_uri(artifacts, "doctor"))
    reader = ReadOnce(opened)
    wished = ServingSpec(allow_custom_code=allow_custom_code, software_specification=specification)
    findings = check(
        reader, sample=sample, strict=strict, allow_custom_code=allow_custom_code, specification=specification
    )
    folder = _inspected(reader)
    served_by = _served_by(folder, reader, wanted, wished) if folder else {}
    known = _recognised(reader, folder) if folder else None
    findings = _with_unserved(findings, served_by, wanted)
    if folder and wanted.planner and not any(finding.severity == "error" for finding in findings):
        findings = [*wanted.planner(folder), *findings]
    ends_with = _exit_code(findings, strict=strict)
    invocation.output.document(
        {
            "address": opened.address,
            "ok": ends_with == ExitCode.OK,
            "findings": [_as_document(finding) for finding in findings],
            "summary": _summary(folder, known, served_by) if folder and known else None,
        }
    )
    for finding in findings:
        invocation.output.line(_as_text(finding))
    for label, text in _rows(folder, known, served_by) if folder and known else ():
        invocation.output.line(f"{label:<15}{text}")  # not a table: Rich takes longer to import than all of this
    invocation.output.line(_verdict(findings, strict=strict))
    if ends_with != ExitCode.OK:
        raise typer.Exit(ends_with)


class _Served(msgspec.Struct, frozen=True, omit_defaults=True):
    """What serves a model on one kind of machine; ``runtime`` is empty where nothing does, and ``code`` says why."""

    runtime: str
    reason: str
    code: str = ""
    fix: str = ""


class _Wanted(msgspec.Struct, frozen=True):
    """What a model is to be served by, as far as that was said.

    Attributes:
        runtime: Its name; empty for any.
        devices: Kinds of machines, by the name that they are shown with.
        planner: Finds what keeps a model from the machine that was named; None where none was.
    """

    runtime: str
    devices: dict[str, Device]
    planner: Callable[[ModelFolder], list[Finding]] | None = None


def _wanted(machine: str, runtime: str) -> _Wanted:
    """What the command line asks for.

    Raises:
        HeadraceError: There is no such machine, or no such runtime.
    """
    both: dict[str, Device] = {"cpu": "cpu", "gpu": "cuda"}
    if runtime:
        from headrace.runtimes import find  # noqa: PLC0415  # brings the table of runtimes

        find(runtime)
    if not machine:
        return _Wanted(runtime, both)
    from headrace.cli import planning  # noqa: PLC0415  # brings the catalogue of machines

    machines = planning.Machines(default_data_dir())
    tier = machines.tier(machine)
    kind = "gpu" if tier or machines.named(machine).accelerator else "cpu"
    wish = planning.Wish(machine=machine, runtime=runtime)

    def unfit(folder: ModelFolder) -> list[Finding]:
        try:
            if tier:
                planning.plan_tier(folder, wish, tier, machines.tiers)
            else:
                planning.require_fit(planning.plan_model(folder, wish, machines))
        except HeadraceError as error:
            from headrace.weights.finding import finding_of  # noqa: PLC0415  # see above

            return [finding_of(error)]
        return []

    return _Wanted(runtime, {kind: both[kind]}, unfit)


class _Recognised(msgspec.Struct, frozen=True):
    """What a model is known as.

    Attributes:
        base_model: Of Vertex AI's list; empty for none of it.
        active_parameters: Of them, those that one token meets; None for pickles.
        certified_by: The software specifications of watsonx.ai that are certified for it; less than what is possible.
        made: What `headrace convert` made it of; empty where it did not.
    """

    base_model: str
    active_parameters: int | None
    certified_by: tuple[str, ...]
    made: str


def _recognised(opened: FolderReader, folder: ModelFolder) -> _Recognised:
    from headrace.resources.errors import ConfigInvalid  # noqa: PLC0415
    from headrace.weights import base_model, count_parameters, specifications_for  # noqa: PLC0415  # see above
    from headrace.weights.config import CONFIG_FILE  # noqa: PLC0415
    from headrace.weights.conversion import read_mark  # noqa: PLC0415
    from headrace.weights.reader import read_json_object  # noqa: PLC0415

    raw = read_json_object(opened, CONFIG_FILE, ConfigInvalid)
    counted = count_parameters(raw, folder.tensors) if folder.tensors else None
    base = base_model(raw, counted.total if counted else None)
    certified = specifications_for(raw, folder.config.quantisation)
    mark = read_mark(opened)
    return _Recognised(
        base.name if base else "", counted.active if counted else None, certified, mark.made if mark else ""
    )


def _inspected(opened: FolderReader) -> ModelFolder | None:
    """What the folder holds; None where a finding says why that cannot be told."""
    from headrace.weights import inspect  # noqa: PLC0415  # see above

    try:
        return inspect(opened)
    except ArtifactsNotFound:
        raise
    except HeadraceError:
        return None


def _served_by(folder: ModelFolder, reader: FolderReader, wanted: _Wanted, wished: ServingSpec) -> dict[str, _Served]:
    """What would serve it on each kind of machine."""
    from headrace.runtimes import MachineFacts, choose, facts_of  # noqa: PLC0415  # see above
    from headrace.weights.custom_code import own_code  # noqa: PLC0415  # see above

    facts, installed = facts_of(folder, wished, own_code(reader)), _installed()
    found: dict[str, _Served] = {}
    for name, device in wanted.devices.items():
        try:
            machine = MachineFacts(device=device, gpus=int(device == "cuda"), installed=installed)
            choice = choose(facts, machine, wanted.runtime)
            found[name] = _Served(choice.runtime, choice.sentence)
        except HeadraceError as error:
            found[name] = _Served("", error.evidence or error.message, error.code, error.fix)
    return found


def _installed() -> frozenset[str]:
    """The runtimes whose environments are on this machine."""
    from headrace.runtimes import RUNTIMES, Environments  # noqa: PLC0415  # see above

    environments = Environments(Layout(default_data_dir()).runtimes_dir)
    return frozenset(name for name, runtime in RUNTIMES.items() if environments.find(runtime))


def _with_unserved(findings: list[Finding], served_by: dict[str, _Served], wanted: _Wanted) -> list[Finding]:
    """The findings, errors first, and that nothing serves the model if nothing does and none of them says so."""
    from headrace.weights import Finding  # noqa: PLC0415  # see above

    if not served_by or any(each.runtime for each in served_by.values()):
        return findings
    first = next(iter(served_by.values()))
    if any(finding.code in {first.code, WeightsQuantised.code} and finding.severity == "error" for finding in findings):
        return findings
    message = f"{wanted.runtime} does not serve this model." if wanted.runtime else "No runtime serves this model."
    unserved = Finding(first.code, "error", message, "", first.reason, first.fix)
    return [unserved, *findings]


def _exit_code(findings: list[Finding], *, strict: bool) -> ExitCode:
    """That with which a command ends that meets the first error."""
    for finding in findings:
        if finding.severity == "error":
            return exit_code_of(error_from(Failure(finding.code, finding.message)))
    return ExitCode.FAILED if strict and findings else ExitCode.OK


def _summary(folder: ModelFolder, known: _Recognised, served_by: dict[str, _Served]) -> dict[str, Any]:
    return {
        "architectures": list(folder.config.architectures),
        "model_type": folder.config.model_type,
        "base_model": known.base_model or None,
        "parameters": folder.parameters,
        "active_parameters": known.active_parameters,
        "weight_bytes": folder.weight_bytes,
        "bytes_by_dtype": folder.bytes_by_dtype,
        "weights_format": folder.weights_format,
        "weight_files": list(folder.weight_files),
        "tokenizer_files": list(folder.tokenizer_files),
        "chat_template": folder.has_chat_template,
        "certified_by": list(known.certified_by),
        "made": known.made or None,
        "served_by": {name: msgspec.to_builtins(served) for name, served in served_by.items()},
    }


def _rows(folder: ModelFolder, known: _Recognised, served_by: dict[str, _Served]) -> list[tuple[str, str]]:
    parameters = "unknown" if folder.parameters is None else f"{folder.parameters:,}"
    if known.active_parameters is not None and known.active_parameters != folder.parameters:
        parameters += f", {known.active_parameters:,} of them active for a token"
    dtypes = ", ".join(f"{dtype} {size(count)}" for dtype, count in folder.bytes_by_dtype.items())
    files = f"{len(folder.weight_files)} *.{folder.weights_format}"
    return [
        ("architecture", f"{', '.join(folder.config.architectures) or 'not named'} ({folder.config.model_type})"),
        ("base model", known.base_model or "none of Vertex AI's list"),
        ("parameters", parameters),
        ("weights", f"{size(folder.weight_bytes)} in {files}{f': {dtypes}' if dtypes else ''}"),
        *((("made by", f"headrace convert: {known.made}"),) if known.made else ()),
        ("tokenizer", ", ".join(folder.tokenizer_files) or "none"),
        ("chat template", "yes" if folder.has_chat_template else "none"),
        ("certified by", ", ".join(known.certified_by) or "no software specification of watsonx.ai"),
        *((f"on a {name.upper()}", served.reason) for name, served in served_by.items()),
    ]


def _as_document(finding: Finding) -> dict[str, str]:
    return {name: getattr(finding, name) for name in finding.__struct_fields__}


def _as_text(finding: Finding) -> str:
    where = f"  {in_one_line(finding.file)}" if finding.file else ""
    lines = [f"{finding.severity} {finding.code}:{where}", f"  {in_one_line(finding.message)}"]
    lines += [f"  evidence: {in_one_line(finding.evidence)}"] if finding.evidence else []
    lines += [f"  fix: {finding.fix}"] if finding.fix else []
    return "\n".join([*lines, f"  more: headrace explain {finding.code}", ""])


def _verdict(findings: list[Finding], *, strict: bool) -> str:
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    if not findings:
        return "\nNothing is wrong with it."
    counted = f"\n{errors} error(s), {warnings} warning(s)"
    if errors:
        return f"{counted}: a deployment of it would be refused."
    return f"{counted}{': refused, as --strict asks' if strict else ': it can be deployed'}."
