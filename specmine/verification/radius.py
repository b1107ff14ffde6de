"""The largest ball around an input over which a clause is proved: what a body is worth beyond a bare ball."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from specmine.errors import BadData
from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.tracing import Sites
from verifier.region import Ball, Box
from verifier.solve import verify
from verifier.verdict import Proved, Refuted


@dataclass(frozen=True)
class Radius:
    """proved: the largest radius of an L-infinity ball over which the clause is proved, 0 where none was; failed: the smallest
    one over which it is not, None where it is proved up to the largest that was asked for; refuted: whether that one is
    refuted by a counterexample, else undecided. queries: how many were asked."""

    proved: float
    failed: float | None
    refuted: bool
    queries: int


def largest_radius(
    clause: HornClause,
    center: ArrayLike,
    sites: Sites,
    domain: Box,
    *,
    most: float = 1.0,
    precision: float = 0.05,
    timeout_s: float = 10.0,
    engine: str = "auto",
) -> Radius:
    """The largest radius around center (inputs,), clipped to the domain, over which the body implies the head.

    Balls are nested, so validity is monotone in the radius and bisection finds where proofs end: within a share `precision` of
    the answer, or of a thousandth of `most`. Each ball is given timeout_s; what is undecided counts as not proved, so the
    radius is a lower bound of the true one. A body that no input of a ball satisfies is no obstacle. To see what the body is
    worth, ask again for `HornClause(clause.head, ())`. Raises BadData where most or precision is not positive.
    """
    if not most > 0 or not precision > 0:
        raise BadData(f"most and precision must be > 0, got {most} and {precision}")
    point = np.asarray(center, dtype=np.float64).reshape(-1)
    starts = point[None]

    def proved(radius: float) -> bool | None:
        query = clause_query(clause, Ball(point, radius, domain), sites)
        verdict = verify(query, timeout_s=timeout_s, engine=engine, starts=starts).verdict
        return True if isinstance(verdict, Proved) else False if isinstance(verdict, Refuted) else None

    return bisect(proved, most=most, precision=precision)


def bisect(proved: Callable[[float], bool | None], *, most: float, precision: float) -> Radius:
    """Where a monotone question stops being answered by True; False is a refutation, None no answer.

    The largest radius is asked first, then ever smaller ones until one is proved, then between the two.

    >>> bisect(lambda radius: radius <= 0.3, most=1.0, precision=0.01)
    Radius(proved=0.2998046875, failed=0.302734375, refuted=True, queries=10)
    """
    low, high, answer, queries = 0.0, most, proved(most), 1
    if answer:
        return Radius(most, None, False, queries)
    refuted = answer is False
    while high - low > precision * max(low, 1e-3 * most):
        middle = high / 4 if not low and high / 4 > precision * 1e-3 * most else (low + high) / 2
        if not low < middle < high:
            break
        answer, queries = proved(middle), queries + 1
        if answer:
            low = middle
        else:
            high, refuted = middle, answer is False
    return Radius(low, high, refuted, queries)
