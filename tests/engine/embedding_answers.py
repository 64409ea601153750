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
from tiny_models import ENCODERS, build
from transformers import AutoModel

from headrace_engines.serving.fatal import FatalError
from headrace_engines.transformers.loading import LoadOptions, load

INPUTS = [[70 + shift, *range(40, 40 + length)] for shift, length in enumerate([1, 30, 3, 0, 12])]

FLAGS = {"cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens"}


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
    try:
        await compare(
            sentence_folder(build("bert", out), "mean", normalise=True, module="Dense"), "mean", normalise=True
        )
    except FatalError as error:
        answers["dense"] = {"code": error.code, "message": error.message}
    return answers


print(json.dumps(asyncio.run(main())))
