"""Where a request of Databricks' clients works: they know a workspace, which is their key's project here."""

from __future__ import annotations

from fastapi import Request

from headrace.api.requests import principal_of
from headrace.resources.access import EVERY_PROJECT
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope


def workspace_of(request: Request) -> Scope:
    """The project of the key, in the default location; of a key that reaches every project, the default one."""
    project = principal_of(request).project
    return Scope(DEFAULT_PROJECT if project == EVERY_PROJECT else project, DEFAULT_LOCATION)
