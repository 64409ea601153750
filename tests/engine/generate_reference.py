"""Run by the engine's Python: ``model.generate`` on the same prompts, and the first token's distribution by hand.

Usage: ``python generate_reference.py MODEL THREADS < given.json``; prints JSON.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headrace_engines.transformers.attention import attend_as_cpus_should

attend_as_cpus_should()  # in bfloat16 heads that share keys are rounded in another order, and likeliest tokens are near
given = json.load(sys.stdin)
torch.set_num_threads(int(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto").eval()


def greedy(prompt: str) -> dict[str, object]:
    """The greedy answer to one user message."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**encoded, do_sample=False, max_new_tokens=given["max_new_tokens"])[0].tolist()
    prompt_ids, new_ids = ids[: encoded.input_ids.shape[1]], ids[encoded.input_ids.shape[1] :]
    return {
        "prompt_ids": prompt_ids,
        "new_ids": new_ids,
        "text": tokenizer.decode(new_ids, skip_special_tokens=True),
        "ended": new_ids[-1] == tokenizer.eos_token_id,
    }


def first_token_probabilities(prompt: str) -> dict[str, float]:
    """Temperature, then top-k, then top-p, then min-p, each by its definition on plain Python numbers."""
    encoded = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**encoded).logits[0, -1].float()
    logits = logits / given["temperature"]
    order = logits.argsort(descending=True)[: given["top_k"]].tolist()
    probabilities = torch.softmax(logits[order].double(), dim=0).tolist()
    kept, reached = [], 0.0
    for token_id, probability in zip(order, probabilities, strict=True):
        if reached >= given["top_p"]:
            break
        kept.append((token_id, probability))
        reached += probability
    least = given["min_p"] * kept[0][1]
    kept = [(token_id, probability) for token_id, probability in kept if probability >= least]
    total = sum(probability for _, probability in kept)
    return {tokenizer.decode([token_id]): probability / total for token_id, probability in kept}


answer = {
    "greedy": [greedy(prompt) for prompt in given["prompts"]],
    "first_token": first_token_probabilities(given["sampled_prompt"]),
}
print(json.dumps(answer))
