"""Core ATen operators on each entry, of one value or of several that broadcast, and reductions along axes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from verifier.formats.normalisation import gelu, variance
from verifier.formats.rewrites import (
    ZERO,
    absolute,
    at_least,
    at_most,
    clipped,
    largest,
    power,
    product,
    quotient,
    reduced,
    smallest,
    total,
)
from verifier.formats.scales import reciprocal, scaled, shifted
from verifier.formats.softmax import softmax
from verifier.formats.torch_call import Call
from verifier.ops import (
    Array,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Op,
    Reciprocal,
    Relu,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Tanh,
    frozen_array,
)

aten = torch.ops.aten


def _add(call: Call) -> None:
    _combine(call, 1.0)


def _sub(call: Call) -> None:
    _combine(call, -1.0)


def _combine(call: Call, sign: float) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    factor = sign * call.number("alpha", 1.0)
    if not call.is_value(right):
        _shift(call, left, 1.0, call.addend(right, factor))
    elif not call.is_value(left):
        _shift(call, right, factor, call.addend(left))
    else:
        values = [call.value(left), call.value(right)]
        total(call.builder, call.output, values, [1.0, factor], op=call.op, node=call.label)


def _shift(call: Call, value: Any, factor: float, offset: Array) -> None:
    shifted(call.builder, call.output, call.value(value), factor, offset, op=call.op, node=call.label)


def _mul(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    if call.is_value(left) and call.is_value(right):
        product(call.builder, call.output, call.value(left), call.value(right), op=call.op, node=call.label)
    else:
        value, constant = (left, right) if call.is_value(left) else (right, left)
        _scale(call, value, call.weights(constant), ZERO)


def _div(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    if call.is_value(right):
        above = call.value(left) if call.is_value(left) else call.weights(left)
        quotient(call.builder, call.output, above, call.value(right), op=call.op, node=call.label)
    else:
        _scale(call, left, reciprocal(call.weights(right), call.label), ZERO)


def _neg(call: Call) -> None:
    _scale(call, call.argument(0, "self"), frozen_array(-1.0), ZERO)


def _scale(call: Call, value: Any, factor: Array, offset: Array) -> None:
    scaled(call.builder, call.output, call.value(value), factor, offset, op=call.op, node=call.label)


def _pow(call: Call) -> None:
    exponents = call.weights(call.argument(1, "exponent"))
    power(call.builder, call.output, call.value(call.argument(0, "self")), exponents, op=call.op, node=call.label)


def _clamp(call: Call) -> None:
    _clip(call, call.argument(1, "min"), call.argument(2, "max"))


def _hardtanh(call: Call) -> None:
    _clip(call, call.argument(1, "min_val", -1.0), call.argument(2, "max_val", 1.0))


def _clip(call: Call, lower: Any, upper: Any) -> None:
    low, high = (None if bound is None else call.weights(bound) for bound in (lower, upper))
    if low is not None and high is not None and (low > high).any():
        raise call.refuse("a lower bound above the upper bound")
    clipped(call.builder, call.output, call.value(call.argument(0, "self")), low, high, op=call.op, node=call.label)


def _maximum(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    if call.is_value(left) and call.is_value(right):
        largest(call.builder, call.output, [call.value(left), call.value(right)], op=call.op, node=call.label)
    else:
        value, constant = (left, right) if call.is_value(left) else (right, left)
        at_least(call.builder, call.output, call.value(value), call.weights(constant), op=call.op, node=call.label)


def _minimum(call: Call) -> None:
    left, right = call.argument(0, "self"), call.argument(1, "other")
    if call.is_value(left) and call.is_value(right):
        smallest(call.builder, call.output, [call.value(left), call.value(right)], op=call.op, node=call.label)
    else:
        value, constant = (left, right) if call.is_value(left) else (right, left)
        at_most(call.builder, call.output, call.value(value), call.weights(constant), op=call.op, node=call.label)


def _leaky_relu(call: Call) -> None:
    slope = float(call.argument(1, "negative_slope", 0.01))
    if not 0 <= slope <= 1:
        raise call.refuse(f"slope {slope}; it must lie in [0, 1]")
    call.builder.add(call.output, LeakyRelu(slope), call.value(call.argument(0, "self")))


def _each(op: Op) -> Callable[[Call], None]:
    """An operator of the graph itself, without settings."""

    def add(call: Call) -> None:
        call.builder.add(call.output, op, call.value(call.argument(0, "self")))

    return add


def _abs(call: Call) -> None:
    absolute(call.builder, call.output, call.value(call.argument(0, "self")))


def _softmax(call: Call) -> None:
    source = call.argument(0, "self")
    axis = int(call.argument(1, "dim")) % max(len(call.shape(source)), 1)
    softmax(call.builder, call.output, call.value(source), axis, op=call.op, node=call.label)


def _mean(call: Call) -> None:
    _reduce(call, mean=True)


def _sum(call: Call) -> None:
    _reduce(call, mean=False)


def _reduce(call: Call, *, mean: bool) -> None:
    """Over the axes asked for, all of them where none is named."""
    source = call.argument(0, "self")
    rank = len(call.shape(source))
    axes = sorted(axis % rank for axis in call.integers(1, "dim", ())) or list(range(rank))
    keep = bool(call.argument(2, "keepdim", False))
    reduced(call.builder, call.output, call.value(source), axes, keep=keep, mean=mean, op=call.op, node=call.label)


def _variance(call: Call) -> None:
    source = call.argument(0, "self")
    rank = len(call.shape(source))
    axes = sorted(axis % rank for axis in call.integers(1, "dim", ())) or list(range(rank))
    given = call.node.kwargs.get("correction")
    correction = 1.0 if given is None else call.number("correction", 1.0)
    keep, name = bool(call.node.kwargs.get("keepdim", False)), call.value(source)
    variance(call.builder, call.output, name, axes, correction, keep=keep, op=call.op, node=call.label)


def _gelu(call: Call) -> None:
    gelu(call.builder, call.output, call.value(call.argument(0, "self")), tanh=call.node.kwargs.get("approximate") == "tanh")


def _rsqrt(call: Call) -> None:
    root = call.builder.step(call.output, "root", Sqrt(), call.value(call.argument(0, "self")))
    call.builder.add(call.output, Reciprocal(), root)


def _copy(call: Call) -> None:
    call.builder.copy(call.output, call.value(call.argument(0, "self")))


def _cast(call: Call) -> None:
    if call.node.meta["val"].dtype not in (torch.float32, torch.float64):
        raise call.refuse(
            f"to {call.node.meta['val'].dtype}, which rounds values; casts to float32 and float64 are read as none"
        )
    _copy(call)


ELEMENTWISE: Mapping[Any, Callable[[Call], None]] = {
    aten._softmax.default: _softmax,
    aten._to_copy.default: _cast,
    aten.abs.default: _abs,
    aten.add.Scalar: _add,
    aten.add.Tensor: _add,
    aten.alias.default: _copy,
    aten.clamp.Tensor: _clamp,
    aten.clamp.default: _clamp,
    aten.clone.default: _copy,
    aten.cos.default: _each(Cos()),
    aten.div.Tensor: _div,
    aten.erf.default: _each(Erf()),
    aten.exp.default: _each(Exp()),
    aten.floor.default: _each(Floor()),
    aten.gelu.default: _gelu,
    aten.hardtanh.default: _hardtanh,
    aten.leaky_relu.default: _leaky_relu,
    aten.maximum.default: _maximum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.minimum.default: _minimum,
    aten.mul.Scalar: _mul,
    aten.mul.Tensor: _mul,
    aten.neg.default: _neg,
    aten.pow.Tensor_Scalar: _pow,
    aten.reciprocal.default: _each(Reciprocal()),
    aten.relu.default: _each(Relu()),
    aten.rsqrt.default: _rsqrt,
    aten.sigmoid.default: _each(Sigmoid()),
    aten.sign.default: _each(Sign()),
    aten.sin.default: _each(Sin()),
    aten.sqrt.default: _each(Sqrt()),
    aten.sub.Tensor: _sub,
    aten.sum.dim_IntList: _sum,
    aten.tanh.default: _each(Tanh()),
    aten.var.correction: _variance,
}
