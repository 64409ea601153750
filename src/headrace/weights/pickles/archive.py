"""The zip that ``torch.save`` writes: one pickle, ``NAME/data.pkl``, and a record of bytes for each storage."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping

import msgspec

from headrace.weights.pickles.symbols import PickleRefused
from headrace.weights.pickles.window import Window
from headrace.weights.reader import FolderReader

MAX_PICKLE_BYTES = 16 * 1024 * 1024
"""The longest pickle that is read; a tensor takes 150 to 250 bytes of it."""

_PICKLE = "data.pkl"


class Record(msgspec.Struct, frozen=True):
    """Where the zip keeps the numbers of one storage.

    Attributes:
        header_at: The byte of the file where the record's own header begins; the numbers follow it.
        size_bytes: How many bytes of numbers.
        packed: They are compressed, which ``torch.save`` never does and ``torch.load`` takes.
    """

    header_at: int
    size_bytes: int
    packed: bool


class Archive(msgspec.Struct, frozen=True):
    """What is in the zip.

    Attributes:
        pickle: The pickle's bytes.
        records: Each storage's record, by the key that the pickle names it with.
        byte_order: The record that says in which order the numbers' bytes lie; None where there is none (torch before
            2.1), which means that of the machine.
    """

    pickle: bytes
    records: Mapping[str, Record]
    byte_order: Record | None = None


def read_archive(reader: FolderReader, name: str) -> Archive:
    """Read the zip's list and its pickle; no record of a storage.

    Raises:
        PickleRefused: It is not a zip that ``torch.save`` wrote.
        zipfile.BadZipFile: It has no list of its records where a zip ends.
    """
    try:
        with zipfile.ZipFile(Window(reader, name)) as archive:
            records = archive.infolist()
            names = {record.filename.lower() for record in records}  # torch's reader does not tell cases apart
            if len(names) != len(records):
                raise PickleRefused("two records of its zip have the same name")
            found = [record for record in records if record.filename.rpartition("/")[2] == _PICKLE]
            if len(found) != 1:
                raise PickleRefused(f"its zip has {len(found)} records {_PICKLE}, and torch.save writes one")
            root = found[0].filename.removesuffix(_PICKLE)
            all_records = {record.filename: _record(record) for record in records}
            storages = {
                name.removeprefix(f"{root}data/"): record
                for name, record in all_records.items()
                if name.startswith(f"{root}data/")
            }
            return Archive(_read_bounded(archive, found[0]), storages, all_records.get(f"{root}byteorder"))
    except (NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError, OSError, zlib.error) as error:
        raise PickleRefused(f"its zip cannot be read: {str(error)[:120]}") from error


def _record(info: zipfile.ZipInfo) -> Record:
    return Record(info.header_offset, info.file_size, packed=info.compress_type != zipfile.ZIP_STORED)


def _read_bounded(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    """A record, never more of it than is allowed, whatever length the zip claims."""
    if record.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise PickleRefused(f"{_PICKLE} is packed by method {record.compress_type}, which torch does not read")
    if record.file_size <= MAX_PICKLE_BYTES:
        with archive.open(record) as stream:
            content = stream.read(MAX_PICKLE_BYTES + 1)
        if len(content) <= MAX_PICKLE_BYTES:
            return content
    raise PickleRefused(f"{_PICKLE} has {record.file_size:,} bytes; at most {MAX_PICKLE_BYTES:,} are read")
