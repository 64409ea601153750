"""Run by the engine's Python: which error the sampler raises, for scores and sampling on standard input.

Prints the class's name for each pair of logits (None is NaN) and sampling, or the token that was picked.
"""

import json
import sys

import torch

from headrace_engines.serving.generator import GenerationFailed, GenerationRequest, Sampling
from headrace_engines.transformers.sampler import Sampler, pick_tokens

answers = []
for logits, sampling in json.load(sys.stdin):
    request = GenerationRequest(prompt_ids=[0], max_tokens=1, sampling=Sampling(**sampling))
    scores = torch.tensor([[torch.nan if logit is None else logit for logit in logits]])
    (picked,) = pick_tokens([(Sampler(request, frozenset(), "cpu"), [0])], scores)
    answers.append(type(picked).__name__ if isinstance(picked, GenerationFailed) else picked.token_id)
print(json.dumps(answers))
