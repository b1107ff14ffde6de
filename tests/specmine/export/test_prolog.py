import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from specmine.data import from_arrays
from specmine.export import EXPORTERS
from specmine.export.prolog import comparison, goal, number, term
from specmine.pipeline import mine
from specmine.pipeline.stages import verify_stage
from specmine.predicates.predicate import Predicate, quoted
from specmine.queries import body_formula
from verifier.formula import And, Or, at_least, at_most, atom, holds

needs_swipl = pytest.mark.skipif(shutil.which("swipl") is None, reason="SWI-Prolog (swipl) is not installed")


def ask(path, goal):
    """The lines that a goal prints, and what SWI-Prolog says on stderr while loading and running."""
    command = ["swipl", "-q", "-g", goal, "-t", "halt", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\n")[:-1], result.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run = toy.run(tmp_path_factory.mktemp("run"))
    verify_stage(run)
    exhibit = run.exhibit
    (path,) = EXPORTERS["prolog"](exhibit, run.folder / "exports")
    return exhibit, path


def fired_in_python(exhibit):
    """(sample, clause id, class) by the definition: the body's formula in exact arithmetic, one sample at a time."""
    found = set()
    for claim in exhibit.spec.claims:
        formula = body_formula(claim.clause, exhibit.sites)
        for row in exhibit.test_rows:
            flat = {site: [Fraction(v) for v in values[row].tolist()] for site, values in exhibit.source.values.items()}
            if holds(formula, {exhibit.sites.value(site): values for site, values in flat.items()}):
                found.add((row, claim.clause.id, claim.clause.head.arguments[0]))
    return found


@needs_swipl
@pytest.mark.swipl
def test_prolog_fires_what_python_fires(exported):
    exhibit, path = exported
    goal = "forall(fired(S,I,C), (write(S), write(' '), write(I), write(' '), write(C), nl))"
    lines, warnings = ask(path, goal)
    assert warnings == ""
    found = {(int(s), i, int(c)) for s, i, c in (line.split() for line in lines)}
    assert found == fired_in_python(exhibit) and len(found) > 10
    assert found == {
        (row, clause.id, clause.head.arguments[0])
        for clause, rows in exhibit.fires.items()
        for row in exhibit.test_rows
        if rows[row]
    }


def test_a_run_without_test_samples_has_no_facts(tmp_path):
    x, y = toy.arrays()
    data = from_arrays(x, y, split=np.arange(len(x)) % 2)
    effort = {"timeout_s": 1.0, "budget_s": 2.0, "exports": ("prolog",), "synthesis": ("threshold",), "thresholds": 3}
    mine(toy.network(), data, out=tmp_path / "run", **effort)
    text = (tmp_path / "run" / "exports" / "prolog" / "clauses.pl").read_text()
    assert "0 of 0 test samples" in text and "holds(Sample, " in text and "\nvalue(" not in text


@needs_swipl
@pytest.mark.swipl
def test_a_query_explains_itself(exported):
    exhibit, path = exported
    claim = exhibit.spec.claims[0]
    row = next(r for r in exhibit.test_rows if exhibit.fires[claim.clause][r])
    goal = f"forall((class({row},C), fired({row},I,C), claim(I,R,V)), (print([C,I,R,V]), nl))"
    lines, warnings = ask(path, goal)
    assert warnings == "" and f"[0,{quoted(claim.clause.id)},domain,proved]" in lines


@needs_swipl
@pytest.mark.swipl
def test_strict_iso_mode_reads_it(exported):
    _, path = exported
    command = [
        "swipl",
        "-q",
        "--traditional",
        "-g",
        "findall(S, label(S,_), L), length(L, N), print(N), nl",
        "-t",
        "halt",
        str(path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stderr == "" and int(result.stdout) == len(exported[0].test_rows)


def test_the_header_says_what_every_export_says(exported):
    _, path = exported
    text = path.read_text()
    head = text[: text.index(":- dynamic")]
    for words in ("model sha256", "data: toy, sha256", "boundary:", "numbers:"):
        assert words in head
    for words in ("region: domain", "evidence on test: ", "precision ", "recall 0.", "proof status: refuted"):
        assert words in text


@needs_swipl
@pytest.mark.swipl
def test_numbers_read_back_identically(tmp_path):
    values = np.random.default_rng(1).normal(size=200) * 10.0 ** np.random.default_rng(2).integers(-300, 300, 200)
    path = tmp_path / "n.pl"
    path.write_text("".join(f"n({i}, {number(v)}).\n" for i, v in enumerate(values)))
    lines, _ = ask(path, "forall(n(_,X), (format('~16e', [X]), nl))")
    assert [float(line) for line in lines] == values.tolist()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_has_a_point_and_is_exact(value):
    assert float(number(value)) == value and "." in number(value)


def test_terms_and_names():
    assert term(Predicate("above", ("onnx::Relu_3", 4, -1e-07))) == r"above('onnx::Relu_3', 4, -1.0e-07)"
    assert quoted("it's\\") == r"'it\'s\\'" and quoted("H1") == "'H1'"


def test_comparisons_keep_strictness_and_sides():
    names = {("h", 0): "A", ("h", 1): "B"}
    assert comparison(at_least("h", 0, 0.75), names) == "0.75 =< A"
    assert comparison(at_least("h", 0, 0, strict=True), names) == "0.0 < A"
    assert comparison(at_most("h", 1, 2), names) == "B =< 2.0"
    assert comparison(at_most("h", 1, 0), names) == "B =< 0.0"
    assert comparison(atom({("h", 0): 1, ("h", 1): -1}, 0, strict=True), names) == "A < B"
    assert comparison(atom({("h", 0): 1, ("h", 1): -1}, -0.5), names) == "rational(A) =< rational(B) + rational(0.5)"
    assert comparison(atom({("h", 0): -2, ("h", 1): -1}, 3), names) == "3 =< 2 * rational(A) + rational(B)"
    assert comparison(atom({("h", 0): 3}, 1), names) == "3 * rational(A) + 1 =< 0"
    assert comparison(atom({("h", 0): Fraction(1, 3), ("h", 1): -0.5}, 0), names) == (
        "(1 rdiv 3) * rational(A) =< rational(0.5) * rational(B)"
    )
    assert comparison(atom({}, 1, strict=True), names) == "1 < 0"


def test_goals_of_formulas():
    names = {("h", 0): "A", ("h", 1): "B"}
    one, other = at_least("h", 0, 0.5), at_most("h", 1, 2)
    assert goal(And((one, other)), names) == "0.5 =< A, B =< 2.0"
    assert goal(Or((And((one, other)), other)), names) == "once((0.5 =< A, B =< 2.0 ; B =< 2.0))"
    assert goal(And(()), names) == "true" and goal(Or(()), names) == "once((fail))"


HARD = (0.1, 0.2, 0.3, float(np.nextafter(0.3, 1)), 1.0, 1e16, 1e16 + 2, 5e-324, 0.0)


def random_formula(rng):
    """An atom, a conjunction or a disjunction of up to three atoms over h[0..2], of any coefficients."""

    def part():
        chosen = rng.permutation(3)[: rng.integers(0, 4)].tolist()
        terms = {("h", k): [1, -1, 2, Fraction(1, 3), -0.1][rng.integers(5)] for k in chosen}
        return atom(terms, [0, 0.3, -0.3, -1e16, Fraction(-1, 3)][rng.integers(5)], strict=bool(rng.integers(2)))

    parts = tuple(part() for _ in range(rng.integers(0, 4)))
    return [part(), And(parts), Or(parts)][rng.integers(3)]


@needs_swipl
@pytest.mark.swipl
def test_goals_are_decided_without_rounding(tmp_path):
    rng = np.random.default_rng(0)
    cases = [
        (atom({("h", 0): 1, ("h", 1): 1, ("h", 2): -1}, 0), (0.1, 0.2, 0.3)),  # false: the sum is too large by 2^-55
        (atom({("h", 0): 1, ("h", 1): 1}, -float(np.nextafter(0.3, 1)), strict=True), (0.1, 0.2, 0.0)),  # true, by 2^-54
        (atom({("h", 0): -1, ("h", 1): -1}, 1e16, strict=True), (1e16, 1.0, 0.0)),  # true: 1e16 < 1e16 + 1
        *((random_formula(rng), rng.choice([*HARD, *(-v for v in HARD)], 3).tolist()) for _ in range(2000)),
    ]
    variables = {("h", k): f"V{k}" for k in range(3)}
    path = tmp_path / "goals.pl"
    path.write_text(
        ":- style_check(-singleton).\n"
        + "".join(
            f"case({place}) :- {', '.join(f'V{k} = {number(v)}' for k, v in enumerate(values))}, {goal(formula, variables)}.\n"
            for place, (formula, values) in enumerate(cases)
        )
    )
    lines, warnings = ask(path, "forall(case(C), (print(C), nl))")
    expected = [c for c, (formula, values) in enumerate(cases) if holds(formula, {"h": [Fraction(v) for v in values]})]
    assert warnings == "" and expected[:3] == [1, 2, expected[2]] and 500 < len(expected) < 1500
    assert list(map(int, lines)) == expected


RELATIONS = """
class(0) :- less_by(h1,1,h1,0,0.1), sum_above(h1,0,h1,1,0.2), sum_below(h1,0,h1,1,0.5).
class(1) :- less(h1,0,x,1), largest(x,1,x,0,h1,0).
class(1) :- between(x,0,h1,1,x,1).
class(0) :- sum_over(x,0,h1,1,x,1,0.0), sum_under(x,0,h1,1,x,1,0.0).
"""


@needs_swipl
@pytest.mark.swipl
def test_relations_fire_as_in_python(tmp_path):
    run = toy.run(tmp_path, RELATIONS, sites=("h1", "x"))
    exhibit = run.exhibit
    (path,) = EXPORTERS["prolog"](exhibit, tmp_path / "exports")
    lines, warnings = ask(path, "forall(fired(S,I,C), (write(S), write(' '), write(I), write(' '), write(C), nl))")
    found = {(int(s), i, int(c)) for s, i, c in (line.split() for line in lines)}
    assert warnings == "" and found == fired_in_python(exhibit)
    assert {clause for _, clause, _ in found} == {clause.id for clause in exhibit.spec.clauses}
    for clause, rows in exhibit.fires.items():
        assert {row for row, name, _ in found if name == clause.id} == {row for row in exhibit.test_rows if rows[row]}
