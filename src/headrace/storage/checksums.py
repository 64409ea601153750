"""What stores say of their objects' content, and holding files against it.

Each driver has its own place and spelling: Google Cloud Storage an MD5 and a CRC32C, Azure an MD5, the Hub a SHA-256 of
large files and Git's own hash of small ones. An S3 entity tag is the content's MD5 only where the object was written in
one part and not encrypted with a key of a key service, which a listing does not tell: so S3 is asked for each object.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

try:
    import google_crc32c

    _HAS_CRC32C = google_crc32c.implementation == "c"  # the other one is slower than any network
except ImportError:  # it comes with gcsfs
    _HAS_CRC32C = False

_MD5 = re.compile(r"[0-9a-f]{32}")
_S3_CHECKSUMS = (
    ("ChecksumSHA256", "sha256"),
    ("ChecksumSHA1", "sha1"),
    ("ChecksumCRC32", "crc32"),
    *([("ChecksumCRC32C", "crc32c")] if _HAS_CRC32C else []),
)


class Checksum(msgspec.Struct, frozen=True):
    """A digest as a store gives it.

    Attributes:
        algorithm: ``md5``, ``sha256``, ``sha1``, ``crc32``, ``crc32c``, or ``git-sha1`` for SHA-1 over Git's header and
            content.
        digest: Hexadecimal, in lower case.
    """

    algorithm: str
    digest: str


def from_listing(info: Mapping[str, Any]) -> Checksum | None:
    """What a driver's listing says of an object; None where it says nothing that can be held."""
    lfs = info.get("lfs")
    sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)
    if sha256:
        return Checksum("sha256", str(sha256).lower())
    if blob := info.get("blob_id"):
        return Checksum("git-sha1", str(blob).lower())
    if _HAS_CRC32C and (crc := info.get("crc32c")):  # a tenth of MD5's time, and composed objects have it too
        return Checksum("crc32c", _hexadecimal(crc))
    settings = info.get("content_settings")
    md5 = info.get("md5Hash") or info.get("content_md5") or _field(settings, "content_md5")
    if md5:
        return Checksum("md5", _hexadecimal(md5))
    return None


def from_s3_head(head: Mapping[str, Any]) -> Checksum | None:
    """What S3's answer to HEAD, asked with ``ChecksumMode=ENABLED``, says of an object; of whole objects only."""
    if head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        for field, algorithm in _S3_CHECKSUMS:
            if (value := head.get(field)) and "-" not in value:
                return Checksum(algorithm, _hexadecimal(value))
    tag = str(head.get("ETag", "")).strip('"')
    plain = head.get("ServerSideEncryption", "AES256") == "AES256" and not head.get("SSECustomerAlgorithm")
    return Checksum("md5", tag) if plain and _MD5.fullmatch(tag) else None


class Digest(Protocol):
    """What a content adds up to, piece by piece."""

    def update(self, piece: bytes, /) -> None:
        """The next bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, piece: bytes, /) -> None:
        self._value = zlib.crc32(piece, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    def __init__(self) -> None:
        self._value = 0

    def update(self, piece: bytes, /) -> None:
        self._value = google_crc32c.extend(self._value, piece)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def digest(algorithm: str, size_bytes: int) -> Digest:
    """An empty one, for a content of this length."""
    if algorithm == "crc32":
        return _Crc32()
    if algorithm == "crc32c":
        return _Crc32c()
    hasher = hashlib.new("sha1" if algorithm == "git-sha1" else algorithm, usedforsecurity=False)
    if algorithm == "git-sha1":
        hasher.update(b"blob %d\0" % size_bytes)
    return hasher


def _field(holder: object, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _hexadecimal(value: Any) -> str:
    """Of raw bytes, or of base64."""
    raw = bytes(value) if isinstance(value, bytes | bytearray) else base64.b64decode(str(value))
    return raw.hex()
