"""How an endpoint's traffic is split in a stage of a rollout."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.control.traffic import WHOLE, share_out


def stage_split(before: Mapping[str, int], canary: str, percent: int) -> dict[str, int]:
    """So many percent to the canary; what is left to those that had the traffic before, in their proportions."""
    others = {name: share for name, share in before.items() if name != canary and share}
    return {**share_out(others, whole=WHOLE - percent), canary: percent}
