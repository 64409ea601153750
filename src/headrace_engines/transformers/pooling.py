"""How an encoder's states of all tokens become one vector: what a sentence-transformers folder says, or the mean.

What comes after the pooling is computed in float32, in the folder's order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

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

_STEPS = frozenset({"Transformer", "Pooling", "Dense", "Normalize"})

_ACTIVATIONS = {
    "GELU": torch.nn.functional.gelu,
    "Identity": torch.nn.Identity(),
    "ReLU": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}
"""What may follow a dense layer, by the name of torch's class."""

_VECTOR = "sentence_embedding"
"""What a dense layer takes and gives, where it does not say: the vector of the pooling."""

_Step = Callable[[Any], Any]

_to_length_one: _Step = partial(torch.nn.functional.normalize, dim=-1)


class Pooling(NamedTuple):
    """From states to a vector.

    Attributes:
        modes: Names of `_MODES`; the vectors of several are joined.
        steps: What is made of the vectors then, one after the other.
        width: Of the vectors in the end; None where the folder says nothing of all this.
        max_tokens: Tokens of one input, as the folder says; None where it does not.
    """

    modes: tuple[str, ...] = ("mean",)
    steps: tuple[_Step, ...] = (_to_length_one,)
    width: int | None = None
    max_tokens: int | None = None

    def __call__(self, states: Any, mask: Any) -> Any:
        """Float32 vectors of shape (inputs, dimensions).

        Args:
            states: Of shape (inputs, tokens, width); an input's tokens come first, padding after them.
            mask: Of shape (inputs, tokens), 1 where there is a token.
        """
        states = states.float()
        vectors = torch.cat([_pooled(mode, states, mask) for mode in self.modes], dim=-1)
        for step in self.steps:
            vectors = step(vectors)
        return vectors


def read_pooling(folder: Path, width: int, device: str = "cpu") -> Pooling:
    """What the folder says; for an encoder without a word about it, the normalised mean of all tokens.

    Args:
        folder: The folder.
        width: Of the states.
        device: Where dense layers compute.

    Raises:
        FatalError: It asks for a step or a mode that is not known here, or in an order that is not; or the weights of
            a step cannot be read, or do not fit the step before.
    """
    if not (folder / _MODULES).is_file():
        return Pooling()
    modules = _read(folder / _MODULES, list[dict[str, Any]])
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := sorted(set(kinds) - _STEPS):
        raise _unsupported(folder / _MODULES, f"the module {unknown[0]}")
    if misplaced := _before_the_pooling(kinds):
        raise _unsupported(folder / _MODULES, f"the module {misplaced[0]} without a pooling before it")
    modes: tuple[str, ...] = ("mean",)
    if "Pooling" in kinds:
        modes = _modes(folder / str(modules[kinds.index("Pooling")].get("path", "")) / "config.json")
    stated = _read(folder / _MAX_LENGTH_FILE, dict[str, Any]) if (folder / _MAX_LENGTH_FILE).is_file() else {}
    max_tokens = stated.get("max_seq_length")
    steps, width = _steps(folder, modules, width * len(modes), device)
    return Pooling(modes, steps, width, max_tokens if isinstance(max_tokens, int) else None)


def _before_the_pooling(kinds: list[str]) -> list[str]:
    """The steps that take a vector and stand where there is none yet; without any pooling that is the mean's."""
    pooled = kinds.index("Pooling") if "Pooling" in kinds else len(kinds)
    normalised_early = "Pooling" in kinds and "Normalize" in kinds[:pooled]
    return [kind for kind in kinds[:pooled] if kind == "Dense"] + ["Normalize"] * normalised_early


def _steps(folder: Path, modules: list[dict[str, Any]], width: int, device: str) -> tuple[tuple[_Step, ...], int]:
    """What follows the pooling, and how wide the vectors are in the end."""
    steps: list[_Step] = []
    for module in modules:
        kind, path = str(module.get("type", "")), Path(str(module.get("path", "")))
        if kind.endswith(".Normalize"):
            steps.append(_to_length_one)
        elif kind.endswith(".Dense"):
            if not kind.startswith("sentence_transformers."):
                raise _unsupported(folder / _MODULES, f"the module {kind}")
            if path.is_absolute() or ".." in path.parts:
                raise _unsupported(folder / _MODULES, f"a module at {path}")
            dense, width = _dense(folder / path, width, device)
            steps.append(dense)
    return tuple(steps), width


def _dense(folder: Path, width: int, device: str) -> tuple[_Step, int]:
    """A dense layer for vectors of this width, and how wide those are that it makes."""
    config = _read(folder / "config.json", dict[str, Any])
    where, _, name = str(config.get("activation_function", "torch.Tanh")).rpartition(".")
    if name not in _ACTIVATIONS or where.partition(".")[0] != "torch":
        raise _unsupported(folder / "config.json", f"the activation {where}.{name}")
    for side in ("module_input_name", "module_output_name"):
        if config.get(side) not in (None, _VECTOR):
            raise _unsupported(folder / "config.json", f"{side} {config[side]}")
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
        weight = tensors["linear.weight"].to(device, torch.float32)
        bias = tensors["linear.bias"].to(device, torch.float32) if config.get("bias", True) else None
    except (OSError, SafetensorError, KeyError) as error:
        raise _bad_dense(path, f"{type(error).__name__}: {error}") from error
    shape = (config.get("out_features"), width)
    if tuple(weight.shape) != shape or (bias is not None and tuple(bias.shape) != shape[:1]):
        raise _bad_dense(path, f"linear.weight is {tuple(weight.shape)}; configuration and the step before: {shape}")
    activation = _ACTIVATIONS[name]
    return lambda vectors: activation(torch.nn.functional.linear(vectors, weight, bias)), len(weight)


def _bad_dense(path: Path, evidence: str) -> FatalError:
    return FatalError("ENGINE_BAD_TENSOR", f"{path} is not the dense layer that it should be.", evidence=evidence)


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
    known = (
        f"known are {', '.join(sorted(_STEPS))}, in the order that sentence-transformers writes; "
        f"{', '.join(_MODES.values())}; {', '.join(_ACTIVATIONS)}"
    )
    return FatalError(
        "ENGINE_UNSUPPORTED_ARCHITECTURE", f"{path} asks for {what}, which this engine does not have.", evidence=known
    )
