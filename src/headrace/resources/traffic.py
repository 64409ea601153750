"""Traffic splits: whole percents that add up to 100."""

from __future__ import annotations

from collections.abc import Mapping

WHOLE = 100
"""Percent."""


def share_out(shares: Mapping[str, int], *, whole: int = WHOLE) -> dict[str, int]:
    """The same proportions in whole percents that add up to 100, or to `whole`; of all zero the first takes everything.

    The percents that rounding down leaves over go to the largest remainders, the earlier first.
    """
    total = sum(shares.values())
    if not shares:
        return {}
    if total == 0:
        return {key: whole if place == 0 else 0 for place, key in enumerate(shares)}
    split = {key: share * whole // total for key, share in shares.items()}
    by_remainder = sorted(shares, key=lambda key: -(shares[key] * whole % total))
    for key in by_remainder[: whole - sum(split.values())]:
        split[key] += 1
    return split
