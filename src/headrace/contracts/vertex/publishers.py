"""Model Garden: publisher models as Vertex AI's JSON, and what its two reading methods are asked.

``publishers/P/models`` and ``publishers/P/models/M[@V]`` of
https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/publishers.models. Models of the Hugging Face Hub are
listed a second time under the names that Model Garden gives those: ``publishers/hf-OWNER/models/NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from headrace.contracts.vertex.garden_filter import GardenFilter, read_filter
from headrace.contracts.vertex.listing import Facts, Listing, listing
from headrace.contracts.vertex.machine_types import machine_spec_json
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField

EVERY_PUBLISHER = "*"
VERIFIED = "VERIFIED_DEPLOYMENT_CONFIG", "VERIFIED_DEPLOYMENT_SUCCEED"
"""The label by which the vendor's clients ask for models with deployment options that are known to work."""

HUB_VERSION = "001"
"""The version of every model of the Hub, which has none of its own."""

View = Literal["basic", "full", "version"]

_VIEWS: Mapping[str, View] = {
    "PUBLISHER_MODEL_VIEW_UNSPECIFIED": "basic",
    "PUBLISHER_MODEL_VIEW_BASIC": "basic",
    "PUBLISHER_MODEL_VIEW_FULL": "full",
    "PUBLISHER_MODEL_VERSION_VIEW_BASIC": "version",
}
"""``google.cloud.aiplatform.v1beta1.PublisherModelView``, in the order of its numbers."""


class DeployOption(msgspec.Struct, frozen=True):
    """A machine on which a publisher model may be deployed.

    Attributes:
        machine: Its type and accelerators; empty: the platform picks.
        title: For a person.
        runtime: What serves the model there.
    """

    machine: MachineSpec
    title: str
    runtime: str


class PublisherModel(msgspec.Struct, frozen=True, kw_only=True):
    """What Model Garden tells of one version of a model.

    Attributes:
        publisher: Identifier; ``hf-OWNER`` for a model under its name on the Hub.
        category: ``OpenSourceCategory``.
        first: It is the version that stands for the model where none is named.
        on_hub: It is listed under its name on the Hugging Face Hub.
        options: The machines, the cheapest first.
        notebook: Where its notebook is.
        ours: What the vendor's message has no field for.
    """

    publisher: str
    model: str
    version: str
    display_name: str
    category: str
    first: bool
    on_hub: bool
    options: tuple[DeployOption, ...]
    notebook: str
    ours: dict[str, Any]

    @property
    def name(self) -> str:
        """Resource name; a version is no part of it."""
        return f"publishers/{self.publisher}/models/{self.model}"


class GardenListing(msgspec.Struct, frozen=True):
    """One question to the list of publisher models."""

    parent: str
    filter: GardenFilter
    all_versions: bool
    view: View
    page: Listing

    @property
    def hub_names(self) -> bool:
        """It asks for models under their names on the Hugging Face Hub; else those are left out."""
        return self.filter.names_hub or self.parent.startswith("hf-")

    def answer(self, models: Sequence[PublisherModel]) -> dict[str, Any]:
        """``ListPublisherModelsResponse``: those of the models that were asked for, page by page."""
        found = [model for model in models if self._keeps(model)]
        page, next_page = self.page.page(found, _facts)
        wire: dict[str, Any] = {"publisherModels": [publisher_model_json(model, self.view) for model in page]}
        return wire | {"nextPageToken": next_page} if next_page else wire

    def _keeps(self, model: PublisherModel) -> bool:
        if self.parent not in {EVERY_PUBLISHER, model.publisher} or model.on_hub is not self.hub_names:
            return False
        return (self.all_versions or model.first or model.on_hub) and self.filter.accepts(_asked(model))


