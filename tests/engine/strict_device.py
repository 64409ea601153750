"""A device for machines without a GPU: its tensors say ``gpu``, compute on the CPU, and keep CUDA's rules.

What fails on a GPU because one tensor was left on the CPU fails here, too, with the operation's name. The rules are
those of torch (``TensorIterator`` and the notes on CUDA semantics): where tensors are computed with number by number
one without dimensions may lie on the CPU, an index may, copying goes anywhere, and nothing else is mixed. Numbers are
the CPU's, and neither CUDA's kernels nor its memory, streams or graphs are there: that is shown by a GPU alone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("gpu")

DEVICE = torch.device("gpu", 0)

_ANYWHERE = {"to", "_to_copy", "copy_", "_copy_from", "_has_compatible_shallow_copy_type"}
"""Operations that are there to bring a tensor from one device to another, or to ask whether it was."""

_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
"""Operations whose second argument may lie on the CPU."""

_WITHOUT_NUMBERS_OF_THE_CPU = {
    *("cat", "stack", "embedding", "index_select", "gather", "scatter", "scatter_", "index_add_", "index_copy_"),
    *(
        "mm",
        "bmm",
        "addmm",
        "linear",
        "matmul",
        "multinomial",
        "softmax",
        "_softmax",
        "layer_norm",
        "native_layer_norm",
    ),
}
"""Of those that do not go number by number: where a tensor without dimensions has to be of the device, too."""


class OnDevice(torch.Tensor):
    """A tensor of the device.

    Attributes:
        held: Its numbers, a tensor of the CPU.
    """

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnDevice":
        """Around a tensor of the CPU, which may be a view of one that was loaded outside inference mode."""
        with torch.inference_mode(mode=False):
            return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=DEVICE,
            )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self, **_: Any) -> str:
        """Of what is held."""
        return f"OnDevice({self.held!r})"

    def tolist(self) -> Any:
        """Torch has none for tensors of a class of their own."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Also where the mode is off, as within torch's own code."""
        return _computed(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


class _Mode(TorchDispatchMode):
    """What makes new tensors land where they are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Generator(torch.Generator):
    """The CPU's, where the device's is asked for. Another one is refused: CUDA draws by none but its own."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        if torch.device(device).type != DEVICE.type:
            raise RuntimeError(f"A generator of {device} draws nothing on the device.")
        return super().__new__(cls, "cpu")


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func.__name__.partition(".")[0]
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    devices = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.device)]
    here = any(isinstance(one, OnDevice) for one in tensors)
    lands_here = devices[0].type == DEVICE.type if devices else here
    if here and name not in _ANYWHERE:
        _refuse_a_mixture(func, args, kwargs)
    if name == "_has_compatible_shallow_copy_type":
        return len({type(one) for one in tensors}) == 1
    if name == "histc" and here:  # of whole numbers CUDA has one, too
        result = func(args[0].held.float(), *args[1:], **kwargs).to(args[0].dtype)
    else:
        result = func(*_held(args), **_held(kwargs))
    if not lands_here:
        return result
    if name == "copy_" and not isinstance(args[0], OnDevice):
        return args[0]
    return _given_back(args, kwargs, result)


def _held(values: Any) -> Any:
    """The same for the CPU."""
    cpu = torch.device("cpu")
    values = tree_map_only(torch.device, lambda one: cpu if one.type == DEVICE.type else one, values)
    return tree_map_only(OnDevice, lambda one: one.held, values)


def _given_back(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """Tensors of the device; what an operation changed in place is the tensor that it was."""
    given = {id(one.held): one for one in tree_flatten((args, kwargs))[0] if isinstance(one, OnDevice)}

    def wrapped(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        return given[id(one)] if id(one) in given else OnDevice(one)

    return tree_map(wrapped, result)


def _refuse_a_mixture(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = func.__name__.partition(".")[0]
    none = name in _WITHOUT_NUMBERS_OF_THE_CPU or kwargs.get("out") is not None
    looked_at = (args[:1] + args[2:], kwargs) if name in _INDEXED else (args, kwargs)
    strangers = [
        one
        for one in tree_flatten(looked_at)[0]
        if isinstance(one, torch.Tensor) and not isinstance(one, OnDevice) and (one.dim() > 0 or none)
    ]
    if strangers:
        shapes = [tuple(one.shape) for one in strangers]
        raise RuntimeError(f"{func} has tensors of the CPU beside those of the device: {shapes}")


@contextmanager
def strict_device() -> Iterator[None]:
    """``device="gpu"`` means the device of this module, while this lasts, and in threads that begin meanwhile."""
    generator, run = torch.Generator, threading.Thread.run

    def run_here(thread: threading.Thread) -> None:
        with _in_this_thread():
            run(thread)

    threading.Thread.run = run_here  # type: ignore[method-assign]
    torch.Generator = _Generator  # type: ignore[misc]
    try:
        with _in_this_thread():
            yield
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]
        torch.Generator = generator  # type: ignore[misc]


@contextmanager
def _in_this_thread() -> Iterator[None]:
    torch._C._set_only_lift_cpu_tensors(True)  # what torch.tensor makes of numbers is brought to its device in sight
    try:
        with _Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
