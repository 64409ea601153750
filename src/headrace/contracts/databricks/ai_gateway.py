"""``PUT /api/2.0/serving-endpoints/{name}/ai-gateway``: limits, usage tracking and the inference table."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.databricks.inference_tables import InferenceTableConfig, inference_table
from headrace.contracts.databricks.rate_limits import RateLimit, check_rate_limits
from headrace.contracts.databricks.reading import require_unset


class UsageTrackingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether usage is to be counted. It is, for every endpoint: the answer to this is what the caller said."""

    enabled: bool = False


class AiGatewayBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All that is to hold; what is left out is no longer so.

    Attributes:
        fallback_config: Refused: what answers by another deployed model is a rollout's business here.
        guardrails: Refused: nothing here judges what is said.
    """

    fallback_config: dict[str, Any] | None = None
    guardrails: dict[str, Any] | None = None
    inference_table_config: InferenceTableConfig | None = None
    rate_limits: tuple[RateLimit, ...] | None = None
    usage_tracking_config: UsageTrackingConfig | None = None


def check_ai_gateway(body: AiGatewayBody, endpoint_name: str) -> None:
    """Hold that an endpoint can have all of it.

    Raises:
        NotSupported: It has guardrails or fallbacks, or limits of groups.
        BadField: A limit or a name cannot be.
    """
    require_unset(
        "guardrails",
        body.guardrails,
        why="Nothing here judges or filters what is asked and answered.",
        fix="Leave guardrails out; put a model that judges before this endpoint.",
    )
    require_unset(
        "fallback_config",
        body.fallback_config,
        why="A request goes to another replica by itself, and to another served entity only by the endpoint's traffic.",
        fix="Leave fallback_config out.",
    )
    check_rate_limits(body.rate_limits or ())
    config = body.inference_table_config
    if config is not None and config.enabled:
        inference_table(config, endpoint_name)


def ai_gateway_json(body: AiGatewayBody) -> dict[str, Any]:
    """As it is kept, and as it is told."""
    said = msgspec.structs.replace(body, fallback_config=None, guardrails=None)
    return msgspec.json.decode(msgspec.json.encode(said), type=dict[str, Any])
