"""Core ATen operators with weights or windows: matrix products, convolutions, pooling, normalisation."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from verifier.errors import BadNetwork
from verifier.formats.build import affine
from verifier.formats.normalisation import layer_norm
from verifier.formats.products import multiplied
from verifier.formats.scales import batch_norm
from verifier.formats.torch_call import Call
from verifier.formats.windows import Windows, average_pool, max_pool, windows
from verifier.ops import Conv, Shape, frozen_array

aten = torch.ops.aten


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
    given = [call.argument(0, "self"), call.argument(1, "mat2")]
    left, right = (call.value(factor) if call.is_value(factor) else call.weights(factor) for factor in given)
    multiplied(call.builder, call.output, left, right, op=call.op, node=call.label)


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


def _layer_norm(call: Call) -> None:
    source = call.argument(0, "input")
    rank, lengths = len(call.shape(source)), call.integers(1, "normalized_shape", ())
    scale, shift = (
        None if given is None else call.weights(given) for given in (call.argument(2, "weight"), call.argument(3, "bias"))
    )
    axes, epsilon = range(rank - len(lengths), rank), float(call.argument(4, "eps"))
    layer_norm(call.builder, call.output, call.value(source), axes, epsilon, scale, shift, op=call.op, node=call.label)


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


LAYERS: Mapping[Any, Callable[[Call], None]] = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.addmm.default: _addmm,
    aten.avg_pool1d.default: _average_pool1d,
    aten.avg_pool2d.default: _average_pool2d,
    aten.bmm.default: _matmul,
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool2d,
    aten.mm.default: _matmul,
    aten.native_layer_norm.default: _layer_norm,
}
