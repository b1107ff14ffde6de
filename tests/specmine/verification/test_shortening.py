"""Short bodies over smaller regions, judged by Z3 on a network of two inputs."""

import numpy as np
import pytest
import toy
import z3

from specmine.errors import BadData
from specmine.rules.peel import readout_of
from specmine.rules.syntax import parse_clause
from specmine.tracing import Sites
from specmine.verification.shortening import layer_bounds, short_clause
from verifier.region import Ball, Box

SITES, DOMAIN = Sites(toy.network()), Box([0.0, 0.0], [1.0, 1.0])
LONG = parse_clause("class(0) :- above(h1,0,0.125), inactive(h1,1), below(h1,0,0.9).", sites=SITES)


def test_literals_that_the_head_does_not_need_are_left_out():
    short = short_clause(LONG, DOMAIN, SITES, readout_of(SITES))
    assert {str(literal) for literal in short.body} == {"above(h1,0,0.125)", "inactive(h1,1)"}
    x = z3.Reals("x0 x1")
    h = [z3.If(d > 0, d, 0) for d in (x[0] - x[1], x[1] - x[0])]
    solver = z3.Solver()
    solver.add(*(z3.And(v >= 0, v <= 1) for v in x), h[0] >= z3.Q(1, 8), h[1] <= 0, h[0] <= h[1])
    assert solver.check() == z3.unsat


def test_where_the_region_says_enough_no_literal_is_left():
    ball = Ball([0.875, 0.125], 0.125, DOMAIN)
    assert short_clause(LONG, ball, SITES, readout_of(SITES)).body == ()
    low, high = layer_bounds(LONG, ball, SITES, "h1")
    assert low == pytest.approx([0.5, 0.0]) and high == pytest.approx([1.0, 0.0])


def test_a_body_that_is_not_enough_has_no_short_form():
    clause = parse_clause("class(0) :- below(h1,0,0.9).", sites=SITES)
    assert short_clause(clause, DOMAIN, SITES, readout_of(SITES)) is None


def test_mistakes_are_named():
    readout = readout_of(SITES)
    with pytest.raises(BadData, match="only literals about 'h1' are weighed"):
        short_clause(parse_clause("class(0) :- above(x,0,0.5).", sites=SITES), DOMAIN, SITES, readout)
    with pytest.raises(BadData, match="only clauses for a class are shortened"):
        short_clause(parse_clause("false :- above(h1,0,0.125).", sites=SITES), DOMAIN, SITES, readout)
    assert np.isfinite(readout.weight).all()
