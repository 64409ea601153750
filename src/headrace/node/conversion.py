"""Runs a conversion: once for each content and key, beside its name until it is whole, and leaves nothing behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.resources.errors import (
    Cancelled,
    ConversionFailed,
    DiskFull,
    EngineBadTensor,
    Failure,
    HeadraceError,
    TokenizerInvalid,
    error_from,
)
from headrace.runtimes import Conversion, EngineEnd, Environment, Installable, ending
from headrace.runtimes.child import run_to_end
from headrace.storage import Room, any_room, make_whole

PROGRESS_PREFIX = "HEADRACE_PROGRESS "
"""How a converter of ours begins a line that tells what it does (`headrace_engines.convert.program`)."""

Install = Callable[[Installable], Environment]
"""Makes the converter's environment, or finds it made."""

Progress = Callable[[str, int, int], None]
"""Takes a sentence for a person, the bytes written so far and about how many there will be."""

_BESIDE_WEIGHTS_BYTES = 128 * 1024 * 1024
"""Room for the tokenizer's models and the small files; a tokenizer of 262,144 tokens makes about 60 MB of them."""

_KEPT_LINES = 200


class Converted(NamedTuple):
    """What a conversion came to.

    Attributes:
        folder: What the runtime loads.
        what: The form it is in and what it was made from, as a part of a sentence.
        anew: It was not there before.
    """

    folder: Path
    what: str
    anew: bool


class _Told(msgspec.Struct):
    detail: str


class _Refused(ConversionFailed):
    """The converter looked at the model and does not take it; another may."""


def convert(
    conversion: Conversion,
    source: Path,
    install: Install,
    tell: Progress,
    cancelled: Callable[[], bool],
    *,
    room: Room = any_room,
) -> Converted:
    """The converted folder: found, waited for, or made. It lies beside its source, as ``SOURCE.KEY``.

    Args:
        conversion: What to make.
        source: The staged model.
        install: For the converter's environment.
        tell: Told what is done.
        cancelled: Asked twice a second; once it is true the program is ended and its folder removed.
        room: For what is made.

    Returns:
        The folder, the `Conversion.reason` of the way that it was made in, and whether it was made now.

    Raises:
        Cancelled: ``cancelled()`` became true.
        ConversionFailed: The program failed, and no other way is left.
        DiskFull: There is no room, before it begins or on the way.
        HeadraceError: The converter's environment could not be made.
    """
    way: Conversion | None = conversion
    while way is not None:
        if (final := _folder(way, source)).is_dir():
            return Converted(final, way.reason, anew=False)
        way = way.otherwise
    while True:
        try:
            made = _convert(conversion, source, install, tell, cancelled, room=room)
            return Converted(made, conversion.reason, anew=True)
        except _Refused as refusal:
            if conversion.otherwise is None:
                raise
            tell(f"{refusal.message} ({refusal.evidence}) So it is done another way.", 0, 0)
            conversion = conversion.otherwise


def _folder(conversion: Conversion, source: Path) -> Path:
    return source.with_name(f"{source.name}.{conversion.key}")


def _convert(
    conversion: Conversion,
    source: Path,
    install: Install,
    tell: Progress,
    cancelled: Callable[[], bool],
    *,
    room: Room,
) -> Path:
    total_bytes = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    environment = install(conversion.converter)

    def make(target: Path, lock: int) -> None:
        command = conversion.command(source, target, environment)
        last: deque[str] = deque(maxlen=_KEPT_LINES)
        step = "starting"

        def hear(line: str | None) -> None:
            nonlocal step
            if line is not None and line.startswith(PROGRESS_PREFIX):
                step = msgspec.json.decode(line.removeprefix(PROGRESS_PREFIX), type=_Told).detail
            elif line is not None:
                last.append(line)
            tell(f"{conversion.reason}; {step}.", min(_written_bytes(target), total_bytes), total_bytes)

        status = run_to_end(command.argv, command.env, lock, hear, cancelled)
        if status is None:
            raise Cancelled("The conversion was cancelled.")
        if status != 0:
            raise _failure(conversion, ending.classify(EngineEnd(exit_status=status, log_tail=tuple(last))), status)

    tell(f"{conversion.reason}; waiting for its turn.", 0, total_bytes)
    name, needed_bytes = _folder(conversion, source).name, total_bytes + _BESIDE_WEIGHTS_BYTES
    with room(name, needed_bytes):
        return make_whole(source.parent, name, needed_bytes, make, cancelled)


def _written_bytes(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _failure(conversion: Conversion, said: Failure, status: int) -> HeadraceError:
    if said.code in {EngineBadTensor.code, TokenizerInvalid.code}:
        return error_from(said)  # the folder is at fault, and on every runtime
    if said.code == DiskFull.code:
        fix = "`headrace clean` shows what can go; or move the data directory to a larger disk."
        return DiskFull(said.message, evidence=said.evidence, fix=fix)
    what = f"It was not converted to {conversion.reason}"
    if said.code == ConversionFailed.code:
        fix = "Deploy it on another runtime: --runtime transformers serves it without a conversion."
        return _Refused(f"{what}: {said.message}", evidence=said.evidence, fix=fix)
    if said.code == "ENGINE_OUT_OF_MEMORY" or status == -9:
        return ConversionFailed(
            f"{what}: the converter ran out of memory, or was killed.",
            evidence=said.evidence,
            fix="Stop what else uses this machine's memory and deploy again, or deploy on another runtime.",
        )
    return ConversionFailed(f"{what}: {said.message}", evidence=said.evidence, fix="Deploy it on another runtime.")
