"""Keys: made, shown once, limited, revoked."""

from __future__ import annotations

import msgspec

from headrace.control.commands.texts import check_text
from headrace.resources.access import EVERY_PROJECT, KEY_PREFIX, Role, new_secret, secret_hash
from headrace.resources.errors import BadField, KeyNotFound
from headrace.resources.limits import MOST_PER_MINUTE, KeyLimits
from headrace.resources.names import DEFAULT_LOCATION, Scope, new_id
from headrace.resources.operations import ApiKey
from headrace.store import Transaction

_HINT_LENGTH = len(KEY_PREFIX) + 4
"""Four of 43 random characters tell a person's keys apart and help nobody to guess the rest."""

_NO_LIMITS = KeyLimits()


def create_key(
    tx: Transaction,
    *,
    name: str,
    project: str,
    role: Role,
    now: float,
    limits: KeyLimits = _NO_LIMITS,
    public_key: str = "",
) -> tuple[ApiKey, str]:
    """Make a key.

    Args:
        tx: An open transaction.
        name: What its user is called.
        project: The project it reaches, or ``*``.
        role: What it may do there.
        now: Unix seconds.
        limits: What it may use in a minute.
        public_key: Of a service account's pair (PEM); empty for a key that is a secret.

    Returns:
        The key as stored, and its secret, which is stored nowhere; a service account's is to be given to nobody.

    Raises:
        BadField: It has no name, or one that is too long or not printable; or a limit that is none.
        BadName: The project's name is not well formed.
    """
    if not name.strip():
        raise BadField("A key needs a name.", fix="Name who or what will use it.")
    check_text("The key's name", name)
    if project != EVERY_PROJECT:
        Scope(project, DEFAULT_LOCATION)  # raises where the name is not one
    check_limits(limits)
    secret = new_secret()
    key = ApiKey(
        id=new_id(),
        name=name,
        secret_hash=secret_hash(secret),
        hint="" if public_key else secret[:_HINT_LENGTH],
        project=project,
        role=role,
        created_at=now,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        public_key=public_key,
    )
    tx.insert(key)
    return key, secret


def check_limits(limits: KeyLimits) -> None:
    """Hold that a key could be used within its limits.

    Raises:
        BadField: It could not.
    """
    for name in KeyLimits.__struct_fields__:
        limit: int | None = getattr(limits, name)
        if limit is not None and not 1 <= limit <= MOST_PER_MINUTE:
            raise BadField(
                f"{name} is from 1 to {MOST_PER_MINUTE}, or null for no limit.",
                evidence=f"It is {limit}.",
                fix="A key that is not to be used any more is revoked: `headrace keys revoke`.",
            )


def limit_key(tx: Transaction, key_id: str, limits: KeyLimits) -> ApiKey:
    """Give a key other limits. Wake the reconciler: the gateway then knows at once.

    Raises:
        KeyNotFound: No key that is good has this id.
        BadField: A limit is none.
    """
    check_limits(limits)
    key = tx.get(ApiKey, id=key_id)
    if key is None or key.revoked_at is not None:
        raise KeyNotFound(
            f"There is no good key {key_id!r}.",
            evidence="It was revoked." if key else "",
            fix="`headrace keys list` shows them.",
        )
    if key.limits == limits:
        return key
    changes = msgspec.structs.asdict(limits)
    return tx.update(msgspec.structs.replace(key, **changes))


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
