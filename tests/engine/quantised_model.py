"""Run by the engine's Python: a checkpoint with its layers' matrices in GPTQ of four bits, and the numbers that means.

Usage: ``python quantised_model.py SOURCE OUT_DIR``: ``OUT_DIR/gptq`` has the packed weights, ``OUT_DIR/plain`` the same
model with each packed weight written out in bfloat16. Rounded to the nearest, without GPTQ's corrections.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BITS, GROUP, MIDDLE = 4, 64, 8
PER_WORD = 32 // BITS
SETTINGS = {"quant_method": "gptq", "bits": BITS, "group_size": GROUP, "desc_act": False, "sym": True}


def packed(numbers: torch.Tensor) -> torch.Tensor:
    """Rows of four-bit numbers, eight to a word along the first dimension, the first in the lowest bits."""
    words = numbers.reshape(-1, PER_WORD, numbers.shape[1]).to(torch.int64)
    shifts = torch.arange(0, 32, BITS)[None, :, None]
    return (words << shifts).sum(1).to(torch.uint32).view(torch.int32)


def quantise(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix (out, in) as GPTQ's four tensors by their last name, and the matrix that they stand for."""
    by_input = weight.float().T
    groups = by_input.reshape(-1, GROUP, by_input.shape[1])
    scales = (groups.abs().amax(1) / (MIDDLE - 1)).clamp(min=1e-6).to(torch.float16)
    numbers = (groups / scales.float()[:, None]).round().clamp(-MIDDLE, MIDDLE - 1)
    written_out = (numbers * scales.float()[:, None]).reshape(by_input.shape).T
    count = by_input.shape[0]
    # the format keeps a zero point less one
    zeros = torch.full((scales.shape[0], scales.shape[1] // PER_WORD), 0x77777777, dtype=torch.int32)
    return {
        "qweight": packed((numbers + MIDDLE).reshape(by_input.shape)).contiguous(),
        "qzeros": zeros,
        "scales": scales,
        "g_idx": (torch.arange(count) // GROUP).to(torch.int32),
    }, written_out.to(torch.bfloat16).contiguous()


def main(source: Path, out: Path) -> None:
    """Write both folders."""
    gptq: dict[str, torch.Tensor] = {}
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            gptq[name] = plain[name] = tensor
            continue
        parts, plain[name] = quantise(tensor)
        gptq |= {f"{name.removesuffix('weight')}{last}": part for last, part in parts.items()}
    config = json.loads((source / "config.json").read_text())
    for folder, tensors, more in (("gptq", gptq, {"quantization_config": SETTINGS}), ("plain", plain, {})):
        shutil.copytree(source, out / folder, ignore=shutil.ignore_patterns("*.safetensors"))
        (out / folder / "config.json").write_text(json.dumps(config | more))
        save_file(tensors, out / folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
