"""``headrace doctor``: all that is wrong with a model's folder, before anything is copied or started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from headrace.cli.deploy import artifact_uri
from headrace.cli.exits import ExitCode, exit_code_of
from headrace.cli.help import SERVE
from headrace.cli.invocation import Invocation, command
from headrace.cli.output import size
from headrace.resources.errors import ArchitectureUnsupported, ArtifactsNotFound, Failure, HeadraceError, error_from

if TYPE_CHECKING:
    from headrace.storage import Artifacts
    from headrace.weights import Finding, ModelFolder


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", server=False, panel=SERVE)(doctor)


def doctor(
    invocation: Invocation,
    *,
    artifacts: Annotated[str, typer.Argument(metavar="DIR|URI", help="A model folder, or gs://… s3://… file://…")],
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as errors.")] = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="Also read the beginnings of tensors, for NaN and infinity.")
    ] = False,
) -> None:
    """Look a model over without a server: headers and small files only, nothing of it is run.

    Every finding has a code, its evidence and a fix; a deployment is refused for the same errors.
    """
    from headrace.storage import open_artifacts  # noqa: PLC0415  # other commands start without it
    from headrace.weights import check  # noqa: PLC0415  # ditto

    opened = open_artifacts(artifact_uri(artifacts))
    findings = check(opened, sample=sample, strict=strict)
    folder = _inspected(opened)
    served_by = _served_by(folder) if folder else {}
    known = _recognised(opened, folder) if folder else None
    findings = _with_unserved(findings, served_by)
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


class _Served(msgspec.Struct, frozen=True):
    """What serves a model on one kind of machine; ``runtime`` is empty where nothing does."""

    runtime: str
    reason: str


class _Recognised(msgspec.Struct, frozen=True):
    """What a model is known as.

    Attributes:
        base_model: Of Vertex AI's list; empty for none of it.
        active_parameters: Of them, those that one token meets; None for pickles.
        certified_by: The software specifications of watsonx.ai that are certified for it; less than what is possible.
    """

    base_model: str
    active_parameters: int | None
    certified_by: tuple[str, ...]


def _recognised(opened: Artifacts, folder: ModelFolder) -> _Recognised:
    from headrace.resources.errors import ConfigInvalid  # noqa: PLC0415
    from headrace.weights import base_model, count_parameters, specifications_for  # noqa: PLC0415  # see above
    from headrace.weights.config import CONFIG_FILE  # noqa: PLC0415
    from headrace.weights.reader import read_json_object  # noqa: PLC0415

    raw = read_json_object(opened, CONFIG_FILE, ConfigInvalid)
    counted = count_parameters(raw, folder.tensors) if folder.tensors else None
    base = base_model(raw, counted.total if counted else None)
    certified = specifications_for(raw, folder.config.quantisation)
    return _Recognised(base.name if base else "", counted.active if counted else None, certified)


def _inspected(opened: Artifacts) -> ModelFolder | None:
    """What the folder holds; None where a finding says why that cannot be told."""
    from headrace.weights import inspect  # noqa: PLC0415  # see above

    try:
        return inspect(opened)
    except ArtifactsNotFound:
        raise
    except HeadraceError:
        return None


def _served_by(folder: ModelFolder) -> dict[str, _Served]:
    """What would serve it on a machine without a GPU and on one with."""
    from headrace.runtimes import MachineFacts, choose, facts_of  # noqa: PLC0415  # brings the table of runtimes
    from headrace.weights import task_of  # noqa: PLC0415  # see above

    config = folder.config
    facts = facts_of(
        config.model_type,
        folder.bytes_by_dtype,
        task=task_of(config, folder.files),
        quantisation=config.quantisation,
    )
    found: dict[str, _Served] = {}
    devices: tuple[tuple[str, Literal["cpu", "cuda"]], ...] = (("cpu", "cpu"), ("gpu", "cuda"))
    for name, device in devices:
        try:
            choice = choose(facts, MachineFacts(device=device, gpus=int(device == "cuda")))
            found[name] = _Served(choice.runtime, choice.sentence)
        except HeadraceError as error:
            found[name] = _Served("", f"{error.message} {error.evidence}".strip())
    return found


def _with_unserved(findings: list[Finding], served_by: dict[str, _Served]) -> list[Finding]:
    """The findings, errors first, and that nothing serves the model if nothing does and none of them says so."""
    from headrace.weights import Finding  # noqa: PLC0415  # see above

    code = ArchitectureUnsupported.code
    if not served_by or any(each.runtime for each in served_by.values()):
        return findings
    if any(finding.code == code for finding in findings):
        return findings
    fix = "`headrace runtimes` lists what there is; docs/engines.md says which architectures each knows."
    unserved = Finding(code, "error", "No runtime serves this model.", "", served_by["cpu"].reason, fix)
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
        ("tokenizer", ", ".join(folder.tokenizer_files) or "none"),
        ("chat template", "yes" if folder.has_chat_template else "none"),
        ("certified by", ", ".join(known.certified_by) or "no software specification of watsonx.ai"),
        *((f"on a {name.upper()}", served.reason) for name, served in served_by.items()),
    ]


def _as_document(finding: Finding) -> dict[str, str]:
    return {name: getattr(finding, name) for name in finding.__struct_fields__}


def _as_text(finding: Finding) -> str:
    where = f"  {finding.file}" if finding.file else ""
    lines = [f"{finding.severity} {finding.code}:{where}", f"  {finding.message}"]
    lines += [f"  evidence: {finding.evidence}"] if finding.evidence else []
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
