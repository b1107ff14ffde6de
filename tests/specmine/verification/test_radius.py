"""The largest radius against Z3 on a network of two inputs, and the bisection by itself."""

from fractions import Fraction

import numpy as np
import pytest
import toy
import z3
from hypothesis import given
from hypothesis import strategies as st

from specmine.errors import BadData
from specmine.rules.clause import HornClause
from specmine.rules.syntax import parse_clause
from specmine.tracing import Sites
from specmine.verification import largest_radius
from specmine.verification.radius import bisect
from verifier.region import Box

SITES, DOMAIN = Sites(toy.network()), Box([0.0, 0.0], [1.0, 1.0])


def holds_over(radius, center, least):
    """Whether x0 > x1 for every x of the clipped ball with relu(x0 - x1) >= least; least None: for every x of the ball."""
    x = z3.Reals("x0 x1")
    solver = z3.Solver()
    for value, middle in zip(x, center, strict=True):
        low, high = max(Fraction(0), Fraction(middle) - Fraction(radius)), min(Fraction(1), Fraction(middle) + Fraction(radius))
        solver.add(value >= z3.Q(low.numerator, low.denominator), value <= z3.Q(high.numerator, high.denominator))
    if least is not None:
        solver.add(z3.If(x[0] > x[1], x[0] - x[1], 0) >= z3.Q(*Fraction(least).as_integer_ratio()))
    solver.add(x[0] <= x[1])
    return solver.check() == z3.unsat


@pytest.mark.parametrize(("center", "text"), [((0.75, 0.25), ""), ((0.625, 0.5), ""), ((0.75, 0.25), "inactive(h1,0)")])
def test_the_radius_is_where_z3_finds_the_first_counterexample(center, text):
    body = parse_clause(f"class(0) :- {text}.", sites=SITES).body if text else ()
    found = largest_radius(HornClause(parse_clause("class(0) :- active(h1,0).", sites=SITES).head, body), center, SITES, DOMAIN)
    truth = 0.5 * abs(center[0] - center[1])  # where the ball meets the diagonal
    assert found.refuted and found.proved < truth <= found.failed * (1 + 1e-12)
    assert found.failed - found.proved <= 0.05 * found.proved
    if not text:
        assert holds_over(found.proved, center, None) and not holds_over(found.failed, center, None)


def test_a_body_that_says_all_reaches_as_far_as_asked():
    clause = parse_clause("class(0) :- above(h1,0,0.125).", sites=SITES)
    found = largest_radius(clause, (0.75, 0.25), SITES, DOMAIN)
    assert found.proved == 1.0 and found.failed is None and found.queries == 1
    assert holds_over(1.0, (0.75, 0.25), 0.125)


def test_no_radius_around_a_point_of_the_other_class():
    clause = parse_clause("class(0) :- active(h1,1).", sites=SITES)
    found = largest_radius(clause, (0.25, 0.75), SITES, DOMAIN)
    assert found.proved == 0 and found.refuted and found.failed < 1e-3


@given(st.floats(1e-4, 0.999), st.sampled_from([False, None]))
def test_bisection_ends_close_to_the_answer(truth, otherwise):
    asked = []

    def proved(radius):
        asked.append(radius)
        return True if radius <= truth else otherwise

    found = bisect(proved, most=1.0, precision=0.01)
    assert found.proved <= truth < found.failed and found.refuted == (otherwise is False)
    assert found.failed - found.proved <= 0.01 * max(found.proved, 1e-3)
    assert found.queries == len(asked) < 30 and len(set(asked)) == len(asked)


def test_bisection_ends_where_no_float_lies_between():
    found = bisect(lambda radius: radius <= 0.3, most=1.0, precision=1e-17)
    assert found.proved == 0.3 and found.failed == np.nextafter(0.3, 1)


def test_mistakes_are_named():
    clause = parse_clause("class(0) :- active(h1,0).", sites=SITES)
    with pytest.raises(BadData, match="most and precision must be > 0, got 0"):
        largest_radius(clause, np.array([0.5, 0.25]), SITES, DOMAIN, most=0)
