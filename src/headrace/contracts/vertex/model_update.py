"""``PATCH /V/projects/P/locations/L/models/M``: what of a model or of a version is to be changed.

The rules are ``UpdateModelRequest``'s (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models/patch):
a model has ``displayName`` and ``description``, a version has ``versionDescription``, both have ``labels``, and one
request changes one of the two.
"""

from __future__ import annotations

import re

import msgspec

from headrace.contracts.vertex.json_bodies import parse_object, read
from headrace.contracts.vertex.model_bodies import ModelBody
from headrace.resources.errors import BadField

_OF_MODEL = frozenset({"display_name", "description"})
_OF_VERSION = frozenset({"version_description"})
_OF_BOTH = frozenset({"labels"})
CHANGEABLE = ("displayName", "description", "labels", "versionDescription")


class ModelUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A change; what is None stays.

    Attributes:
        version: The version that is changed, by number or alias; empty: the model itself.
        etag: What the changer knows it by; empty: whatever it is now.
    """

    version: str = ""
    display_name: str | None = None
    description: str | None = None
    labels: dict[str, str] | None = None
    etag: str = ""


def read_update(body: bytes, mask: str, *, model: str, reference: str) -> ModelUpdate:
    """What a request asks to be changed.

    A change of ``versionDescription`` without a version in the path is of the body's ``versionId``: the vendor's SDK
    sends back the model that it read at a version, and names the version only there.

    Args:
        body: The model as it should be; what the mask does not name is left alone.
        mask: The query's ``updateMask``: fields with commas between, in camelCase or snake_case.
        model: The model's full name, by the path.
        reference: What follows ``@`` in the path; ``-`` means the model, as nothing does.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown or of the wrong type, or the mask is missing, or names what cannot be changed, or
            both of the model and of the version.
    """
    fields = read_mask(mask)
    said = read(ModelBody, parse_object(body))
    reference = "" if reference == "-" else reference
    if said.name.partition("@")[0] not in {"", model}:
        raise BadField(
            "The body's name is another model's than the path's.",
            evidence=f"The body says {said.name[:200]!r}, the path {model!r}.",
            fix="Leave name out of the body.",
        )
    if fields & _OF_MODEL and fields & _OF_VERSION:
        raise BadField(
            "One request changes the model or a version of it, not both.",
            evidence=f"updateMask is {mask[:200]!r}.",
            fix="Send displayName and description in one request, versionDescription in another.",
        )
    version = reference or (said.version_id if fields & _OF_VERSION else "")
    if fields & _OF_MODEL and reference:
        raise BadField(
            f"A version has no {', '.join(sorted(_camel(each) for each in fields & _OF_MODEL))} of its own.",
            evidence=f"The path names the version @{reference}.",
            fix="Leave the version out of the path.",
        )
    if fields & _OF_VERSION and not version:
        raise BadField(
            "versionDescription is a version's, and the path names none.",
            evidence="Neither the path nor the body's versionId does.",
            fix="Add the version to the path: models/MODEL@VERSION.",
        )
    description = said.version_description if fields & _OF_VERSION else said.description
    return ModelUpdate(
        version=version,
        display_name=said.display_name if "display_name" in fields else None,
        description=description if fields & {"description", "version_description"} else None,
        labels=said.labels if "labels" in fields else None,
        etag=said.etag,
    )


def read_mask(mask: str) -> frozenset[str]:
    """The fields that an ``updateMask`` names, in snake_case.

    Raises:
        BadField: It is empty, or names a field that does not exist or cannot be changed.
    """
    names = [each.strip() for each in mask.split(",") if each.strip()]
    if not names:
        raise BadField("updateMask is missing.", fix=f"Name what is to be changed: {', '.join(CHANGEABLE)}.")
    fields = frozenset(_snake(each) for each in names)
    for name in names:
        if _snake(name) in _OF_MODEL | _OF_VERSION | _OF_BOTH:
            continue
        if _snake(name) in ModelBody.__struct_fields__:
            raise BadField(
                f"updateMask names {name[:60]!r}, which cannot be changed.",
                evidence="The artifacts and the container of a version are as they were registered; aliases are "
                "changed by :mergeVersionAliases.",
                fix=f"What can be changed: {', '.join(CHANGEABLE)}. Register another version for all else.",
            )
        raise BadField(
            f"updateMask names {name[:60]!r}, which is no field of a model.",
            fix=f"What can be changed: {', '.join(CHANGEABLE)}.",
        )
    return fields


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
