"""Where engines compute: on the processor, or on an accelerator that torch knows.

An engine makes its tensors on torch's default device, which is another one for the time of `computing_on`. Nothing that a
device computes is believed: the kernel replays proofs, and exact arithmetic counterexamples, both on the processor.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from verifier.errors import BadQuery

PROCESSOR = torch.device("cpu")


def device_named(name: str) -> torch.device:
    """The device, such as cpu, cuda or cuda:1. Raises BadQuery for one that is not there, or that has no float64."""
    try:
        device = torch.device(name)
        torch.ones(1, dtype=torch.float64, device=device).sum().item()
    except (RuntimeError, TypeError, AssertionError) as error:  # the last two of MPS and of builds without CUDA
        why = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")
        raise BadQuery(f"cannot compute on device {name!r}: {why}; choose cpu, or one that torch can use in float64") from None
    return device


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Make new tensors on the device, and multiply in full precision there: bounds in TF32 are too loose to be accepted."""
    if device == torch.get_default_device():
        yield
        return
    precision = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        stack.enter_context(device)
        yield


def tensor_of(array: NDArray) -> Tensor:
    """The array as a tensor where engines compute now; on the processor it shares the array's memory."""
    return torch.from_numpy(array).to(torch.get_default_device())


def array_of(tensor: Tensor) -> NDArray:
    """The tensor's numbers on the processor; from there it shares the tensor's memory."""
    array: NDArray = tensor.detach().cpu().numpy()
    return array


def random_like(tensor: Tensor, shape: Sequence[int], generator: Generator) -> Tensor:
    """Uniform numbers of [0, 1), of a tensor's type and on its device; the same on each."""
    return torch.rand(tuple(shape), generator=generator, dtype=tensor.dtype, device=PROCESSOR).to(tensor.device)


def random_integers(low: int, high: int, shape: Sequence[int], generator: Generator) -> Tensor:
    """Uniform integers of low .. high - 1 where engines compute now; the same on each device."""
    drawn = torch.randint(low, high, tuple(shape), generator=generator, device=PROCESSOR)
    return drawn.to(torch.get_default_device())
