"""Boxes with rational bounds: floats around and inside, and points between two floats."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.check import confirms
from verifier.check.files import read_certificate, write_certificate
from verifier.errors import BadRegion
from verifier.formula import at_least, at_most
from verifier.network import Network, Node
from verifier.ops import Relu
from verifier.query import Query
from verifier.region import Box, ExactBox, exact_bounds, exact_point, inner_bounds, outer_bounds, round_down, round_up
from verifier.solve import verify
from verifier.verdict import Proved, Refuted

TENTH = Fraction(1, 10)
RELU = Network("x", (1,), (Node("y", Relu(), ("x",)),), "y")


@given(st.lists(st.tuples(st.fractions(-9, 9), st.fractions(0, 1)), min_size=1, max_size=4))
def test_float_boxes_around_and_inside(sides):
    lower, upper = tuple(low for low, _ in sides), tuple(low + width for low, width in sides)
    box = ExactBox(lower, upper)
    assert exact_bounds(box) == (list(lower), list(upper)) and box.size == len(sides)
    assert [s.tolist() for s in outer_bounds(box)] == [list(map(round_down, lower)), list(map(round_up, upper))]
    for low, high, inside in zip(lower, upper, np.transpose(inner_bounds(box)).tolist(), strict=True):
        if round_up(low) <= round_down(high):
            assert inside == [round_up(low), round_down(high)]
        else:
            assert inside == [float(low)] * 2


@given(st.lists(st.tuples(st.fractions(-9, 9), st.fractions(0, Fraction(1, 2**50))), min_size=1, max_size=4))
def test_inner_bounds_stand_for_points_of_the_region(sides):
    lower, upper = [low for low, _ in sides], [low + width for low, width in sides]
    box = ExactBox(tuple(lower), tuple(upper))
    for corner in inner_bounds(box):
        assert all(lo <= v <= hi for lo, v, hi in zip(lower, exact_point(box, corner), upper, strict=True))


def test_other_numbers_stand_for_themselves():
    box = ExactBox((TENTH, TENTH), (TENTH, 2 * TENTH))
    above = np.nextafter(0.1, 1)
    assert exact_point(box, np.array([above, 0.1])) == [Fraction(above), Fraction(0.1)]
    assert exact_point(Box([0.1], [0.1]), np.array([0.1])) == [Fraction(0.1)]


def test_counterexamples_are_exact_at_the_decimal():
    """The float 0.1 is above the decimal 0.1: only the decimal decides."""
    point = ExactBox((TENTH,), (TENTH,))
    assert Fraction(0.1) > TENTH
    assert confirms(Query(RELU, point, at_most("y", 0, TENTH)), np.array([0.1]))
    assert not confirms(Query(RELU, point, at_least("y", 0, Fraction(0.1))), np.array([0.1]))
    assert not confirms(Query(RELU, point, at_most("y", 0, 1)), np.array([np.nextafter(0.1, 0)]))
    wide = ExactBox((TENTH,), (2 * TENTH,))
    assert confirms(Query(RELU, wide, at_most("y", 0, 1)), np.array([0.1]))
    assert not confirms(Query(RELU, wide, at_most("y", 0, 1)), np.array([0.2])) and Fraction(0.2) > 2 * TENTH


def test_decided_exactly_at_the_edge():
    """y reaches 1/10 at the decimal 0.1 alone, which no float64 is."""
    box = ExactBox((-TENTH,), (TENTH,))
    assert isinstance(verify(Query(RELU, box, at_least("y", 0, TENTH, strict=True)), timeout_s=20).verdict, Proved)
    assert not isinstance(verify(Query(RELU, box, at_least("y", 0, TENTH)), timeout_s=20).verdict, Proved)
    point = Query(RELU, ExactBox((TENTH,), (TENTH,)), at_least("y", 0, TENTH))
    assert isinstance(verify(point, timeout_s=20).verdict, Refuted)


def test_certificates_keep_the_decimals(tmp_path):
    box = ExactBox((-TENTH,), (TENTH,))
    query = Query(RELU, box, at_least("y", 0, Fraction(11, 100)))
    verdict = verify(query, timeout_s=20).verdict
    assert isinstance(verdict, Proved) and verdict.certificate is not None
    write_certificate(query, verdict.certificate, tmp_path / "c.cert")
    again, _ = read_certificate(tmp_path / "c.cert", RELU)
    assert isinstance(again.region, ExactBox) and again.sha256 == query.sha256


def test_a_float_box_and_the_same_exact_box_are_one_query():
    floats, exact = Box([0.1], [0.5]), ExactBox((Fraction(0.1),), (Fraction(1, 2),))
    assert Query(RELU, floats, at_most("y", 0, 0)).sha256 == Query(RELU, exact, at_most("y", 0, 0)).sha256


@pytest.mark.parametrize(
    "lower, upper, message",
    [
        ((), (), "one positive length, got 0 and 0"),
        ((TENTH,), (TENTH, TENTH), "one positive length, got 1 and 2"),
        ((2 * TENTH,), (TENTH,), "box is empty: lower 1/5 > upper 1/10 at input 0"),
        ((TENTH,), (Fraction(10) ** 400,), "range of a float64"),
    ],
)
def test_bad_boxes_are_refused(lower, upper, message):
    with pytest.raises(BadRegion, match=message):
        ExactBox(lower, upper)
