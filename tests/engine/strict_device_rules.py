"""Run by the engine's Python: what `strict_device` takes and what it refuses; prints a line of JSON."""

import json

import torch
from strict_device import strict_device

with torch.inference_mode(), strict_device():
    there = torch.arange(6.0, device="gpu").view(2, 3)
    here = torch.ones(2, 3)
    ways = {
        "added": lambda: there + here,
        "concatenated": lambda: torch.cat([there, here]),
        "multiplied": lambda: there @ here.T,
        "masked": lambda: there.masked_fill(here > 0, 0.0),
        "looked up": lambda: torch.nn.functional.embedding(torch.tensor([1]), there),
        "as numpy": there.numpy,
        "stacked with a scalar tensor": lambda: torch.stack([there[0, 0], torch.tensor(1.0)]),
        "drawn by the CPU's generator": lambda: torch.multinomial(there, 1, generator=torch.Generator("cpu")),
        "drawn by its generator": lambda: torch.multinomial(there, 1, generator=torch.Generator("gpu")),
        "with a number": lambda: there + 1,
        "with a scalar tensor": lambda: there + torch.tensor(1.0),
        "indexed by the CPU": lambda: there[torch.tensor([1])],
        "copied here": lambda: there.clone().copy_(here),
        "copied back": lambda: here.clone().copy_(there),
        "changed in place": lambda: there.clone().add_(1),
    }
    told = {}
    for way, compute in ways.items():
        try:
            compute()
            told[way] = "taken"
        except (RuntimeError, TypeError):
            told[way] = "refused"
print(json.dumps(told))
