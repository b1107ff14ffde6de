"""Intervals and tests of counts."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from specmine.errors import BadData


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share; (0, 1) without trials (Wilson 1927).

    >>> tuple(round(end, 4) for end in wilson(9, 10))
    (0.5958, 0.9821)
    """
    if not 0 <= successes <= trials:
        raise BadData(f"successes must be between 0 and trials, got {successes} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    share, factor = successes / trials, z * z / trials
    center = (share + factor / 2) / (1 + factor)
    half = z * math.sqrt(share * (1 - share) / trials + factor / (4 * trials)) / (1 + factor)
    low = 0.0 if successes == 0 else max(0.0, center - half)
    return low, 1.0 if successes == trials else min(1.0, center + half)


def fisher_p(*, samples: int, positives: int, support: int, hits: int) -> float:
    """Fisher's exact test, one-sided: the chance of at least so many hits among `support` samples drawn without return.

    >>> round(fisher_p(samples=8, positives=4, support=4, hits=4), 12) == round(1 / 70, 12)
    True
    """
    if not 0 <= hits <= min(positives, support) <= max(positives, support) <= samples:
        raise BadData(f"counts do not fit: {hits} hits, {support} support, {positives} positives, {samples} samples")
    return min(1.0, float(hypergeom.sf(hits - 1, samples, positives, support)))


def benjamini_hochberg(p: Sequence[float] | NDArray[np.float64], *, tried: int | None = None) -> NDArray[np.float64]:
    """The false discovery rate q of each p value (Benjamini and Hochberg 1995), in the given order.

    tried: the number of tests in all, of which those not given count as p = 1.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    tests = len(values) if tried is None else tried
    if tests < len(values) or not ((values >= 0) & (values <= 1)).all():
        raise BadData(f"p values must lie in [0, 1] and tried be at least their number, got {len(values)} and tried {tests}")
    order = np.argsort(values, kind="stable")
    raw = values[order] * tests / np.arange(1, len(values) + 1)
    q = np.empty_like(values)
    q[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    return q
