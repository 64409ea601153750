"""Machine shapes as Vertex AI's clients write them: a machine type and an accelerator, by name or by number."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, MachineSpecIncomplete

ACCELERATOR_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0: "ACCELERATOR_TYPE_UNSPECIFIED",
        1: "NVIDIA_TESLA_K80",
        2: "NVIDIA_TESLA_P100",
        3: "NVIDIA_TESLA_V100",
        4: "NVIDIA_TESLA_P4",
        5: "NVIDIA_TESLA_T4",
        6: "TPU_V2",
        7: "TPU_V3",
        8: "NVIDIA_TESLA_A100",
        9: "NVIDIA_A100_80GB",
        10: "TPU_V4_POD",
        11: "NVIDIA_L4",
        12: "TPU_V5_LITEPOD",
        13: "NVIDIA_H100_80GB",
        14: "NVIDIA_H100_MEGA_80GB",
        15: "NVIDIA_H200_141GB",
        16: "NVIDIA_B200",
        17: "NVIDIA_GB200",
        18: "NVIDIA_RTX_PRO_6000",
    }
)
"""The enum ``google.cloud.aiplatform.v1beta1.AcceleratorType``, as in google-cloud-aiplatform 2.7.0."""

_NUMBERS = {name: number for number, name in ACCELERATOR_TYPES.items()}


def accelerator_type(value: object, path: str) -> str:
    """The name of an accelerator given as the enum's number, its name, or its name in lower case.

    Returns:
        The enum's name, or an empty string for ``ACCELERATOR_TYPE_UNSPECIFIED``.

    Raises:
        BadField: The enum has no such number or name.
    """
    name = ACCELERATOR_TYPES.get(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str):
        name = ACCELERATOR_TYPES.get(int(value)) if value.isdecimal() and value.isascii() else value.strip().upper()
    if name is None or name not in _NUMBERS:
        near = difflib.get_close_matches(str(name), _NUMBERS, n=1)
        raise BadField(
            f"{path} has no value {value!r}.",
            evidence=f"The accelerators are: {', '.join(list(_NUMBERS)[1:])}.",
            fix=f"Did you mean {near[0]}?" if near else "",
        )
    return name if _NUMBERS[name] else ""


def machine_spec(machine_type: str, accelerator: object, accelerator_count: int, path: str) -> MachineSpec:
    """The machine asked for: all three fields, or none and the platform picks.

    Args:
        machine_type: e.g. ``g2-standard-12``; empty when absent.
        accelerator: The accelerator's number or name; None when absent.
        accelerator_count: 0 when absent.
        path: The field that holds the three, for messages.

    Raises:
        BadField: The accelerator is unknown, or the count negative.
        MachineSpecIncomplete: Only some of the three are there.
    """
    name = "" if accelerator is None else accelerator_type(accelerator, f"{path}.acceleratorType")
    if accelerator_count < 0:
        raise BadField(f"{path}.acceleratorCount must not be negative.", evidence=f"It is {accelerator_count}.")
    given = {"machineType": machine_type, "acceleratorType": name, "acceleratorCount": accelerator_count}
    missing = [field for field, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        raise MachineSpecIncomplete(
            f"{path} names a machine only in part.",
            evidence=f"Missing: {', '.join(missing)}.",
            fix="Give machineType, acceleratorType and acceleratorCount, or none of them and the platform picks.",
        )
    return MachineSpec(machine_type=machine_type, accelerator_type=name, accelerator_count=accelerator_count)


def machine_spec_json(machine: MachineSpec) -> dict[str, object]:
    """The wire's ``MachineSpec``; empty when the platform picked."""
    shape: dict[str, object] = {}
    if machine.machine_type:
        shape["machineType"] = machine.machine_type
    if machine.accelerator_type:
        shape["acceleratorType"] = machine.accelerator_type
        shape["acceleratorCount"] = machine.accelerator_count
    return shape
