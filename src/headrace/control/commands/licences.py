"""Licences of published models: accepted once for a project, in place of with every deployment."""

from __future__ import annotations

from headrace.catalogue import Entry
from headrace.resources.licences import LicenceAcceptance
from headrace.store import Transaction


def accept_licence(tx: Transaction, project: str, entry: Entry, *, by: str, now: float) -> LicenceAcceptance:
    """Note that a project accepts a model's licence; what was noted before stays as it was.

    Args:
        tx: An open transaction.
        project: Who accepts.
        entry: The model.
        by: Id of the key that says so.
        now: Unix seconds.
    """
    before = tx.get(LicenceAcceptance, project=project, publisher_model=entry.name)
    if before is not None:
        return before
    acceptance = LicenceAcceptance(project=project, publisher_model=entry.name, accepted_by=by, created_at=now)
    tx.insert(acceptance)
    return acceptance


def licence_accepted(tx: Transaction, project: str, entry: Entry) -> bool:
    """Whether a project accepted a model's licence, or there is nothing to accept."""
    if not entry.licence.accept:
        return True
    return tx.get(LicenceAcceptance, project=project, publisher_model=entry.name) is not None
