"""Run by the Python of the OpenVINO engine: openvino-genai's pipeline without any server.

Usage: ``offline_openvino.py FOLDER THREADS``; reads lines of JSON ``{"prompts", "max_tokens", "concurrency"}`` and
answers each with ``{"wall_s", "tokens"}``. Requests are kept at the concurrency asked for, as a server's clients would.
"""

import json
import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as genai
from tokenizers import Tokenizer

folder, threads = sys.argv[1], int(sys.argv[2])
scheduler = genai.SchedulerConfig()
scheduler.cache_size = 1  # GiB
scheduler.max_num_batched_tokens = 512
scheduler.max_num_seqs = 128
pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")


def run(prompts, max_tokens, concurrency):
    """Tokens made."""
    waiting = list(enumerate(prompts))
    handles = {}
    config = genai.GenerationConfig(max_new_tokens=max_tokens, ignore_eos=True)
    tokens = 0
    while waiting or handles:
        while waiting and len(handles) < concurrency:
            number, prompt = waiting.pop()
            ids = np.array([tokenizer.encode(prompt).ids], dtype=np.int64)
            handles[number] = pipeline.add_request(number, ov.Tensor(ids), config)
        pipeline.step()
        for number, handle in list(handles.items()):
            while handle.can_read():
                for output in handle.read().values():
                    tokens += len(output.generated_ids)
                    if output.finish_reason != genai.GenerationFinishReason.NONE:
                        handles.pop(number, None)
    return tokens


print("ready", flush=True)
for line in sys.stdin:
    given = json.loads(line)
    began_s = time.perf_counter()
    made = run(**given)
    print(json.dumps({"wall_s": time.perf_counter() - began_s, "tokens": made}), flush=True)
