"""Records `fixtures_pickles/`: files that torch itself wrote. It needs an interpreter with torch; no test runs it."""

from pathlib import Path

import torch

HERE = Path(__file__).with_name("fixtures_pickles")


def main() -> None:
    """Write the same small model in torch's zip, in its form before 1.6, and with parameters and odd types."""
    embedding = torch.arange(80, dtype=torch.float16).reshape(10, 8)
    state = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding,  # tied: the same storage
        "model.norm.weight": torch.ones(8, dtype=torch.float32),
        "model.view": torch.zeros(4, 6, dtype=torch.bfloat16).t(),
    }
    torch.save(state, HERE / "torch_zip.bin")
    torch.save(state, HERE / "torch_legacy.bin", _use_new_zipfile_serialization=False)
    layer = torch.nn.Linear(4, 2)
    odd = {**layer.state_dict(keep_vars=True), "u": torch.zeros(3, dtype=torch.float8_e4m3fn), "n": torch.tensor(7)}
    torch.save(odd, HERE / "torch_odd.bin")
    torch.save(layer.state_dict(), HERE / "torch_module.bin")  # an OrderedDict with a state of its own
    print(torch.__version__)


if __name__ == "__main__":
    main()
