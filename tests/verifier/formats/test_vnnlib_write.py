"""VNN-LIB out: what is written means the same, for our reader, for Z3, and for the `vnnlib` package."""

import re
import sys
from fractions import Fraction

import numpy as np
import pytest
import vnnlib
import z3
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.errors import BadQuery
from verifier.formats.vnnlib import parse_vnnlib
from verifier.formats.vnnlib_write import decimal, write_vnnlib
from verifier.formula import FALSE, TRUE, And, Atom, Formula, Or, Term, at_least, at_most, atom
from verifier.network import Network, Node
from verifier.ops import Linear, Relu
from verifier.query import Query
from verifier.region import Ball, Box, ExactBox, Polytope, constraints, exact_bounds

HIDDEN = 'layer "1"\\relu'
NETWORK = Network(
    "in",
    (1, 2),
    (Node("z", Linear(np.ones((3, 2)), np.zeros(3)), ("in",)), Node(HIDDEN, Relu(), ("z",)), Node("out", Relu(), (HIDDEN,))),
    "out",
)
SIZES = {"in": 2, HIDDEN: 3, "out": 3}
UNIT = Box([0.0, -1.0], [1.0, 1.0])

numbers = st.one_of(
    st.fractions(-20, 20, max_denominator=60), st.floats(-1e6, 1e6).map(Fraction), st.sampled_from([1, -1, 0]).map(Fraction)
)


@st.composite
def atoms(draw, values):
    entries = st.sampled_from([(value, k) for value in values for k in range(SIZES[value])])
    return atom(draw(st.dictionaries(entries, numbers, max_size=3)), draw(numbers), strict=draw(st.booleans()))


def formulas(values):
    def nested(inner):
        return st.one_of(*(st.lists(inner, max_size=3).map(tuple).map(kind) for kind in (And, Or)))

    return st.recursive(atoms(values), nested, max_leaves=6)


@st.composite
def regions(draw):
    low = [draw(numbers) for _ in range(2)]
    box = ExactBox(tuple(low), tuple(v + abs(draw(numbers)) for v in low))
    if draw(st.booleans()):
        return box
    floats = Box(np.array([float(v) for v in low]), np.array([float(v) + 1 for v in low]))
    ball = Ball(floats.lower, draw(st.floats(0, 3)), floats)
    return draw(st.sampled_from([floats, ball, Polytope(floats, (draw(atoms(["in"])),))]))


def as_z3(query: Query) -> z3.BoolRef:
    """Region and assertion over free constants, one for each entry: the meaning of a query but for its network."""
    lower, upper = exact_bounds(query.region)
    x = [z3.Real(f"in[{k}]") for k in range(2)]
    sides = [z3.And(rational(lo) <= v, v <= rational(hi)) for lo, v, hi in zip(lower, x, upper, strict=True)]
    return z3.And(*sides, *(formula_z3(part) for part in (*constraints(query.region), query.assertion)))


def formula_z3(formula: Formula) -> z3.BoolRef:
    match formula:
        case Atom(terms=terms, bias=bias, strict=strict):
            total = z3.Sum([rational(t.coefficient) * z3.Real(f"{t.value}[{t.index}]") for t in terms] + [rational(bias)])
            return total < 0 if strict else total <= 0
        case And(parts=parts):
            return z3.And(*map(formula_z3, parts))
        case Or(parts=parts):
            return z3.Or(*map(formula_z3, parts))


def rational(value: Fraction) -> z3.RatNumRef:
    return z3.Q(value.numerator, value.denominator)


def same(a: Query, b: Query) -> bool:
    solver = z3.Solver()
    solver.add(as_z3(a) != as_z3(b))
    return solver.check() == z3.unsat


@settings(max_examples=60, deadline=None)
@given(regions(), formulas(["in", HIDDEN, "out"]))
def test_version_2_reads_back_and_the_package_reads_it(region, assertion):
    query = Query(NETWORK, region, assertion)
    text = write_vnnlib(query, header=["made by a test", "two\nlines"])
    assert same(parse_vnnlib(text, NETWORK), query)
    if all(abs(number) >= sys.float_info.min or not number for number in map(float, re.findall(r"-?\d+\.\d+", text))):
        assert len(vnnlib.parse_query_string(text).assertions) >= 4  # the package refuses numbers below the normal ones


