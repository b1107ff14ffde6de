"""The text by hand, and the same answer from z3, cvc5 and exact evaluation."""

from fractions import Fraction

import cvc5
import numpy as np
import pytest
import z3
from laws.networks import KINDS, RATIONAL_KINDS, chain, random_network, sample_box
from laws.queries import random_query

from verifier.errors import BadQuery, UnsupportedOp
from verifier.evaluate import evaluate
from verifier.formats.smtlib import cone, is_each, linear_form, rational, smtlib
from verifier.formula import FALSE, TRUE, And, Or, at_least, at_most, atom, holds
from verifier.network import Network, Node
from verifier.ops import (
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Power,
    Product,
    Reciprocal,
    Relu,
    Select,
    Sign,
    Sin,
    Sum,
    frozen_array,
)
from verifier.query import Query
from verifier.region import Ball, Box, Polytope, constraints, outer_bounds


def by_z3(text: str) -> str:
    solver = z3.Solver(ctx=z3.Context())
    solver.from_string(text)
    return str(solver.check())


def by_cvc5(text: str) -> str:
    terms = cvc5.TermManager()
    solver = cvc5.Solver(terms)
    solver.setOption("parsing-mode", "strict")
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "query")
    answers = []
    while not (command := parser.nextCommand()).isNull():
        answers.append(command.invoke(solver, parser.getSymbolManager()).strip())
    return answers[-1]


def tiny() -> Network:
    op = Linear(frozen_array([[1.0, -0.5], [0.0, 2.0]]), frozen_array([0.0, 0.1]))
    return chain((1, 2), op, Relu())


def test_text_by_hand() -> None:
    query = Query(tiny(), Box([-1.0, 0.0], [1.0, 0.5]), And((at_least("v2", 0, 1), at_most("v1", 0, 3, strict=True))))
    assert smtlib(query, header=["model tiny", "two\nlines"], status="sat").splitlines() == [
        "; model tiny",
        "; two",
        "; lines",
        "(set-info :smt-lib-version 2.6)",
        "(set-logic QF_LRA)",
        "(set-info :status sat)",
        "(declare-const |x[0]| Real)",
        "(declare-const |x[1]| Real)",
        "(declare-const |v1[0]| Real)",
        "(declare-const |v2[0]| Real)",
        "(assert (and (<= (- 1) |x[0]|) (<= |x[0]| 1)))",
        "(assert (and (<= 0 |x[1]|) (<= |x[1]| (/ 1 2))))",
        "(assert (= |v1[0]| (+ |x[0]| (* (- (/ 1 2)) |x[1]|))))",
        "(assert (= |v2[0]| (ite (>= |v1[0]| 0) |v1[0]| 0)))",
        "(assert (and (<= (- |v2[0]|) (- 1)) (< |v1[0]| 3)))",
        "(check-sat)",
    ]


def test_bounds_and_weights_are_exact() -> None:
    text = smtlib(Query(tiny(), Ball([0.3, 0.3], 0.1, Box([0.0, 0.0], [1.0, 1.0])), at_least("v1", 1, Fraction(1, 3))))
    low = Fraction(0.3) - Fraction(0.1)
    assert rational(low) in text and rational(Fraction(0.1)) in text and "(/ 1 3)" in text
    assert "|x[0]|" not in text and "|v1[0]|" not in text


def test_the_cone_leaves_out_what_does_not_matter() -> None:
    network = random_network("residual", seed=0)
    query = Query(network, Box(-np.ones(3), np.ones(3)), at_least("r", 1, 0))
    assert cone(query) == {"x": [0, 1, 2], "h": [1], "r": [1]}


def test_strange_value_names_stay_apart_and_quotable() -> None:
    nodes = (Node("a|b", Relu(), ("x\n",)), Node("a_b", LeakyRelu(0.5), ("a|b",)), Node("a\\b", Relu(), ("a_b",)))
    network = Network("x\n", (1, 1), nodes, "a\\b")
    text = smtlib(Query(network, Box([-1.0], [1.0]), at_least("a\\b", 0, 1)))
    assert by_z3(text) == by_cvc5(text) == "sat"
    assert "|x_[0]|" in text and text.count("(declare-const") == 4


