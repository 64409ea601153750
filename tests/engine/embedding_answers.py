"""Run by the engine's Python: embeddings by this engine and by a plain computation with transformers.

Usage: ``python embedding_answers.py FOLDER``; prints JSON.
"""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_models import ENCODERS, build
from transformers import AutoModel

from headrace_engines.serving.fatal import FatalError
from headrace_engines.transformers.loading import LoadOptions, load

INPUTS = [[70 + shift, *range(40, 40 + length)] for shift, length in enumerate([1, 30, 3, 0, 12])]

FLAGS = {"cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens"}


DENSE = {"first": ("Tanh", True, 32, 48), "second": ("Identity", False, 48, 24)}
"""By their folders: activation, whether they add a bias, width of what comes and of what goes."""


def sentence_folder(source: Path, mode: str, *, normalise: bool, module: str = "Pooling") -> Path:
    """The same model as sentence-transformers would have written it."""
    folder = source.with_name(f"{source.name}-{mode}-{normalise}-{module}")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({flag: name == mode for name, flag in FLAGS.items()}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    kinds = ["Transformer", module, *(["Normalize"] if normalise else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": index, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def with_dense(folder: Path) -> Path:
    """The same with two dense layers after the pooling, as Google's and the older multilingual models have them."""
    modules = json.loads((folder / "modules.json").read_text())
    rng = torch.Generator().manual_seed(7)
    for name, (activation, bias, width_in, width_out) in DENSE.items():
        (folder / name).mkdir(exist_ok=True)
        config = {"in_features": width_in, "out_features": width_out, "bias": bias}
        config["activation_function"] = f"torch.nn.modules.activation.{activation}"
        (folder / name / "config.json").write_text(json.dumps(config))
        tensors = {"linear.weight": torch.randn(width_out, width_in, generator=rng).bfloat16()}
        if bias:
            tensors["linear.bias"] = torch.randn(width_out, generator=rng)
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
        modules.insert(2, {"idx": 2, "path": name, "type": "sentence_transformers.models.Dense"})
    modules[2:4] = reversed(modules[2:4])
    modules.insert(3, modules[-1])  # to length one before the last layer, too: the order is the folder's
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def options(folder: Path) -> LoadOptions:
    """On one thread, in float32."""
    return LoadOptions(
        folder=folder,
        dtype="float32",
        device="cpu",
        threads=1,
        max_model_len=None,
        max_running=8,
        max_waiting=8,
        kv_cache_bytes=0,
    )


def plainly(folder: Path, mode: str, *, normalise: bool) -> list[list[float]]:
    """Each input alone, without padding."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = []
    with torch.inference_mode():
        for token_ids in INPUTS:
            states = model(input_ids=torch.tensor([token_ids])).last_hidden_state[0]
            vector = {"mean": states.mean(dim=0), "cls": states[0], "lasttoken": states[-1]}[mode]
            if (folder / "first").is_dir():
                first, second = (load_file(folder / name / "model.safetensors") for name in DENSE)
                vector = torch.tanh(first["linear.weight"].float() @ vector + first["linear.bias"])
                vector = second["linear.weight"].float() @ (vector / vector.norm())
            vectors.append((vector / vector.norm() if normalise else vector).tolist())
    return vectors


async def compare(folder: Path, mode: str, *, normalise: bool) -> dict[str, Any]:
    """Both, and the limits."""
    served = load(options(folder), asyncio.get_running_loop(), lambda fatal: print(fatal.line, file=sys.stderr))
    embedder = served.embedder
    computed: list[int] = []
    together, *apart = await asyncio.gather(
        embedder.embed(INPUTS, computed.append), *(embedder.embed([one], computed.append) for one in INPUTS)
    )
    counted = sum(computed)
    expected = torch.tensor(plainly(folder, mode, normalise=normalise))
    given_up = asyncio.ensure_future(embedder.embed(INPUTS * 20, computed.append))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    return {
        "generates": served.generator is not None,
        "together": float((torch.tensor(together) - expected).abs().max()),
        "apart": float((torch.tensor([one for [one] in apart]) - expected).abs().max()),
        "max_input_tokens": embedder.limits.max_input_tokens,
        "dimensions": embedder.limits.dimensions,
        "left": len(embedder._open),
        "counted": counted / sum(map(len, INPUTS)),
    }


async def main() -> dict[str, Any]:
    """Every encoder as it is, and one with each pooling."""
    out = Path(sys.argv[1])
    answers = {name: await compare(build(name, out), "mean", normalise=True) for name in ENCODERS}
    for mode in FLAGS:
        folder = sentence_folder(build("bert", out), mode, normalise=mode == "cls")
        answers[f"bert-{mode}"] = await compare(folder, mode, normalise=mode == "cls")
    folder = sentence_folder(build("qwen3", out), "lasttoken", normalise=True)
    answers["qwen3-lasttoken"] = await compare(folder, "lasttoken", normalise=True)
    folder = sentence_folder(build("bloom", out), "mean", normalise=True)
    (folder / "sentence_bert_config.json").unlink()
    answers["bloom-mean"] = await compare(folder, "mean", normalise=True)
    dense = with_dense(sentence_folder(build("qwen3", out), "mean", normalise=True))
    answers["qwen3-dense"] = await compare(dense, "mean", normalise=True)
    config = json.loads((dense / "first" / "config.json").read_text())
    refused = {
        "activation": {"activation_function": "torch.nn.modules.activation.Softshrink"},
        "another's activation": {"activation_function": "mine.Tanh"},
        "scores": {"module_output_name": "scores"},
        "shape": {"out_features": 47},
    }
    for name, changed in refused.items():
        (dense / "first" / "config.json").write_text(json.dumps(config | changed))
        answers[name] = await refusal(dense)
    (dense / "first" / "config.json").write_text(json.dumps(config))
    tensors = load_file(dense / "first" / "model.safetensors")
    unfit = {"width": {"linear.weight": torch.zeros(48, 64)}, "bias": {"linear.bias": None}}
    for name, changes in unfit.items():
        kept = {key: tensor for key, tensor in (tensors | changes).items() if tensor is not None}
        save_file(kept, dense / "first" / "model.safetensors", {"format": "pt"})
        answers[name] = await refusal(dense)
    (dense / "first" / "model.safetensors").write_bytes(b"no tensors")
    answers["junk"] = await refusal(dense)
    modules = json.loads((dense / "modules.json").read_text())
    for name, changed_modules in {
        "outside": [*modules[:2], modules[2] | {"path": "../first"}],
        "early": [modules[0], modules[2], modules[1]],
    }.items():
        (dense / "modules.json").write_text(json.dumps(changed_modules))
        answers[name] = await refusal(dense)
    answers["step"] = await refusal(sentence_folder(build("bert", out), "mean", normalise=True, module="LSTM"))
    return answers


async def refusal(folder: Path) -> dict[str, str]:
    """Why it does not load."""
    try:
        await compare(folder, "mean", normalise=True)
    except FatalError as error:
        return {"code": error.code, "message": error.message, "evidence": error.evidence}
    raise AssertionError(f"{folder} was loaded")


print(json.dumps(asyncio.run(main())))
