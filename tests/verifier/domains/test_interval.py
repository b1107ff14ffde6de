"""Hand-computed intervals, exact rounding checks of single operators, and what cuts do."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws.networks import chain

from verifier.domains import region_bounds
from verifier.domains.bounds import ceiling, cuts_of, floor, greatest_input, least_input
from verifier.domains.interval import INTERVAL, interval_bounds
from verifier.errors import BadQuery
from verifier.formula import Atom, at_least, at_most, atom
from verifier.ops import AveragePool, LeakyRelu, Linear, Relu, Scale, Sum
from verifier.region import Box, Polytope

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_linear_relu_by_hand() -> None:
    network = chain((1, 2), Linear(np.array([[1.0, -2.0], [1.0, 1.0]]), np.array([0.5, -3.0])), Relu())
    bounds = interval_bounds(network, row(-1.0, 0.0), row(1.0, 1.0))
    torch.testing.assert_close(bounds.lower["v1"], row(-2.5, -4.0))
    torch.testing.assert_close(bounds.upper["v1"], row(1.5, -1.0))
    torch.testing.assert_close(bounds.lower["v2"], row(0.0, 0.0))
    torch.testing.assert_close(bounds.upper["v2"], row(1.5, 0.0))
    assert bounds.lower["v1"][0, 0] < -2.5 < 1.5 < bounds.upper["v1"][0, 0]


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=8), FLOATS)
def test_linear_contains_the_exact_inner_product(pairs: list[tuple[float, float]], bias: float) -> None:
    weights, x = ([pair[side] for pair in pairs] for side in (0, 1))
    op = Linear(np.array([weights]), np.array([bias]))
    lower, upper = INTERVAL[Linear](op, [(row(*x), row(*x))])
    exact = sum((Fraction(w) * Fraction(v) for w, v in pairs), Fraction(bias))
    assert Fraction(float(lower)) <= exact <= Fraction(float(upper))


@given(FLOATS, FLOATS, FLOATS, FLOATS)
def test_elementwise_operators_contain_the_exact_result(factor: float, offset: float, x: float, y: float) -> None:
    ends = row(min(x, y)), row(max(x, y))
    exact = {
        Scale(np.array([[factor]]), np.array([[offset]])): Fraction(factor) * Fraction(x) + Fraction(offset),
        LeakyRelu(0.01): max(Fraction(x), Fraction(0.01) * Fraction(x)),
    }
    for op, value in exact.items():
        lower, upper = INTERVAL[type(op)](op, [ends])
        assert Fraction(float(lower)) <= value <= Fraction(float(upper))
    lower, upper = INTERVAL[Sum](Sum((factor, -1.0)), [ends, (row(offset), row(offset))])
    assert Fraction(float(lower)) <= Fraction(factor) * Fraction(x) - Fraction(offset) <= Fraction(float(upper))


@given(st.lists(FLOATS, min_size=3, max_size=3))
def test_average_pool_contains_the_exact_mean(x: list[float]) -> None:
    op = AveragePool((3,), (1,), ((0, 0),), np.array([3.0]))
    lower, upper = INTERVAL[AveragePool](op, [(row(*x).reshape(1, 1, 1, 3),) * 2])
    assert Fraction(float(lower)) <= sum(map(Fraction, x)) / 3 <= Fraction(float(upper))


def test_cuts_round_outward_and_keep_the_tighter_atom() -> None:
    network = chain((1, 2), Relu())
    atoms = [
        atom({("x", 0): 3}, -1),
        at_most("x", 0, 7),
        atom({("x", 1): -3}, 1, strict=True),
        atom({("x", 0): 1, ("x", 1): 1}, 0),
    ]
    cuts = cuts_of(network, [atoms, []])
    assert Fraction(1, 3) <= Fraction(float(cuts.upper["x"][0, 0])) < Fraction(1, 3) + Fraction(1, 2**50)
    assert Fraction(1, 3) - Fraction(1, 2**50) < Fraction(float(cuts.lower["x"][0, 1])) <= Fraction(1, 3)
    assert cuts.upper["x"][1].tolist() == [torch.inf, torch.inf] and cuts.lower["x"][0, 0] == -torch.inf
    assert not cuts.empty.any()


def test_thresholds_past_the_floats_stay_sound() -> None:
    huge = Fraction(10) ** 400
    assert floor(huge) == ceiling(-huge) * -1 == np.finfo(np.float64).max
    assert ceiling(huge) == torch.inf and floor(-huge) == -torch.inf


@pytest.mark.parametrize(
    ("false_atom", "empty"),
    [
        (Atom((), Fraction(1)), True),
        (Atom((), Fraction(0)), False),
        (Atom((), Fraction(0), strict=True), True),
        (Atom((), Fraction(-1)), False),
    ],
)
def test_atoms_without_terms_decide_the_row(false_atom: Atom, empty: bool) -> None:
    network = chain((1, 1), Relu())
    bounds = region_bounds(network, Box([0.0], [1.0]), premise=[false_atom])
    assert bounds.empty.tolist() == [empty]


def test_a_cut_behind_an_activation_reaches_its_input() -> None:
    network = chain((1, 2), Linear(np.eye(2), np.zeros(2)), Relu())
    premise = [at_least("v2", 0, 0.5), at_most("v2", 1, 0.25)]
    bounds = region_bounds(network, Box([-1.0, -1.0], [1.0, 1.0]), premise=premise)
    assert bounds.lower["v1"][0, 0] == 0.5 and bounds.upper["v1"][0, 1] == 0.25
    assert bounds.lower["v1"][0, 1] < -1 < 1 < bounds.upper["v1"][0, 0]


@given(FLOATS, FLOATS, st.sampled_from([0.0, 0.01, 0.25, 1.0]))
def test_activation_inverses_are_implied(z: float, t: float, slope: float) -> None:
    y = max(Fraction(z), Fraction(slope) * Fraction(z))
    threshold = row(t)
    if y >= Fraction(t):
        assert z >= float(least_input(threshold, slope))
    if y <= Fraction(t):
        assert z <= float(greatest_input(threshold, slope))


def test_region_constraints_cut_the_input() -> None:
    network = chain((1, 2), Relu())
    region = Polytope(Box([0.0, 0.0], [1.0, 1.0]), (at_most("x", 1, 0.5),))
    assert region_bounds(network, region).upper["x"].tolist() == [[1.0, 0.5]]


def test_unknown_domain_is_named() -> None:
    with pytest.raises(BadQuery, match="no domain 'octagon'; choose one of interval, zonotope"):
        region_bounds(chain((1, 1), Relu()), Box([0.0], [1.0]), domain="octagon")
