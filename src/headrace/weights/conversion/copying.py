"""The numbers of one tensor from one file to another: straight through where they lie as they should."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from headrace.resources.errors import ArtifactsChanged
from headrace.weights.bfloat16 import to_bfloat16
from headrace.weights.conversion.layout import PlannedTensor
from headrace.weights.conversion.tensors import StoredTensor
from headrace.weights.header import BITS_BY_DTYPE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PIECE_BYTES = 16 * 1024 * 1024
"""How much is copied at once: between two looks at cancellation, and what memory a conversion takes for numbers."""

_COLUMNS = 64

_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
"""What `os.copy_file_range` answers where the kernel or one of the two file systems cannot do it."""

Told = Callable[[int], None]
"""Called with the bytes of each piece that was written."""


def copy_tensor(tensor: PlannedTensor, source: int, target: int, told: Told) -> None:
    """Write a tensor's numbers at the position of the descriptor ``target``, in the order that safetensors has.

    Args:
        tensor: What to write.
        source: A descriptor of the file that it is in.
        target: Where it goes.
        told: Told of each piece; may raise to stop.

    Raises:
        ArtifactsChanged: The source has become shorter.
    """
    stored = tensor.source
    if tensor.dtype == stored.dtype and stored.strides is None:
        _copy_straight(stored, source, target, told)
        return
    pieces = _straight_pieces(stored, source) if stored.strides is None else _strided_pieces(stored, source)
    for piece in pieces:
        content = piece if tensor.dtype == stored.dtype else _rounded(piece, stored.dtype)
        view = memoryview(content.data).cast("B")
        told(len(view))
        write_all(target, view)


def write_all(target: int, content: memoryview | bytes) -> None:
    """Write all of it, however little the kernel takes at once."""
    view = memoryview(content)
    while view:
        view = view[os.write(target, view) :]


def _copy_straight(stored: StoredTensor, source: int, target: int, told: Told) -> None:
    at, end = stored.begins_at, stored.begins_at + stored.size_bytes
    in_kernel = True
    while at < end:
        wanted = min(PIECE_BYTES, end - at)
        if in_kernel:
            try:
                count = os.copy_file_range(source, target, wanted, offset_src=at)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                in_kernel = False
                continue
        else:
            piece = os.pread(source, wanted, at)
            write_all(target, piece)
            count = len(piece)
        if not count:
            raise _shorter(stored)
        at += count
        told(count)


def _straight_pieces(stored: StoredTensor, source: int) -> Iterator[npt.NDArray[Any]]:
    import numpy as np  # noqa: PLC0415  # a copy that goes straight through goes without

    at, end = stored.begins_at, stored.begins_at + stored.size_bytes
    while at < end:
        piece = os.pread(source, min(PIECE_BYTES, end - at), at)
        whole = len(piece) - len(piece) % _item_bytes(stored)
        if not whole:
            raise _shorter(stored)
        yield np.frombuffer(piece, dtype=_word(stored), count=whole // _item_bytes(stored))
        at += whole


def _strided_pieces(stored: StoredTensor, source: int) -> Iterator[npt.NDArray[Any]]:
    """The view's numbers in order, a bounded number at a time; the file is mapped, never read whole."""
    import numpy as np  # noqa: PLC0415  # see above

    assert stored.strides is not None, "what lies in order is copied straight"
    reach = 1 + sum((n - 1) * stride for n, stride in zip(stored.shape, stored.strides, strict=True))
    if os.fstat(source).st_size < stored.begins_at + reach * _item_bytes(stored):
        raise _shorter(stored)
    page_at = stored.begins_at - stored.begins_at % mmap.ALLOCATIONGRANULARITY
    skipped = stored.begins_at - page_at
    length = skipped + reach * _item_bytes(stored)
    # Not closed by hand: the map goes with the last array that shows it.
    mapped = mmap.mmap(source, length, offset=page_at, access=mmap.ACCESS_READ)
    flat = np.frombuffer(mapped, dtype=_word(stored), count=reach, offset=skipped)
    strides = tuple(stride * _item_bytes(stored) for stride in stored.strides)
    yield from _pieces(np.lib.stride_tricks.as_strided(flat, stored.shape, strides, writeable=False))


def _pieces(view: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    if view.nbytes <= PIECE_BYTES:
        yield _in_order(view)
        return
    rows = max(1, PIECE_BYTES // (view.nbytes // len(view)))
    for start in range(0, len(view), rows):
        part = view[start : start + rows]
        if part.nbytes > PIECE_BYTES and part.ndim > 1:
            yield from _pieces(part[0])
        else:
            yield _in_order(part)


def _in_order(view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy, a few columns at a time: what lies transposed is read as it lies, 3 to 5 times as fast as by NumPy."""
    import numpy as np  # noqa: PLC0415  # see above

    copied = np.empty(view.shape, view.dtype)
    if not view.ndim:
        copied[...] = view
    for start in range(0, view.shape[-1] if view.ndim else 0, _COLUMNS):
        copied[..., start : start + _COLUMNS] = view[..., start : start + _COLUMNS]
    return copied


def _rounded(piece: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.uint16]:
    import numpy as np  # noqa: PLC0415  # see above

    if dtype == "F16":
        return to_bfloat16(piece.view(np.float16).astype(np.float32))
    return to_bfloat16(piece.view(np.float32))


def _item_bytes(stored: StoredTensor) -> int:
    return BITS_BY_DTYPE[stored.dtype] // 8


def _word(stored: StoredTensor) -> str:
    """NumPy's little-endian word of an element's width: only its bytes count."""
    return f"<u{_item_bytes(stored)}"


def _shorter(stored: StoredTensor) -> ArtifactsChanged:
    return ArtifactsChanged(
        f"{stored.file} changed while it was converted.",
        evidence=f"It ends before the numbers of {stored.name[:120]} do.",
        fix="Convert again once nothing writes there.",
    )
