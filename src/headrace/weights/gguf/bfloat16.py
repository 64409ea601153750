"""float32 to bfloat16 in NumPy, which has no such type: 16-bit words that hold one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to the even one, as hardware and torch do.

    Args:
        values: Finite numbers. (A NaN would need a case of its own here; a model that holds one is refused instead.)
    """
    import numpy as np  # noqa: PLC0415  # see source.py

    bits = np.ascontiguousarray(values).view(np.uint32)
    # Half of the last kept place, or just under it when that place is even, carries exactly when it should.
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype(np.uint16)
