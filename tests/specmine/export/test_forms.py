"""Every form in the texts of other programs: solvers that read them agree with its exact truth; they are valid VNN-LIB."""

from fractions import Fraction

import cvc5
import numpy as np
import pytest
import vnnlib
import z3

from specmine.predicates.families import FORMS, denote, validate
from specmine.predicates.predicate import Predicate
from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.rules.syntax import parse_clause
from specmine.tracing import Sites
from verifier.check import check, confirms
from verifier.formats.smtlib import smtlib
from verifier.formats.vnnlib_write import write_vnnlib
from verifier.formula import holds, negate
from verifier.network import Network, Node
from verifier.ops import Conv, Linear, MaxPool, Relu, Reshape
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify
from verifier.verdict import Proved, Refuted

VALUES = (0.1, 0.2, 0.3, float(np.nextafter(0.3, 1)), -0.1, 0.0, 1.0, -1.0)


def channel_sites() -> Sites:
    """z1 = x = y but for shape, h1 its positive part, p1 the maxima of its 2x2 windows: all exact at any input."""
    same = np.zeros((2, 2, 1, 1))
    same[0, 0], same[1, 1] = 1, 1
    none = ((0, 0), (0, 0))
    nodes = (
        Node("pre", Conv(same, np.zeros(2), (1, 1), none, (1, 1), 1), ("in",)),
        Node("post", Relu(), ("pre",)),
        Node("pool", MaxPool((2, 2), (1, 1), none, (1, 1)), ("post",)),
        Node("flat", Reshape((1, 12)), ("pre",)),
        Node("out", Linear(np.eye(12), np.zeros(12)), ("flat",)),
    )
    return Sites(Network("in", (1, 2, 2, 3), nodes, "out"))


SITES = channel_sites()


def exactly(x: np.ndarray) -> dict[str, list[Fraction]]:
    """All values at an input, by this network's definition."""
    flat = [Fraction(v) for v in x.tolist()]
    post = [max(v, Fraction(0)) for v in flat]
    pool = [max(post[6 * c + 3 * r + w] for r in (0, 1) for w in (k, k + 1)) for c in (0, 1) for k in (0, 1)]
    return {"in": flat, "pre": flat, "post": post, "pool": pool, "flat": flat, "out": flat}


def some_predicate(name: str, rng: np.random.Generator) -> Predicate:
    site = "x" if rng.random() < 0.3 else "z1" if rng.random() < 0.3 else "h1"
    made = {
        "site": lambda: site,
        "neuron": lambda: int(rng.integers(12)),
        "class": lambda: int(rng.integers(12)),
        "index": lambda: int(rng.integers(2)),
        "threshold": lambda: float(rng.choice(VALUES)),
    }
    arguments = [made[kind]() for kind in FORMS[name].signature]
    if name == "within":
        arguments[2:] = sorted(arguments[2:])
    return validate(Predicate(name, tuple(arguments)), SITES)


def by_z3(text: str) -> str:
    solver = z3.Solver()
    solver.from_string(text)
    return str(solver.check())


def by_cvc5(text: str) -> str:
    solver = cvc5.Solver()
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "forms")
    answer = ""
    while not (command := parser.nextCommand()).isNull():
        answer += command.invoke(solver, parser.getSymbolManager())
    return answer.strip()


ABROAD = [name for name in FORMS if "index" not in FORMS[name].signature or "where" in name]


@pytest.mark.parametrize("name", ABROAD)
def test_solvers_agree_with_the_exact_truth_at_points(name):
    rng = np.random.default_rng(len(name))
    seen = set()
    for _ in range(20):
        predicate, x = some_predicate(name, rng), rng.choice(rng.choice(VALUES, 2), 12)
        if name == "class":
            x[predicate.arguments[0]] = rng.choice([-2.0, 2.0])
        formula = denote(predicate, SITES)
        truth = holds(formula, exactly(x))
        seen.add(truth)
        for asked, expected in ((formula, truth), (negate(formula), not truth)):
            query = Query(SITES.network, Box(x, x), asked)
            text = smtlib(query)
            assert by_z3(text) == by_cvc5(text) == ("sat" if expected else "unsat"), (predicate, x)
            assert confirms(query, x) == expected
            assert vnnlib.parse_query_string(write_vnnlib(query))
    assert seen == {True, False}


@pytest.mark.parametrize("name", [name for name in ABROAD if name != "class"])
def test_a_clause_of_the_form_is_the_same_query_for_every_solver(name):
    """Over a box, as body and as head: an answer of one solver is that of the other, and its point is what it says."""
    rng = np.random.default_rng(len(name) + 100)
    region = Box(np.full(12, -1.0), np.full(12, 1.0))
    for _ in range(4):
        one, other = some_predicate(name, rng), some_predicate(name, rng)
        query = clause_query(HornClause(other, (one,)), region, SITES)
        text = smtlib(query)
        answer = by_z3(text)
        assert answer == by_cvc5(text) and answer in ("sat", "unsat")
        assert vnnlib.parse_query_string(write_vnnlib(query))
        if answer == "unsat":
            points = rng.choice([*VALUES, 0.15, 0.05], (200, 12))
            assert not any(holds(query.assertion, exactly(x)) for x in points)


CLAUSES = (
    # what a window of x holds somewhere, the pool of its positive part holds: by the pool's own value, and by all four places
    ("above(p1,1,0.5) :- somewhere_above(x,0,1,0.5).", "proved"),
    ("somewhere_above(z1,1,0,0.25) :- above(p1,2,0.25).", "proved"),
    ("above(p1,1,0.5) :- somewhere_above(z1,0,1,0.4).", "refuted"),
    ("somewhere_below(h1,0,0,0.5) :- below(h1,3,0.5).", "proved"),
    ("below(p1,3,0.5) :- everywhere_below(h1,1,1,0.5).", "proved"),
    ("everywhere_below(z1,1,1,0.5) :- below(p1,3,0.5).", "proved"),
    ("false :- somewhere_active(h1,0,0), everywhere_inactive(z1,0,0).", "proved"),
    ("somewhere_active(h1,0,0) :- somewhere_active(h1,0,1).", "refuted"),
    ("less_by(h1,0,h1,1,0.25) :- between(h1,0,z1,1,h1,2), sum_over(h1,1,h1,1,h1,0,0.5), largest(h1,1,h1,0,h1,3).", "refuted"),
    ("less_by(h1,0,h1,2,0.25) :- less_by(h1,0,h1,1,0.125), less_by(h1,1,h1,2,0.125).", "proved"),
    ("sum_over(h1,0,h1,1,h1,2,0.0) :- largest(h1,0,h1,2,h1,3).", "proved"),
)


@pytest.mark.parametrize(("text", "expected"), CLAUSES)
def test_the_verifier_decides_clauses_of_every_arity_and_of_windows(text, expected):
    clause = parse_clause(text, sites=SITES)
    query = clause_query(clause, Box(np.full(12, -1.0), np.full(12, 1.0)), SITES)
    decision = verify(query, timeout_s=20)
    match decision.verdict:
        case Proved(certificate=certificate):
            assert expected == "proved" and by_z3(smtlib(query)) == "unsat"
            assert certificate is None or check(query, certificate).accepted
        case Refuted(counterexample=x):
            assert expected == "refuted" and confirms(query, np.asarray(x.input if hasattr(x, "input") else x))
        case other:
            pytest.fail(f"{text} {other}")
