"""PNG files of one colour, written by hand: no library for pictures is wanted for this."""

import base64
import struct
import zlib

RED, BLUE = (255, 0, 0), (0, 0, 255)


def png(width: int, height: int, colour: tuple[int, int, int]) -> str:
    """The file as a ``data:`` URL."""
    lines = zlib.compress((b"\0" + bytes(colour) * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # eight bits of each colour, not interlaced
    file = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", lines) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
