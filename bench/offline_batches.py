"""Run by the Python of the transformers engine: our batches beside ``model.generate`` in static ones, both offline.

Usage: ``offline_batches.py THREADS MODEL ...``; prints a line of JSON for each model and size of batch. Weights are
random, for what they are does not change how long they take.
"""

import json
import random
import sys
import time

import torch
import transformers

from headrace_engines.serving.generator import Generation, GenerationRequest, Sampling
from headrace_engines.transformers.batch import DynamicBatch
from headrace_engines.transformers.cache_cost import cost_of
from headrace_engines.transformers.forward import PROBE_TOKENS, probe
from headrace_engines.transformers.loading import forward_of
from headrace_engines.transformers.sequence import Sequence

CONCURRENCIES = (8, 32)
NEW_TOKENS = 64
PROMPT_TOKENS = (15, 45)
ROUNDS = 2
BUDGET_BYTES = 2**30
PAD = 0

_T5 = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "decoder_start_token_id": PAD}
_BART = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
_PHI3 = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 8}
_LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 32, "long_factor": [4.0] * 32}
MODELS = {
    "t5": _T5 | {"vocab_size": 32128},  # t5-small
    "bart": _BART | {"forced_eos_token_id": None, "pad_token_id": PAD},  # bart-base
    "mamba": {"hidden_size": 768, "num_hidden_layers": 6},  # a quarter of mamba-130m
    "phi3": _PHI3 | {"rope_parameters": _LONG, "original_max_position_embeddings": 4096, "pad_token_id": PAD},
}

IN_FLOAT32 = frozenset({"mamba"})
"""In bfloat16 a CPU makes two thirds of its tokens, by ``generate`` as by us, and a round takes minutes."""


def build(name):
    """A model of that size, and how this engine runs it."""
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(name, **MODELS[name])
    kind = "encoder-decoder" if config.is_encoder_decoder else "causal"
    family = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = family.from_config(config, dtype=torch.float32 if name in IN_FLOAT32 else torch.bfloat16).eval()
    model.generation_config.pad_token_id = PAD
    return model, forward_of(kind, model)


def by_generate(model, prompts):
    """Tokens made in one static batch; of an encoder-decoder the decoder's start is not one."""
    columns = max(map(len, prompts))
    padded = [[PAD] * (columns - len(prompt)) + prompt for prompt in prompts]
    shown = [[0] * (columns - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    lengths = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    made = model.generate(torch.tensor(padded), attention_mask=torch.tensor(shown), do_sample=False, **lengths)
    return len(prompts) * (made.shape[1] - (1 if model.config.is_encoder_decoder else columns))


def by_batch(forward, prompts):
    """Tokens made by our batch, to which all came at once."""
    cost = cost_of(probe(forward), PROBE_TOKENS)
    batch = DynamicBatch(forward, max_running=len(prompts), budget_bytes=BUDGET_BYTES, cost=cost)
    greedy = {"max_tokens": NEW_TOKENS, "ignore_eos": True, "sampling": Sampling(temperature=0)}
    requests = [GenerationRequest(prompt_ids=prompt, **greedy) for prompt in prompts]
    waiting = [Sequence(request, Generation(lambda: None), frozenset(), "cpu") for request in requests]
    tokens = 0
    while waiting or len(batch):
        while waiting and batch.has_room(waiting[0]):
            batch.add(waiting.pop(0))
        tokens += len(batch.step())
    return tokens


def tokens_per_cpu_s(make):
    """Of this process, all threads."""
    began_s = time.process_time()
    tokens = make()
    return tokens / (time.process_time() - began_s)


def compare(name):
    """Both ways in turn, for each size of batch."""
    model, forward = build(name)
    dice = random.Random(1)
    for concurrency in CONCURRENCIES:
        prompts = [[dice.randrange(3, 30000) for _ in range(dice.randint(*PROMPT_TOKENS))] for _ in range(concurrency)]
        by_generate(model, prompts[:2])
        for _ in range(ROUNDS):
            static = tokens_per_cpu_s(lambda prompts=prompts: by_generate(model, prompts))
            ours = tokens_per_cpu_s(lambda prompts=prompts: by_batch(forward, prompts))
            line = {"model": name, "concurrency": concurrency, "static": static, "ours": ours}
            print(json.dumps(line), flush=True)


torch.set_num_threads(int(sys.argv[1]))
transformers.logging.set_verbosity_error()
with torch.inference_mode():
    for wanted in sys.argv[2:]:
        compare(wanted)
