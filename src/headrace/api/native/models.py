"""Register a model, or another version of one, without deploying it."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath

import msgspec
from fastapi import Request, Response

from headrace.api.native.bodies import read_body
from headrace.api.native.deployments import CONTRACT
from headrace.api.native.nouns import noun_json
from headrace.api.requests import answer, context_of, principal_of
from headrace.control import commands
from headrace.control.commands.texts import as_text
from headrace.resources.access import Permission
from headrace.resources.models import Dtype, ServingSpec
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope
from headrace.storage import require_openable


class UploadBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to register.

    Attributes:
        artifact_uri: Where the model's files are; nothing is read of them yet.
        model_id: Of the model to make; empty: made up.
        parent: Id of the model to add a version to, instead of making one.
        labels: Of the model, or of the version where it is another one.
        runtime: As in `ServingSpec`; so the two that follow.
    """

    artifact_uri: str
    project: str = DEFAULT_PROJECT
    location: str = DEFAULT_LOCATION
    model_id: str = ""
    parent: str = ""
    display_name: str = ""
    description: str = ""
    version_description: str = ""
    labels: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    runtime: str = ""
    max_model_len: int | None = None
    dtype: Dtype = "auto"


async def upload_model(request: Request) -> Response:
    """Register; the answer is the operation, which is done."""
    context, body = context_of(request), await read_body(request, UploadBody)
    principal_of(request).require(Permission.DEPLOY, body.project)
    if body.artifact_uri:  # what needs no looking is told here and leaves nothing behind
        await asyncio.to_thread(require_openable, body.artifact_uri)
    order = commands.UploadRequest(
        scope=Scope(body.project, body.location),
        contract=CONTRACT,
        artifact_uri=body.artifact_uri,
        model_id=body.parent or body.model_id,
        new_version=bool(body.parent),
        display_name=body.display_name or as_text(PurePosixPath(body.artifact_uri).name) or "model",
        description=body.description,
        version_description=body.version_description,
        labels={} if body.parent else body.labels,
        version_labels=body.labels if body.parent else {},
        aliases=body.aliases,
        spec=ServingSpec(runtime=body.runtime, max_model_len=body.max_model_len, dtype=body.dtype),
    )
    operation = await context.write(lambda tx: commands.upload(tx, order, now=context.clock()))
    return answer(noun_json(operation))
