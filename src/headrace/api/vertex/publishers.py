"""Model Garden: list and get publisher models, from the catalogue."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from fastapi import Request, Response

from headrace.api.requests import answer
from headrace.catalogue import Entry, entries, entry_json, find_entry, find_on_hub, options_of
from headrace.contracts.vertex.publishers import (
    HUB_VERSION,
    DeployOption,
    PublisherModel,
    publisher_model_json,
    read_listing,
    read_view,
    reads_hub,
)
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import ModelNotFound

ANYWHERE = DeployOption(MachineSpec(), "the machine that the server picks, without a GPU", "openvino")
"""For what is small enough to run on processors."""


async def list_publisher_models(request: Request) -> Response:
    """The models of a publisher, or of all (``*``), page by page."""
    asked = read_listing(request.path_params["publisher"], request.query_params)
    return answer(asked.answer(await asyncio.to_thread(_all, asked.hub_names)))


async def get_publisher_model(request: Request) -> Response:
    """One model: ``id`` or ``id@version``; with ``isHuggingFaceModel`` by its name on the Hugging Face Hub."""
    publisher, model = request.path_params["publisher"], request.path_params["model"]
    view, by_hub_name = read_view(request.query_params), reads_hub(request.query_params)
    entry = _on_hub(f"{publisher}/{model}") if by_hub_name else find_entry(f"{publisher}/{model}")
    found = await asyncio.to_thread(_published, entry.id, publisher.lower().startswith("hf-"))
    if by_hub_name:  # a GET answers with the name that it was asked for
        return answer(publisher_model_json(found, view) | {"name": f"publishers/{publisher}/models/{model}"})
    return answer(publisher_model_json(found, view))


def _on_hub(name: str) -> Entry:
    entry = find_on_hub(name)
    if entry is None:
        raise ModelNotFound(
            f"The catalogue does not have {name[:200]!r} of the Hugging Face Hub.",
            evidence="What it does not have may run, too; only the machines for it are not known before it is read.",
            fix="Deploy it with huggingFaceModelId, or `headrace deploy hf:OWNER/NAME`.",
        )
    return entry


def _all(hub_names: bool) -> list[PublisherModel]:
    return [_published(entry.id, hub_names) for entry in entries()]


@cache
def _published(entry_id: str, on_hub: bool) -> PublisherModel:
    """An entry in Model Garden's words, under its own name or under that of the Hub. Planning it takes a while."""
    entry = find_entry(entry_id)
    owner, _, hub_model = entry.hub.lower().partition("/")
    return PublisherModel(
        publisher=f"hf-{owner}" if on_hub else entry.publisher,
        model=hub_model if on_hub else entry.model,
        version=HUB_VERSION if on_hub else entry.version,
        display_name=entry.display_name,
        category=entry.category,
        first=find_entry(f"{entry.publisher}/{entry.model}") == entry,
        on_hub=on_hub,
        options=((ANYWHERE,) if entry.runtime == ANYWHERE.runtime else ()) + _options(entry),
        notebook=f"/headrace/v1/catalogue/{entry.publisher}/{entry.model}@{entry.version}/notebook",
        ours=_ours(entry),
    )


def _options(entry: Entry) -> tuple[DeployOption, ...]:
    return tuple(
        DeployOption(
            MachineSpec(
                machine_type=option.shape.name,
                accelerator_type=option.shape.accelerator.name,
                accelerator_count=option.shape.accelerator_count,
            ),
            option.shape.label,
            option.runtime,
        )
        for option in options_of(entry)
        if option.shape.accelerator is not None
    )


def _ours(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in entry_json(entry).items() if key not in {"id", "name", "display_name"}}
