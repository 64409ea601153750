"""Tags of a serving endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.databricks.found import named
from headrace.api.description import STRING, Description, listed, record
from headrace.api.requests import answer, body_of, context_of
from headrace.contracts.databricks.paths import SERVING
from headrace.contracts.databricks.reading import read_message
from headrace.contracts.databricks.tags import TagsPatch, tags_json
from headrace.control import commands
from headrace.resources.access import Permission

_PATH = f"{SERVING}/{{name}}/tags"


async def patch_tags(request: Request) -> Response:
    """Add tags, change them, take some away; the answer is all that the endpoint has then."""
    patch = read_message(await body_of(request), TagsPatch)
    tags = await context_of(request).write(lambda tx: commands.patch_tags(tx, named(tx, request, "CAN_MANAGE"), patch))
    return answer({"tags": tags_json(tags)})


ROUTES = (Route("PATCH", _PATH, Permission.DEPLOY, patch_tags),)
DESCRIPTIONS: Mapping[str, Description] = {
    f"PATCH {_PATH}": Description(
        body=TagsPatch, answer=listed("tags", record(key=STRING, value=STRING)), errors="databricks"
    ),
}
