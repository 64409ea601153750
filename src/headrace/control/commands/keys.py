"""Keys: made, shown once, revoked."""

from __future__ import annotations

import msgspec

from headrace.control.commands.texts import check_text
from headrace.resources.access import EVERY_PROJECT, KEY_PREFIX, Role, new_secret, secret_hash
from headrace.resources.errors import BadField, KeyNotFound
from headrace.resources.names import DEFAULT_LOCATION, Scope, new_id
from headrace.resources.operations import ApiKey
from headrace.store import Transaction

_HINT_LENGTH = len(KEY_PREFIX) + 4
"""Four of 43 random characters tell a person's keys apart and help nobody to guess the rest."""


def create_key(tx: Transaction, *, name: str, project: str, role: Role, now: float) -> tuple[ApiKey, str]:
    """Make a key.

    Args:
        tx: An open transaction.
        name: What its user is called.
        project: The project it reaches, or ``*``.
        role: What it may do there.
        now: Unix seconds.

    Returns:
        The key as stored, and its secret, which is stored nowhere.

    Raises:
        BadField: It has no name, or one that is too long or not printable.
        BadName: The project's name is not well formed.
    """
    if not name.strip():
        raise BadField("A key needs a name.", fix="Name who or what will use it.")
    check_text("The key's name", name)
    if project != EVERY_PROJECT:
        Scope(project, DEFAULT_LOCATION)  # raises where the name is not one
    secret = new_secret()
    key = ApiKey(
        id=new_id(),
        name=name,
        secret_hash=secret_hash(secret),
        hint=secret[:_HINT_LENGTH],
        project=project,
        role=role,
        created_at=now,
    )
    tx.insert(key)
    return key, secret


def revoke_key(tx: Transaction, key_id: str, *, now: float) -> ApiKey:
    """Make a key worthless; one that is already keeps its time. Wake the reconciler: the gateway then knows at once.

    Raises:
        KeyNotFound: No key has this id.
    """
    key = tx.get(ApiKey, id=key_id)
    if key is None:
        raise KeyNotFound(f"There is no key {key_id!r}.", fix="`headrace keys list` shows them.")
    if key.revoked_at is not None:
        return key
    return tx.update(msgspec.structs.replace(key, revoked_at=now))
