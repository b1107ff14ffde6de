"""The two lines between which a nonlinear node's function runs over its bounds: what the float64 pass replaces the node by."""

from dataclasses import dataclass

import numpy as np

from verifier.check.curves import offset_above, offset_below, tangent_slope, values
from verifier.check.float_model import least_slope
from verifier.check.rounding import above
from verifier.network import Node
from verifier.ops import Array, Reciprocal, Sqrt


@dataclass(frozen=True, eq=False)
class Lines:
    """low * z + low_offset <= f(z) <= high * z + high_offset for z in the bounds, exactly for the floats at hand.

    Arrays (nodes, 1 or rows, size); an offset of None is zero. Without low_offset, as for activations, slopes are in [0, 1].
    """

    low: Array
    high: Array
    low_offset: Array | None
    high_offset: Array | None


def activation_lines(node: Node, lower: Array, upper: Array, slopes: Array | None) -> Lines:
    """Lines of Relu or LeakyRelu; bounds (nodes, size), slopes (nodes, 1 or rows, size) in [least slope, 1]."""
    least = least_slope(node)
    lower, upper = lower[:, None, :], upper[:, None, :]
    active, idle = lower >= 0, upper <= 0
    if slopes is None:
        slopes = np.where(upper > -lower, 1.0, least)
    # sound: f(z) = max(z, least * z) >= s * z for every s in [least, 1]; where the sign of z is known f is one of the two.
    low = np.where(active, 1.0, np.where(idle, least, slopes))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        chord = (upper - least * lower) / (upper - lower)
        chord = np.where(np.isfinite(chord), np.clip(chord, least, 1.0), 1.0)
        # sound: f is convex, so f(z) - chord * z is largest at an end: (1 - chord) * upper or (chord - least) * -lower; every
        # factor is >= 0 and every operation is rounded up.
        offset = np.maximum(above(above(1.0 - chord) * upper), above(above(chord - least) * -lower))
    known = active | idle
    high = np.where(active, 1.0, np.where(idle, least, chord))
    return Lines(low, high, None, np.where(known, 0.0, offset))


def constant_lines(lower: Array, upper: Array) -> Lines:
    """Lines of slope zero through bounds of the result, (nodes, size)."""
    flat = np.zeros((len(lower), 1, lower.shape[1]))
    # sound: the result stays within its bounds.
    return Lines(flat, flat, lower[:, None, :], upper[:, None, :])


def curve_lines(
    node: Node, source: tuple[Array, Array], result: tuple[Array, Array], slopes: Array | None, upper_slopes: Array | None
) -> Lines:
    """Lines of a curve; source, result: bounds of its input and its output, (nodes, size); slopes (nodes, 1 or rows, size)."""
    lower, upper = (side[:, None, :] for side in source)
    unknown = ~(np.isfinite(lower) & np.isfinite(upper))
    if isinstance(node.op, Reciprocal):
        unknown |= (lower <= 0) & (upper >= 0)
    if isinstance(node.op, Sqrt):
        unknown |= lower < 0
    low, low_offset = _line(node, lower, upper, slopes, is_above=False)
    high, high_offset = _line(node, lower, upper, upper_slopes, is_above=True)
    if unknown.any():
        # sound: a line of slope zero through a bound of the result.
        low, low_offset = np.where(unknown, 0.0, low), np.where(unknown, result[0][:, None, :], low_offset)
        high, high_offset = np.where(unknown, 0.0, high), np.where(unknown, result[1][:, None, :], high_offset)
    return Lines(low, high, low_offset, high_offset)


def _line(node: Node, lower: Array, upper: Array, slopes: Array | None, *, is_above: bool) -> tuple[Array, Array]:
    """Slope and offset of a line on one side of a curve; by default the better of two."""
    # sound: whatever the slope is, the offset is found for it.
    offset = offset_above if is_above else offset_below
    if slopes is not None:
        return slopes, offset(node.op, slopes, lower, upper)
    middle = 0.5 * lower + 0.5 * upper
    tangent = _finite(tangent_slope(node.op, middle))
    chord = _chord_slope(node, lower, upper, tangent)
    of_tangent, of_chord = offset(node.op, tangent, lower, upper), offset(node.op, chord, lower, upper)
    with np.errstate(all="ignore"):
        gain = (tangent * middle + of_tangent) - (chord * middle + of_chord)
    is_closer = gain < 0 if is_above else gain > 0
    return np.where(is_closer, tangent, chord), np.where(is_closer, of_tangent, of_chord)


def _chord_slope(node: Node, lower: Array, upper: Array, otherwise: Array) -> Array:
    """About the slope between the ends; where they coincide, another."""
    at_lower, at_upper = values(node.op, lower)[0], values(node.op, upper)[0]
    with np.errstate(all="ignore"):
        chord = (at_upper - at_lower) / (upper - lower)
    return np.where(np.isfinite(chord), chord, otherwise)


def _finite(slopes: Array) -> Array:
    return np.where(np.isfinite(slopes), slopes, 0.0)
