"""``projects/P/modelGardenEula:accept`` and ``:check``: a licence accepted for a whole project."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.vertex.json_bodies import parse_object, read
from headrace.resources.errors import BadField


class EulaBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``AcceptPublisherModelEulaRequest`` and ``CheckPublisherModelEulaAcceptanceRequest``, which are alike."""

    parent: str = ""
    publisher_model: str = ""


def read_eula(body: bytes) -> str:
    """The publisher model that is meant.

    Raises:
        BadJson: The body is not a JSON object.
        BadField: A field is unknown, missing or of the wrong type.
    """
    name = read(EulaBody, parse_object(body)).publisher_model.strip()
    if not name:
        raise BadField("publisherModel is missing.", fix="Give it as publishers/PUBLISHER/models/MODEL@VERSION.")
    return name


def eula_json(publisher_model: str, *, accepted: bool) -> dict[str, Any]:
    """``PublisherModelEulaAcceptance``. Projects have no numbers here, so it has none."""
    return {"publisherModel": publisher_model, "publisherModelEulaAcked": accepted}
