"""Sizes that are given in parameters (watsonx's ``WX-S``, ``WX-M``, ``WX-L``), and quotas counted in shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import msgspec

from headrace.resources.errors import DoesNotFit

WITHOUT_TENSOR_PARALLEL = frozenset(
    {"codegen", "exaone", "gpt2", "gptj", "granite", "mistral", "mixtral", "mpt", "mt5"}
)
"""By ``model_type``: the architectures to which the watsonx table (custom foundation models) gives no tensor
parallelism, so that they have the Small size only."""

_TWO_BYTES = 2


class Tier(msgspec.Struct, frozen=True):
    """A size.

    Attributes:
        name: Such as ``WX-S``.
        max_parameters: Of two bytes each, the most that it takes.
    """

    name: str
    max_parameters: int


def tier_for(model_type: str, parameters: int, tiers: Sequence[Tier], number_bytes: float = _TWO_BYTES) -> Tier:
    """The smallest size that takes a model; between two sizes it is the next up.

    Args:
        model_type: The family.
        parameters: How many the model has.
        tiers: The sizes; in any order.
        number_bytes: What one parameter takes. The sizes are for two bytes: of four, half as many fit.

    Raises:
        DoesNotFit: None takes it, or only one that the table does not give to its architecture.
    """
    ascending = sorted(tiers, key=lambda tier: tier.max_parameters)
    alone = model_type in WITHOUT_TENSOR_PARALLEL
    weighed = parameters * number_bytes / _TWO_BYTES
    for tier in ascending[:1] if alone else ascending:
        if weighed <= tier.max_parameters:
            return tier
    largest = ascending[0] if alone else ascending[-1]
    why = f" {model_type} has no tensor parallelism in the table, so {largest.name} is its only size." if alone else ""
    most = _billions(largest.max_parameters)
    raise DoesNotFit(
        f"The model has {_billions(weighed)} parameters of two bytes; {largest.name} takes {most}.",
        evidence=f"The sizes: {', '.join(f'{tier.name} {_billions(tier.max_parameters)}' for tier in ascending)}.{why}",
        fix="Use a smaller model, or a machine type instead of a size.",
    )


def next_tier(name: str, tiers: Sequence[Tier]) -> Tier | None:
    """The next size up, for a model that failed on this one; None after the largest."""
    ascending = sorted(tiers, key=lambda tier: tier.max_parameters)
    names = [tier.name for tier in ascending]
    after = names.index(name) + 1 if name in names else len(names)
    return ascending[after] if after < len(ascending) else None


WHOLE_QUOTA = Fraction(1)
"""A project's quota: four small, two medium or one large deployment, by the shares that the catalogue gives them."""


def quota_admits(running: Iterable[Fraction], wanted: Fraction, quota: Fraction = WHOLE_QUOTA) -> bool:
    """Whether one deployment more stays within a project's quota.

    Args:
        running: The shares of those that it has.
        wanted: The share of the new one.
        quota: What an operator lets the project have; more than one, or less.
    """
    return sum(running, Fraction(0)) + wanted <= quota


def _billions(count: float) -> str:
    return f"{count / 1e9:.1f}B"
