"""Run the network on a batch of samples with torch; differentiable in the input."""

from collections.abc import Callable, Collection
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from verifier.errors import VerifierError
from verifier.network import Network, Node
from verifier.ops import (
    Array,
    AveragePool,
    Concat,
    Conv,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    Transpose,
)

CHUNK_ENTRIES = 2**26
"""Most entries of one value that are held at once, where not every value is kept: attention has values of many entries."""


@torch.no_grad()
def evaluate(network: Network, samples: Array | Tensor, *, keep: Collection[str] | None = None) -> dict[str, Tensor]:
    """Values of the network on samples of shape (batch, *any shape with the input's number of entries).

    Returns each kept value (all of them by default) with shape (batch, *value shape), in the samples' dtype and on their
    device; integer samples are taken as float64. Floating-point evaluation: use `verifier.check.replay` where exactness
    matters. Raises VerifierError where the samples do not fit the input or a kept name is no value of the network.
    """
    x = _tensor(samples)
    widest = max(network.size(name) for name in network.shapes)
    if keep is None or x.ndim == 0 or len(x) * widest <= CHUNK_ENTRIES:
        return forward(network, x, keep=keep)
    parts = [forward(network, rows, keep=keep) for rows in x.split(max(1, CHUNK_ENTRIES // widest))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def forward(network: Network, samples: Tensor, *, keep: Collection[str] | None = None) -> dict[str, Tensor]:
    """`evaluate`, but differentiable. Only what the kept values depend on is computed."""
    wanted = set(network.shapes) if keep is None else set(keep)
    values = {network.input: _as_input(network, samples)}
    nodes = _needed(network, wanted)
    last_use = {name: position for position, node in enumerate(nodes) for name in node.inputs}
    for position, node in enumerate(nodes):
        inputs = [values[name] for name in node.inputs]
        values[node.output] = FORWARD[type(node.op)](node.op, inputs)
        for name in set(node.inputs) - wanted:
            if last_use[name] == position:
                del values[name]
    return {name: value for name, value in values.items() if name in wanted}


def output(network: Network, samples: Array | Tensor) -> Tensor:
    """The network's output on samples, flattened to (batch, outputs)."""
    result = evaluate(network, samples, keep=[network.output])[network.output]
    return result.reshape(len(result), network.size(network.output))


def _tensor(samples: Array | Tensor) -> Tensor:
    if not isinstance(samples, Tensor):
        # torch warns of read-only arrays, though nothing here writes to them
        samples = torch.from_numpy(samples if samples.flags.writeable else samples.copy())
    return samples if samples.is_floating_point() else samples.double()


def _as_input(network: Network, samples: Tensor) -> Tensor:
    size = network.size(network.input)
    if samples.ndim == 0 or samples[:1].numel() != size * len(samples[:1]):
        raise VerifierError(
            f"samples of shape {tuple(samples.shape)} do not fit input {network.input!r} of shape {network.input_shape}; "
            f"give shape (batch, {size})"
        )
    return samples.reshape(len(samples), *network.input_shape)


def _needed(network: Network, wanted: Collection[str]) -> list[Node]:
    """The nodes that the wanted values depend on, in order."""
    unknown = [name for name in wanted if name not in network.shapes]
    if unknown:
        known = ", ".join(list(network.shapes)[:20])
        raise VerifierError(f"no value {unknown[0]!r} in the network; it has {known}")
    needed, nodes = set(wanted), []
    for node in reversed(network.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            nodes.append(node)
    return nodes[::-1]


_CONSTANTS: WeakKeyDictionary[Any, dict[tuple[str, torch.dtype, torch.device], Tensor]] = WeakKeyDictionary()


def constant(op: Any, field: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An operator's array as a tensor; kept as long as the operator lives, since every batch uses the same weights."""
    kept = _CONSTANTS.setdefault(op, {})
    key = (field, dtype, device)
    if key not in kept:
        # a tensor made under inference mode could never be part of a differentiable pass later
        with torch.inference_mode(False):
            kept[key] = torch.from_numpy(np.array(getattr(op, field))).to(device=device, dtype=dtype)
    return kept[key]


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


def _select(op: Select, inputs: list[Tensor]) -> Tensor:
    flat = inputs[0].unsqueeze(-1).flatten(1)  # a number has no axis to flatten
    indices = constant(op, "indices", torch.int64, flat.device)
    if (op.indices < 0).any():
        # the index -1 reads a column of zeros behind the last entry
        flat = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
        indices = torch.where(indices < 0, flat.shape[1] - 1, indices)
    return flat.index_select(1, indices).reshape(len(flat), *op.shape)


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
    Select: _select,
    Product: lambda op, inputs: inputs[0] * inputs[1],
    Sigmoid: lambda op, inputs: inputs[0].sigmoid(),
    Tanh: lambda op, inputs: inputs[0].tanh(),
    Sin: lambda op, inputs: inputs[0].sin(),
    Cos: lambda op, inputs: inputs[0].cos(),
    Exp: lambda op, inputs: inputs[0].exp(),
    Reciprocal: lambda op, inputs: inputs[0].reciprocal(),
    Sqrt: lambda op, inputs: inputs[0].sqrt(),
    Erf: lambda op, inputs: inputs[0].erf(),
    Power: lambda op, inputs: inputs[0] ** op.exponent,
    Sign: lambda op, inputs: inputs[0].sign(),
    Floor: lambda op, inputs: inputs[0].floor(),
}
