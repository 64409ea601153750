"""The catalogue of machine shapes: the package's own data, and an operator's own file of the same form.

An operator's file is ``$HEADRACE_SHAPES``, else ``shapes.toml`` in the data directory. What it names like the package's
own replaces that.
"""

from __future__ import annotations

import itertools
import os
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from headrace.hardware.shapes import Accelerator, Kind, Shape
from headrace.resources.errors import BadField

SHAPES_FILE = "shapes.toml"
SHAPES_VARIABLE = "HEADRACE_SHAPES"

MAX_FILE_BYTES = 1024 * 1024
"""The longest file of shapes that is read; the package's own has 10 kB."""

_GIGA, _TERA, _BILLION = 10**9, 10**12, 10**9
_OURS = resources.files("headrace.hardware") / "catalogue.toml"

Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e9)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class _Accelerator(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name
    memory_gb: Positive
    bandwidth_gb_per_s: Positive
    bf16_tflops: Positive | None = None
    fp16_tflops: Positive | None = None
    fp32_tflops: Positive | None = None
    fp8_tflops: Positive | None = None
    source: str = "the operator's file"


class _Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name
    kind: Kind = "operator"
    cores: Positive | None = None
    memory_gb: Positive | None = None
    accelerator: str = ""
    accelerator_count: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    usd_per_h: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_parameters_billions: Positive | None = None
    quota_share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    users: list[tuple[int, int, int, int]] = []
    source: str = "the operator's file"


class _MachineType(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: Name
    cores: Positive
    memory_gb: Positive


class _Attachable(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    accelerator: str
    count: Annotated[int, msgspec.Meta(ge=1, le=64)]
    most_cores: Positive


class _Series(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Machine types to which any of several accelerators may be attached."""

    kind: Kind = "operator"
    machine_types: list[_MachineType]
    accelerators: list[_Attachable]
    usd_per_core_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    usd_per_gb_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    usd_per_accelerator_h: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    source: str = "the operator's file"

    def shapes(self) -> Iterator[_Shape]:
        """Each pair that its cores allow, machine type by machine type."""
        for machine, attached in itertools.product(self.machine_types, self.accelerators):
            if machine.cores <= attached.most_cores:
                device_usd = self.usd_per_accelerator_h.get(attached.accelerator)
                bare_usd = machine.cores * self.usd_per_core_h + machine.memory_gb * self.usd_per_gb_h
                yield _Shape(
                    name=machine.name,
                    kind=self.kind,
                    cores=machine.cores,
                    memory_gb=machine.memory_gb,
                    accelerator=attached.accelerator,
                    accelerator_count=attached.count,
                    usd_per_h=None if device_usd is None else round(bare_usd + attached.count * device_usd, 2),
                    source=self.source,
                )


class _File(msgspec.Struct, forbid_unknown_fields=True):
    accelerator: list[_Accelerator] = []
    series: list[_Series] = []
    shape: list[_Shape] = []


class Catalogue(msgspec.Struct, frozen=True):
    """Accelerators by name, and shapes in the order of their files.

    Attributes:
        accelerators: By name.
        shapes: One for each machine type, accelerator and number of devices.
    """

    accelerators: dict[str, Accelerator]
    shapes: tuple[Shape, ...]

    def named(self, name: str) -> tuple[Shape, ...]:
        """The shapes of a machine type, in either case; several where it comes with several numbers of devices."""
        return tuple(shape for shape in self.shapes if shape.name.lower() == name.lower())


def read_catalogue(data_dir: Path | None = None) -> Catalogue:
    """The package's catalogue, and the operator's file over it.

    Args:
        data_dir: Where the operator's file may be.

    Raises:
        BadField: That file is not one; the evidence says what in it is wrong.
    """
    ours = _ours()
    named = os.environ.get(SHAPES_VARIABLE)
    path = Path(named) if named else (data_dir / SHAPES_FILE if data_dir else None)
    if path is None or not (named or path.is_file()):
        return ours
    return _over(ours, _read(path), str(path))


@cache
def _ours() -> Catalogue:
    content = msgspec.convert(tomllib.loads(_OURS.read_text(encoding="utf-8")), _File)
    return _over(Catalogue({}, ()), content, "catalogue.toml")


def _read(path: Path) -> _File:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a device has no end, and a pipe may never begin
            raise _bad(str(path), f"Its type is {stat.filemode(status.st_mode)}, and a file is wanted")
        if status.st_size > MAX_FILE_BYTES:
            raise _bad(str(path), f"It has {status.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as problem:
        raise _bad(str(path), str(problem)) from problem


def _over(base: Catalogue, content: _File, path: str) -> Catalogue:
    accelerators = base.accelerators | {each.name: _accelerator(each) for each in content.accelerator}
    in_series = itertools.chain.from_iterable(each.shapes() for each in content.series)
    shapes = [_shape(each, accelerators, path) for each in (*in_series, *content.shape)]
    keys = Counter(
        (each.name.lower(), each.accelerator and each.accelerator.name, each.accelerator_count) for each in shapes
    )
    if twice := sorted(name for (name, _accelerator, _count), times in keys.items() if times > 1):
        raise _bad(path, f"The shape {twice[0]} is there twice")
    names = {name for name, _accelerator, _count in keys}
    return Catalogue(accelerators, (*(each for each in base.shapes if each.name.lower() not in names), *shapes))


def _accelerator(given: _Accelerator) -> Accelerator:
    rates = {
        "bfloat16": given.bf16_tflops,
        "float16": given.fp16_tflops,
        "float32": given.fp32_tflops,
        "float8": given.fp8_tflops,
    }
    return Accelerator(
        name=given.name,
        memory_bytes=round(given.memory_gb * _GIGA),
        bandwidth_bytes_per_s=given.bandwidth_gb_per_s * _GIGA,
        flops_per_s={number_format: rate * _TERA for number_format, rate in rates.items() if rate},
        source=given.source,
    )


def _shape(given: _Shape, accelerators: dict[str, Accelerator], path: str) -> Shape:
    if bool(given.accelerator) != bool(given.accelerator_count):
        raise _bad(path, f"The shape {given.name} gives one of accelerator and accelerator_count and not the other")
    if given.accelerator and given.accelerator not in accelerators:
        raise _bad(path, f"The shape {given.name} has {given.accelerator}, which is no accelerator's name")
    if given.kind in {"vertex", "operator", "machine"} and not (given.cores and given.memory_gb):
        raise _bad(path, f"The shape {given.name} does not give both cores and memory_gb")
    return Shape(
        name=given.name,
        kind=given.kind,
        source=given.source,
        cores=given.cores or 0,
        memory_bytes=round((given.memory_gb or 0) * _GIGA),
        accelerator=accelerators[given.accelerator] if given.accelerator else None,
        accelerator_count=given.accelerator_count,
        usd_per_h=given.usd_per_h,
        max_parameters=round(given.max_parameters_billions * _BILLION) if given.max_parameters_billions else None,
        quota_share=given.quota_share,
        users=tuple(given.users),
    )


def _bad(path: str, evidence: str) -> BadField:
    return BadField(
        f"{path} is not a file of machine shapes.",
        evidence=f"{evidence}.",
        fix=f"Write it as docs/plan.md shows, or unset {SHAPES_VARIABLE}.",
    )
