"""Boxes of hidden values on which one class provably has the largest output, grown to hold many samples.

Over a box lower <= h <= upper and a linear read-out y = weight h + bias, the margin of the class c over a rival j is at
least  sum_i min(d_i lower_i, d_i upper_i) + offset  with d = weight[c] - weight[j]: one line of arithmetic, linear in the
sides of the box as long as lower <= upper. That linearity is what peeling and the linear programs below live on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import expit

from verifier.ops import Array

_PEEL_SHARE = 0.05
_SHRUNK = 1e-3


@dataclass(frozen=True, eq=False)
class Rivals:
    """What each rival's margin loses when a side of the box moves outward.

    lower, upper: (rivals, neurons), the loss for each unit by which that side moves, >= 0; offset and required: (rivals,),
    the margin of the box {0} and the margin that a box must keep.
    """

    lower: Array
    upper: Array
    offset: Array
    required: Array


@dataclass(frozen=True, eq=False)
class Sides:
    """lower <= h <= upper, arrays (neurons,)."""

    lower: Array
    upper: Array


def rivals_of(weight: Array, bias: Array, label: int, *, scale: Array, slack: float) -> Rivals:
    """The rivals of a class under y = weight h + bias; `required` is slack times the size of the margin's terms at `scale`."""
    others = np.arange(len(bias)) != label
    difference = weight[label] - weight[others]
    offset = bias[label] - bias[others]
    required = slack * (np.abs(difference) @ scale + np.abs(offset))
    return Rivals(np.maximum(difference, 0), np.maximum(-difference, 0), offset, required)


def margins(rivals: Rivals, box: Sides) -> Array:
    """What is left (rivals,) of each margin over the box beyond what is required; all must be > 0.

    A side may be infinite; where its price is not 0 for some rival, that margin is -inf.
    """
    # sound: each term is the minimum of d_i h_i over lower_i <= h_i <= upper_i
    return rivals.offset - rivals.required + _terms(rivals.lower, box.lower) - _terms(rivals.upper, box.upper)


def _terms(price: Array, side: Array) -> Array:
    return np.where(price > 0, price * np.where((price > 0).any(axis=0), side, 0), 0).sum(axis=1)


def inside(values: Array, box: Sides) -> NDArray[np.bool_]:
    """Which rows (samples,) of values (samples, neurons) lie in the box."""
    return np.asarray(((values >= box.lower) & (values <= box.upper)).all(axis=1), dtype=np.bool_)


def hull(values: Array) -> Sides:
    """The smallest box around values (samples, neurons)."""
    return Sides(values.min(axis=0), values.max(axis=0))


def peeled(values: Array, rivals: Rivals) -> Sides | None:
    """The hull of the samples left once those that cost the margins most are dropped; None where none can stay.

    A sample's cost is what the deficient margins gain without it: its own excess over the second on each side it alone
    supports. While the hull is far from holding, a share of the samples goes at once.
    """
    kept = values
    while len(kept) > 1:
        box = hull(kept)
        left = margins(rivals, box)
        if left.min() > 0:
            return box
        deficit = np.maximum(-left, 0)
        gain = _gains(kept, deficit @ rivals.lower, deficit @ rivals.upper)
        far = min(1.0, deficit.max() / (np.abs(rivals.offset).max() + 1e-300))
        count = max(1, int(len(kept) * _PEEL_SHARE * far))
        kept = np.delete(kept, np.argsort(-gain, kind="stable")[:count], axis=0)
    if len(kept) and margins(rivals, hull(kept)).min() > 0:
        return hull(kept)
    return None


def _gains(values: Array, lower_price: Array, upper_price: Array) -> Array:
    """What dropping each sample alone gains (samples,)."""
    neurons = np.arange(values.shape[1])
    last = len(values) - 1
    order = np.argpartition(values, sorted({0, 1, last - 1, last}), axis=0)
    low, next_low, next_high, high = (values[order[place], neurons] for place in (0, 1, last - 1, last))
    gain = np.zeros(len(values)) + np.bincount(order[0], weights=lower_price * (next_low - low), minlength=len(values))
    return gain + np.bincount(order[last], weights=upper_price * (high - next_high), minlength=len(values))


