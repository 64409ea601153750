"""Run by the OpenVINO engine's Python: what converted families say, in float32 and as they are served.

Usage: ``python family_openvino.py < given.json``, with ``{"folders": {name: path}, "prompts", "rows", "new"}``; prints
``{name: {"likelihoods", "answers"}}``: as `family_models` tells them, the answers made by the engine's own pipeline in
the numbers that it chooses; or ``{name: {"error"}}``.
"""

import json
import sys
import traceback
from typing import Any

import numpy as np
from conversion_result import likelihoods

from headrace_engines.openvino.loading import load
from headrace_engines.openvino.messages import Load
from headrace_engines.serving.generator import GenerationRequest, Sampling

CACHE_BYTES = 2**24
given = json.load(sys.stdin)


def answers(folder: str) -> list[list[int]]:
    """Greedy ones, as many at a time as there is room for."""
    order = Load(folder=folder, dtype="auto", threads=2, max_model_len=256, kv_cache_bytes=CACHE_BYTES, max_running=128)
    running, _ = load(order)
    said: list[list[int]] = [[] for _ in given["prompts"]]
    waiting = [
        (
            number,
            GenerationRequest(
                prompt_ids=ids, max_tokens=given["new"], ignore_eos=True, sampling=Sampling(temperature=0)
            ),
        )
        for number, ids in enumerate(given["prompts"])
    ]
    while waiting or running:
        while waiting and running.has_room(waiting[0][1]):
            running.add(*waiting.pop(0))
        step = running.step()
        assert not step.failures, step.failures
        for number, event in step.events:
            said[number] += event.token_ids
    return said


told: dict[str, Any] = {}
for name, path in given["folders"].items():
    try:
        likely = likelihoods(path, np.array(given["rows"], dtype=np.int64))
        told[name] = {"likelihoods": likely.tolist(), "answers": answers(path)}
    except Exception:
        told[name] = {"error": traceback.format_exc()[-2000:]}
print(json.dumps(told))
