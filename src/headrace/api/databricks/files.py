"""``/api/2.0/fs``: files of versions that are uploaded, and of volumes; they go to the disk as they come.

A piece of a body is written before the next one is read, so that a file of any size takes no more memory than a small
one, and a disk that is slow slows its client down. What is written becomes visible when it is whole.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

from fastapi import Request, Response
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect

from headrace.api.databricks.download import OCTETS, file_answer
from headrace.api.databricks.registry import Registry, upload_lock
from headrace.api.requests import answer, body_of, flag, path_of
from headrace.contracts.databricks.bodies import read_body
from headrace.contracts.databricks.files import AbortBody, ListQuery, UploadPath, entry_json, read_path
from headrace.contracts.databricks.oauth import base_url
from headrace.contracts.databricks.registry_bodies import read_query
from headrace.control.commands import unity_catalog as commands
from headrace.resources.access import Permission
from headrace.resources.errors import BadName, MalformedRequest, NotSupported, UploadNotFound
from headrace.resources.models import ModelVersion
from headrace.storage.uploads import (
    Incoming,
    UploadedEntry,
    delete_file,
    delete_folder,
    folder_entries,
    make_folder,
    open_file,
)
from headrace.store import Transaction

PIECE_BYTES = 1 << 20
"""What is gathered before it is written: a thread is asked once for each."""

ABORT_PATH = "/api/2.0/fs/uploads/whole"
"""Where an upload in parts that was never begun is broken off."""


class _Below(Convertor[str]):
    """What is left of a path, slashes too."""

    regex = ".+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("below", _Below())


class _Place:
    """A path of the files API, and where it is on the disk.

    Args:
        request: What names it.
        permission: What it needs.
    """

    def __init__(self, request: Request, permission: Permission) -> None:
        self.registry = Registry(request, permission)
        self.path: UploadPath = read_path(request.path_params["path"])

    def version(self, tx: Transaction) -> ModelVersion | None:
        """The version that it is of; None for a volume.

        Raises:
            ModelNotFound: There is no such version.
        """
        if self.path.kind == "Volumes":
            commands.require_not_system(self.path.name.catalog)
            return None
        return self.registry.version(tx, self.path.name, self.path.version)

    def on_disk(self, version: ModelVersion | None) -> Path:
        """Its place.

        Raises:
            UploadNotFound: The version was not uploaded.
        """
        places, name = self.registry.places, self.path.name
        if version is None:
            folder = places.volume(self.registry.scope.project, name.catalog, name.schema, name.name)
        elif version.registration is None:
            raise UploadNotFound(
                f"Version {version.version} of '{name}' was not uploaded here.",
                evidence=f"It was registered by its address, {version.artifact_uri or '(none)'}.",
            )
        else:
            folder = places.version(version.scope, version.model_id, version.version)
        return folder.joinpath(*self.path.below)

    async def readable(self) -> Path:
        """Its place, where something may be.

        Raises:
            ModelNotFound: There is no such version.
            UploadNotFound: It was not uploaded.
        """
        if self.path.name.of_system:
            raise UploadNotFound(f"Nothing of '{self.path.name}' was uploaded here.")
        return self.on_disk(await self.registry.context.read(self.version))

    async def writable(self) -> tuple[Path, ModelVersion | None]:
        """Its place, if it may be written now.

        Raises:
            ModelNotFound: There is no such version.
            VersionNotReady: The version takes no files any more.
        """
        version = await self.registry.context.read(self.version)
        if version is not None:
            commands.require_pending(version)
        return self.on_disk(version), version

    async def change(self, work: Callable[[Path], None]) -> None:
        """Do something in its place, while nobody looks at the files of its version.

        Raises:
            ModelNotFound: There is no such version, or it was deleted meanwhile.
            VersionNotReady: The version takes no files any more.
        """
        path, version = await self.writable()
        if version is None:
            await asyncio.to_thread(work, path)
            return
        async with upload_lock(version):
            await self.writable()  # it may have been finalized, or deleted, meanwhile
            await asyncio.to_thread(work, path)


async def upload_file(request: Request) -> Response:
    """Write a file: to a version that is pending, or to a volume. It is there when its last byte is on the disk.

    Raises:
        ModelNotFound: There is no such version.
        VersionNotReady: The version takes no files any more.
        NameTaken: There is a file, and ``overwrite`` is false.
        DiskFull: There is no room for it.
    """
    place = _Place(request, Permission.DEPLOY)
    overwrite = flag(request, "overwrite") if "overwrite" in request.query_params else True
    if not place.path.below:
        raise BadName("The path names no file.", evidence=f"It is {str(place.path)!r}.")
    await place.writable()
    announced = request.headers.get("content-length", "")
    with Incoming(place.registry.places.root, int(announced) if announced.isdigit() else None) as incoming:
        await _receive(request, incoming)
        await place.change(lambda path: incoming.keep(path, overwrite=overwrite))
    return Response(status_code=204)


async def _receive(request: Request, incoming: Incoming) -> None:
    held: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            held.append(piece)
            size += len(piece)
            if size >= PIECE_BYTES:
                await asyncio.to_thread(incoming.write, b"".join(held))
                held, size = [], 0
    except ClientDisconnect as error:
        raise MalformedRequest("The client left before the file's end.") from error
    await asyncio.to_thread(incoming.write, b"".join(held))


async def download_file(request: Request) -> Response:
    """A file, or with ``Range`` a part of it.

    Raises:
        UploadNotFound: There is none.
    """
    path = await _Place(request, Permission.READ).readable()
    return await file_answer(path, request.headers, path_of(request))


async def file_metadata(request: Request) -> Response:
    """Whether there is a file, how long it is and when it was written."""
    with await asyncio.to_thread(open_file, await _Place(request, Permission.READ).readable()) as file:
        status = os.fstat(file.fileno())
    headers = {"content-length": str(status.st_size), "last-modified": formatdate(status.st_mtime, usegmt=True)}
    return Response(headers=headers, media_type=OCTETS)


async def delete_uploaded(request: Request) -> Response:
    """Delete a file: of a version that is pending, or of a volume."""
    await _Place(request, Permission.DEPLOY).change(delete_file)
    return Response(status_code=204)


async def start_upload(request: Request) -> Response:
    """Tell a client that wants to send parts that there is a session; it then finds that no parts are taken.

    Databricks' SDK begins every file of 50 MB and more so, and sends it whole where it is given no addresses for parts.

    Raises:
        NotSupported: It is not the beginning of an upload.
    """
    place = _Place(request, Permission.DEPLOY)
    if request.query_params.get("action") != "initiate-upload":
        raise _no_parts()
    await place.writable()
    return answer({"multipart_upload": {"session_token": "whole"}})


async def refuse_parts(_request: Request) -> Response:
    """Always refused: files are sent and fetched whole, from this server itself.

    Raises:
        NotSupported: Always.
    """
    raise _no_parts()


async def abort_address(request: Request) -> Response:
    """Where the SDK says that it will send no parts after all, before it sends the file whole.

    It shows no key at an address that it was given, so it is given its own, to be shown there.
    """
    read_body(await body_of(request), AbortBody)
    headers = request.headers
    base = base_url(headers.get("x-forwarded-proto", "http"), headers.get("x-forwarded-host", "").encode("latin-1"))
    shown = [{"name": "Authorization", "value": headers.get("authorization", "")}]
    return answer({"abort_upload_url": {"url": f"{base}{ABORT_PATH}", "headers": shown}})


async def abort_upload(_request: Request) -> Response:
    """Nothing: no session of parts keeps anything."""
    return answer({})


async def list_folder(request: Request) -> Response:
    """What a folder holds, by name, page by page."""
    place, query = _Place(request, Permission.READ), read_query(request.query_params, ListQuery)
    entries = await asyncio.to_thread(_listed, place.path, await place.readable())
    sized = ListQuery(max_results=query.page_size or 1000, page_token=query.page_token)
    page, token = sized.page(entries, lambda entry: entry.name)
    shown = [
        entry_json(
            str(place.path),
            entry.name,
            is_folder=entry.is_folder,
            size_bytes=entry.size_bytes,
            modified_at=entry.modified_at,
        )
        for entry in page
    ]
    return answer({"contents": shown, "next_page_token": token} if token else {"contents": shown})


async def folder_metadata(request: Request) -> Response:
    """Whether there is a folder."""
    place = _Place(request, Permission.READ)
    await asyncio.to_thread(_listed, place.path, await place.readable())
    return Response()


async def create_folder(request: Request) -> Response:
    """Make a folder; one that is there is no error. None has to be made before a file of it."""
    await _Place(request, Permission.DEPLOY).change(make_folder)
    return Response(status_code=204)


async def delete_directory(request: Request) -> Response:
    """Delete an empty folder."""
    await _Place(request, Permission.DEPLOY).change(delete_folder)
    return Response(status_code=204)


def _listed(path: UploadPath, folder: Path) -> list[UploadedEntry]:
    """A version's own folder is there before its first file is."""
    try:
        return folder_entries(folder)
    except UploadNotFound:
        if path.below:
            raise
        return []


def _no_parts() -> NotSupported:
    return NotSupported(
        "Files are sent whole: PUT /api/2.0/fs/files/PATH takes one of any size.",
        evidence="There is no cloud's bucket that parts could be sent to.",
        fix="Databricks' SDK sends it whole by itself after this answer.",
    )
