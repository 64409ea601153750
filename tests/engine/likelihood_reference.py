"""Run by the engine's Python: greedy answers of ``model.generate``, and a judge of any answers, both in float32.

Usage: ``python likelihood_reference.py greedy|score MODEL THREADS < given.json``; prints JSON.

``greedy`` takes prompts and answers ``[{"text", "ended"}]``; ``score`` takes ``[{"prompt", "text", "ended"}]`` and
answers ``[[summed negative log-likelihood in nats, tokens]]``, the end-of-sequence token of an ended answer included.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MAX_NEW_TOKENS = 16
BATCH = 25

task, folder, threads = sys.argv[1:4]
given = json.load(sys.stdin)
torch.set_num_threads(int(threads))
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def rendered(prompt):
    """The chat of one user message, up to where the answer begins."""
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def greedy(prompts):
    """Static batches, as `generate` makes them."""
    encoded = tokenizer(list(map(rendered, prompts)), padding=True, add_special_tokens=False, return_tensors="pt")
    made = model.generate(**encoded, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)[:, encoded.input_ids.shape[1] :]
    texts = tokenizer.batch_decode(made, skip_special_tokens=True)
    ended = (made == tokenizer.eos_token_id).any(dim=1).tolist()
    return [{"text": text, "ended": end} for text, end in zip(texts, ended, strict=True)]


def score(answers):
    """One forward pass over a padded batch."""
    prompts = [tokenizer.encode(rendered(each["prompt"]), add_special_tokens=False) for each in answers]
    ends = [[tokenizer.eos_token_id] if each["ended"] else [] for each in answers]
    # an answer that was cut inside a character ends in U+FFFD, which the model never wrote
    texts = [tokenizer.encode(each["text"].rstrip("\ufffd"), add_special_tokens=False) for each in answers]
    rows = [prompt + text + end for prompt, text, end in zip(prompts, texts, ends, strict=True)]
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.eos_token_id)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits
    result = []
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        answer = slice(len(prompt), len(row))
        before = slice(len(prompt) - 1, len(row) - 1)
        likely = torch.log_softmax(logits[place, before].float(), dim=-1)
        picked = likely.gather(1, ids[place, answer].unsqueeze(1))
        result.append([-picked.sum().item(), len(row) - len(prompt)])
    return result


with torch.inference_mode():
    work = greedy if task == "greedy" else score
    answers = [answer for start in range(0, len(given), BATCH) for answer in work(given[start : start + BATCH])]
print(json.dumps(answers))
