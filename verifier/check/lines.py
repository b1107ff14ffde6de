"""The two lines between which a nonlinear node's function runs over its bounds: what the float64 pass replaces the node by."""

from dataclasses import dataclass

import numpy as np

from verifier.check.float_model import least_slope
from verifier.check.rounding import above
from verifier.network import Node
from verifier.ops import Array


@dataclass(frozen=True, eq=False)
class Lines:
    """low * z + low_offset <= f(z) <= high * z + high_offset for z in the bounds, exactly for the floats at hand.

    Arrays (nodes, 1 or rows, size); an offset of None is zero.
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
