"""Floor 2: whether a model fits into memory and how fast it would be, before anything is loaded."""

from headrace.capacity.memory import (
    DEFAULT_CONTEXT_TOKENS,
    PLANNED_SEQUENCES,
    MemoryNeed,
    check_fit,
    copied_bytes,
    estimate,
)
from headrace.capacity.parameters import Parameters, count_parameters
from headrace.capacity.places import DEVICE_SHARE, place_of
from headrace.capacity.plan import (
    PROMPT_TOKENS,
    Load,
    Plan,
    context_tokens,
    degrees,
    need_of,
    parameters_of,
    plan,
    require_tier,
)
from headrace.capacity.roofline import Place, Prediction, Work, predict
from headrace.capacity.tiers import Tier, next_tier, quota_admits, tier_for
from headrace.capacity.unwritten import unwritten

__all__ = [
    "DEFAULT_CONTEXT_TOKENS",
    "DEVICE_SHARE",
    "PLANNED_SEQUENCES",
    "PROMPT_TOKENS",
    "Load",
    "MemoryNeed",
    "Parameters",
    "Place",
    "Plan",
    "Prediction",
    "Tier",
    "Work",
    "check_fit",
    "context_tokens",
    "copied_bytes",
    "count_parameters",
    "degrees",
    "estimate",
    "need_of",
    "next_tier",
    "parameters_of",
    "place_of",
    "plan",
    "predict",
    "quota_admits",
    "require_tier",
    "tier_for",
    "unwritten",
]
