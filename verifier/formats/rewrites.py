"""Functions of values that are exact compositions of the graph's own operators, for every reader.

Each writes `output` last; what lies between has the names `<output>/<step>`.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from verifier.errors import UnsupportedOp
from verifier.formats.build import MAX_EXPONENT, NetworkBuilder, affine
from verifier.formats.scales import scaled
from verifier.formats.selections import broadcast, common_shape
from verifier.ops import (
    Array,
    AveragePool,
    Linear,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Sqrt,
    Sum,
    Transpose,
    frozen_array,
)

ZERO, ONE = frozen_array(0.0), frozen_array(1.0)


def total(builder: NetworkBuilder, output: str, values: list[str], coefficients: list[float], *, op: str, node: str) -> None:
    """output = sum of coefficient * value, the values broadcast against one another as in numpy."""
    builder.add(output, Sum(tuple(coefficients)), *_alike(builder, output, values, op=op, node=node))


def product(builder: NetworkBuilder, output: str, left: str, right: str, *, op: str, node: str) -> None:
    """output = left * right, entrywise, broadcast as in numpy; a value by itself is its square."""
    if left == right:
        builder.add(output, Power(2), left)
    else:
        builder.add(output, Product(), *_alike(builder, output, [left, right], op=op, node=node))


def quotient(builder: NetworkBuilder, output: str, left: str | Array, right: str, *, op: str, node: str) -> None:
    """output = left / right, where the divisor is a value; not defined where it is 0."""
    inverse = builder.step(output, "reciprocal", Reciprocal(), right)
    if isinstance(left, str):
        product(builder, output, left, inverse, op=op, node=node)
    else:
        scaled(builder, output, inverse, left, ZERO, op=op, node=node)


def _alike(builder: NetworkBuilder, output: str, values: list[str], *, op: str, node: str) -> list[str]:
    shape = common_shape([builder.shapes[value] for value in values], op=op, node=node)
    return [broadcast(builder, output, "widened", value, shape) for value in values]


def power(builder: NetworkBuilder, output: str, value: str, exponents: Array, *, op: str, node: str) -> None:
    """output = value ** exponent for one exponent, whole and not 0, or 1/2; a negative one is the reciprocal of a power."""
    shape = common_shape([builder.shapes[value], exponents.shape], op=op, node=node)
    found = {float(n) for n in exponents.reshape(-1)}
    exponent = next(iter(found)) if len(found) == 1 else 0.0
    if abs(exponent) == 0.5:
        value = broadcast(builder, output, "widened", value, shape)
        source = value if exponent > 0 else builder.step(output, "root", Sqrt(), value)
        builder.add(output, Sqrt() if exponent > 0 else Reciprocal(), source)
        return
    if exponent != round(exponent) or not 1 <= abs(exponent) <= MAX_EXPONENT:
        given = ", ".join(map(str, sorted(found)[:5]))
        raise UnsupportedOp(
            op, node, f"exponent {given}; one whole number from 1 to {MAX_EXPONENT}, or 0.5, or its negative, is"
        )
    value = broadcast(builder, output, "widened", value, shape)
    match int(exponent):
        case 1:
            builder.copy(output, value)
        case -1:
            builder.add(output, Reciprocal(), value)
        case n if n > 0:
            builder.add(output, Power(n), value)
        case n:
            builder.add(output, Reciprocal(), builder.step(output, "power", Power(-n), value))


def at_least(builder: NetworkBuilder, output: str, value: str, bound: Array, *, op: str, node: str) -> None:
    """output = max(value, bound) = relu(value - bound) + bound."""
    if not bound.any() and common_shape([builder.shapes[value], bound.shape], op=op, node=node) == builder.shapes[value]:
        builder.add(output, Relu(), value)
        return
    rise = builder.step(output, "rise", Relu(), _scaled_step(builder, output, value, ONE, -bound, op=op, node=node))
    scaled(builder, output, rise, ONE, bound, op=op, node=node)


def at_most(builder: NetworkBuilder, output: str, value: str, bound: Array, *, op: str, node: str) -> None:
    """output = min(value, bound) = bound - relu(bound - value)."""
    fall = builder.step(output, "fall", Relu(), _scaled_step(builder, output, value, -ONE, bound, op=op, node=node))
    scaled(builder, output, fall, -ONE, bound, op=op, node=node)


def _scaled_step(builder: NetworkBuilder, output: str, value: str, factor: Array, offset: Array, *, op: str, node: str) -> str:
    shape = common_shape([builder.shapes[value], offset.shape], op=op, node=node)
    wide = broadcast(builder, output, "widened", value, shape)
    factor, offset = (frozen_array(c).reshape((1,) * (len(shape) - c.ndim) + c.shape) for c in (factor, offset))
    return builder.step(output, "shifted", Scale(factor, offset), wide)


def clipped(
    builder: NetworkBuilder, output: str, value: str, lower: Array | None, upper: Array | None, *, op: str, node: str
) -> None:
    """output = min(max(value, lower), upper); a bound may be absent. Nested, so that its bounds never leave the two."""
    if lower is None and upper is None:
        builder.copy(output, value)
    elif upper is None:
        assert lower is not None, "one of the bounds was given"
        at_least(builder, output, value, lower, op=op, node=node)
    elif lower is None:
        at_most(builder, output, value, upper, op=op, node=node)
    else:
        raised = builder.fresh(output, "raised")
        at_least(builder, raised, value, lower, op=op, node=node)
        at_most(builder, output, raised, upper, op=op, node=node)


def largest(builder: NetworkBuilder, output: str, values: Sequence[str], *, op: str, node: str) -> None:
    """output = max of the values: max(a, b) = a + relu(b - a), one after the other."""
    _extreme(builder, output, values, 1.0, op=op, node=node)


def smallest(builder: NetworkBuilder, output: str, values: Sequence[str], *, op: str, node: str) -> None:
    """output = min of the values: min(a, b) = a - relu(a - b), one after the other."""
    _extreme(builder, output, values, -1.0, op=op, node=node)


def _extreme(builder: NetworkBuilder, output: str, values: Sequence[str], sign: float, *, op: str, node: str) -> None:
    if len(values) == 1:
        builder.copy(output, values[0])
        return
    best = values[0]
    for place, value in enumerate(values[1:], start=2):
        pair = _alike(builder, output, [best, value], op=op, node=node)
        lead = builder.step(output, "lead", Sum((-sign, sign)), *pair)
        rise = builder.step(output, "rise", Relu(), lead)
        name = output if place == len(values) else builder.fresh(output, "best")
        best = builder.add(name, Sum((1.0, sign)), pair[0], rise)


def absolute(builder: NetworkBuilder, output: str, value: str) -> None:
    """output = |value| = relu(value) + relu(-value)."""
    above = builder.step(output, "above", Relu(), value)
    below = builder.step(output, "below", Relu(), builder.step(output, "negative", Sum((-1.0,)), value))
    builder.add(output, Sum((1.0, 1.0)), above, below)


def reduced(
    builder: NetworkBuilder, output: str, value: str, axes: Sequence[int], *, keep: bool, mean: bool, op: str, node: str
) -> None:
    """output = the sum, or the mean, over some axes, which keep length 1 or go."""
    shape = builder.shapes[value]
    if not all(0 <= axis < len(shape) for axis in axes) or len(set(axes)) != len(axes):
        raise UnsupportedOp(op, node, f"axes {list(axes)} of shape {shape}")
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    rows, terms = prod(shape[axis] for axis in kept), prod(shape[axis] for axis in axes)
    result = tuple(1 if axis in axes else n for axis, n in enumerate(shape) if keep or axis not in axes)
    if terms == 1:
        builder.add(output, Reshape(result), value)
        return
    order = (*kept, *sorted(axes))
    turned = value if order == tuple(range(len(shape))) else builder.step(output, "turned", Transpose(order), value)
    flat = builder.step(output, "rows", Reshape((1, rows, terms)), turned)
    # an average pool divides exactly, where a factor 1 / terms would be rounded
    whole: Linear | AveragePool = affine(np.ones((1, terms)))
    if mean:
        whole = AveragePool((terms,), (terms,), ((0, 0),), frozen_array([terms]))
    builder.add(output, Reshape(result), builder.step(output, "means" if mean else "sums", whole, flat))
