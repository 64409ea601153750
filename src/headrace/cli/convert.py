"""``headrace convert``: a model's folder or GGUF file written anew in the form that every engine loads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headrace.cli.addresses import SCHEMES, artifact_uri
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command
from headrace.cli.output import size
from headrace.cli.progress import Step, Steps
from headrace.resources.errors import BadField

if TYPE_CHECKING:
    from headrace.storage import Artifacts

_CURED = frozenset({"WEIGHTS_MISSING", "WEIGHTS_CORRUPT"})
"""Errors of a source that an index written anew may cure; where it does not, planning finds the same."""

Numbers = Literal["own", "bfloat16"]

Make = Callable[[Path, Step], str]
"""Fills an empty folder and returns what was made, as a part of a sentence."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "convert", server=False, panel=MANAGE)(convert)


def convert(
    invocation: Invocation,
    *,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help=f"A model's folder, or a *.gguf file: a path, or {SCHEMES}"),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="A new folder.")],
    dtype: Annotated[
        Numbers, typer.Option(help="Round float32 and float16 weights to bfloat16; else they stay bit for bit.")
    ] = "own",
) -> None:
    """Write a model anew: safetensors from pickles or a GGUF, an index that is missing or wrong, the format's note.

    Needs no server, and runs nothing that comes with the model. The new folder gets its name when it is whole and the
    doctor finds no error in it.
    """
    target = destination.expanduser().absolute()
    started_s = time.monotonic()
    with _here(invocation, source, target, dtype) as path:
        _require_outside(path, target)
        gguf = _gguf_of(path)
        needed_bytes, make = _from_gguf(gguf) if gguf else _from_folder(path, dtype)
        made = _make(invocation, target, needed_bytes, make)
    took_s = time.monotonic() - started_s
    size_bytes = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    invocation.output.document(
        {"folder": str(target), "made": made, "size_bytes": size_bytes, "seconds": round(took_s, 3)}
    )
    invocation.output.line(f"{target}: {made}; {size(size_bytes)}, in {took_s:.1f} s.")
    invocation.output.line(f"Next: headrace deploy {destination}")


def _require_outside(source: Path, target: Path) -> None:
    """Hold that the new folder is not below the one that it is made of: the next conversion would copy it.

    Raises:
        BadField: It is.
    """
    if source.resolve() in target.resolve().parents:
        raise BadField(
            "The new folder would lie in the one that is converted.",
            evidence=f"{target} is below {source}.",
            fix="Give a place beside it.",
        )


@contextmanager
def _here(invocation: Invocation, source: str, target: Path, dtype: Numbers) -> Iterator[Path]:
    """The source as a path of this machine: its own, or that of what is fetched from its store for this while.

    Raises:
        HeadraceError: It cannot be converted, as far as its headers and small files tell, or not be fetched.
    """
    if "://" not in source:
        path = Path(source).expanduser().absolute()
        yield path if path.suffix.lower() == ".gguf" else Path(artifact_uri(source, "convert"))
        return
    from headrace.storage import fetched, open_artifacts, path_of_file_uri  # noqa: PLC0415  # see above
    from headrace.weights.conversion import plan_folder  # noqa: PLC0415

    if source.lower().startswith("file://"):
        yield path_of_file_uri(source)
        return
    opened = open_artifacts(source)
    needed_bytes = opened.total_bytes  # of a GGUF, at least; it is looked into when it is here
    if not _gguf_among(opened.sizes()):
        _require_deployable(opened)
        needed_bytes = plan_folder(opened, dtype).size_bytes
    with ExitStack() as fetching:
        with Steps(invocation.output, silent=invocation.as_json).step("Fetching") as step:
            folder = fetching.enter_context(fetched(opened, target, needed_bytes, partial(_tell, step)))
        yield folder


def _make(invocation: Invocation, target: Path, needed_bytes: int, make: Make) -> str:
    from headrace.storage import make_new  # noqa: PLC0415  # other commands start without it

    made = ""
    with Steps(invocation.output, silent=invocation.as_json).step("Converting") as step:

        def fill(folder: Path) -> None:
            nonlocal made
            made = make(folder, step)

        make_new(target, needed_bytes, fill)
    return made


def _from_folder(path: Path, dtype: Numbers) -> tuple[int, Make]:
    """What a folder's conversion takes, and the conversion.

    Raises:
        HeadraceError: It cannot be done.
    """
    from headrace.storage import open_artifacts  # noqa: PLC0415  # see above
    from headrace.storage.converting import convert_folder  # noqa: PLC0415
    from headrace.weights.conversion import plan_folder  # noqa: PLC0415

    opened = open_artifacts(str(path))
    _require_deployable(opened)
    plan = plan_folder(opened, dtype)

    def make(folder: Path, step: Step) -> str:
        convert_folder(plan, path, folder, partial(_tell, step))
        return plan.what

    return plan.size_bytes, make


def _require_deployable(opened: Artifacts) -> None:
    """Raise what would be wrong with the result, too, before it takes minutes to write it."""
    from headrace.weights import check, raise_first_error  # noqa: PLC0415  # see above

    raise_first_error(finding for finding in check(opened) if finding.code not in _CURED)


def _gguf_of(path: Path) -> Path | None:
    """The GGUF file that is meant: the path itself, or what a folder has as its only weights."""
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        return path
    found = _gguf_among({each.name: 0 for each in path.iterdir()}) if path.is_dir() else None
    return path / found if found else None


def _gguf_among(files: Mapping[str, int]) -> str | None:
    """The one GGUF file of a folder that has no other weights."""
    from headrace.weights.folder import lone_gguf  # noqa: PLC0415  # see above

    found = lone_gguf(files)
    return found[0] if len(found) == 1 else None


def _from_gguf(path: Path) -> tuple[int, Make]:
    """The same of a GGUF file, whose numbers become bfloat16 in any case."""
    from headrace.storage.converting import require_sound  # noqa: PLC0415  # see above
    from headrace.weights.conversion import Mark, write_mark  # noqa: PLC0415
    from headrace.weights.gguf import needed_bytes, open_gguf, require_convertible, write_gguf  # noqa: PLC0415

    opened = open_gguf(path)
    require_convertible(opened)
    types = sorted({tensor.tensor_type.name for tensor in opened.tensors})

    def make(folder: Path, step: Step) -> str:
        write_gguf(opened, folder, partial(_tell, step))
        made = f"safetensors from {path.name}, dequantised from {', '.join(types)}"
        write_mark(folder, Mark(made, "bfloat16", dequantised=True))
        require_sound(folder)
        return made

    return needed_bytes(opened), make


def _tell(step: Step, done_bytes: int, total_bytes: int) -> None:
    step.progress(f"{size(done_bytes)} of {size(total_bytes)}")
