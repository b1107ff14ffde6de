"""A second device for machines that have one alone: the processor under another name, which refuses what an accelerator would.

Tensors of `Elsewhere` keep their numbers on the processor. Mixing them with the processor's tensors, indexing those by them
and asking for their memory are errors as they are with CUDA; a single number (a tensor without axes) may come from anywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
READING = ("item", "tolist", "__float__", "__bool__", "__int__", "__index__", "__format__", "__repr__")
HERE = torch.device("cpu")


class Elsewhere(Tensor):
    """A tensor of the second device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        layout = {} if held.layout is torch.sparse_csr else {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=torch.device(NAME, 0), **layout)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return _computed(op, args, dict(kwargs or {}))


class _Kernels(TorchDispatchMode):
    """Also what no tensor of the device takes part in, such as making the first one."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return _computed(op, args, dict(kwargs or {}))


class _Front(TorchFunctionMode):
    """What torch does with memory before it calls a kernel."""

    def __torch_function__(
        self, call: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if call in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            device = given.pop("device", None)
            made = call(*args, **given, device=HERE)
            return Elsewhere(made) if _is_there(device) else made
        if args and isinstance(args[0], Elsewhere):
            if call in (Tensor.__getitem__, Tensor.__setitem__):
                args = (args[0], tree_map(_placed, args[1], is_leaf=lambda x: isinstance(x, list)), *args[2:])
            if call is Tensor.numpy:
                raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy; copy it to host memory first")
            if getattr(call, "__name__", "") in READING:
                return call(args[0].held, *args[1:], **given)
        return call(*args, **given)


@contextmanager
def second_device() -> Iterator[str]:
    """Its name, for as long as it is there."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        backend_registration._setup_privateuseone_for_python_backend(NAME)
    with _Kernels(), _Front():
        yield NAME


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _placed(index: Any) -> Any:
    """A list of places as the tensor that indexing makes of it."""
    return Elsewhere(torch.tensor(index, device=HERE)) if isinstance(index, list) else index


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Elsewhere) else x


def _computed(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    name, _, _ = op.__name__.partition(".")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    to = kwargs.get("device")
    if to is not None:
        kwargs["device"] = HERE
    result = op(*tree_map(_held, args), **tree_map(_held, kwargs))
    if name in ("_to_copy", "copy_"):
        return args[0] if name == "copy_" else Elsewhere(result) if (_is_there(to) if to is not None else there) else result
    here = [x for x in tensors if not isinstance(x, Elsewhere)]
    if name in INDEXING and there and not isinstance(args[0], Elsewhere):
        raise RuntimeError(f"{op}: indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if there and name not in INDEXING and any(x.dim() for x in here):
        raise RuntimeError(f"{op}: expected all tensors to be on the same device, found {NAME}:0 and cpu")
    if not there and not _is_there(to):
        return result
    known = {id(x.held): x for x in there}  # what an operator writes into stays the tensor that it was
    return tree_map(lambda x: known[id(x)] if id(x) in known else Elsewhere(x) if isinstance(x, Tensor) else x, result)
