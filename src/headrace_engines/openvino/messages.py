"""What the shell and the process that computes tell each other, over a socket pair.

    shell ──Load, then Submit and Cancel──▶ worker
    shell ◀──Loaded, then Step──            worker         Fatal instead of either, and no more

A message is its length in four bytes, big end first, and then MessagePack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Generic, Literal, TypeVar

import msgspec

from headrace_engines.serving.fatal import FatalCode
from headrace_engines.serving.generator import GenerationRequest, TokenEvent

_LENGTH = struct.Struct(">I")


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What to load and how much of it to run.

    Attributes:
        folder: As `headrace_engines.convert` made it.
        dtype: ``float32``; or else bfloat16 is computed in, on a CPU that can. (float16 gives NaN on CPUs without it.)
        threads: CPU threads; None for one per core.
        max_model_len: Tokens of context; None takes the configuration's.
        kv_cache_bytes: Memory for keys and values; 0 for `kv_cache.OWN_BYTES`, or more where one context needs it.
        max_running: Sequences computed at once.
        prefix_caching: Whether prompts share what was computed of a common beginning.
        end_id: The tokeniser's end-of-sequence token; the folder's configurations may name more.
    """

    folder: str
    dtype: str
    threads: int | None
    max_model_len: int | None
    kv_cache_bytes: int
    max_running: int
    prefix_caching: bool = True
    end_id: int | None = None


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The pipeline stands."""

    max_model_len: int
    vocab_size: int


class Submit(msgspec.Struct, frozen=True, tag=True):
    """A sequence to compute, under a number of its own."""

    number: int
    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """A sequence that nobody waits for any more; it may have ended meanwhile."""

    number: int


class Failure(msgspec.Struct, frozen=True):
    """A sequence that cannot go on, or cannot begin: ``SAMPLING_IMPOSSIBLE`` is the request's own fault."""

    number: int
    code: FatalCode | Literal["SAMPLING_IMPOSSIBLE"]
    message: str


class Step(msgspec.Struct, frozen=True, tag=True):
    """What one step gave, and what runs after it.

    Attributes:
        events: New tokens, by the sequence's number.
        began: Sequences that were computed for the first time, and when that began, on the monotonic clock.
        failures: Sequences that ended without an answer.
        running: How many sequences there are in the pipeline.
        cache_used: The share of the key-value cache that they fill.
    """

    events: list[tuple[int, TokenEvent]]
    failures: list[Failure]
    running: int
    cache_used: float
    began: list[tuple[int, float]] = []


class Fatal(msgspec.Struct, frozen=True, tag=True):
    """Nothing can be computed (any more); a `FatalError` on its way."""

    code: FatalCode
    message: str
    evidence: str


ToWorker = Load | Submit | Cancel
FromWorker = Loaded | Step | Fatal

_encoder = msgspec.msgpack.Encoder()
_Message = TypeVar("_Message")


def framed(message: ToWorker | FromWorker) -> bytes:
    """A message as it goes over the socket."""
    content = _encoder.encode(message)
    return _LENGTH.pack(len(content)) + content


class Inbox(Generic[_Message]):
    """Bytes as they come, and whole messages out of them.

    Args:
        kinds: The union of what may come.
    """

    def __init__(self, kinds: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[_Message] = msgspec.msgpack.Decoder(kinds)
        self._buffer = bytearray()

    def messages(self, data: bytes) -> Iterator[_Message]:
        """The messages that are whole now that `data` came."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield self._decoder.decode(content)
