"""Run by the engine's Python: the demo model in forms that want a conversion, and what transformers says of folders.

Usage: ``python real_answers.py make FILE.gguf MODEL OUT`` writes OUT/pickles, OUT/unindexed and OUT/unnoted with
MODEL's numbers, and OUT/float32 with those of the GGUF, dequantised by transformers. ``… say FOLDER ...`` prints a line
of JSON for each folder, loaded in float32: greedy answers, the mean negative log-likelihood of a text in nats.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

PROMPTS = (Path(__file__).parent / "likelihood_prompts.txt").read_text().splitlines()
NEW_TOKENS = 12


def make(gguf: Path, model: Path, out: Path) -> None:
    """Write the folders."""
    state = load_file(model / "model.safetensors")
    names = list(state)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for form in ("pickles", "unindexed", "unnoted", "float32"):
        shutil.copytree(model, out / form, ignore=shutil.ignore_patterns("*.safetensors"))
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        part = {name: state[name] for name in half}
        save_file(part, out / "unindexed" / f"model-0000{number}-of-00002.safetensors", metadata={"format": "pt"})
        tied = {"lm_head.weight": part["model.embed_tokens.weight"]} if "model.embed_tokens.weight" in part else {}
        torch.save(part | tied, out / "pickles" / f"pytorch_model-0000{number}-of-00002.bin")
        weight_map |= dict.fromkeys(part | tied, f"pytorch_model-0000{number}-of-00002.bin")
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (out / "pickles" / "pytorch_model.bin.index.json").write_text(index)
    save_file(state, out / "unnoted" / "model.safetensors")
    options = {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    exact = AutoModelForCausalLM.from_pretrained(gguf.parent, **options).state_dict()
    save_file({name: exact[name].clone() for name in names}, out / "float32" / "model.safetensors", {"format": "pt"})


def say(folder: Path) -> dict:
    """The same inputs for every folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model.eval()
    answers = []
    for prompt in PROMPTS[:2]:
        chat = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**ids, do_sample=False, max_new_tokens=NEW_TOKENS)
        answers.append(made[0, ids.input_ids.shape[1] :].tolist())
    text = tokenizer("\n".join(PROMPTS[:50]), return_tensors="pt").input_ids
    return {"missing": sorted(info["missing_keys"]), "greedy": answers, "loss": float(model(text, labels=text).loss)}


torch.set_num_threads(1)  # beside other work, two wait for each other
with torch.inference_mode():
    if sys.argv[1] == "make":
        make(*map(Path, sys.argv[2:]))
    else:
        for each in sys.argv[2:]:
            print(json.dumps({"folder": Path(each).name} | say(Path(each))), flush=True)