def read_listing(publisher: str, parameters: Mapping[str, str]) -> GardenListing:
    """What a list asks for.

    Args:
        publisher: The one in the path; ``*`` for all.
        parameters: The query; what is not known in it is left alone, as for every method.

    Raises:
        BadField: A parameter cannot be understood, or the page's token belongs to another question.
    """
    expression = parameters.get("filter", "")
    every = _flag(parameters, "listAllVersions", "list_all_versions")
    order = parameters.get("orderBy", parameters.get("order_by", "")) or "display_name"
    paging = {"orderBy": order} | {
        name: value for name, value in parameters.items() if name.replace("_", "").lower() in {"pagesize", "pagetoken"}
    }
    return GardenListing(
        parent=publisher.lower(),
        filter=read_filter(expression),
        all_versions=every,
        view=read_view(parameters),
        page=listing(paging, kind="model", about=f"{publisher}\n{expression}\n{every}"),
    )


def read_view(parameters: Mapping[str, str]) -> View:
    """``view``, by name or by number.

    Raises:
        BadField: There is no such view.
    """
    text = parameters.get("view", "") or "0"
    name = list(_VIEWS)[int(text)] if text.isdecimal() and text.isascii() and int(text) < len(_VIEWS) else text
    if name not in _VIEWS:
        raise BadField(f"view has no value {text[:60]!r}.", evidence=f"The views are: {', '.join(_VIEWS)}.")
    return _VIEWS[name]


def reads_hub(parameters: Mapping[str, str]) -> bool:
    """Whether a GET means a model by its name on the Hugging Face Hub.

    Raises:
        BadField: ``isHuggingFaceModel`` is neither true nor false.
    """
    return _flag(parameters, "isHuggingFaceModel", "is_hugging_face_model")


def publisher_model_json(model: PublisherModel, view: View) -> dict[str, Any]:
    """A ``PublisherModel``; beyond the vendor's fields it has ours in ``headrace``, which clients ignore here."""
    options = [_option_json(model, option) for option in model.options]
    wire: dict[str, Any] = {
        "name": model.name,
        "versionId": model.version,
        "supportedActions": {
            "openNotebook": {"references": {"global": {"uri": model.notebook}}, "title": "Open notebook"},
            "multiDeployVertex": {"multiDeployVertex": options},
        },
    }
    if view == "version":
        return wire
    wire |= {
        "openSourceCategory": model.category,
        "launchStage": "GA",
        "versionState": "VERSION_STATE_STABLE",
        "headrace": {"displayName": model.display_name} | (model.ours if view == "full" else {}),
    }
    return wire


def _option_json(model: PublisherModel, option: DeployOption) -> dict[str, Any]:
    """``PublisherModel.CallToAction.Deploy``. It names no container: what serves the model is no image."""
    resources: dict[str, Any] = {"minReplicaCount": 1, "maxReplicaCount": 1}
    if machine := machine_spec_json(option.machine):
        resources = {"machineSpec": machine, **resources}
    return {
        "modelDisplayName": model.version if not model.on_hub else model.model,
        "title": option.title,
        "deployTaskName": f"{option.runtime}: {option.title}",
        "dedicatedResources": resources,
        "deployMetadata": {"labels": {VERIFIED[0]: VERIFIED[1]}},
    }


def _facts(model: PublisherModel) -> Facts:
    return Facts(
        kind="model",
        id=f"{model.name}@{model.version}",
        display_name=model.display_name,
        labels={},
        created_at=0.0,
        updated_at=0.0,
    )


def _asked(model: PublisherModel) -> dict[str, tuple[str, ...]]:
    """What a filter may ask, and what it may be answered with."""
    asked = {
        "model_user_id": (model.model, model.version, f"{model.model}@{model.version}"),
        "display_name": (model.display_name,),
        "name": (model.name,),
        "open_source_category": (model.category,),
        "is_hf_wildcard": (str(model.on_hub).lower(),),
    }
    if model.options:
        asked[f"labels.{VERIFIED[0]}"] = (VERIFIED[1],)
    return asked


def _flag(parameters: Mapping[str, str], *names: str) -> bool:
    text = next((parameters[name] for name in names if name in parameters), "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise BadField(f"{names[0]} must be true or false.", evidence=f"It is {text[:40]!r}.")
    return text in {"true", "1"}
