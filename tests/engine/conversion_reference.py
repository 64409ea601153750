"""Run by the engine's Python: tiny random checkpoints, and what transformers says of token sequences in float32.

Usage: ``python conversion_reference.py < given.json``, with ``{"rows": [[id]], "new": n, "cases": {name: {"folder": …,
"config": {…} or null, "rounded": ["", "bfloat16"]}}}``: a folder with a ``config`` is made first. Prints ``{name: {"":
{"likelihoods": [[float]], "greedy": [id]}, "bfloat16": …}}``: the log-probability of each token after a row's first,
and the next n tokens after the first row; under ``bfloat16`` those of matrices that were rounded to it.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

given = json.load(sys.stdin)
torch.set_num_threads(2)
rows = torch.tensor(given["rows"])


def make(folder, config):
    """A checkpoint whose every weight matters to what it says, with a tokenizer of bytes."""
    model_type, dtype = config.pop("model_type"), config.pop("dtype", "float32")
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and not name.endswith("bias"):
                parameter.normal_(mean=1.0, std=0.1)  # norms
            else:
                parameter.normal_(std=0.12)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    letters = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def said(folder, rounded):
    """Likelihoods and greedy tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if rounded:
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data = parameter.data.to(getattr(torch, rounded)).float()
    likely = torch.log_softmax(model(rows).logits[:, :-1], dim=-1)
    picked = likely.gather(2, rows[:, 1:, None])[..., 0]
    wanted = {"min_new_tokens": given["new"], "max_new_tokens": given["new"], "do_sample": False, "pad_token_id": 0}
    made = model.generate(rows[:1], attention_mask=torch.ones_like(rows[:1]), **wanted)
    return {"likelihoods": picked.tolist(), "greedy": made[0, rows.shape[1] :].tolist()}


answers = {}
for name, case in given["cases"].items():
    if case["config"]:
        make(Path(case["folder"]), case["config"])
    with torch.inference_mode():
        answers[name] = {rounded: said(case["folder"], rounded) for rounded in case["rounded"]}
print(json.dumps(answers))
