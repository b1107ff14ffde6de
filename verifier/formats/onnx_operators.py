"""One function for each ONNX operator with a sound exact meaning: it appends the operator's nodes to the network.

A function here sees at least one input that is a network value; nodes on constants alone are folded before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import NetworkBuilder, affine, matrix, multiply_left, multiply_right, pad_zeros, swapped_axes
from verifier.formats.onnx_constants import Constant, weights
from verifier.formats.scales import batch_norm, reciprocal, scaled, total
from verifier.formats.windows import Windows, average_pool, max_pool, same_padding, windows
from verifier.ops import Array, Concat, Conv, LeakyRelu, Relu, Reshape, Shape, Transpose, frozen_array

ZERO, ONE = frozen_array(0.0), frozen_array(1.0)


@dataclass(frozen=True, eq=False)
class Call:
    """One node with its attributes decoded; an absent optional input has the name ''."""

    op: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    builder: NetworkBuilder
    constants: Mapping[str, Constant]

    @property
    def output(self) -> str:
        return self.outputs[0]

    def refuse(self, detail: str) -> UnsupportedOp:
        return UnsupportedOp(self.op, self.label, detail)

    def name(self, position: int) -> str:
        return self.inputs[position] if position < len(self.inputs) else ""

    def is_constant(self, position: int) -> bool:
        return self.name(position) in self.constants

    def value(self, position: int) -> str:
        """Name of an input that must be a network value."""
        if self.is_constant(position) or not self.name(position):
            raise self.refuse(f"input {position} must be computed from the network's input")
        return self.inputs[position]

    def shape(self, position: int) -> Shape:
        return self.builder.shapes[self.value(position)]

    def weights(self, position: int) -> Array:
        """An input that must be a floating-point constant, as exact float64."""
        if not self.is_constant(position):
            raise self.refuse(f"input {position} must be constant")
        return weights(self.constants[self.inputs[position]], self.inputs[position])

    def integers(self, position: int) -> list[int]:
        """An input that must be a constant list of integers."""
        if not self.is_constant(position) or self.constants[self.inputs[position]].dtype.kind not in "iu":
            raise self.refuse(f"input {position} must be a constant list of integers")
        return [int(n) for n in self.constants[self.inputs[position]].reshape(-1)]

    def one_output(self) -> None:
        if any(self.outputs[1:]):
            raise self.refuse(f"only its first output is, not {self.outputs[1]!r}")

    def axis(self, default: int, rank: int) -> int:
        """The axis attribute, counted from the front."""
        axis = int(self.attributes.get("axis", default))
        if not -rank <= axis <= rank:
            raise BadNetwork(f"{self.op} at {self.label!r}: axis {axis} is out of range for rank {rank}")
        return axis + rank if axis < 0 else axis


def _gemm(call: Call) -> None:
    alpha, beta = float(call.attributes.get("alpha", 1.0)), float(call.attributes.get("beta", 1.0))
    turned = [bool(call.attributes.get(key, 0)) for key in ("transA", "transB")]
    third = call.name(2)
    if not call.is_constant(1):
        _gemm_constant_first(call, alpha, beta, turned)
        return
    weight = alpha * (call.weights(1) if turned[1] else call.weights(1).T)
    source = call.value(0)
    if turned[0]:
        source = call.builder.step(call.output, "transposed", swapped_axes(2), source)
    if not third:
        call.builder.add(call.output, affine(weight), source)
    elif call.is_constant(2) and _is_row(bias := beta * call.weights(2)):
        call.builder.add(call.output, affine(weight, bias.reshape(-1)), source)
    else:
        _plus(call, call.builder.step(call.output, "product", affine(weight), source), beta)


def _gemm_constant_first(call: Call, alpha: float, beta: float, turned: list[bool]) -> None:
    weight = alpha * (call.weights(0).T if turned[0] else call.weights(0))
    # alpha A B is the transpose of B^T (alpha A)^T, and a product with a transposed B needs no turning
    source = call.value(1)
    if not turned[1]:
        source = call.builder.step(call.output, "transposed", swapped_axes(2), source)
    product = call.builder.step(call.output, "product", affine(weight), source)
    if not call.name(2):
        call.builder.add(call.output, swapped_axes(2), product)
    else:
        _plus(call, call.builder.step(call.output, "untransposed", swapped_axes(2), product), beta)


def _is_row(constant: Array) -> bool:
    return constant.ndim < 2 or constant.shape[0] == 1


def _plus(call: Call, product: str, beta: float) -> None:
    """output = product + beta * the third input, which may be a constant or a value."""
    if call.is_constant(2):
        scaled(call.builder, call.output, product, ONE, beta * call.weights(2), op=call.op, node=call.label)
    else:
        total(call.builder, call.output, [product, call.value(2)], [1.0, beta], op=call.op, node=call.label)


def _matmul(call: Call) -> None:
    if call.is_constant(1):
        weight = matrix(call.weights(1), len(call.shape(0)), call.op, call.label)
        multiply_left(call.builder, call.output, call.value(0), weight)
    elif call.is_constant(0):
        weight = matrix(call.weights(0), len(call.shape(1)), call.op, call.label)
        multiply_right(call.builder, call.output, weight, call.value(1))
    else:
        raise call.refuse("a product of two values; one factor must be constant")


def _add(call: Call) -> None:
    _combine(call, 1.0)


def _sub(call: Call) -> None:
    _combine(call, -1.0)


def _combine(call: Call, sign: float) -> None:
    if call.is_constant(1):
        _scale(call, 0, ONE, sign * call.weights(1))
    elif call.is_constant(0):
        _scale(call, 1, frozen_array(sign), call.weights(0))
    else:
        values = [call.value(0), call.value(1)]
        total(call.builder, call.output, values, [1.0, sign], op=call.op, node=call.label)


def _scale(call: Call, position: int, factor: Array, offset: Array) -> None:
    scaled(call.builder, call.output, call.value(position), factor, offset, op=call.op, node=call.label)


def _mul(call: Call) -> None:
    if not (call.is_constant(0) or call.is_constant(1)):
        raise call.refuse("a product of two values; one factor must be constant")
    value = 1 if call.is_constant(0) else 0
    _scale(call, value, call.weights(1 - value), ZERO)


def _div(call: Call) -> None:
    if not call.is_constant(1):
        raise call.refuse("a division by a value; the divisor must be constant")
    _scale(call, 0, reciprocal(call.weights(1), call.label), ZERO)


def _neg(call: Call) -> None:
    _scale(call, 0, frozen_array(-1.0), ZERO)


def _sum(call: Call) -> None:
    values = [call.value(k) for k in range(len(call.inputs))]
    total(call.builder, call.output, values, [1.0] * len(values), op=call.op, node=call.label)


def _conv(call: Call) -> None:
    weight = call.weights(1)
    _check_space(call, weight.ndim - 2)
    if tuple(call.attributes.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise BadNetwork(f"Conv at {call.label!r}: kernel_shape contradicts the weight of shape {weight.shape}")
    shape = _windows(call, weight.shape[2:])
    bias = call.weights(2) if call.name(2) else np.zeros(len(weight))
    groups = int(call.attributes.get("group", 1))
    op = Conv(weight, frozen_array(bias), shape.stride, shape.padding, shape.dilation, groups)
    call.builder.add(call.output, op, call.value(0))


def _max_pool(call: Call) -> None:
    call.one_output()
    _check_space(call, len(call.attributes["kernel_shape"]))
    shape = _windows(call, call.attributes["kernel_shape"])
    call.builder.add(call.output, max_pool(shape, call.op, call.label), call.value(0))


def _average_pool(call: Call) -> None:
    _check_space(call, len(call.attributes["kernel_shape"]))
    shape = _windows(call, call.attributes["kernel_shape"])
    count_padding = bool(call.attributes.get("count_include_pad", 0))
    op = average_pool(shape, count_padding=count_padding, op=call.op, node=call.label)
    call.builder.add(call.output, op, call.value(0))


def _global_average_pool(call: Call) -> None:
    space = call.shape(0)[2:]
    _check_space(call, len(space))
    ones, none = (1,) * len(space), ((0, 0),) * len(space)
    shape = windows(space, space, stride=ones, dilation=ones, padding=none, ceil_mode=False)
    call.builder.add(call.output, average_pool(shape, count_padding=False, op=call.op, node=call.label), call.value(0))


def _check_space(call: Call, axes: int) -> None:
    if axes not in (1, 2):
        raise call.refuse(f"{axes} space axes; 1 and 2 are")
    if len(call.shape(0)) != axes + 2 or call.shape(0)[0] != 1:
        raise BadNetwork(f"{call.op} at {call.label!r} needs shape (1, channels, *space), got {call.shape(0)}")


def _windows(call: Call, kernel: Sequence[int]) -> Windows:
    space, size = call.shape(0)[2:], tuple(int(k) for k in kernel)
    stride, dilation = (tuple(int(n) for n in call.attributes.get(key, (1,) * len(space))) for key in ("strides", "dilations"))
    auto = _text(call.attributes.get("auto_pad", b"NOTSET"))
    match auto:
        case "NOTSET":
            flat = [int(n) for n in call.attributes.get("pads", (0,) * (2 * len(space)))]
            padding = tuple(zip(flat[: len(flat) // 2], flat[len(flat) // 2 :], strict=True)) if len(flat) % 2 == 0 else ()
        case "VALID":
            padding = ((0, 0),) * len(space)
        case "SAME_UPPER" | "SAME_LOWER":
            if len({len(space), len(size), len(stride), len(dilation)}) != 1 or min((*size, *stride, *dilation)) < 1:
                raise BadNetwork(f"{call.op} at {call.label!r}: kernel, strides and dilations do not fit {space}")
            axes = zip(space, size, stride, dilation, strict=True)
            if call.op != "Conv" and any((-(-n // s) - 1) * s + d * (k - 1) + 1 < n for n, k, s, d in axes):
                # runtimes clip it to zero for convolutions and disagree for pooling
                raise call.refuse(f"automatic padding that would be negative, as stride {stride} skips entries")
            padding = same_padding(space, size, stride=stride, dilation=dilation, lower=auto == "SAME_LOWER")
        case _:
            raise BadNetwork(f"{call.op} at {call.label!r}: auto_pad {auto!r} is not known to ONNX")
    ceil_mode = bool(call.attributes.get("ceil_mode", 0)) and not auto.startswith("SAME")
    return windows(space, size, stride=stride, dilation=dilation, padding=padding, ceil_mode=ceil_mode)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _batch_norm(call: Call) -> None:
    call.one_output()
    if call.attributes.get("training_mode", 0) or not call.attributes.get("spatial", 1):
        raise call.refuse("training mode, or statistics for each place; export the model for inference")
    epsilon = float(call.attributes.get("epsilon", np.float32(1e-5)))
    scale, shift, mean, variance = (call.weights(k) for k in range(1, 5))
    op = batch_norm(scale, shift, mean, variance, epsilon, rank=len(call.shape(0)), node=call.label)
    call.builder.add(call.output, op, call.value(0))


def _relu(call: Call) -> None:
    call.builder.add(call.output, Relu(), call.value(0))


def _leaky_relu(call: Call) -> None:
    slope = float(call.attributes.get("alpha", np.float32(0.01)))
    if not 0 <= slope <= 1:
        raise call.refuse(f"slope {slope}; it must lie in [0, 1]")
    call.builder.add(call.output, LeakyRelu(slope), call.value(0))


def _flatten(call: Call) -> None:
    shape = call.shape(0)
    axis = call.axis(1, len(shape))
    call.builder.add(call.output, Reshape((prod(shape[:axis]), prod(shape[axis:]))), call.value(0))


def _reshape(call: Call) -> None:
    shape, wanted = call.shape(0), call.integers(1)
    if call.attributes.get("allowzero", 0) and 0 in wanted:
        raise call.refuse("an empty result")
    if (
        any(n == 0 and axis >= len(shape) for axis, n in enumerate(wanted))
        or wanted.count(-1) > 1
        or min(wanted, default=1) < -1
    ):
        raise BadNetwork(f"Reshape at {call.label!r}: {wanted} is not a shape for a value of shape {shape}")
    lengths = [shape[axis] if n == 0 else n for axis, n in enumerate(wanted)]
    if -1 in lengths:
        known = -prod(lengths)
        lengths[lengths.index(-1)] = prod(shape) // known
    call.builder.add(call.output, Reshape(tuple(lengths)), call.value(0))


def _squeeze(call: Call) -> None:
    shape = call.shape(0)
    axes = _axes(call, len(shape))
    if axes is None:
        axes = {axis for axis, length in enumerate(shape) if length == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise BadNetwork(f"Squeeze at {call.label!r}: axes {sorted(axes)} of shape {shape} are not all of length 1")
    call.builder.add(call.output, Reshape(tuple(n for axis, n in enumerate(shape) if axis not in axes)), call.value(0))


def _unsqueeze(call: Call) -> None:
    shape = list(call.shape(0))
    given = call.attributes.get("axes") or call.integers(1)
    axes = _axes(call, len(shape) + len(given))
    assert axes is not None, "axes are a required part of Unsqueeze and were read above"
    for axis in sorted(axes):
        shape.insert(axis, 1)
    call.builder.add(call.output, Reshape(tuple(shape)), call.value(0))


def _axes(call: Call, rank: int) -> set[int] | None:
    """The axes attribute (before opset 13) or input, counted from the front; None where it is absent."""
    given = call.attributes.get("axes")
    if given is None and not call.name(1):
        return None
    axes = [int(n) for n in (given if given is not None else call.integers(1))]
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        raise BadNetwork(f"{call.op} at {call.label!r}: axes {axes} are repeated or out of range for rank {rank}")
    return {axis % rank for axis in axes}


def _transpose(call: Call) -> None:
    permutation = call.attributes.get("perm", range(len(call.shape(0)))[::-1])
    call.builder.add(call.output, Transpose(tuple(int(axis) for axis in permutation)), call.value(0))


def _concat(call: Call) -> None:
    if any(call.is_constant(k) for k in range(len(call.inputs))):
        raise call.refuse("joins a value and a constant")
    values = [call.value(k) for k in range(len(call.inputs))]
    call.builder.add(call.output, Concat(call.axis(1, len(call.shape(0)))), *values)


def _copy(call: Call) -> None:
    call.builder.copy(call.output, call.value(0))


def _dropout(call: Call) -> None:
    call.one_output()
    if call.name(2) and (not call.is_constant(2) or call.constants[call.name(2)].any()):
        raise call.refuse("training mode; export the model for inference")
    _copy(call)


def _cast(call: Call) -> None:
    if call.attributes.get("to") not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        target = TensorProto.DataType.Name(call.attributes["to"])
        raise call.refuse(f"to {target}, which rounds values; casts to FLOAT and DOUBLE are read as none")
    _copy(call)


def _pad(call: Call) -> None:
    mode, filling = _text(call.attributes.get("mode", b"constant")), float(call.attributes.get("value", 0.0))
    if call.name(2):
        filling = float(call.weights(2).reshape(-1)[0])
    if mode != "constant" or filling != 0.0:
        raise call.refuse(f"mode {mode} with value {filling}; padding with zeros is")
    rank = len(call.shape(0))
    axes = [axis % rank for axis in call.integers(3)] if call.name(3) else list(range(rank))
    pads = [int(n) for n in call.attributes["pads"]] if "pads" in call.attributes else call.integers(1)
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise BadNetwork(f"Pad at {call.label!r}: pads {pads} do not give a beginning and an end for axes {axes}")
    pairs = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    pad_zeros(call.builder, call.output, call.value(0), pairs, op=call.op, node=call.label)


OPERATORS: Mapping[str, Callable[[Call], None]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _copy,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "Pad": _pad,
    "Relu": _relu,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _sum,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""The operators that may read a network value; on constants alone any operator is folded that `onnx_constants` allows."""
