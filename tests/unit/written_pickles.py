"""What ``torch.save`` writes, written by hand instruction by instruction: there is no torch on this side."""

from __future__ import annotations

import io
import struct
import zipfile
from math import prod

import numpy as np

KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",  # NumPy has no bfloat16: words that hold one
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
}


def zipped(content, records=(("data/0", b"\0" * 64),), *, method=zipfile.ZIP_STORED, name="archive/data.pkl"):
    """A zip as torch writes it, around a pickle."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr(name, content)
        for record, held in records:
            archive.writestr(f"archive/{record}", held)
    return target.getvalue()


class Named:
    """Writes a name as it is, whether or not there is such a thing here."""

    def __init__(self, module, name):
        self.line = f"c{module}\n{name}\n".encode()


def tensor(key="0", *, kind="FloatStorage", elements=16, offset=0, shape=(4, 4), strides=(4, 1)):
    """The instructions that describe a tensor, written by hand as torch's pickler writes them."""
    reference = b"(" + text("storage") + Named("torch", kind).line + text(key) + text("cpu") + number(elements) + b"tQ"
    sizes = b"(" + b"".join(number(n) for n in shape) + b"t" + b"(" + b"".join(number(n) for n in strides) + b"t"
    arguments = b"(" + reference + number(offset) + sizes + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"t"
    return Named("torch._utils", "_rebuild_tensor_v2").line + arguments + b"R"


def state(**values):
    """A pickle of a dict of tensors, each given by its instructions."""
    items = b"".join(text(name) + value for name, value in values.items())
    return b"\x80\x02}(" + items + b"u."


def pickle_of_zeros(tensors):
    """A file of ``torch.save``: tensors by name, given as storage's kind, bytes of an element and shape."""
    values, records = {}, []
    for number, (name, (kind, item_bytes, shape)) in enumerate(tensors.items()):
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        values[name] = tensor(str(number), kind=kind, elements=prod(shape), shape=shape, strides=strides)
        records.append((f"data/{number}", b"\0" * (prod(shape) * item_bytes)))
    return zipped(state(**values), records)


def text(value):
    """The instruction for a text."""
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value):
    """The instruction for a whole number."""
    content = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def saved(arrays, **options):
    """A file of ``torch.save``: arrays that are views of one array share a storage, as views of a tensor do."""
    values, records, keys = {}, [], {}
    for name, array in arrays.items():
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        flat = root.reshape(-1)
        key = keys.setdefault(id(root), str(len(keys)))
        if key == str(len(records)):
            records.append((f"data/{key}", flat.tobytes()))
        values[name] = tensor(
            key,
            kind=KINDS[array.dtype.name],
            elements=flat.size,
            offset=(array.ctypes.data - root.ctypes.data) // array.itemsize if array.size else 0,
            shape=array.shape,
            strides=tuple(stride // array.itemsize for stride in array.strides),
        )
    return zipped(state(**values), records, **options)
