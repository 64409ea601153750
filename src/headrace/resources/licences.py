"""Licences of published models that a project accepted."""

from __future__ import annotations

import msgspec


class LicenceAcceptance(msgspec.Struct, frozen=True, kw_only=True):
    """That a project accepted the licence of a published model, for every deployment of it that comes.

    Attributes:
        project: Who accepted.
        publisher_model: Model Garden's name of the model, with its version.
        accepted_by: Id of the key that said so.
        created_at: When.
    """

    project: str
    publisher_model: str
    accepted_by: str
    created_at: float
    resource_version: int = 1
