"""Run by the Python of the transformers engine: ``model.generate`` in static batches, without any server.

Usage: ``offline_generate.py FOLDER THREADS``; reads lines of JSON ``{"prompts", "max_tokens", "concurrency"}`` and
answers each with ``{"wall_s", "tokens"}``. A batch holds as many prompts as the concurrency says.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = sys.argv[1]
torch.set_num_threads(int(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def run(prompts, max_tokens, concurrency):
    """Tokens made."""
    tokens = 0
    for start in range(0, len(prompts), concurrency):
        batch = tokenizer(prompts[start : start + concurrency], padding=True, return_tensors="pt")
        lengths = {"min_new_tokens": max_tokens, "max_new_tokens": max_tokens}
        made = model.generate(**batch, do_sample=False, **lengths)
        tokens += made[:, batch.input_ids.shape[1] :].numel()
    return tokens


print("ready", flush=True)
with torch.inference_mode():
    for line in sys.stdin:
        given = json.loads(line)
        began_s = time.perf_counter()
        made = run(**given)
        print(json.dumps({"wall_s": time.perf_counter() - began_s, "tokens": made}), flush=True)
