import shutil
import subprocess

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from specmine.export import EXPORTERS
from specmine.export.prolog import comparison, number, term
from specmine.pipeline.stages import verify_stage
from specmine.predicates.predicate import Predicate, quoted
from verifier.formula import at_least, at_most, atom

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
    """(sample, clause id, class) by the definition: the body's inequalities on the traced values, one sample at a time."""
    found = set()
    for claim in exhibit.spec.claims:
        for row in exhibit.test_rows:
            pairs = [
                (exhibit.trace.values[exhibit.site_of(t.value)][row, t.index], t) for a in claim.body_atoms for t in a.terms
            ]
            totals = [float(t.coefficient) * v for v, t in pairs]
            sides = [total + float(a.bias) for total, a in zip(totals, claim.body_atoms, strict=True)]
            if all(side < 0 or (side == 0 and not a.strict) for side, a in zip(sides, claim.body_atoms, strict=True)):
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
    assert comparison(atom({("h", 0): 1, ("h", 1): -1}, 0.5), names) == "A =< B + -0.5"
    assert comparison(atom({("h", 0): -2, ("h", 1): -1}, 3), names) == "3.0 =< 2.0 * A + B"
