"""Thresholds of linear forms moved to where they hold many samples, while weighed sums of them keep every margin.

With the multipliers fixed, the margins over {h : a_l h >= t_l} are linear in the thresholds: offset + sum_l m_l t_l. So samples
are dropped, thresholds stretched over one sample more, and the smooth coverage climbed by small linear programs, at the price
that each step takes from each margin. Where thresholds have moved, better multipliers may be found and all begins again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import expit, logsumexp

from specmine.predicates.rounding import shorten
from verifier.ops import Array

_SHARE = 1 / 6
_SHRUNK = 1e-2
_FIRST_STEP = 3.0
_GAIN = 1e-4


@dataclass(frozen=True, eq=False)
class Prices:
    """multipliers: (rivals, forms) >= 0, offsets: (rivals,): what is left of each margin, of which all must be positive, is
    offsets + multipliers @ thresholds."""

    multipliers: Array
    offsets: Array

    def left(self, thresholds: Array) -> Array:
        """What is left (rivals,) of the margins for thresholds (forms,)."""
        return np.asarray(self.offsets + self.multipliers @ thresholds)

    def of(self, forms: NDArray[np.int64]) -> "Prices":
        """The same for some of the forms; the others must have no multipliers."""
        return Prices(self.multipliers[:, forms], self.offsets)


def without_dearest(values: Array, room: Array, prices: Prices, *, most: int) -> NDArray[np.bool_]:
    """Which rows of values (samples, forms) stay when the dearest go, until the margins hold; at most about `most` go.

    A threshold lies at the lowest value left, less room (forms,). A sample's price is what the margins that do not hold gain
    without it: on each form where it alone is lowest, its distance from the second.
    """
    kept = np.ones(len(values), dtype=bool)
    while kept.sum() > max(2, len(values) - most):
        rows = values[kept]
        lowest, second = np.partition(rows, 1, axis=0)[:2]
        deficit = np.maximum(-prices.left(lowest - room), 0)
        if not deficit.any():
            break
        gain = np.bincount(rows.argmin(axis=0), weights=(deficit @ prices.multipliers) * (second - lowest), minlength=len(rows))
        count = max(1, int(most * _SHARE))
        kept[np.flatnonzero(kept)[np.argsort(-gain, kind="stable")[:count]]] = False
    return kept


def stretched(values: Array, thresholds: Array, prices: Prices) -> Array:
    """The thresholds lowered to hold one more of the rows (samples, forms) after another, the cheapest first."""
    rows = values[~(values >= thresholds).all(axis=1)]
    while len(rows):
        left = prices.left(thresholds)
        cost = (np.maximum(thresholds - rows, 0) @ prices.multipliers.T) / left
        affordable = cost.max(axis=1) < 1 - 1e-9
        rows, cost = rows[affordable], cost[affordable]
        if not len(rows):
            break
        lower = np.minimum(thresholds, rows[cost.max(axis=1).argmin()])
        if prices.left(lower).min() <= 0:
            break
        thresholds = lower
        rows = rows[~(rows >= thresholds).all(axis=1)]
    return thresholds


@dataclass(frozen=True, eq=False)
class Reach:
    """lowest, highest: (forms,) between which every value of a form lies, infinite where nothing is known."""

    lowest: Array
    highest: Array


def smoothed(values: Array, thresholds: Array, prices: Prices, *, width: Array, reach: Reach, rounds: int = 25) -> Array:
    """The thresholds moved to where they are likely to hold *new* samples: a local optimum of the smooth coverage of values.

    A sample counts exp(-sum of softplus((threshold - value) / width)) over the forms, so it counts fully only well inside; a
    value at the highest of its reach costs nothing, nor does a threshold at the lowest. Each step is a linear program on the
    gradient within a trust region; a step that does not improve halves the region.
    """
    reach = Reach(np.minimum(reach.lowest, thresholds), np.minimum(reach.highest, values.max(axis=0)))
    objective, step = _coverage(values, thresholds, width, reach), _FIRST_STEP
    for _ in range(rounds):
        moved = _linear_step(thresholds, objective[1], prices, step * width, reach)
        candidate = objective if moved is None else _coverage(values, moved, width, reach)
        if moved is not None and candidate[0] > objective[0] + _GAIN:
            thresholds, objective, step = moved, candidate, 1.3 * step
        else:
            step /= 2
        if step < _SHRUNK:
            break
    return thresholds


def _coverage(values: Array, thresholds: Array, width: Array, reach: Reach) -> tuple[float, Array]:
    """The logarithm of the smooth coverage, and its gradient (forms,)."""
    counts, beyond = values < reach.highest, (thresholds - values) / width
    free = np.logaddexp(0, (reach.lowest - values) / width)
    penalty = np.where(counts, np.logaddexp(0, beyond) - free, 0).sum(axis=1)
    coverage = float(logsumexp(-penalty))
    return coverage, -(np.exp(-penalty - coverage) @ np.where(counts, expit(beyond), 0)) / width


def _linear_step(thresholds: Array, gradient: Array, prices: Prices, radius: Array, reach: Reach) -> Array | None:
    """The best thresholds for the gradient within the radius that keep every margin; None where rounding leaves none."""
    matters = gradient != 0
    down, up = (np.maximum(side, 0) for side in (thresholds - reach.lowest, reach.highest - thresholds))
    bounds = np.column_stack([-np.where(matters, np.minimum(radius, down), 0), np.where(matters, np.minimum(radius, up), 0)])
    spare = 0.999 * prices.left(thresholds)
    solved = linprog(-gradient, A_ub=-prices.multipliers, b_ub=spare, bounds=bounds, method="highs")
    if solved.x is None:
        return None
    moved = thresholds + solved.x
    return moved if prices.left(moved).min() > 0 else None


def rounded(thresholds: Array, prices: Prices) -> Array:
    """The thresholds lowered to short decimals wherever the margins can spare it, the cheapest first."""
    short = np.array([shorten(t, down=True) for t in thresholds.tolist()])
    loss, left, found = prices.multipliers * (thresholds - short), prices.left(thresholds), thresholds.copy()
    for form in np.argsort((loss / left[:, None]).max(axis=0), kind="stable"):
        if (left - loss[:, form] > 0).all():
            left, found[form] = left - loss[:, form], short[form]
    return found
