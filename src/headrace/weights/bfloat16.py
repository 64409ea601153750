"""float32 to bfloat16 in NumPy, which has no such type: 16-bit words that hold one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


_BLOCK = 64 * 1024
"""Numbers that are rounded together: few enough to stay in a core's own cache from one step to the next."""


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to the even one, as hardware and torch do.

    What is too large becomes infinity, as theirs does; a NaN stays one, with its sign.
    """
    import numpy as np  # noqa: PLC0415  # imported by conversions only: everything else goes without

    bits = np.ascontiguousarray(values).view(np.uint32).reshape(-1)
    words = np.empty(bits.shape, np.uint16)
    for start in range(0, len(bits), _BLOCK):
        _round(bits[start : start + _BLOCK], words[start : start + _BLOCK])
    return words.reshape(values.shape)


def _round(bits: npt.NDArray[np.uint32], words: npt.NDArray[np.uint16]) -> None:
    import numpy as np  # noqa: PLC0415  # see above

    # Half of the last kept place, or just under it when that place is even, carries exactly when it should.
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    words[:] = rounded
    np.bitwise_and(bits, np.uint32(0x7FFFFFFF), out=rounded)
    if rounded.max() > np.uint32(0x7F800000):  # a NaN: rounding may carry it into an infinity, or out of it into zero
        not_a_number = rounded > np.uint32(0x7F800000)
        words[not_a_number] = (bits[not_a_number] >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
