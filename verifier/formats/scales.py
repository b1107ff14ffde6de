"""Elementwise operators made of one value and constants: shifts, multiples, quotients, batch normalisation.

A quotient and a normalisation are not float64 numbers in general. Each such number is rounded once, to the nearest
float64, and it is this stored network that a proof speaks about.
"""

from decimal import Context, Decimal

import numpy as np

from verifier.errors import BadNetwork
from verifier.formats.build import NetworkBuilder
from verifier.formats.masks import levels_of, unmasked
from verifier.formats.selections import broadcast, common_shape
from verifier.ops import Array, Scale, frozen_array

PRECISE = Context(prec=120)


def batch_norm(scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float, *, rank: int, node: str) -> Scale:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift over axis 1, as one factor and offset a channel.

    Factor and offset are computed with 120 decimal digits from the exact stored numbers and rounded once to float64.
    Raises BadNetwork where variance + epsilon is not positive.
    """
    if len({a.shape for a in (scale, shift, mean, variance)}) != 1 or scale.ndim != 1 or rank < 2:
        raise BadNetwork(f"batch normalisation at {node!r} needs one number a channel for each of its four parameters")
    pairs = [
        _normalise(Decimal(a), Decimal(b), Decimal(m), Decimal(v), Decimal(epsilon), node)
        for a, b, m, v in zip(scale.tolist(), shift.tolist(), mean.tolist(), variance.tolist(), strict=True)
    ]
    axes = (1, len(pairs), *(1,) * (rank - 2))
    factors, offsets = zip(*pairs, strict=True)
    return Scale(frozen_array(factors).reshape(axes), frozen_array(offsets).reshape(axes))


def _normalise(
    scale: Decimal, shift: Decimal, mean: Decimal, variance: Decimal, epsilon: Decimal, node: str
) -> tuple[float, float]:
    spread = PRECISE.add(variance, epsilon)
    if spread <= 0:
        raise BadNetwork(f"batch normalisation at {node!r} has variance + epsilon = {float(spread)}; it must be positive")
    factor = PRECISE.divide(scale, PRECISE.sqrt(spread))
    return float(factor), float(PRECISE.subtract(shift, PRECISE.multiply(mean, factor)))


def scaled(builder: NetworkBuilder, output: str, value: str, factor: Array, offset: Array, *, op: str, node: str) -> None:
    """output = factor * value + offset, the three broadcast against one another as in numpy."""
    shape = common_shape([builder.shapes[value], factor.shape, offset.shape], op=op, node=node)
    value = broadcast(builder, output, "widened", value, shape)
    builder.add(output, Scale(_of_rank(factor, len(shape)), _of_rank(offset, len(shape))), value)


def shifted(builder: NetworkBuilder, output: str, value: str, sign: float, offset: Array, *, op: str, node: str) -> None:
    """output = sign * value + offset; entries of the offset that stand for minus infinity mask the result (see `masks`)."""
    scaled(builder, output, value, frozen_array(sign), unmasked(offset), op=op, node=node)
    builder.mask(output, levels_of(offset))


def reciprocal(divisor: Array, node: str) -> Array:
    """1 / divisor, each rounded once to float64; raises BadNetwork at a zero or where the result is not finite."""
    with np.errstate(all="ignore"):
        # sound: IEEE division rounds correctly, so this is the float64 nearest to the exact reciprocal
        result = 1.0 / divisor
    if not np.isfinite(result).all():
        raise BadNetwork(f"node {node!r} divides by zero or by a number too small to invert; check its constant")
    return result


def _of_rank(constant: Array, rank: int) -> Array:
    return frozen_array(constant).reshape((1,) * (rank - constant.ndim) + constant.shape)
