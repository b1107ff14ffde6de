"""One function for each core ATen operator with a sound exact meaning: it appends the operator's nodes to the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import NetworkBuilder, affine, matrix, multiply_left, multiply_right
from verifier.formats.rewrites import total
from verifier.formats.scales import batch_norm, reciprocal, scaled
from verifier.formats.selections import filled, grid, padded
from verifier.formats.windows import Windows, average_pool, max_pool, windows
from verifier.ops import Array, Concat, Conv, LeakyRelu, Relu, Reshape, Shape, Transpose, frozen_array

ZERO, ONE = frozen_array(0.0), frozen_array(1.0)

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Call:
    """One node of the exported graph, and what its arguments are so far."""

    node: fx.Node
    builder: NetworkBuilder
    values: Mapping[fx.Node, str]
    constants: Mapping[fx.Node, Tensor]

    @property
    def op(self) -> str:
        return str(self.node.target)

    @property
    def label(self) -> str:
        return self.node.name

    @property
    def output(self) -> str:
        return self.node.name

    def refuse(self, detail: str) -> UnsupportedOp:
        return UnsupportedOp(self.op, self.label, detail)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument as it stands in the graph, given by position or by name."""
        given = self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)
        return default if given is None else given

    def is_value(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and argument in self.values

    def value(self, argument: Any) -> str:
        """Name of an argument that must be a network value."""
        if not self.is_value(argument):
            raise self.refuse(f"argument {argument} must be computed from the network's input")
        return self.values[argument]

    def weights(self, argument: Any) -> Array:
        """An argument that must be a constant tensor or number, as exact float64."""
        if isinstance(argument, fx.Node) and argument in self.constants:
            return exact(self.constants[argument], argument.name)
        if isinstance(argument, int | float):
            return exact(
                torch.tensor(argument, dtype=torch.float64 if isinstance(argument, float) else torch.int64), self.label
            )
        raise self.refuse(f"argument {argument} must be constant")

    def number(self, name: str, default: float) -> float:
        """A keyword argument that must be a number."""
        given = self.node.kwargs.get(name, default)
        if not isinstance(given, int | float):
            raise self.refuse(f"{name} {given} must be a number")
        return float(given)

    def integers(self, position: int, name: str, default: Sequence[int]) -> Shape:
        """An argument that must be a list of integers; an empty one means the default, a single one is repeated."""
        given = self.argument(position, name) or default
        if not all(isinstance(n, int) for n in given):
            raise self.refuse(f"{name} {given} must be integers")
        return tuple(given) * (len(default) if len(given) == 1 and default else 1)


def exact(tensor: Tensor, name: str) -> Array:
    """A tensor's numbers as float64. Raises BadNetwork, naming it, where one is NaN, infinite or no float64."""
    if tensor.is_complex() or tensor.is_quantized:
        raise BadNetwork(f"tensor {name!r} has type {tensor.dtype}; only real, unquantised tensors are allowed")
    if not tensor.is_floating_point() and (tensor.abs() > 2**53).any():
        raise BadNetwork(f"tensor {name!r} has integers past 2**53, which no float64 holds")
    array = tensor.detach().cpu().to(torch.float64).numpy()
    if not np.isfinite(array).all():
        raise BadNetwork(f"tensor {name!r} has NaN or infinite entries; every weight must be a finite number")
    return frozen_array(array)


def _addmm(call: Call) -> None:
    bias, left, right = (call.argument(k, name) for k, name in enumerate(("self", "mat1", "mat2")))
    beta, alpha = call.number("beta", 1.0), call.number("alpha", 1.0)
    if not call.is_value(right) and not call.is_value(bias) and call.is_value(left):
        added = beta * call.weights(bias)
        if added.ndim < 2 or added.shape[0] == 1:
            call.builder.add(call.output, affine(alpha * call.weights(right).T, added.reshape(-1)), call.value(left))
            return
    raise call.refuse("its matrix and bias must be constant, the bias a row")


def _matmul(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "mat2")
    if call.is_value(left) and call.is_value(right):
        raise call.refuse("a product of two values; one factor must be constant")
    if call.is_value(left):
        weight = matrix(call.weights(right), len(call.builder.shapes[call.value(left)]), call.op, call.label)
        multiply_left(call.builder, call.output, call.value(left), weight)
    else:
        weight = matrix(call.weights(left), len(call.builder.shapes[call.value(right)]), call.op, call.label)
        multiply_right(call.builder, call.output, weight, call.value(right))


def _convolution(call: Call) -> None:
    source, weight = call.value(call.argument(0, "input")), call.weights(call.argument(1, "weight"))
    bias, axes = call.argument(2, "bias"), weight.ndim - 2
    if call.argument(6, "transposed", False):
        raise call.refuse("transposed convolution")
    if axes not in (1, 2):
        raise call.refuse(f"{axes} space axes; 1 and 2 are")
    stride, padding, dilation = (
        call.integers(k, name, (n,) * axes) for k, name, n in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    offset = frozen_array(np.zeros(len(weight))) if bias is None else call.weights(bias)
    pairs = tuple((n, n) for n in padding)
    call.builder.add(call.output, Conv(weight, offset, stride, pairs, dilation, int(call.argument(8, "groups", 1))), source)


def _batch_norm(call: Call) -> None:
    source = call.value(call.argument(0, "input"))
    mean, variance = call.weights(call.argument(3, "running_mean")), call.weights(call.argument(4, "running_var"))
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
    scale = frozen_array(np.ones_like(mean)) if weight is None else call.weights(weight)
    shift = frozen_array(np.zeros_like(mean)) if bias is None else call.weights(bias)
    epsilon, rank = float(call.argument(6, "eps")), len(call.builder.shapes[source])
    call.builder.add(call.output, batch_norm(scale, shift, mean, variance, epsilon, rank=rank, node=call.label), source)


def _windows(call: Call, dilation: Shape, ceil_position: int) -> Windows:
    shape, axes = call.builder.shapes[call.value(call.argument(0, "self"))], len(dilation)
    if len(shape) != axes + 2 or shape[0] != 1:
        raise BadNetwork(f"{call.op} at {call.label!r} needs shape (1, channels, *space), got {shape}")
    kernel = call.integers(1, "kernel_size", (1,) * axes)
    stride, padding = call.integers(2, "stride", kernel), call.integers(3, "padding", (0,) * axes)
    pairs, ceil_mode = tuple((n, n) for n in padding), bool(call.argument(ceil_position, "ceil_mode", False))
    return windows(shape[2:], kernel, stride=stride, dilation=dilation, padding=pairs, ceil_mode=ceil_mode)


def _max_pool2d(call: Call) -> None:
    shape = _windows(call, call.integers(4, "dilation", (1, 1)), 5)
    call.builder.add(call.output, max_pool(shape, call.op, call.label), call.value(call.argument(0, "self")))


def _average_pool1d(call: Call) -> None:
    _average_pool(call, 1)


def _average_pool2d(call: Call) -> None:
    if call.argument(6, "divisor_override") is not None:
        raise call.refuse("divisor_override")
    _average_pool(call, 2)


def _average_pool(call: Call, axes: int) -> None:
    shape = _windows(call, (1,) * axes, 4)
    count_padding = bool(call.argument(5, "count_include_pad", True))
    op = average_pool(shape, count_padding=count_padding, op=call.op, node=call.label)
    call.builder.add(call.output, op, call.value(call.argument(0, "self")))


def _mean(call: Call) -> None:
    """A mean over all space axes, which is how a global average pooling is exported."""
    source = call.value(call.argument(0, "self"))
    shape = call.builder.shapes[source]
    axes = sorted(axis % len(shape) for axis in call.integers(1, "dim", ()))
    if len(shape) not in (3, 4) or axes != list(range(2, len(shape))) or shape[0] != 1:
        raise call.refuse(f"mean over axes {axes} of shape {shape}; only a mean over all space axes is")
    ones, none = (1,) * len(axes), ((0, 0),) * len(axes)
    whole = windows(shape[2:], shape[2:], stride=ones, dilation=ones, padding=none, ceil_mode=False)
    op = average_pool(whole, count_padding=False, op=call.op, node=call.label)
    if call.argument(2, "keepdim", False):
        call.builder.add(call.output, op, source)
    else:
        pooled = call.builder.step(call.output, "pooled", op, source)
        call.builder.add(call.output, Reshape(shape[:2]), pooled)


def _sum_last(call: Call) -> None:
    """A sum over the last axis, which is how a product with a constant vector is exported."""
    source = call.value(call.argument(0, "self"))
    shape = call.builder.shapes[source]
    axes = [axis % len(shape) for axis in call.integers(1, "dim", ())]
    if axes != [len(shape) - 1]:
        raise call.refuse(f"sum over axes {axes} of shape {shape}; only a sum over the last axis is")
    ones = affine(np.ones((1, shape[-1])))
    if call.argument(2, "keepdim", False):
        call.builder.add(call.output, ones, source)
    else:
        column = call.builder.step(call.output, "column", ones, source)
        call.builder.add(call.output, Reshape(shape[:-1]), column)


def _add(call: Call) -> None:
    _combine(call, 1.0)


def _sub(call: Call) -> None:
    _combine(call, -1.0)


def _combine(call: Call, sign: float) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    factor = sign * call.number("alpha", 1.0)
    if not call.is_value(right):
        _scale(call, left, ONE, factor * call.weights(right))
    elif not call.is_value(left):
        _scale(call, right, frozen_array(factor), call.weights(left))
    else:
        values = [call.value(left), call.value(right)]
        total(call.builder, call.output, values, [1.0, factor], op=call.op, node=call.label)


def _mul(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    if call.is_value(left) and call.is_value(right):
        raise call.refuse("a product of two values; one factor must be constant")
    value, constant = (left, right) if call.is_value(left) else (right, left)
    _scale(call, value, call.weights(constant), ZERO)


def _div(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    if call.is_value(right):
        raise call.refuse("a division by a value; the divisor must be constant")
    _scale(call, left, reciprocal(call.weights(right), call.label), ZERO)


def _neg(call: Call) -> None:
    _scale(call, call.argument(0, "self"), frozen_array(-1.0), ZERO)


def _scale(call: Call, value: Any, factor: Array, offset: Array) -> None:
    scaled(call.builder, call.output, call.value(value), factor, offset, op=call.op, node=call.label)


def _relu(call: Call) -> None:
    call.builder.add(call.output, Relu(), call.value(call.argument(0, "self")))


def _leaky_relu(call: Call) -> None:
    slope = float(call.argument(1, "negative_slope", 0.01))
    if not 0 <= slope <= 1:
        raise call.refuse(f"slope {slope}; it must lie in [0, 1]")
    call.builder.add(call.output, LeakyRelu(slope), call.value(call.argument(0, "self")))


def _reshape(call: Call) -> None:
    """Any operator that keeps the entries in C order; the exporter knows its result's shape."""
    shape = tuple(call.node.meta["val"].shape)
    if not all(isinstance(n, int) for n in shape):
        raise call.refuse(f"a shape {shape} that depends on the input")
    call.builder.add(call.output, Reshape(tuple(int(n) for n in shape)), call.value(call.argument(0, "self")))


def _expand(call: Call) -> None:
    source = call.value(call.argument(0, "self"))
    if call.node.meta["val"].numel() != prod(call.builder.shapes[source]):
        raise call.refuse("repeats entries")
    _reshape(call)


def _copy(call: Call) -> None:
    call.builder.copy(call.output, call.value(call.argument(0, "self")))


def _cast(call: Call) -> None:
    if call.node.meta["val"].dtype not in (torch.float32, torch.float64):
        raise call.refuse(
            f"to {call.node.meta['val'].dtype}, which rounds values; casts to float32 and float64 are read as none"
        )
    _copy(call)


def _pad(call: Call) -> None:
    source, pads = call.value(call.argument(0, "self")), call.integers(1, "pad", ())
    filling = call.weights(call.argument(2, "value", 0.0))
    # torch counts the axes from the last one
    last = len(call.builder.shapes[source]) - 1
    pairs = {last - k: (pads[2 * k], pads[2 * k + 1]) for k in range(len(pads) // 2)}
    indices = padded(grid(call.builder, source), pairs, mode="constant", op=call.op, node=call.label)
    filled(call.builder, call.output, source, indices, filling, op=call.op, node=call.label)


def _permute(call: Call) -> None:
    source = call.value(call.argument(0, "self"))
    rank = len(call.builder.shapes[source])
    permutation = tuple(axis % rank for axis in call.integers(1, "dims", ()))
    call.builder.add(call.output, Transpose(permutation), source)


def _cat(call: Call) -> None:
    parts = cast(Sequence[Any], call.argument(0, "tensors"))
    if not all(call.is_value(part) for part in parts):
        raise call.refuse("joins a value and a constant")
    names = [call.value(part) for part in parts]
    axis = int(call.argument(1, "dim", 0))
    call.builder.add(call.output, Concat(axis % len(call.builder.shapes[names[0]])), *names)


OPERATORS: Mapping[Any, Callable[[Call], None]] = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten._to_copy.default: _cast,
    aten.add.Tensor: _add,
    aten.addmm.default: _addmm,
    aten.alias.default: _copy,
    aten.avg_pool1d.default: _average_pool1d,
    aten.avg_pool2d.default: _average_pool2d,
    aten.cat.default: _cat,
    aten.clone.default: _copy,
    aten.constant_pad_nd.default: _pad,
    aten.convolution.default: _convolution,
    aten.div.Tensor: _div,
    aten.expand.default: _expand,
    aten.leaky_relu.default: _leaky_relu,
    aten.max_pool2d_with_indices.default: _max_pool2d,
    aten.mean.dim: _mean,
    aten.mm.default: _matmul,
    aten.mul.Tensor: _mul,
    aten.neg.default: _neg,
    aten.permute.default: _permute,
    aten.relu.default: _relu,
    aten.squeeze.dim: _reshape,
    aten.squeeze.dims: _reshape,
    aten.sub.Tensor: _sub,
    aten.sum.dim_IntList: _sum_last,
    aten.unsqueeze.default: _reshape,
    aten.view.default: _reshape,
}
"""Keyed by operator overload; graphs are decomposed to core ATen before they are read."""

CHECKS = (aten._assert_tensor_metadata.default,)
"""Nodes without a result: they check what the exporter has already made sure of."""

FIRST_OF_SEVERAL = (aten._native_batch_norm_legit_no_training.default, aten.max_pool2d_with_indices.default)
"""Operators whose result is a tuple of which only the first entry is a network value."""
