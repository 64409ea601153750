"""Run by the engine's Python: tiny random models of many families, and how likely answers of them are, in float32.

Usage: ``python family_models.py make|score FOLDER < given.json``; prints JSON.

``make`` takes ``{"names", "prompts", "rows", "new"}``, makes a folder of each name in FOLDER and tells of each what
``generate`` says to the prompts (``answers``) and the log-probability of each token of the rows after their first
(``likelihoods``). ``score`` takes ``{"prompts", "answers": {name: [[id]]}}`` and tells of each name the summed negative
log-likelihood of all its answers in nats.

They are those of `tiny_models`, four times as wide: heads of 32, as vLLM's kernels for CPUs want them. Weights are
bfloat16, as most are that are served, and the last matrix is scaled so that a likeliest token has a probability of a
half: engines that round differently then say nearly the same, and a fault shows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_models import BOS, EOS, PAD, TEXT_MODELS, tokenizer

WIDER = 4
WIDTHS = {"hidden_size", "intermediate_size", "n_embd", "ffn_dim", "word_embed_proj_dim", "moe_intermediate_size"}
WIDTHS |= {"shared_expert_intermediate_size", "head_dim", "rotary_dim", "query_pre_attn_scalar"}
SPREAD = 0.12
GREEDY_NATS = 0.7

TIED = {"bloom"}
"""Whose embeddings are its output matrix: vLLM loads no other bloom. They are normalised, so their scale is free."""

MIXED = {"qwen3_moe": {"num_experts_per_tok": 4}}
"""All of its experts for each token: which two of four are the likeliest is decided by rounding now and then, and what
follows is then another text."""


def config_of(name: str) -> Any:
    """As in `tiny_models`, but wider, and nearly always with an output matrix of its own."""
    tiny = TEXT_MODELS["llama" if name == "arcee" else name]
    wide = {key: value * WIDER if key in WIDTHS else value for key, value in tiny.items()}
    return transformers.AutoConfig.for_model(name, **wide | {"tie_word_embeddings": name in TIED} | MIXED.get(name, {}))


def make(name: str, folder: Path) -> None:
    """A checkpoint whose every weight matters to what it says."""
    torch.manual_seed(20261126)
    model = transformers.AutoModelForCausalLM.from_config(config_of(name), dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=SPREAD)
        else:
            parameter.add_(torch.randn_like(parameter) * SPREAD)  # norms, around what they are before training
    logits = model(torch.randint(0, 256, (16, 24))).logits
    low, high = 1e-3, 1e3
    for _ in range(40):
        scale = (low * high) ** 0.5
        nats = -torch.log_softmax(logits * scale, dim=-1).amax(-1).mean()
        low, high = (scale, high) if nats > GREEDY_NATS else (low, scale)
    model.get_output_embeddings().weight.mul_(scale)
    model.generation_config = transformers.GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    model.to(torch.bfloat16).save_pretrained(folder / name)
    tokenizer().save_pretrained(folder / name)


def loaded(name: str, folder: Path) -> Any:
    """The reference."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32).eval()


def by_length(prompts: list[list[int]]) -> list[tuple[list[int], torch.Tensor]]:
    """Prompts of one length together, with their numbers: nothing has to be padded."""
    lengths = sorted({len(prompt) for prompt in prompts})
    groups = [[number for number, prompt in enumerate(prompts) if len(prompt) == length] for length in lengths]
    return [(group, torch.tensor([prompts[number] for number in group])) for group in groups]


def likelihoods(model: Any, rows: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token of the rows after their first."""
    likely = torch.log_softmax(model(rows).logits[:, :-1].float(), dim=-1)
    return likely.gather(2, rows[:, 1:, None])[..., 0]


def said(name: str, folder: Path) -> dict[str, Any]:
    """What the reference says."""
    model = loaded(name, folder)
    model.generation_config.eos_token_id = None
    answers: list[list[int]] = [[] for _ in given["prompts"]]
    for numbers, ids in by_length(given["prompts"]):
        mask = torch.ones_like(ids)
        made = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=given["new"])
        for number, row in zip(numbers, made[:, ids.shape[1] :].tolist(), strict=True):
            answers[number] = row
    return {"answers": answers, "likelihoods": likelihoods(model, torch.tensor(given["rows"])).tolist()}


def score(name: str, folder: Path) -> float:
    """Of all answers together."""
    model, answers, nats = loaded(name, folder), given["answers"][name], 0.0
    for numbers, ids in by_length(given["prompts"]):
        rows = torch.cat([ids, torch.tensor([answers[number] for number in numbers])], dim=1)
        nats -= likelihoods(model, rows)[:, ids.shape[1] - 1 :].sum().item()
    return nats


transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
torch.set_num_threads(2)
given = json.load(sys.stdin)
task, where = sys.argv[1], Path(sys.argv[2])
told: dict[str, Any] = {}
with torch.no_grad():
    if task == "make":
        for wanted in given["names"]:
            make(wanted, where)
            told[wanted] = said(wanted, where)
    else:
        told = {wanted: score(wanted, where) for wanted in given["answers"]}
print(json.dumps(told))
