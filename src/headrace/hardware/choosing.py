"""The documents' rule for machines: machine type, accelerator type and count, all three or none.

A machine type without accelerators, and a size such as ``WX-S``, has nothing to say of the other two; nor has one to
which several may be attached, and need not be.
"""

from __future__ import annotations

import difflib

import msgspec

from headrace.hardware.catalogue import Catalogue
from headrace.hardware.shapes import Shape
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, MachineSpecIncomplete


def require_all_or_none(machine: MachineSpec) -> None:
    """Hold the rule.

    Raises:
        MachineSpecIncomplete: One or two of the three are given.
    """
    given = {
        "machine type": bool(machine.machine_type),
        "accelerator type": bool(machine.accelerator_type),
        "accelerator count": machine.accelerator_count > 0,
    }
    missing = [name for name, there in given.items() if not there]
    if 0 < len(missing) < len(given):
        raise MachineSpecIncomplete(
            "Machine type, accelerator type and accelerator count go together: all three or none.",
            evidence=f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            fix="Add what is missing (`headrace plan --shapes` lists machines), or leave all out: the platform picks.",
        )


def find_shape(catalogue: Catalogue, machine: MachineSpec) -> Shape | None:
    """The shape that a request names; None where it names none and the platform picks.

    What has no accelerators is named by its type alone; so is what has none attached, such as ``n1-standard-4``.

    Raises:
        MachineSpecIncomplete: One or two of the three are given.
        BadField: There is no such machine type, or it does not have these devices; the evidence says what there is.
    """
    if machine.machine_type and not machine.accelerator_type and not machine.accelerator_count:
        named = _of_type(catalogue, machine.machine_type)
        bare = [shape for shape in named if shape.accelerator is None]
        if bare:
            return bare[0]
        if without := _without_devices(named):
            return without
        _require_its_devices(named)
    require_all_or_none(machine)
    if not machine.machine_type:
        return None
    shapes = _of_type(catalogue, machine.machine_type)
    for shape in shapes:
        name = shape.accelerator.name if shape.accelerator else ""
        if (name, shape.accelerator_count) == (machine.accelerator_type, machine.accelerator_count):
            return shape
    raise BadField(
        f"{machine.machine_type} does not have {machine.accelerator_count} × {machine.accelerator_type}.",
        evidence=f"It has {_what_there_is(shapes)}.",
        fix=_instead(catalogue, shapes, machine),
    )


def _without_devices(shapes: tuple[Shape, ...]) -> Shape | None:
    """A machine type to which one of several accelerators may be attached, with none."""
    if len({shape.accelerator.name for shape in shapes if shape.accelerator}) < 2:
        return None
    return msgspec.structs.replace(shapes[0], accelerator=None, accelerator_count=0, usd_per_h=None)


def _require_its_devices(shapes: tuple[Shape, ...]) -> None:
    """Say which accelerators a machine type is to be named with."""
    device, count = next((each.accelerator.name, each.accelerator_count) for each in shapes if each.accelerator)
    raise MachineSpecIncomplete(
        f"{shapes[0].name} comes with accelerators: they are named with it.",
        evidence=f"It has {_what_there_is(shapes)}.",
        fix=f"Add --accelerator-type {device} --accelerator-count {count}; or leave all three out.",
    )


def _instead(catalogue: Catalogue, shapes: tuple[Shape, ...], machine: MachineSpec) -> str:
    """What to ask for: what the machine type has, or a machine type that has what was asked for."""
    having = [
        each.name
        for each in catalogue.shapes
        if each.accelerator
        and (each.accelerator.name, each.accelerator_count) == (machine.accelerator_type, machine.accelerator_count)
    ]
    wanted = f"{machine.accelerator_count} × {machine.accelerator_type}"
    elsewhere = f", or for {' or '.join(having[:3])}, which has {wanted}" if having else ""
    if not any(shape.accelerator for shape in shapes):
        return f"Leave out accelerator type and count{elsewhere}."
    return f"Ask for what it has{elsewhere}; or leave all three out."


def shape_by_name(catalogue: Catalogue, name: str) -> Shape:
    """The shape of a name, as the command line takes it: ``NAME``, ``NAME:COUNT`` or ``NAME:ACCELERATOR:COUNT``.

    Without a count it is the one with the fewest devices.

    Raises:
        BadField: There is no such shape, or it does not have these devices; the evidence says what there is.
        MachineSpecIncomplete: An accelerator is named without a count.
    """
    machine_type, _, rest = name.partition(":")
    accelerator, _, count = rest.rpartition(":")
    if accelerator or not (count.isdigit() or not count):
        machine = MachineSpec(
            machine_type=machine_type,
            accelerator_type=accelerator or count,
            accelerator_count=int(count) if count.isdecimal() else 0,
        )
        if shape := find_shape(catalogue, machine):
            return shape
    shapes = _of_type(catalogue, machine_type)
    if not count:
        return min(shapes, key=lambda shape: shape.accelerator_count)
    for shape in shapes:
        if str(shape.accelerator_count) == count:
            return shape
    raise BadField(
        f"{machine_type} does not come with {count} accelerators.",
        evidence=f"It has {_what_there_is(shapes)}.",
        fix="Ask for what it has: `headrace plan --shapes` lists all.",
    )


def cheapest_first(shapes: tuple[Shape, ...]) -> list[Shape]:
    """Shapes that have a price, from cheap to dear; of one price the one with less memory first."""
    priced = [shape for shape in shapes if shape.usd_per_h is not None]
    return sorted(
        priced, key=lambda shape: (shape.usd_per_h or 0, shape.device_bytes * max(1, shape.accelerator_count))
    )


def next_up(catalogue: Catalogue, shape: Shape, devices: int = 1) -> Shape | None:
    """The cheapest of the shapes that have more memory for a model than one on which it failed; None where none has.

    More memory is more of each device: a model that lies on one gains nothing from a second one.

    Args:
        catalogue: All shapes.
        shape: The one on which it failed.
        devices: How many of them share the model.
    """
    larger = (
        each
        for each in cheapest_first(catalogue.shapes)
        if bool(each.accelerator) == bool(shape.accelerator)
        and max(1, each.accelerator_count) >= devices
        and each.device_bytes > shape.device_bytes
    )
    return next(larger, None)


def _of_type(catalogue: Catalogue, machine_type: str) -> tuple[Shape, ...]:
    shapes = catalogue.named(machine_type)
    if not shapes:
        names = list(dict.fromkeys(shape.name for shape in catalogue.shapes))
        by_lower = {name.lower(): name for name in names}
        near = [by_lower[each] for each in difflib.get_close_matches(machine_type[:80].lower(), by_lower, n=3)]
        meant = f"Did you mean {near[0]}? " if near else ""
        raise BadField(
            f"There is no machine type {machine_type[:80]!r}.",
            evidence=f"The nearest are {', '.join(near)}, of {len(names)}."
            if near
            else f"There are {', '.join(names[:4])} and {len(names) - 4} more.",
            fix=f"{meant}Name one that there is, or add your own to shapes.toml: `headrace plan --shapes` lists all.",
        )
    return shapes


def _what_there_is(shapes: tuple[Shape, ...]) -> str:
    with_devices = [f"{each.accelerator_count} × {each.accelerator.name}" for each in shapes if each.accelerator]
    return " or ".join(with_devices) or "no accelerators"