@pytest.mark.parametrize(
    ("assertion", "answer"),
    [
        (TRUE, "sat"),
        (FALSE, "unsat"),
        (Or((FALSE, at_least("v2", 0, 1))), "sat"),
        (at_least("v2", 0, 1, strict=True), "unsat"),
        (at_most("v2", 0, 0), "sat"),
        (at_most("v2", 0, 0, strict=True), "unsat"),
        (atom({}, 0, strict=True), "unsat"),
        (atom({}, 0), "sat"),
        (at_least("x", 0, Fraction(1, 3)), "sat"),
    ],
)
def test_edges_and_empty_formulas(assertion, answer: str) -> None:
    network = chain((1, 1), Linear(np.eye(1), np.zeros(1)), Relu())
    text = smtlib(Query(network, Box([-1.0], [1.0]), assertion))
    assert by_z3(text) == by_cvc5(text) == answer


def test_long_windows_stay_linear_in_size() -> None:
    network = chain((1, 1, 200), MaxPool((200,), (1,), ((0, 0),), (1,)))
    text = smtlib(Query(network, Box(np.zeros(200), np.ones(200)), at_least("v1", 0, 1)))
    assert len(text) < 200 * 200 and by_z3(text) == "sat"


def test_unknown_status_is_refused() -> None:
    query = Query(tiny(), Box([-1.0, 0.0], [1.0, 0.5]), TRUE)
    with pytest.raises(BadQuery, match="status must be one of sat, unsat, unknown, got 'maybe'"):
        smtlib(query, status="maybe")


