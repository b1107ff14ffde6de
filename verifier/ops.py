"""The operators of the network graph: frozen data, no behaviour.

A value is one tensor of one sample. Shapes are those of the model file, the leading batch axis of length 1 included, so
`(1, 784)` is a flat MNIST image; how many samples are evaluated at once is not part of a shape. Constants live inside the
operator that uses them, as read-only float64 arrays: every float32 weight is exactly representable there, and real
arithmetic over these stored numbers is what a proof speaks about.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Linear:
    """y[..., o] = sum_i weight[o, i] * x[..., i] + bias[o], over the last axis."""

    weight: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation over (1, channels, *space) with one or two space axes, zero padding.

    weight: (out_channels, in_channels // groups, *kernel); padding: (begin, end) for each space axis.
    """

    weight: Array
    bias: Array
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, eq=False)
class Scale:
    """y = factor * x + offset, elementwise; both arrays have the rank of x and axes of length 1 or of x's length."""

    factor: Array
    offset: Array


@dataclass(frozen=True, eq=False)
class Sum:
    """y = sum_k coefficients[k] * x_k over inputs of one shape."""

    coefficients: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Reshape:
    """The same entries in C order under another shape (Flatten, Squeeze, Identity, Dropout at inference ...)."""

    shape: Shape


@dataclass(frozen=True, eq=False)
class Transpose:
    """Axis k of the result is axis permutation[k] of x."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Concat:
    """The inputs one after the other along an axis."""

    axis: int


@dataclass(frozen=True, eq=False)
class AveragePool:
    """Window means over (1, channels, *space).

    divisor: one positive count for each output position, shape (*out_space); it differs from the kernel size where the
    window reaches into padding that is not counted.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    divisor: Array


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Window maxima over (1, channels, *space); padded places never win."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Relu:
    """y = max(x, 0)."""


@dataclass(frozen=True, eq=False)
class LeakyRelu:
    """y = max(x, slope * x) with 0 <= slope <= 1."""

    slope: float


@dataclass(frozen=True, eq=False)
class Select:
    """y.flat[k] = x.flat[indices[k]], or 0 where indices[k] is -1; y has the given shape (Slice, Gather, Pad, Expand ...)."""

    indices: NDArray[np.int64]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Product:
    """y = a * b, entrywise, over two inputs of one shape (the same value twice is allowed)."""


@dataclass(frozen=True, eq=False)
class Sigmoid:
    """y = 1 / (1 + exp(-x))."""


@dataclass(frozen=True, eq=False)
class Tanh:
    """y = tanh(x)."""


@dataclass(frozen=True, eq=False)
class Sin:
    """y = sin(x)."""


@dataclass(frozen=True, eq=False)
class Cos:
    """y = cos(x)."""


@dataclass(frozen=True, eq=False)
class Exp:
    """y = exp(x)."""


@dataclass(frozen=True, eq=False)
class Reciprocal:
    """y = 1 / x; not defined at 0, so nothing is known of y where the bounds of x hold 0."""


@dataclass(frozen=True, eq=False)
class Sqrt:
    """y = the square root of x; not defined below 0, so nothing is known of y where the bounds of x reach below 0."""


@dataclass(frozen=True, eq=False)
class Erf:
    """y = 2 / sqrt(pi) times the integral of exp(-t ** 2) over t from 0 to x."""


@dataclass(frozen=True, eq=False)
class Power:
    """y = x ** exponent, a whole number >= 2."""

    exponent: int


@dataclass(frozen=True, eq=False)
class Sign:
    """y = -1, 0 or 1."""


@dataclass(frozen=True, eq=False)
class Floor:
    """y = the greatest whole number <= x."""


Op: TypeAlias = (
    Linear
    | Conv
    | Scale
    | Sum
    | Reshape
    | Transpose
    | Concat
    | AveragePool
    | Select
    | MaxPool
    | Relu
    | LeakyRelu
    | Product
    | Sigmoid
    | Tanh
    | Sin
    | Cos
    | Exp
    | Reciprocal
    | Sqrt
    | Erf
    | Power
    | Sign
    | Floor
)

MASK_LIMIT = -1e30
"""A constant of this or less that is added to a value masks it: a softmax of it is to leave these entries out."""

LARGEST_UNDER_MASK = -0.1 * MASK_LIMIT
"""The size up to which a value counts as small against every mask."""

LINEAR_OPS = (Linear, Conv, Scale, Sum, Reshape, Transpose, Concat, AveragePool, Select)
ACTIVATION_OPS = (Relu, LeakyRelu)
CURVE_OPS = (Sigmoid, Tanh, Sin, Cos, Exp, Reciprocal, Sqrt, Erf, Power)
"""Smooth functions of one entry: relaxed by two lines of any slope."""
STEP_OPS = (Sign, Floor)
"""Piecewise constant functions of one entry."""
TRANSCENDENTAL_OPS = (Sigmoid, Tanh, Sin, Cos, Exp, Sqrt, Erf)
"""Functions whose value at a rational is not rational, so that no exact arithmetic reaches it."""


def frozen_array(values: object) -> Array:
    """A read-only float64 copy."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array
