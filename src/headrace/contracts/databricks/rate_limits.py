"""Rate limits of an endpoint, as ``rate-limits`` and ``ai-gateway`` say them, and as the gateway holds them.

https://docs.databricks.com/api/workspace/servingendpoints/put and ``…/putaigateway``; the fields are those of
``databricks.sdk.service.serving.AiGatewayRateLimit``, of which ``RateLimit`` is a part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

import msgspec

from headrace.contracts.databricks.reading import SHOWN
from headrace.resources.errors import BadField, NotSupported
from headrace.resources.limits import MOST_PER_MINUTE, EndpointLimits, KeyLimits

Kind = Literal["user", "endpoint", "user_group", "service_principal"]

MOST_RATE_LIMITS = 20
"""Of one endpoint: as the vendor's."""


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One limit.

    Attributes:
        renewal_period: For how long it counts; the vendor knows one, too.
        key: Whom it counts: ``endpoint`` all together, ``user`` each by itself, or only `principal`. None: all.
        calls: Requests; 0 lets none through.
        tokens: Of prompts and answers.
        principal: The name or id of a key, or of a service account with ``service_principal``.
    """

    renewal_period: Literal["minute"]
    key: Kind | None = None
    calls: int | None = None
    tokens: int | None = None
    principal: str | None = None

    @property
    def counts(self) -> Kind:
        """Whom it counts."""
        return self.key or "endpoint"

    @property
    def limits(self) -> KeyLimits:
        """As the gateway has it."""
        return KeyLimits(requests_per_minute=self.calls, tokens_per_minute=self.tokens)


class RateLimitsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``rate-limits``: these and no others."""

    rate_limits: tuple[RateLimit, ...] | None = None


def check_rate_limits(rate_limits: Collection[RateLimit]) -> None:
    """Hold that these limits can be kept, and say one thing each.

    Raises:
        NotSupported: One is of a group of users.
        BadField: One says nothing, contradicts another, or cannot be.
    """
    if len(rate_limits) > MOST_RATE_LIMITS:
        raise BadField(
            "There are too many rate limits.", evidence=f"They are {len(rate_limits)}; {MOST_RATE_LIMITS} are allowed."
        )
    said: set[tuple[str, str, str]] = set()
    for limit in rate_limits:
        _check(limit)
        for unit in ("calls", "tokens"):
            name = (limit.counts, limit.principal or "", unit)
            if getattr(limit, unit) is not None:
                if name in said:
                    who = f"{limit.counts} {limit.principal or ''}".strip()[:SHOWN]
                    raise BadField(f"Two rate limits say {unit} for the same {who}.", fix="Leave one of them out.")
                said.add(name)


def _check(limit: RateLimit) -> None:
    if limit.counts == "user_group":
        raise NotSupported(
            "Rate limits with key user_group are not supported.",
            evidence="There are no groups here: who asks is a key or a service account.",
            fix="Give key user with a principal for each, or without one for everybody alike.",
        )
    if limit.calls is None and limit.tokens is None:
        raise BadField("A rate limit says nothing.", fix="Give calls, tokens, or both.")
    for unit in ("calls", "tokens"):
        amount = getattr(limit, unit)
        if amount is not None and not 0 <= amount <= MOST_PER_MINUTE:
            raise BadField(f"{unit} is from 0 to {MOST_PER_MINUTE}.", evidence=f"It is {amount}.")
    if limit.counts == "endpoint" and limit.principal:
        raise BadField(
            "A limit of the endpoint has no principal.",
            evidence=f"It is {limit.principal[:SHOWN]!r}.",
            fix="Give key user or service_principal, or leave principal out.",
        )
    if limit.counts == "service_principal" and not limit.principal:
        raise BadField("A limit with key service_principal needs a principal.", fix="Name the service account.")


def rate_limits_json(rate_limits: Iterable[RateLimit]) -> list[dict[str, Any]]:
    """As they are kept, and as they are told: what was left out stays out."""
    return [dict(msgspec.to_builtins(limit)) for limit in rate_limits]


def rate_limits_in(kept: Any) -> list[RateLimit]:
    """Those that are kept; anything else that stands there is none."""
    try:
        return msgspec.convert(kept or [], list[RateLimit])
    except msgspec.ValidationError:
        return []


def endpoint_limits(
    rate_limits: Iterable[RateLimit], key_ids: Callable[[RateLimit], Iterable[str]]
) -> EndpointLimits | None:
    """What the gateway is to hold: where several limits count the same, the least.

    A key for which there is a limit of its own is not under the one for each user, as with the vendor.

    Args:
        rate_limits: Of one endpoint, from everywhere.
        key_ids: The keys that a limit's principal stands for.

    Returns:
        The limits; None where there are none.
    """
    all_keys, each_key, of_keys = KeyLimits(), KeyLimits(), dict[str, KeyLimits]()
    for limit in rate_limits:
        if limit.counts == "endpoint":
            all_keys = _least(all_keys, limit.limits)
        elif not limit.principal:
            each_key = _least(each_key, limit.limits)
        else:
            for key_id in key_ids(limit):
                of_keys[key_id] = _least(of_keys.get(key_id, KeyLimits()), limit.limits)
    found = EndpointLimits(all_keys=all_keys, each_key=each_key, of_keys=of_keys)
    return found if found.limited else None


def _least(one: KeyLimits, other: KeyLimits) -> KeyLimits:
    least: Mapping[str, int | None] = {
        name: min((each for each in (getattr(one, name), getattr(other, name)) if each is not None), default=None)
        for name in KeyLimits.__struct_fields__
    }
    return KeyLimits(**least)
