from fractions import Fraction

import numpy as np
import pytest

from verifier.check import confirms, replay
from verifier.errors import BadQuery
from verifier.formula import at_least, at_most, atom, conjoin
from verifier.network import Network, Node
from verifier.ops import LeakyRelu, Linear, MaxPool, Relu, frozen_array
from verifier.query import Query
from verifier.region import Ball, Box, Polytope


def absolute() -> Network:
    """y = |x|: the hand-computed 1-2-1 network."""
    nodes = (
        Node("z", Linear(frozen_array([[1.0], [-1.0]]), frozen_array([0.0, 0.0])), ("x",)),
        Node("a", Relu(), ("z",)),
        Node("y", Linear(frozen_array([[1.0, 1.0]]), frozen_array([0.0])), ("a",)),
    )
    return Network("x", (1, 1), nodes, "y")


def test_absolute_value_by_hand() -> None:
    values = replay(absolute(), np.array([-0.75]))
    assert values["z"] == (Fraction(-3, 4), Fraction(3, 4))
    assert values["a"] == (0, Fraction(3, 4))
    assert values["y"] == (Fraction(3, 4),)


def test_leaky_slope_and_maximum_are_exact() -> None:
    pool = MaxPool((2,), (1,), ((1, 0),), (1,))
    network = Network("x", (1, 1, 2), (Node("l", LeakyRelu(0.1), ("x",)), Node("y", pool, ("l",))), "y")
    values = replay(network, np.array([-0.3, -7.0]))
    assert values["l"] == (Fraction(0.1) * Fraction(-0.3), Fraction(0.1) * -7)
    assert values["y"] == (values["l"][0], values["l"][0])


def test_confirms_decides_ties_exactly() -> None:
    query = Query(absolute(), Box([-1.0], [1.0]), at_least("y", 0, 0.1))
    strict = Query(absolute(), Box([-1.0], [1.0]), at_least("y", 0, 0.1, strict=True))
    assert confirms(query, np.array([-0.1])) and not confirms(strict, np.array([-0.1]))
    assert not confirms(query, np.array([np.nextafter(0.1, 0.0)]))


def test_confirms_holds_the_region_to_exact_bounds() -> None:
    ball = Ball([0.1], 0.2, Box([-1.0], [1.0]))
    query = Query(absolute(), ball, at_least("y", 0, 0))
    assert Fraction(0.1) + Fraction(0.2) < Fraction(0.1 + 0.2)
    assert not confirms(query, np.array([0.1 + 0.2]))
    assert confirms(query, np.array([np.nextafter(0.1 + 0.2, 0)]))


def test_confirms_holds_the_region_to_its_constraints() -> None:
    region = Polytope(Box([-1.0], [1.0]), (at_most("x", 0, Fraction(1, 3)),))
    query = Query(absolute(), region, conjoin(at_least("y", 0, 0), atom({}, -1)))
    assert confirms(query, np.array([1 / 3])) and Fraction(1 / 3) < Fraction(1, 3)
    assert not confirms(query, np.array([np.nextafter(1 / 3, 1)]))


def test_points_that_are_no_points() -> None:
    query = Query(absolute(), Box([-1.0], [1.0]), at_least("y", 0, 0))
    assert not confirms(query, np.array([np.nan]))
    with pytest.raises(BadQuery, match="must have 1 finite entries"):
        replay(absolute(), np.array([1.0, 2.0]))
    with pytest.raises(BadQuery, match="must have 1 finite entries"):
        confirms(query, np.array([1.0, 2.0]))
