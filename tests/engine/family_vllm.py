"""Run by vLLM's Python: greedy answers of many models, one after the other in one process, as our adapter starts it.

Usage: ``python family_vllm.py OUT < given.json``, with ``{"folders": {name: path}, "prompts", "new"}``; writes
``{name: {"answers"}}`` or ``{name: {"error"}}`` into OUT, as vLLM logs to standard output. A server for each would take
half a minute each.
"""

import gc
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory


def answers(folder: str, given: dict[str, Any]) -> list[list[int]]:
    """What it says to all prompts at once."""
    llm = LLM(
        folder,
        dtype="auto",
        max_model_len=256,
        max_num_seqs=128,
        enforce_eager=True,
        kv_cache_memory_bytes=2**26,
        worker_cls="headrace_engines.vllm.worker.FrugalWorker",
    )
    greedy = SamplingParams(temperature=0, max_tokens=given["new"], ignore_eos=True, detokenize=False)
    made = llm.generate([{"prompt_token_ids": ids} for ids in given["prompts"]], greedy, use_tqdm=False)
    return [list(each.outputs[0].token_ids) for each in made]


def main() -> None:
    """All models. vLLM starts processes that import this module again."""
    given = json.load(sys.stdin)
    told: dict[str, Any] = {}
    for name, path in given["folders"].items():
        try:
            told[name] = {"answers": answers(path, given)}
        except Exception:
            told[name] = {"error": traceback.format_exc()[-2000:]}
        gc.collect()
        cleanup_dist_env_and_memory()
    Path(sys.argv[1]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