@settings(max_examples=40, deadline=None)
@given(regions(), formulas(["in", "out"]))
def test_version_1_reads_back(region, assertion):
    query = Query(NETWORK, region, assertion)
    assert same(parse_vnnlib(write_vnnlib(query, version="1.0"), NETWORK), query)


@settings(max_examples=40, deadline=None)
@given(regions(), formulas(["in", HIDDEN, "out"]))
def test_reading_what_was_read_changes_nothing(region, assertion):
    first = parse_vnnlib(write_vnnlib(Query(NETWORK, region, assertion)), NETWORK)
    assert parse_vnnlib(write_vnnlib(first), NETWORK).disjuncts == first.disjuncts


def test_a_threshold_beyond_floats_keeps_its_small_coefficient():
    tiny = atom({("in", 0): Fraction(-1, 2**1023)}, 2)
    for part in (tiny, And((tiny, at_most("out", 0, 1)))):
        query = Query(NETWORK, UNIT, part)
        assert same(parse_vnnlib(write_vnnlib(query), NETWORK), query)


def test_text_by_hand():
    assertion = Or((atom({(HIDDEN, 1): Fraction(1, 3), ("out", 0): -1}, Fraction(-1, 8)), at_least("out", 2, 7, strict=True)))
    assert write_vnnlib(Query(NETWORK, UNIT, assertion), header=["Claim 7."]) == (
        "; Claim 7.\n"
        "(vnnlib-version <2.0>)\n"
        "(declare-network f\n"
        "  (declare-input X real [1,2])\n"
        '  (declare-hidden H0 real [1,3] "layer \\"1\\"\\\\relu")\n'
        "  (declare-output Y real [1,3])\n"
        ")\n"
        "(assert (>= X[0,0] 0.0))\n(assert (<= X[0,0] 1.0))\n(assert (>= X[0,1] -1.0))\n(assert (<= X[0,1] 1.0))\n"
        "(assert (or (<= (+ H0[0,1] (* -3.0 Y[0,0])) 0.375) (> Y[0,2] 7.0)))\n"
    )


def test_version_1_by_hand():
    text = write_vnnlib(Query(NETWORK, UNIT, at_most("out", 1, Fraction(1, 3))), version="1.0")
    assert text.endswith("(declare-const Y_2 Real)\n(assert (>= X_0 0.0))\n(assert (<= X_0 1.0))\n(assert (>= X_1 -1.0))\n"
                         "(assert (<= X_1 1.0))\n(assert (<= (* 3.0 Y_1) 1.0))\n")  # fmt: skip


@pytest.mark.parametrize(
    "assertion, solvable", [(TRUE, True), (FALSE, False), (Or((FALSE, TRUE)), True), (And((FALSE,)), False)]
)
def test_true_and_false_have_words(assertion, solvable):
    text = write_vnnlib(Query(NETWORK, UNIT, assertion))
    assert vnnlib.parse_query_string(text)
    solver = z3.Solver()
    solver.add(as_z3(parse_vnnlib(text, NETWORK)))
    assert (solver.check() == z3.sat) == solvable


@pytest.mark.parametrize("value", [5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, -0.1, 1 / 3])
def test_every_float_is_written_exactly(value):
    text = write_vnnlib(Query(NETWORK, UNIT, at_most("out", 0, value)))
    assert parse_vnnlib(text, NETWORK).assertion == at_most("out", 0, value)
    assert Fraction(decimal(Fraction(value))) == Fraction(value)


def test_versions_and_hidden_values_are_refused():
    query = Query(NETWORK, UNIT, at_most(HIDDEN, 0, 1))
    with pytest.raises(BadQuery, match=r"VNN-LIB 1.0 has no hidden values, and the query speaks of .*; write version 2.0"):
        write_vnnlib(query, version="1.0")
    with pytest.raises(BadQuery, match=r"version '3' is not written; allowed are 2.0, 1.0"):
        write_vnnlib(query, version="3")
    tiny = Query(NETWORK, UNIT, Atom((Term("out", 0, Fraction(1)),), Fraction(1, 2**9000)))
    with pytest.raises(BadQuery, match="decimal places in the query; at most 4000 digits"):
        write_vnnlib(tiny)
