"""A profile whose numbers are known: on a busy machine a replica may be measured to keep no latency at all."""

from __future__ import annotations

from typing import Any

import httpx

from headrace.resources.profiles import Cost

COST = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)


def keep_known_profile(client: httpx.Client, deployment_id: str, *, cores: int = 0) -> dict[str, Any]:
    """Keep one of a deployment, as `headrace profile` does; the newest counts. A replica carries 762 tokens/s by it.

    Args:
        client: Of the server.
        deployment_id: Whose replica it is of.
        cores: That it is said to have had; 0: those that it has.
    """
    points = [
        {
            "prompt_tokens": prompt,
            "output_tokens": output,
            "concurrency": at,
            "requests": 1.0,
            "wall_s": COST.work_s(prompt, output, at),
            "first_s": 0.1,
            "gap_s": 0.05,
        }
        for at in (1, 4, 16)
        for prompt in (32, 256, 768)
        for output in (16, 64)
    ]
    answer = client.post("/headrace/v1/profiles", json={"deployment": deployment_id, "points": points, "cores": cores})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
