"""Normalisation and gates of transformers, as exact compositions of the graph's own operators, for every reader."""

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np

from verifier.formats.build import NetworkBuilder
from verifier.formats.rewrites import ONE, ZERO, product, reduced, total
from verifier.formats.scales import scaled
from verifier.ops import Array, Erf, Power, Product, Reciprocal, Scale, Sigmoid, Sqrt, Sum, frozen_array

CUBIC = 0.044715
"""Of the approximation to GELU by a hyperbolic tangent (Hendrycks and Gimpel, arXiv:1606.08415)."""


def layer_norm(
    builder: NetworkBuilder,
    output: str,
    value: str,
    axes: Sequence[int],
    epsilon: float,
    scale: Array | None,
    shift: Array | None,
    *,
    op: str,
    node: str,
) -> None:
    """output = (value - mean) / sqrt(variance + epsilon) * scale + shift, mean and variance over some axes."""
    centered = _centered(builder, output, value, axes, op=op, node=node)
    squares = builder.step(output, "squares", Power(2), centered)
    variance = builder.fresh(output, "variance")
    reduced(builder, variance, squares, axes, keep=True, mean=True, op=op, node=node)
    axis = (1,) * len(builder.shapes[value])
    raised = Scale(frozen_array(np.ones(axis)), frozen_array(np.full(axis, epsilon)))
    root = builder.step(output, "deviation", Sqrt(), builder.step(output, "raised", raised, variance))
    inverse = builder.step(output, "inverse", Reciprocal(), root)
    normal = output if scale is None and shift is None else builder.fresh(output, "normalised")
    product(builder, normal, centered, inverse, op=op, node=node)
    if normal != output:
        factor, offset = ONE if scale is None else scale, ZERO if shift is None else shift
        scaled(builder, output, normal, factor, offset, op=op, node=node)


def variance(
    builder: NetworkBuilder, output: str, value: str, axes: Sequence[int], correction: float, *, keep: bool, op: str, node: str
) -> None:
    """output = the sum of squared differences from the mean over some axes, by their number less the correction."""
    count = float(np.prod([builder.shapes[value][axis] for axis in axes]))
    squares = builder.step(output, "squares", Power(2), _centered(builder, output, value, axes, op=op, node=node))
    mean = builder.fresh(output, "mean_square")
    reduced(builder, mean, squares, axes, keep=keep, mean=True, op=op, node=node)
    scaled(builder, output, mean, frozen_array(count / (count - correction)), ZERO, op=op, node=node)


def _centered(builder: NetworkBuilder, output: str, value: str, axes: Sequence[int], *, op: str, node: str) -> str:
    mean, centered = builder.fresh(output, "mean"), builder.fresh(output, "centered")
    reduced(builder, mean, value, axes, keep=True, mean=True, op=op, node=node)
    total(builder, centered, [value, mean], [1.0, -1.0], op=op, node=node)
    return centered


def gelu(builder: NetworkBuilder, output: str, value: str, *, tanh: bool) -> None:
    """output = value * (1 + erf(value / sqrt(2))) / 2, or with tanh(sqrt(2 / pi) (value + CUBIC value^3)) for the erf.

    (1 + tanh u) / 2 is sigmoid(2 u). The constants are rounded once to float64.
    """
    axis = (1,) * len(builder.shapes[value])
    if tanh:
        slope = 2 * sqrt(2 / pi)
        inner = builder.step(output, "inner", Sum((slope, slope * CUBIC)), value, builder.step(output, "cube", Power(3), value))
        gate = builder.step(output, "gate", Sigmoid(), inner)
    else:
        inner = builder.step(output, "inner", Scale(*_constants(axis, sqrt(0.5), 0.0)), value)
        gate = builder.step(output, "gate", Scale(*_constants(axis, 0.5, 0.5)), builder.step(output, "erf", Erf(), inner))
    builder.add(output, Product(), value, gate)


def _constants(shape: tuple[int, ...], *numbers: float) -> list[Array]:
    return [frozen_array(np.full(shape, number)) for number in numbers]
