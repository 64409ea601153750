"""``get-model-optimization-info``: in what increments the throughput of a model is sold.

Databricks' own answer has the first three fields; ``headrace`` says where they come from.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.databricks.served import UNITS_OF_A_CHUNK
from headrace.resources.errors import NotOptimizable
from headrace.resources.profiles import Carried, Profile


def optimization_json(
    carried: Carried, *, model_type: str, chunk: int, tokens_per_s: float, profile: Profile | None = None
) -> dict[str, Any]:
    """Of a model whose throughput can be stated.

    Args:
        carried: What a replica carries.
        model_type: As its config.json says; may be empty.
        chunk: Tokens a second of one increment.
        tokens_per_s: Of a whole replica.
        profile: The measurement that it is from, where it was measured.
    """
    ours = {
        "measured": carried.measured,
        "tokens_per_s_of_a_replica": round(tokens_per_s, 1),
        "concurrency_of_a_replica": carried.concurrency,
        "time_to_first_token_s": carried.first_s,
        "inter_token_latency_s": carried.gap_s,
        "model_units_of_a_chunk": UNITS_OF_A_CHUNK,
    }
    if profile is not None:
        ours["measured_timestamp"] = round(profile.created_at * 1000)
        ours["mean_error_of_the_fit"] = round(profile.mean_error, 3)
    return {"optimizable": True, "model_type": model_type, "throughput_chunk_size": chunk, "headrace": ours}


def not_optimizable_json(error: NotOptimizable) -> dict[str, Any]:
    """Of any other, with the reason."""
    return {"optimizable": False, "headrace": msgspec.to_builtins(error.failure)}
