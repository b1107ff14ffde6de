"""What predicates mean, which are refused, and which are proposed."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.errors import BadClause, BadConfig, BadData
from specmine.predicates.families import FAMILIES, FORMS, bits, candidates, denote, validate
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.rounding import shorten
from specmine.tracing import Sites, Stream, trace
from verifier.formula import And, at_least, at_most, atom
from verifier.network import Network, Node
from verifier.ops import Linear, Relu


def identity_network(size: int = 3) -> Network:
    """h1 = relu(x), y = h1."""
    layer = Linear(np.eye(size), np.zeros(size))
    nodes = (Node("pre", layer, ("in",)), Node("post", Relu(), ("pre",)), Node("out", layer, ("post",)))
    return Network("in", (1, size), nodes, "out")


SITES = Sites(identity_network())
X = np.array([[0.0, 1.0, 2.0], [-1.0, 2.0, 2.0], [0.75, -3.0, 0.5], [1.0, 0.75, 0.75]])
TRACE = trace(SITES, X, keep=("x", "z1", "h1", "y"))


@pytest.mark.parametrize(
    ("predicate", "truth"),
    [
        (("active", ("z1", 0)), [0, 0, 1, 1]),
        (("inactive", ("z1", 0)), [1, 1, 0, 0]),
        (("above", ("h1", 0, 0.75)), [0, 0, 1, 1]),
        (("below", ("x", 0, 0.75)), [1, 1, 1, 0]),
        (("within", ("h1", 2, 0.5, 0.75)), [0, 0, 1, 1]),
        (("class", (0,)), [0, 0, 1, 1]),
        (("class", (2,)), [1, 0, 0, 0]),
        (("class", (1,)), [0, 0, 0, 0]),
    ],
)
def test_truth_by_hand(predicate, truth):
    assert bits(Predicate(*predicate), TRACE).astype(int).tolist() == truth


@pytest.mark.parametrize(
    ("predicate", "formula"),
    [
        (("active", ("z1", 0)), at_least("pre", 0, 0, strict=True)),
        (("inactive", ("h1", 1)), at_most("post", 1, 0)),
        (("above", ("h1", 2, 0.75)), at_least("post", 2, 0.75)),
        (("below", ("x", 0, -1.5)), at_most("in", 0, -1.5)),
        (("within", ("out", 0, 0.5, 0.75)), And((at_least("out", 0, 0.5), at_most("out", 0, 0.75)))),
        (
            ("class", (1,)),
            And(tuple(atom({("out", j): 1, ("out", 1): -1}, 0, strict=True) for j in (0, 2))),
        ),
    ],
)
def test_formula_by_hand(predicate, formula):
    assert denote(Predicate(*predicate), SITES) == formula


@pytest.mark.parametrize(
    ("form", "arguments", "message"),
    [
        ("abov", ("h1", 0, 1.0), "no predicate form 'abov'; nearest are above, "),
        ("above", ("h1", 0), "above(h1,0) has 2 arguments; write above(site, neuron, threshold)"),
        ("active", (1, 0), "1 is not a site name such as x, z1, h1, y"),
        ("active", ("h2", 0), "no site 'h2' in this network; nearest are"),
        ("active", ("h1", 3), "site 'h1' has neurons 0 to 2, got 3"),
        ("active", ("h1", -1), "site 'h1' has neurons 0 to 2, got -1"),
        ("active", ("h1", 1.0), "1.0 is not a neuron; write a whole number from 0"),
        ("active", ("h1", True), "True is not a neuron"),
        ("above", ("h1", 0, "0.5"), "'0.5' is not a threshold"),
        ("above", ("h1", 0, float("nan")), "nan is not a threshold; write a finite decimal number such as 0.75"),
        ("above", ("h1", 0, float("inf")), "inf is not a threshold"),
        ("above", ("h1", 0, 10**400), "is not a threshold"),
        ("within", ("h1", 0, 1.0, 0.5), "lower threshold 1.0 is above upper threshold 0.5; swap them"),
        ("class", (3,), "the network has classes 0 to 2, got 3"),
        ("class", (-1,), "the network has classes 0 to 2, got -1"),
        ("class", ("1",), "'1' is not a class"),
    ],
)
def test_refused(form, arguments, message):
    with pytest.raises(BadClause, match=re.escape(message)):
        validate(Predicate(form, arguments), SITES)


def test_validate_gives_one_spelling():
    assert str(validate(Predicate("above", ("h1", 0, 1)), SITES)) == "above(h1,0,1.0)"
    assert str(validate(Predicate("above", ("x", 0, -0.0)), SITES)) == "above(x,0,0.0)"


def test_site_missing_from_the_trace():
    with pytest.raises(BadClause, match="trace it with keep="):
        bits(Predicate("active", ("z1", 0)), trace(SITES, X))


@given(st.floats(allow_nan=False, allow_infinity=False, width=64), st.booleans())
def test_short_thresholds_are_on_the_safe_side_and_short(value, down):
    short = shorten(value, down=down)
    if np.isfinite(short):
        assert short <= value if down else short >= value
        assert abs(short - value) <= max(1e-3 * abs(value), 5e-324)
        digits = repr(short).split("e")[0].replace(".", "").replace("-", "").strip("0")
        assert len(digits) <= 4 or abs(short) < 1e-300


def test_short_thresholds_by_hand():
    assert [shorten(v, down=True) for v in (1.23456, -1.23456, 0.0, -0.0, 123456.0, 0.75)] == [
        1.234,
        -1.235,
        0.0,
        0.0,
        123400.0,
        0.75,
    ]
    assert str(shorten(-0.0, down=False)) == "0.0"


def test_candidates_by_hand():
    made = [str(p) for p in candidates("unary", TRACE, grid=Grid(("h1",), thresholds=1, head_levels=()))]
    assert made == [
        "active(h1,0)",
        "inactive(h1,0)",
        "below(h1,0,0.75)",
        "below(h1,0,1.0)",
        "active(h1,1)",
        "inactive(h1,1)",
        "above(h1,1,0.75)",
        "below(h1,1,1.0)",
        "below(h1,1,2.0)",
        "active(h1,2)",
        "inactive(h1,2)",
        "above(h1,2,0.5)",
        "above(h1,2,0.75)",
        "below(h1,2,2.0)",
    ]
    assert [str(p) for p in candidates("output", TRACE)] == ["class(0)", "class(1)", "class(2)"]


def test_constant_neurons_get_phases_only():
    flat = trace(SITES, np.tile([[0.5, -1.0, 2.0]], (5, 1)))
    assert {p.form for p in candidates("unary", flat)} == {"active", "inactive"}


def test_head_thresholds_hold_on_nearly_all_samples_of_the_head():
    x = np.random.default_rng(0).normal(size=(400, 3))
    made = trace(SITES, x, keep=("z1", "y"))
    heads = (x[:, 0] > 0).astype(np.int64)
    listed = candidates("unary", made, grid=Grid(("z1",), thresholds=0, head_levels=(0.0, 0.05)), heads=heads)
    above = [p for p in listed if p.form == "above" and p.arguments[1] == 0]
    rates = sorted(bits(p, made)[heads == 1].mean() for p in above)
    assert len(above) == 4 and rates[0] >= 0.95 and rates[-1] == 1.0
    assert min(bits(p, made)[heads == 1].mean() for p in above) < 1.0


def test_candidates_are_valid_distinct_and_repeat():
    x = np.random.default_rng(0).normal(size=(200, 3))
    made = trace(SITES, x, keep=("x", "z1", "h1", "y"))
    for family in FAMILIES:
        listed = candidates(family, made, grid=Grid(("x", "z1", "h1")))
        assert listed == candidates(family, made, grid=Grid(("x", "z1", "h1"))) and len(set(listed)) == len(listed)
        assert all(validate(p, SITES) == p and p.form in FAMILIES[family].forms for p in listed)


def test_candidates_of_an_unknown_family():
    with pytest.raises(BadConfig, match="no predicate family 'quaternary'; known are unary, binary, ternary"):
        candidates("quaternary", TRACE)


@pytest.mark.parametrize(
    ("samples", "given", "error", "message"),
    [
        (0, {}, BadData, "candidates need at least one sample"),
        (5, {"heads": np.zeros(4, dtype=int)}, BadData, r"one whole number for each of 5 samples.*got int64 of shape \(4,\)"),
        (5, {"heads": np.full(5, 0.5)}, BadData, "one whole number for each of 5 samples.*got float64"),
        (5, {"grid": Grid(("h1",), locality=("windo",))}, BadConfig, "no locality 'windo'; known are window, layer, neighbour"),
        (5, {"grid": Grid(("h1",), partners=-1)}, BadConfig, "partners must be at least 0"),
    ],
)
def test_candidates_of_what_cannot_be(samples, given, error, message):
    with pytest.raises(error, match=message):
        candidates(("unary", "binary"), Stream(SITES, np.random.default_rng(0).normal(size=(samples, 3))), **given)


def test_without_partners_there_are_no_pairs():
    source = Stream(SITES, np.random.default_rng(0).normal(size=(9, 3)))
    assert candidates(("binary", "ternary"), source, grid=Grid(("z1", "h1"), partners=0)) == ()


def test_forms_are_named_as_listed():
    assert all(form.name == name for name, form in FORMS.items())
    assert sum(len(family.forms) for family in FAMILIES.values()) == len(FORMS)