@pytest.mark.parametrize("kind", [*KINDS, *RATIONAL_KINDS])
def test_linear_forms_compute_what_the_network_computes(kind: str) -> None:
    network = random_network(kind, seed=3, grid=True)
    size = network.size("x")
    x = sample_box(-np.ones(size), np.ones(size), count=1, seed=0, grid=True)[-1:]
    values = {name: v.flatten().tolist() for name, v in evaluate(network, x).items()}
    for node in network.nodes:
        if isinstance(node.op, MaxPool | Product) or is_each(node.op):
            continue
        for index, expected in enumerate(values[node.output]):
            terms, bias = linear_form(network, node, index)
            assert sum((c * Fraction(values[v][i]) for (v, i), c in terms.items()), bias) == Fraction(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_z3_cvc5_and_brute_force_agree(kind: str, seed: int) -> None:
    query = random_query(kind, seed=seed)
    text = smtlib(query)
    answer = by_z3(text)
    assert answer == by_cvc5(text) and answer in ("sat", "unsat")
    assert answer == "sat" or not met_on_the_grid(query, seed)


def met_on_the_grid(query: Query, seed: int) -> bool:
    """Whether a point of the grid, where evaluation is exact, satisfies the query."""
    lower, upper = outer_bounds(query.region)
    points = sample_box(lower, upper, count=40, seed=seed, grid=True)
    values = {name: v.flatten(1).tolist() for name, v in evaluate(query.network, points).items()}
    asked = And((*constraints(query.region), query.assertion))
    return any(holds(asked, {name: v[k] for name, v in values.items()}) for k in range(len(points)))


@pytest.mark.parametrize("kind", RATIONAL_KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_products_and_steps_against_brute_force(kind: str, seed: int) -> None:
    """No point of the grid is missed. cvc5 is asked where all is linear: with products it may search without end."""
    query = random_query(kind, seed=seed)
    text = smtlib(query)
    answer = by_z3(text)
    assert answer in ("sat", "unsat") and (kind == "polynomial" or answer == by_cvc5(text))
    assert answer == "sat" or not met_on_the_grid(query, seed)


LOGICS = [
    (Relu(), "QF_LRA", "(ite (>= |x[0]| 0) |x[0]| 0)"),
    (Sign(), "QF_LRA", "(ite (> |x[0]| 0) 1 (ite (< |x[0]| 0) (- 1) 0))"),
    (Floor(), "QF_LIRA", "(to_real (to_int |x[0]|))"),
    (Power(3), "QF_NRA", "(* |x[0]| |x[0]| |x[0]|)"),
    (Reciprocal(), "QF_NRA", "(/ 1 |x[0]|)"),
    (Select(np.array([-1]), (1, 1)), "QF_LRA", "0"),
]


@pytest.mark.parametrize("op, logic, term", LOGICS, ids=[type(op).__name__ for op, *_ in LOGICS])
def test_logics_and_terms_by_hand(op, logic: str, term: str) -> None:
    """Each operator at x = 5/2, where its value is known exactly: equal to it, and not different from it."""
    value = Fraction(float(evaluate(chain((1, 1), op), np.array([[2.5]]))["v1"]))
    if isinstance(op, Reciprocal):
        value = Fraction(2, 5)
    box = Box([2.5], [2.5])
    equal = smtlib(Query(chain((1, 1), op), box, And((at_least("v1", 0, value), at_most("v1", 0, value)))))
    other = smtlib(
        Query(chain((1, 1), op), box, Or((at_least("v1", 0, value, strict=True), at_most("v1", 0, value, strict=True))))
    )
    assert f"(set-logic {logic})" in equal and f"(assert (= |v1[0]| {term}))" in equal
    assert by_z3(equal) == by_cvc5(equal) == "sat" and by_z3(other) == by_cvc5(other) == "unsat"


def test_products_of_two_values_and_floors_of_them() -> None:
    """floor(x0 * x1) over [1, 3/2] x [1, 3/2] is 1 or 2, never 3; the logic mixes integers and products."""
    nodes = (
        Node("a", Select(np.array([0]), (1,)), ("x",)),
        Node("b", Select(np.array([1]), (1,)), ("x",)),
        Node("p", Product(), ("a", "b")),
        Node("y", Floor(), ("p",)),
    )
    network, box = Network("x", (1, 2), nodes, "y"), Box([1.0, 1.0], [1.5, 1.5])
    two, three = (smtlib(Query(network, box, at_least("y", 0, n))) for n in (2, 3))
    assert "(set-logic QF_NIRA)" in two and by_z3(two) == "sat" and by_z3(three) == "unsat" == by_cvc5(three)


def test_nothing_is_said_of_one_over_zero() -> None:
    """Unsat would be a proof, so a solver may not be sure of any value there."""
    network = chain((1, 1), Reciprocal())
    assert by_z3(smtlib(Query(network, Box([-1.0], [1.0]), at_least("v1", 0, 10**6)))) == "sat"
    assert by_z3(smtlib(Query(network, Box([0.0], [0.0]), at_least("v1", 0, 5)))) == "sat"


def test_transcendental_functions_are_refused_where_they_matter() -> None:
    nodes = (Node("s", Sin(), ("x",)), Node("r", Relu(), ("x",)), Node("y", Sum((1.0, 1.0)), ("s", "r")))
    network, box = Network("x", (1, 1), nodes, "y"), Box([-1.0], [1.0])
    assert by_z3(smtlib(Query(network, box, at_least("r", 0, 1)))) == "sat"
    with pytest.raises(UnsupportedOp, match="operator Sin at node 's' is not supported"):
        smtlib(Query(network, box, at_least("y", 0, 1)))


def test_region_constraints_are_part_of_the_text() -> None:
    network = chain((1, 2), Relu())
    region = Polytope(Box([0.0, 0.0], [1.0, 1.0]), (atom({("x", 0): 1, ("x", 1): 1}, -1),))
    both = And((at_least("v1", 0, Fraction(1, 2)), at_least("v1", 1, Fraction(1, 2))))
    assert by_z3(smtlib(Query(network, region, both))) == "sat"
    assert by_z3(smtlib(Query(network, region, And((both, at_least("v1", 1, Fraction(501, 1000))))))) == "unsat"
