"""Measure, and print one JSON object: ``{"torch", "processor": {…}, "accelerator": {…} | null, "scatter"}``.

Each rate is the best of what was reached within `BUDGET_S`: what others take of the machine meanwhile is not its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

BUDGET_S = 1.0
"""How long each figure is measured, once it was measured twice."""

READ_BYTES = 256 * 1024**2
"""What is read at a time: more than the largest cache of a processor or a GPU."""

TOKENS, INNER, OUTER = 512, 2048, 8192
"""The product that is measured: a prompt of 512 tokens through the widest layer of a model of a billion parameters."""


scatters = [0.0]
"""By how much the median of each figure's runs was longer than the shortest: 0.1 for a tenth."""


def best_s(work: Callable[[], Any]) -> float:
    """The shortest of several runs; the first, which compiles and fills caches, does not count."""
    work()
    taken: list[float] = []
    ends = time.perf_counter() + BUDGET_S
    while len(taken) < 2 or time.perf_counter() < ends:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    scatters.append(statistics.median(taken) / min(taken) - 1)
    return min(taken)


def rates(device: str, number_formats: tuple[str, ...]) -> dict[str, Any]:
    """Bytes read a second, and operations a second by number format, of one device."""

    def done(result: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    numbers = torch.ones(READ_BYTES // 4, dtype=torch.float32, device=device)
    read_s = best_s(lambda: done(numbers.sum()))
    flops: dict[str, float] = {}
    for name in number_formats:
        dtype = getattr(torch, name)
        rows = torch.randn(TOKENS, INNER, device=device).to(dtype)
        weight = torch.randn(OUTER, INNER, device=device).to(dtype)
        product_s = best_s(lambda rows=rows, weight=weight: done(torch.nn.functional.linear(rows, weight)))  # type: ignore[misc]
        flops[name] = 2 * TOKENS * INNER * OUTER / product_s
    return {"bandwidth_bytes_per_s": READ_BYTES / read_s, "flops_per_s": flops}


def main() -> None:
    """Measure the processor, and the first GPU that torch sees."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    with torch.inference_mode():
        answer = {
            "torch": torch.__version__,
            "processor": rates("cpu", ("bfloat16", "float32")),
            "accelerator": rates("cuda", ("bfloat16", "float16", "float32")) if torch.cuda.is_available() else None,
        }
        answer["scatter"] = max(scatters)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
