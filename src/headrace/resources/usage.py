"""What requests used: the gateway's record of each, the lines that hold it on disk, and the sums that are kept.

A line is the CRC-32 of what follows in eight hexadecimal digits, a space, a record as JSON, a line feed. So a reader
can tell a whole line from what a full disk or a power cut left of one.
"""

from __future__ import annotations

import zlib
from enum import StrEnum

import msgspec

USAGE_FOLDER = "usage"
"""Beside the gateway's routing snapshot."""

SEGMENT_SUFFIX = ".usage"
"""Of the files there. One that its gateway still writes is locked (``flock``) as long as that process lives."""

HOUR_S = 3600

_CHECKSUM_BYTES = 8


class Service(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request was served, as its client had it.

    Attributes:
        failed: Whether it failed, broke off or found no place by the fault of what answers it. A request that was
            refused for its own or its key's sake, or whose client left, did not.
        first_token_s: Of a stream: from when it was known what answers it, so that waiting for a turn is in it.
        inter_token_s: Of a stream: the mean time between two of its pieces.
        abandoned: The client left before the first token came: `first_token_s` is how long it had waited.
    """

    failed: bool = False
    first_token_s: float | None = None
    inter_token_s: float | None = None
    abandoned: bool = False


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One inference request that was sent to an engine, or found no place there while its endpoint was watched.

    Attributes:
        at: Unix seconds when its answer was whole, or broke off.
        prompt_tokens: As the engine told them; 0 where it told nothing.
        completion_tokens: As the engine told them; of an answer that broke off before, how many pieces of text were
            passed on.
        finished: Whether its whole answer went out. Else it was refused by the engine, failed or broke off.
        inexact: Whether the tokens are only a lower bound, because the engine did not come to tell them.
        sent: Whether it was sent to an engine. What was not is in no sum of what was used.
        service: How it was served; None unless a rollout watches its endpoint.
    """

    request_id: str
    at: float
    key_id: str
    project: str
    location: str
    endpoint_id: str
    deployed_model_id: str
    model_id: str
    model_version: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = True
    inexact: bool = False
    sent: bool = True
    service: Service | None = None

    @property
    def hour_at(self) -> int:
        """Unix seconds of the beginning of its hour."""
        return hour_of(self.at)


class UsageBy(StrEnum):
    """What sums of usage can be told apart by."""

    KEY = "key"
    ENDPOINT = "endpoint"
    MODEL = "model"  # and its version


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of one kind used.

    Attributes:
        of: What they have in common: names of columns and their values.
        requests: Those that were sent to an engine.
        unfinished: How many of them did not get a whole answer.
        inexact: How many of them have only a lower bound of their tokens here.
    """

    of: dict[str, str]
    requests: int = 0
    unfinished: int = 0
    inexact: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ReadLines(msgspec.Struct, frozen=True):
    """What some bytes of a segment held.

    Attributes:
        size_bytes: Of all whole lines; what comes behind is the beginning of another one.
        torn: Lines that are none: their checksum is wrong.
    """

    records: list[UsageRecord]
    size_bytes: int
    torn: int


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(UsageRecord)


def hour_of(at: float) -> int:
    """Unix seconds of the beginning of an hour."""
    return int(at // HOUR_S) * HOUR_S


def to_line(record: UsageRecord) -> bytes:
    """The record as a line of a segment."""
    content = _ENCODER.encode(record)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def read_lines(part: bytes) -> ReadLines:
    """The records in a part of a segment that begins where a line does."""
    *lines, rest = part.split(b"\n")
    records = [record for record in map(_read_line, lines) if record is not None]
    return ReadLines(records, len(part) - len(rest), len(lines) - len(records))


def _read_line(line: bytes) -> UsageRecord | None:
    content = line[_CHECKSUM_BYTES + 1 :]
    if line[: _CHECKSUM_BYTES + 1] != b"%08x " % zlib.crc32(content):
        return None
    try:
        return _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
