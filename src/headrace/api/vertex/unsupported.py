"""Methods that Vertex AI has and this server has not yet: told apart from paths that nobody has."""

from __future__ import annotations

import re

from fastapi import Request, Response

from headrace.api.requests import allowed, path_of
from headrace.resources.errors import MethodNotAllowed, NotSupported, UnknownPath

_SCOPE = "projects/[^/]+/locations/[^/:]+"
_METHODS = tuple(
    (re.compile(rf"({verbs}) {path}"), fix)
    for verbs, path, fix in (
        ("POST|DELETE", f"{_SCOPE}/models/[^/:]+:[a-zA-Z]+", ""),
        ("POST", f"{_SCOPE}/endpoints/[^/:]+:[a-zA-Z]+", ""),
        ("GET|POST|DELETE", f"{_SCOPE}/batchPredictionJobs.*", "Send the requests online, several at a time."),
        (
            "POST",
            rf"({_SCOPE}/)?publishers/[^/]+/models/[^/]+:export",
            "Weights are copied to no bucket here. Deploy the model with :deploy and publisherModelName.",
        ),
        (
            "POST",
            rf"({_SCOPE}/)?publishers/[^/]+/models/[^/]+:[a-zA-Z]+",
            "Ask the endpoint that serves it: projects/PROJECT/locations/LOCATION/endpoints/ID is its name as a model.",
        ),
        ("GET|POST", f"{_SCOPE}/publishers/[^/]+/models.*", "Deploy it with :deploy and publisherModelName."),
    )
)
"""Requests of https://cloud.google.com/vertex-ai/docs/reference/rest that the vendor's clients were seen to send."""


async def unsupported(request: Request) -> Response:
    """Say which of the two it is.

    Raises:
        NotSupported: Vertex AI has this method.
        MethodNotAllowed: Neither has, and the path takes another one.
        UnknownPath: There is no such path.
    """
    asked = f"{request.method} {request.path_params['rest']}"
    takes = allowed(request)
    custom = ":" in asked.rpartition("/")[2]  # a custom method that is here takes one HTTP method, as the vendor's does
    for pattern, fix in _METHODS:
        if pattern.fullmatch(asked) and not (custom and takes):
            raise NotSupported(f"{request.method} {path_of(request)} is not supported yet.", fix=fix)
    if takes:
        raise MethodNotAllowed(f"There is no {request.method} {path_of(request)}.", allow=takes)
    raise UnknownPath(f"There is no {request.method} {path_of(request)}.")
