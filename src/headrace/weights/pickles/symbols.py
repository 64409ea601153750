"""What a pickle may name, and what each name stands for here: a description, never the thing itself.

The names are those that ``torch.load(weights_only=True)`` takes (``torch/_weights_only_unpickler.py``), which is how
engines load these files: what it refuses would not load there either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

MAX_DIMENSIONS = 64
"""As for safetensors (`headrace.weights.header`)."""


class PickleRefused(Exception):
    """The bytes are not those of a pickle of tensors; the text says why."""


class Opaque(msgspec.Struct, frozen=True):
    """A value of which nothing needs to be known."""


class Global(msgspec.Struct, frozen=True):
    """A name that the pickle asks for. Nothing is imported."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """Both parts in one."""
        return f"{self.module}.{self.name}"


class Storage(msgspec.Struct, frozen=True):
    """Where the numbers lie.

    Attributes:
        key: Name of the record in the file.
        dtype: As safetensors calls it; empty where only each tensor says it.
        elements: How many numbers; bytes where ``dtype`` is empty.
    """

    key: str
    dtype: str
    elements: int


class Tensor(msgspec.Struct, frozen=True):
    """A view of a storage; offset and strides count elements.

    Attributes:
        altered: It shows its numbers negated or conjugated (``torch._utils.get_tensor_metadata``).
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    altered: bool = False

    @property
    def reach(self) -> int:
        """The elements of the storage up to and including the last that the view shows."""
        if 0 in self.shape:
            return 0
        return self.offset + 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "U16": 2, "U32": 4,
    "U64": 8, "BOOL": 1, "C64": 8, "C128": 16, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
}  # fmt: skip
"""Bytes of an element."""

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
    "UntypedStorage": "",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16", "half": "F16",
    "bfloat16": "BF16", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16",
    "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_STORAGE_MODULES = frozenset({"torch", "torch.storage", "torch.cuda"})
_OTHERS = frozenset(
    {
        *(f"collections.{name}" for name in ("OrderedDict", "Counter")),
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("bytearray", "complex", "set")),
        "_codecs.encode",
        *(f"torch.{name}" for name in ("Size", "Tensor", "device", "strided", "sparse_coo", "FloatTensor")),
        "torch._tensor._rebuild_from_type_v2",
        *(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
        *(f"torch._utils._rebuild_{name}" for name in ("parameter_with_state", "qtensor", "sparse_tensor")),
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.serialization._get_layout",
    }
)


def is_allowed(wanted: Global) -> bool:
    """Whether the name stands for plain data or a part of a tensor."""
    if wanted.module in _STORAGE_MODULES and wanted.name in _STORAGES:
        return True
    return (wanted.module == "torch" and wanted.name in _DTYPES) or wanted.dotted in _OTHERS


def call(wanted: Any, arguments: Any) -> Any:
    """What the pickle means by calling a name with arguments, as a description.

    Raises:
        PickleRefused: It would be a tensor, and its description is not one.
    """
    if not isinstance(wanted, Global) or not isinstance(arguments, tuple):
        return Opaque()
    if wanted.dotted == "torch._tensor._rebuild_from_type_v2" and len(arguments) >= 3:
        wanted, arguments = arguments[0], arguments[2]  # one level only: its own kind inside itself is not looked into
        if not isinstance(wanted, Global) or not isinstance(arguments, tuple):
            return Opaque()
    builder = _BUILDERS.get(wanted.dotted)
    return builder(arguments) if builder else Opaque()


def storage(reference: Any) -> Storage:
    """The storage that a persistent id names: ``('storage', type, key, location, elements)``.

    Raises:
        PickleRefused: It is none.
    """
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        _refuse("a reference is not one to a storage")
    _, kind, key, _, elements = reference[:5]
    if not isinstance(kind, Global) or kind.name not in _STORAGES:
        _refuse("a storage has no known element type")
    if not isinstance(key, str) or not _is_size(elements):
        _refuse("a storage has no name or no length")
    if len(reference) > 5 and reference[5] is not None:
        _refuse("a storage is a part of another, as torch wrote them before version 0.4")
    return Storage(key, _STORAGES[kind.name], elements)


def _tensor(arguments: tuple[Any, ...], dtype: str, notes: tuple[Any, ...] = ()) -> Tensor:
    if len(arguments) < 4:
        _refuse("a tensor is described by too few values")
    held, offset, shape, strides = arguments[:4]
    if not isinstance(held, Storage) or not _is_size(offset):
        _refuse("a tensor has no storage or no place in it")
    if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        _refuse("a tensor's shape and strides are not lists of sizes of one length")
    if not (dtype := dtype or held.dtype):
        _refuse("a tensor has no element type")
    if math.prod(shape) > 2**63:
        _refuse("a tensor has more elements than a file can hold")
    return Tensor(held, dtype, offset, shape, strides, altered=bool(notes and notes[0]))


def _dtype(value: tuple[Any, ...]) -> str:
    named = value[0] if value else None
    return _DTYPES.get(named.name, "") if isinstance(named, Global) and named.module == "torch" else ""


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _are_sizes(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MAX_DIMENSIONS and all(_is_size(each) for each in value)


def _refuse(reason: str) -> NoReturn:
    raise PickleRefused(reason)


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else Opaque()


def _nothing_yet(_arguments: tuple[Any, ...]) -> Any:
    return {}  # torch puts what is in it there afterwards, item by item


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _nothing_yet,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor": lambda arguments: _tensor(arguments, ""),
    "torch._utils._rebuild_tensor_v2": lambda arguments: _tensor(arguments, "", arguments[6:7]),
    "torch._utils._rebuild_tensor_v3": lambda arguments: _tensor(arguments, _dtype(arguments[6:7]), arguments[7:8]),
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
}
