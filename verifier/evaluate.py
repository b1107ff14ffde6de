"""Run the network on a batch of samples with torch; differentiable in the input."""

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from verifier.network import Network
from verifier.ops import (
    Array,
    AveragePool,
    Concat,
    Conv,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
    Reshape,
    Scale,
    Sum,
    Transpose,
)


@torch.no_grad()
def evaluate(network: Network, samples: Array | Tensor, *, keep: Collection[str] | None = None) -> dict[str, Tensor]:
    """Values of the network on samples of shape (batch, *any shape with the input's number of entries).

    Returns each kept value (all of them by default) with shape (batch, *value shape), in the samples' dtype and on their
    device. Floating-point evaluation: use `verifier.check.replay` where exactness matters.
    """
    return forward(network, torch.as_tensor(samples), keep=keep)


def forward(network: Network, samples: Tensor, *, keep: Collection[str] | None = None) -> dict[str, Tensor]:
    """`evaluate`, but differentiable."""
    wanted = set(network.shapes) if keep is None else set(keep)
    last_use = _last_uses(network)
    values = {network.input: samples.reshape(len(samples), *network.input_shape)}
    for position, node in enumerate(network.nodes):
        inputs = [values[name] for name in node.inputs]
        values[node.output] = FORWARD[type(node.op)](node.op, inputs)
        for name in set(node.inputs) - wanted:
            if last_use[name] == position:
                del values[name]
    return {name: value for name, value in values.items() if name in wanted}


def output(network: Network, samples: Array | Tensor) -> Tensor:
    """The network's output on samples, flattened to (batch, outputs)."""
    return evaluate(network, samples, keep=[network.output])[network.output].flatten(1)


def _last_uses(network: Network) -> Mapping[str, int]:
    return {name: position for position, node in enumerate(network.nodes) for name in node.inputs}


@lru_cache(maxsize=4096)
def constant(op: Any, field: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An operator's array as a tensor; kept, since the same weights are used in every batch."""
    return torch.from_numpy(np.array(getattr(op, field))).to(device=device, dtype=dtype)


def _constants(op: Any, like: Tensor, *names: str) -> list[Tensor]:
    return [constant(op, name, like.dtype, like.device) for name in names]


def _linear(op: Linear, inputs: list[Tensor]) -> Tensor:
    return functional.linear(inputs[0], *_constants(op, inputs[0], "weight", "bias"))


def _conv(op: Conv, inputs: list[Tensor]) -> Tensor:
    (x,) = inputs
    weight, bias = _constants(op, x, "weight", "bias")
    convolve = functional.conv1d if weight.ndim == 3 else functional.conv2d
    y = convolve(pad(x.squeeze(1), op.padding, 0.0), weight, bias, op.stride, 0, op.dilation, op.groups)
    return y.unsqueeze(1)


def _scale(op: Scale, inputs: list[Tensor]) -> Tensor:
    factor, offset = _constants(op, inputs[0], "factor", "offset")
    return factor * inputs[0] + offset


def _sum(op: Sum, inputs: list[Tensor]) -> Tensor:
    total = op.coefficients[0] * inputs[0]
    for c, x in zip(op.coefficients[1:], inputs[1:], strict=True):
        total = total + c * x
    return total


def _average_pool(op: AveragePool, inputs: list[Tensor]) -> Tensor:
    (x,) = inputs
    (divisor,) = _constants(op, x, "divisor")
    channels = x.shape[2]
    ones = torch.ones((channels, 1, *op.kernel), dtype=x.dtype, device=x.device)
    convolve = functional.conv1d if len(op.kernel) == 1 else functional.conv2d
    sums = convolve(pad(x.squeeze(1), op.padding, 0.0), ones, None, op.stride, 0, 1, channels)
    return (sums / divisor).unsqueeze(1)


def _max_pool(op: MaxPool, inputs: list[Tensor]) -> Tensor:
    padded = pad(inputs[0].squeeze(1), op.padding, float("-inf"))
    pool = functional.max_pool1d if len(op.kernel) == 1 else functional.max_pool2d
    return pool(padded, op.kernel, op.stride, 0, op.dilation).unsqueeze(1)


def pad(x: Tensor, padding: tuple[tuple[int, int], ...], value: float) -> Tensor:
    """Constant padding of the trailing space axes, (begin, end) for each."""
    flat = [side for pair in reversed(padding) for side in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


FORWARD: dict[type, Callable[[Any, list[Tensor]], Tensor]] = {
    Linear: _linear,
    Conv: _conv,
    Scale: _scale,
    Sum: _sum,
    Reshape: lambda op, inputs: inputs[0].reshape(len(inputs[0]), *op.shape),
    Transpose: lambda op, inputs: inputs[0].permute(0, *(axis + 1 for axis in op.permutation)),
    Concat: lambda op, inputs: torch.cat(inputs, dim=op.axis + 1),
    AveragePool: _average_pool,
    MaxPool: _max_pool,
    Relu: lambda op, inputs: inputs[0].relu(),
    LeakyRelu: lambda op, inputs: functional.leaky_relu(inputs[0], op.slope),
}
