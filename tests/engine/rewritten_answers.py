"""Run by the engine's Python: tiny checkpoints as torch pickles them, and what transformers says of folders.

Usage: ``python rewritten_answers.py make OUT TYPE ...`` writes OUT/before/TYPE (safetensors, float32) and
OUT/pickles/TYPE; then, as ``… say FOLDER=DTYPE ...`` does, it prints a line of JSON for each folder: the greedy tokens
after some prompts, and the mean negative log-likelihood of a text's tokens, with weights loaded in that format.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from tiny_models import VOCAB, build

HEADS = {"lm_head.weight", "embed_out.weight"}
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "shared.weight", "word_embeddings.weight", "embeddings.weight")
LEGACY, SHARDED = {"gpt2", "t5"}, {"qwen2", "mixtral"}
PROMPTS, NEW_TOKENS, TEXT_TOKENS = (3, 17), 16, 64


def pickle(source: Path, target: Path, name: str) -> None:
    """The same tensors by torch.save: vectors cut out of one storage, some matrices transposed, a tied head's name."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    state = load_file(source / "model.safetensors")
    vectors = {key: tensor for key, tensor in state.items() if tensor.dim() == 1}
    packed = torch.cat(list(vectors.values()))
    for key, piece in zip(vectors, packed.split([len(vector) for vector in vectors.values()]), strict=True):
        state[key] = piece
    for key in [key for key, tensor in state.items() if tensor.dim() == 2][::3]:
        state[key] = state[key].t().contiguous().t()
    config = json.loads((source / "config.json").read_text())
    if config.get("tie_word_embeddings") and not HEADS & state.keys():
        state["lm_head.weight"] = next(tensor for key, tensor in state.items() if key.endswith(EMBEDDINGS))
    options = {"_use_new_zipfile_serialization": name not in LEGACY}
    if name not in SHARDED:
        torch.save(state, target / "pytorch_model.bin", **options)
        return
    weight_map, keys = {}, list(state)
    for number, part in enumerate((keys[: len(keys) // 2], keys[len(keys) // 2 :]), start=1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({key: state[key] for key in part}, target / file, **options)
        weight_map |= dict.fromkeys(part, file)
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def say(folder: Path, dtype: str) -> dict:
    """Greedy tokens and likelihood; the same inputs for every folder."""
    config = transformers.AutoConfig.from_pretrained(folder)
    loader = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model, info = loader.from_pretrained(folder, dtype=getattr(torch, dtype), output_loading_info=True)
    model.eval()
    random = torch.Generator().manual_seed(7)
    greedy = []
    model.generation_config.eos_token_id = None
    for length in PROMPTS:
        ids = torch.randint(0, 256, (1, length), generator=random)
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
        greedy.append(made[0, -NEW_TOKENS:].tolist())
    text = torch.randint(0, min(256, VOCAB), (1, TEXT_TOKENS), generator=random)
    loss = float(model(input_ids=text, labels=text).loss.float())
    return {"missing": sorted(info["missing_keys"]), "greedy": greedy, "loss": loss}


transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
torch.set_num_threads(2)
if sys.argv[1] == "make":
    out, names = Path(sys.argv[2]), sys.argv[3:]
    for each in names:
        build(each, out / "before")
        pickle(out / "before" / each, out / "pickles" / each, each)
    wanted = [(str(out / "before" / each), dtype) for each in names for dtype in ("float32", "bfloat16")]
else:
    wanted = [word.rpartition("=")[::2] for word in sys.argv[2:]]
with torch.inference_mode():
    for path, dtype in wanted:
        print(json.dumps({"folder": path, "dtype": dtype} | say(Path(path), dtype)), flush=True)
