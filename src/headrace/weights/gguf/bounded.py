"""The gguf library's reader with bounds: it makes an object of every value, as many as the file says there are."""

from __future__ import annotations

from typing import Any

from gguf import GGUFReader

from headrace.weights.header import MAX_TENSORS

MAX_VALUES = 4_000_000
"""The most values of a file, an array's each counted; tokens, kinds, scores and merges of 262,144 tokens are 1.3
million."""

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""The longest text: a chat template has some kilobytes."""

MAX_NESTING = 4
"""Arrays within arrays; no writer known has any."""


class BoundedReader(GGUFReader):  # type: ignore[misc]  # the library does not say its types
    """Reads a file as `GGUFReader` does; more than any model has is a `ValueError`."""

    _values = 0
    _nesting = 0

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[Any]]:
        self._values += 1
        if self._values > MAX_VALUES:
            raise ValueError(f"its metadata has more than {MAX_VALUES:,} values")
        if self._nesting > MAX_NESTING:
            raise ValueError(f"its metadata has more than {MAX_NESTING} arrays within each other")
        self._nesting += 1
        found: tuple[int, list[Any], list[int], list[Any]] = super()._get_field_parts(orig_offs, raw_type)
        self._nesting -= 1
        return found

    def _get_str(self, offset: int) -> tuple[Any, Any]:
        length = int(self._get(offset, "u8")[0])
        if length > MAX_TEXT_BYTES:
            raise ValueError(f"a text has {length:,} bytes; at most {MAX_TEXT_BYTES:,} are read")
        found: tuple[Any, Any] = super()._get_str(offset)
        return found

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list[Any]]:
        if count > MAX_TENSORS:
            raise ValueError(f"it has {count:,} tensors; at most {MAX_TENSORS:,} are looked at")
        found: tuple[int, list[Any]] = super()._build_tensor_info(offs, count)
        return found