def extended(box: Sides, values: Array, rivals: Rivals) -> Sides:
    """The box stretched over one more sample after another, the cheapest first, while every margin holds."""
    rows = values[~inside(values, box)]
    while len(rows):
        left = margins(rivals, box)
        below, above = np.maximum(box.lower - rows, 0), np.maximum(rows - box.upper, 0)
        cost = (below @ rivals.lower.T + above @ rivals.upper.T) / left
        affordable = cost.max(axis=1) < 1 - 1e-9
        rows, cost = rows[affordable], cost[affordable]
        if not len(rows):
            break
        cheapest = rows[cost.max(axis=1).argmin()]
        stretched = Sides(np.minimum(box.lower, cheapest), np.maximum(box.upper, cheapest))
        if margins(rivals, stretched).min() <= 0:
            break
        box = stretched
        rows = rows[~inside(rows, box)]
    return box


def smoothed(box: Sides, values: Array, rivals: Rivals, *, reach: Sides, width: Array, rounds: int = 40) -> Sides:
    """The box moved to where it is likely to hold *new* samples: a local optimum of the smooth coverage of `values`.

    A sample counts exp(-sum of softplus(overshoot / width)) over the sides, so it counts fully only well inside. The
    margins are linear in the sides, so each step is one small linear program on the gradient within a trust region; a step
    that does not improve halves the region. reach: the values the neurons can take at all, which bound the box; a sample at
    the bottom of a neuron's reach (a ReLU at 0) costs nothing on that side.
    """
    objective, step = _coverage(values, box, reach.lower, width), 1.0
    for _ in range(rounds):
        moved = _linear_step(box, objective[1], rivals, reach, step * width)
        candidate = _coverage(values, moved, reach.lower, width) if moved else objective
        if moved and candidate[0] > objective[0] * (1 + 1e-4):
            box, objective, step = moved, candidate, 1.3 * step
        else:
            step /= 2
        if step < _SHRUNK:
            break
    return box


def _coverage(values: Array, box: Sides, floor: Array, width: Array) -> tuple[float, Array]:
    """The smooth coverage and its gradient (2 neurons,) in the lower, then the upper sides."""
    over, under = (values - box.upper) / width, (box.lower - values) / width
    off_floor = values > floor
    penalty = np.where(off_floor, np.logaddexp(0, over), 0).sum(axis=1)
    penalty += (np.logaddexp(0, under) - np.logaddexp(0, (floor - values) / width)).sum(axis=1)
    weight = np.exp(-penalty)
    return float(weight.sum()), np.concatenate([-weight @ expit(under), weight @ (expit(over) * off_floor)]) / np.tile(width, 2)


def _linear_step(box: Sides, gradient: Array, rivals: Rivals, reach: Sides, radius: Array) -> Sides | None:
    """The best box for the gradient within the radius that keeps every margin; None where rounding leaves none."""
    neurons = len(box.lower)
    low = np.concatenate([np.maximum(box.lower - radius, reach.lower), np.maximum(box.upper - radius, reach.lower)])
    high = np.concatenate([np.minimum(box.lower + radius, reach.upper), np.minimum(box.upper + radius, reach.upper)])
    losses = np.hstack([-rivals.lower, rivals.upper])
    spare = 0.999 * margins(rivals, box)
    centre = np.concatenate([box.lower, box.upper])
    solved = linprog(-gradient, A_ub=losses, b_ub=losses @ centre + spare, bounds=np.column_stack([low, high]), method="highs")
    if solved.x is None:
        return None
    lower, upper = solved.x[:neurons], solved.x[neurons:]
    moved = Sides(lower, np.maximum(lower, upper))
    return moved if margins(rivals, moved).min() > 0 else None
