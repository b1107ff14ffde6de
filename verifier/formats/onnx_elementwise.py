"""ONNX operators on each entry, of one value or of several that broadcast, and reductions along axes."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod

import numpy as np
from onnx import TensorProto

from verifier.formats.normalisation import gelu
from verifier.formats.onnx_call import Call
from verifier.formats.rewrites import (
    ONE,
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
    Reshape,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Tanh,
    frozen_array,
)

FLOAT32_MAX = float(np.finfo(np.float32).max)


def _add(call: Call) -> None:
    _combine(call, 1.0)


def _sub(call: Call) -> None:
    _combine(call, -1.0)


def _combine(call: Call, sign: float) -> None:
    if call.is_constant(1):
        _shift(call, 0, 1.0, call.addend(1, sign))
    elif call.is_constant(0):
        _shift(call, 1, sign, call.addend(0))
    else:
        values = [call.value(0), call.value(1)]
        total(call.builder, call.output, values, [1.0, sign], op=call.op, node=call.label)


def _shift(call: Call, position: int, sign: float, offset: Array) -> None:
    shifted(call.builder, call.output, call.value(position), sign, offset, op=call.op, node=call.label)


def _scale(call: Call, position: int, factor: Array, offset: Array) -> None:
    scaled(call.builder, call.output, call.value(position), factor, offset, op=call.op, node=call.label)


def _mul(call: Call) -> None:
    if call.is_constant(0) or call.is_constant(1):
        value = 1 if call.is_constant(0) else 0
        _scale(call, value, call.weights(1 - value), ZERO)
    else:
        product(call.builder, call.output, call.value(0), call.value(1), op=call.op, node=call.label)


def _div(call: Call) -> None:
    if call.is_constant(1):
        _scale(call, 0, reciprocal(call.weights(1), call.label), ZERO)
    else:
        left = call.weights(0) if call.is_constant(0) else call.value(0)
        quotient(call.builder, call.output, left, call.value(1), op=call.op, node=call.label)


def _pow(call: Call) -> None:
    if not call.is_constant(1):
        raise call.refuse("an exponent that is computed from the network's input")
    exponents = call.constants[call.inputs[1]].astype(np.float64)
    power(call.builder, call.output, call.value(0), exponents, op=call.op, node=call.label)


def _neg(call: Call) -> None:
    _scale(call, 0, frozen_array(-1.0), ZERO)


def _sum(call: Call) -> None:
    values, constants = _parts(call)
    names = _names(call, len(constants))
    total(call.builder, names[0], values, [1.0] * len(values), op=call.op, node=call.label)
    for constant, (source, output) in zip(constants, pairwise(names), strict=True):
        scaled(call.builder, output, source, ONE, constant, op=call.op, node=call.label)


def _max(call: Call) -> None:
    values, constants = _parts(call)
    names = _names(call, len(constants))
    largest(call.builder, names[0], values, op=call.op, node=call.label)
    for constant, (source, output) in zip(constants, pairwise(names), strict=True):
        at_least(call.builder, output, source, constant, op=call.op, node=call.label)


def _min(call: Call) -> None:
    values, constants = _parts(call)
    names = _names(call, len(constants))
    smallest(call.builder, names[0], values, op=call.op, node=call.label)
    for constant, (source, output) in zip(constants, pairwise(names), strict=True):
        at_most(call.builder, output, source, constant, op=call.op, node=call.label)


def _names(call: Call, constants: int) -> list[str]:
    """Names of what the values make together, and then of what each further constant makes of it; the output is last."""
    return [*(call.builder.fresh(call.output, f"part_{k}") for k in range(constants)), call.output]


def _parts(call: Call) -> tuple[list[str], list[Array]]:
    """The inputs that are values, and those that are constants."""
    places = range(len(call.inputs))
    return [call.value(k) for k in places if not call.is_constant(k)], [call.weights(k) for k in places if call.is_constant(k)]


def _clip(call: Call) -> None:
    """Since opset 11 the bounds are inputs, before they are attributes; the extremes of float32, which stand for none, are left
    out where the value does not come near them."""
    lower, upper = _bound(call, 1, "min"), _bound(call, 2, "max")
    if any(bound is not None and abs(bound) >= FLOAT32_MAX for bound in (lower, upper)):
        call.builder.assume_small(call.value(0))
    lower = None if lower is None or lower <= -FLOAT32_MAX else lower
    upper = None if upper is None or upper >= FLOAT32_MAX else upper
    if lower is not None and upper is not None and lower > upper:
        raise call.refuse(f"a lower bound {float(lower)} above the upper bound {float(upper)}")
    clipped(call.builder, call.output, call.value(0), lower, upper, op=call.op, node=call.label)


def _bound(call: Call, position: int, name: str) -> Array | None:
    if not call.name(position):
        return frozen_array(call.attributes[name]) if name in call.attributes else None
    bound = call.weights(position)
    if bound.size != 1:
        raise call.refuse(f"{bound.size} numbers as {name}; one is")
    return bound.reshape(())


def _leaky_relu(call: Call) -> None:
    slope = float(call.attributes.get("alpha", np.float32(0.01)))
    if not 0 <= slope <= 1:
        raise call.refuse(f"slope {slope}; it must lie in [0, 1]")
    call.builder.add(call.output, LeakyRelu(slope), call.value(0))


def _each(op: Op) -> Callable[[Call], None]:
    """An operator of the graph itself, without settings."""

    def add(call: Call) -> None:
        call.builder.add(call.output, op, call.value(0))

    return add


def _abs(call: Call) -> None:
    absolute(call.builder, call.output, call.value(0))


def _gelu(call: Call) -> None:
    form = call.text("approximate", "none")
    if form not in ("none", "tanh"):
        raise call.refuse(f"the approximation {form}; none and tanh are")
    gelu(call.builder, call.output, call.value(0), tanh=form == "tanh")


def _softmax(call: Call) -> None:
    shape = call.shape(0)
    axis = call.axis(-1 if call.opset >= 13 else 1, len(shape), end=call.opset < 13)
    if call.opset >= 13 or axis == len(shape) - 1:
        softmax(call.builder, call.output, call.value(0), axis, op=call.op, node=call.label)
        return
    # before opset 13 all axes from this one on are one
    rows = call.builder.step(call.output, "rows", Reshape((prod(shape[:axis]), prod(shape[axis:]))), call.value(0))
    shares = call.builder.fresh(call.output, "softmax")
    softmax(call.builder, shares, rows, 1, op=call.op, node=call.label)
    call.builder.add(call.output, Reshape(shape), shares)


def _log_softmax(call: Call) -> None:
    raise call.refuse("a logarithm; Softmax is")


def _reduce_sum(call: Call) -> None:
    _reduce(call, mean=False)


def _reduce_mean(call: Call) -> None:
    _reduce(call, mean=True)


def _reduce(call: Call, *, mean: bool) -> None:
    shape, axes = call.shape(0), call.axes(len(call.shape(0)))
    if not axes:
        axes = set() if call.attributes.get("noop_with_empty_axes", 0) else set(range(len(shape)))
    keep = bool(call.attributes.get("keepdims", 1))
    reduced(call.builder, call.output, call.value(0), sorted(axes), keep=keep, mean=mean, op=call.op, node=call.label)


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


ELEMENTWISE: Mapping[str, Callable[[Call], None]] = {
    "Abs": _abs,
    "Add": _add,
    "Cast": _cast,
    "Clip": _clip,
    "Cos": _each(Cos()),
    "Div": _div,
    "Dropout": _dropout,
    "Erf": _each(Erf()),
    "Exp": _each(Exp()),
    "Floor": _each(Floor()),
    "Gelu": _gelu,
    "Identity": _copy,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "Max": _max,
    "Min": _min,
    "Mul": _mul,
    "Neg": _neg,
    "Pow": _pow,
    "Reciprocal": _each(Reciprocal()),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": _each(Relu()),
    "Sigmoid": _each(Sigmoid()),
    "Sign": _each(Sign()),
    "Sin": _each(Sin()),
    "Softmax": _softmax,
    "Sqrt": _each(Sqrt()),
    "Sub": _sub,
    "Sum": _sum,
    "Tanh": _each(Tanh()),
}
