"""The catalogue: what may be deployed by name, where it would run, and a notebook for each."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response

from headrace.api.requests import answer
from headrace.catalogue import Entry, entries, entry_json, find_entry, notebook_of, option_json, options_of


async def list_catalogue(_request: Request) -> Response:
    """Every version of every model."""
    return answer({"models": [entry_json(entry) for entry in entries()]})


async def get_entry(request: Request) -> Response:
    """One version, with the machines on which it has room."""
    entry = _entry(request)
    options = await asyncio.to_thread(options_of, entry)
    return answer(entry_json(entry) | {"options": [option_json(option) for option in options]})


async def get_notebook(request: Request) -> Response:
    """A version's notebook."""
    return answer(notebook_of(_entry(request)))


def _entry(request: Request) -> Entry:
    return find_entry(f"{request.path_params['publisher']}/{request.path_params['model']}")
