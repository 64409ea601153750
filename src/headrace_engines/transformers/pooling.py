"""How an encoder's states of all tokens become one vector: what a sentence-transformers folder says, or the mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from headrace_engines.serving.fatal import FatalError

_MODULES = "modules.json"
_MAX_LENGTH_FILE = "sentence_bert_config.json"

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flags of ``1_Pooling/config.json`` and their newer names, in the order in which their vectors are joined."""

_STEPS = frozenset({"Transformer", "Pooling", "Normalize"})


class Pooling(NamedTuple):
    """From states to a vector.

    Attributes:
        modes: Names of `_MODES`; the vectors of several are joined.
        normalise: The vector is brought to length one.
        max_tokens: Tokens of one input, as the folder says; None where it does not.
    """

    modes: tuple[str, ...] = ("mean",)
    normalise: bool = True
    max_tokens: int | None = None

    def __call__(self, states: Any, mask: Any) -> Any:
        """Float32 vectors of shape (inputs, dimensions).

        Args:
            states: Of shape (inputs, tokens, width); an input's tokens come first, padding after them.
            mask: Of shape (inputs, tokens), 1 where there is a token.
        """
        states = states.float()
        vectors = torch.cat([_pooled(mode, states, mask) for mode in self.modes], dim=-1)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalise else vectors


def read_pooling(folder: Path) -> Pooling:
    """What the folder says; for an encoder without a word about it, the normalised mean of all tokens.

    Raises:
        FatalError: It asks for a step or a mode that is not known here.
    """
    if not (folder / _MODULES).is_file():
        return Pooling()
    modules = _read(folder / _MODULES, list[dict[str, Any]])
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := sorted(set(kinds) - _STEPS):
        raise _unsupported(folder / _MODULES, f"the module {unknown[0]}")
    modes: tuple[str, ...] = ("mean",)
    if "Pooling" in kinds:
        modes = _modes(folder / str(modules[kinds.index("Pooling")].get("path", "")) / "config.json")
    stated = _read(folder / _MAX_LENGTH_FILE, dict[str, Any]) if (folder / _MAX_LENGTH_FILE).is_file() else {}
    max_tokens = stated.get("max_seq_length")
    return Pooling(modes, "Normalize" in kinds, max_tokens if isinstance(max_tokens, int) else None)


def _modes(path: Path) -> tuple[str, ...]:
    config = _read(path, dict[str, Any])
    named = config.get("pooling_mode")
    if named is not None:
        asked = [named] if isinstance(named, str) else list(named)
    else:
        asked = [flag for flag, value in config.items() if flag.startswith("pooling_mode_") and value is True]
    modes = {_MODES.get(one, one) for one in asked}
    if not modes or modes - set(_MODES.values()):
        raise _unsupported(path, f"the pooling {', '.join(sorted(modes)) or 'nothing'}")
    return tuple(mode for mode in _MODES.values() if mode in modes)


def _pooled(mode: str, states: Any, mask: Any) -> Any:
    weights = mask[:, :, None].to(states.dtype)
    if mode == "cls":
        return states[:, 0]
    if mode == "lasttoken":
        return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
    if mode == "max":
        return states.masked_fill(weights == 0, -torch.inf).amax(dim=1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def _read(path: Path, shape: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except (OSError, msgspec.MsgspecError) as error:
        message = f"{path} cannot be read."
        raise FatalError("ENGINE_DIED", message, evidence=f"{type(error).__name__}: {error}") from error


def _unsupported(path: Path, what: str) -> FatalError:
    known = f"known are {', '.join(sorted(_STEPS))} and {', '.join(_MODES.values())}"
    return FatalError(
        "ENGINE_UNSUPPORTED_ARCHITECTURE", f"{path} asks for {what}, which this engine does not have.", evidence=known
    )
