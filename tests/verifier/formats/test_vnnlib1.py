"""VNN-LIB 1.0 in: what a text means, by hand, and what is refused."""

import gzip
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from verifier.errors import BadQuery
from verifier.formats.vnnlib import parse_vnnlib, read_vnnlib
from verifier.formula import TRUE, And, Or, at_least, at_most, atom, holds
from verifier.network import Network, Node
from verifier.ops import Linear
from verifier.region import Box, ExactBox, exact_bounds

NETWORK = Network("in", (1, 2), (Node("out", Linear(np.eye(2), np.zeros(2)), ("in",)),), "out")
DECLARED = """; a comment (with parentheses
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real)
"""
BOX = "(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (and (>= X_1 -1.0) (<= X_1 1.0)))"


def query(text, *, box=BOX):
    return parse_vnnlib(DECLARED + box + text, NETWORK)


def test_bounds_become_the_box_and_leave_the_assertion():
    found = query("(assert (<= Y_0 Y_1))")
    assert isinstance(found.region, Box)
    assert found.region.lower.tolist() == [0, -1] and found.region.upper.tolist() == [1, 1]
    assert found.assertion == atom({("out", 0): 1, ("out", 1): -1}, 0)


def test_decimals_are_exact():
    found = query("(assert (<= Y_0 1e-1))", box="(assert (and (<= 0.1 X_0) (<= X_0 0.3) (= X_1 2.5E-1)))")
    assert isinstance(found.region, ExactBox)
    assert exact_bounds(found.region) == ([Fraction(1, 10), Fraction(1, 4)], [Fraction(3, 10), Fraction(1, 4)])
    assert found.assertion == at_most("out", 0, Fraction(1, 10))


def test_the_tightest_of_several_bounds_counts_in_any_order():
    found = query("(assert (<= X_0 0.25)) (assert (<= Y_0 0)) (assert (>= 3 (* 4 X_0))) (assert (<= X_1 (- 0.5)))")
    assert exact_bounds(found.region) == ([0, -1], [Fraction(1, 4), Fraction(-1, 2)])
    assert found.assertion == at_most("out", 0, 0)


def test_strict_bounds_stay():
    found = query("(assert (< X_0 0.5))")
    assert exact_bounds(found.region)[1][0] == Fraction(1, 2)
    assert found.assertion == at_most("in", 0, 0.5, strict=True)


def test_alternative_boxes_keep_their_own_bounds():
    text = "(assert (or (and (>= X_0 0) (<= X_0 1) (>= Y_0 3)) (and (>= X_0 2) (<= X_0 4) (<= Y_0 5))))"
    found = query(text, box="(assert (>= X_1 0)) (assert (<= X_1 1))")
    assert exact_bounds(found.region) == ([0, 0], [4, 1])
    first = And((at_most("in", 0, 1), at_least("out", 0, 3)))
    assert found.assertion == Or((first, And((at_least("in", 0, 2), at_most("out", 0, 5)))))


def test_a_single_alternative_is_plain_bounds():
    assert query("(assert (or (and (<= X_0 0.5) (>= Y_0 100))))").assertion == at_least("out", 0, 100)
    assert query("").assertion == TRUE


def test_linear_arithmetic():
    found = query("(assert (>= (+ (* 2 X_0) (- Y_0 Y_1 3) (/ Y_1 4) (* (+ 1 1) 0.5 Y_0)) (- 1 X_0)))")
    assert found.assertion == atom({("in", 0): -3, ("out", 0): -2, ("out", 1): Fraction(3, 4)}, 4)


def test_what_cancels_is_no_term():
    assert query("(assert (< (- Y_0 Y_0) 0))").disjuncts == ((atom({}, 0, strict=True),),)


def test_negation_and_implication_are_pushed_inward():
    found = query("(assert (not (and (< Y_0 1) (=> (<= Y_0 2) (>= Y_1 3)))))")
    assert found.assertion == Or((at_least("out", 0, 1), And((at_most("out", 0, 2), at_most("out", 1, 3, strict=True)))))


def test_negation_by_truth_table():
    text = "(not (=> (or (not (< Y_0 0)) false) (and (=> (< Y_1 0) (< Y_0 0)) (not (= Y_1 1)))))"
    assertion = query(f"(assert {text})").assertion
    for y0, y1 in product((-1, 0), (-1, 0, 1)):
        wanted = not (y0 < 0 or ((not y1 < 0 or y0 < 0) and y1 != 1))
        assert holds(assertion, {"out": [Fraction(y0), Fraction(y1)]}) == wanted


def test_comparisons_chain():
    assert query("(assert (<= 0 Y_0 Y_1))").assertion == And((at_least("out", 0, 0), atom({("out", 0): 1, ("out", 1): -1}, 0)))


@pytest.mark.parametrize("box", ["(assert (>= X_0 2)) (assert (<= X_0 1))", "(assert (= X_0 1)) (assert (= X_0 2))"])
def test_contradictory_bounds_leave_no_solution(box):
    found = query("", box=box + "(assert (= X_1 0))")
    lower, upper = exact_bounds(found.region)
    assert (lower[0], upper[0]) == (1, 2)
    (atoms,) = found.disjuncts
    assert set(atoms) >= {at_least("in", 0, 2), at_most("in", 0, 1)}


def test_a_contradictory_alternative_does_not_widen_the_box():
    text = "(assert (or (and (>= X_0 9) (<= X_0 8)) (and (>= X_0 0) (<= X_0 1))))"
    assert exact_bounds(query(text, box="(assert (= X_1 0))").region) == ([0, 0], [1, 0])


def test_files_and_packed_files(tmp_path: Path):
    text = DECLARED + BOX
    (tmp_path / "q.vnnlib").write_text(text)
    with gzip.open(tmp_path / "q.vnnlib.gz", "wt") as file:
        file.write(text)
    plain, packed = (read_vnnlib(tmp_path / name, NETWORK) for name in ("q.vnnlib", "q.vnnlib.gz"))
    assert plain.sha256 == packed.sha256


REFUSED = [
    ("(assert (<= X_0 1)) (assert (= X_1 0))", "", "input X_0 has no lower bound.*say \\(assert \\(>= X_0 NUMBER\\)\\)"),
    (BOX, "(assert (<= Z_0 1))", "text:5:\\d+: expected a formula, a number, X_i or Y_i, found 'Z_0'"),
    (BOX, "(assert (<= Y_2 1))", "Y_2 is not declared"),
    (BOX, "(declare-const Y_2 Real)", "Y_2 is declared, but the network's output 'out' has shape \\(1, 2\\), 2 entries"),
    (BOX, "(declare-const Y_1 Real)", "Y_1 is declared twice"),
    (BOX, "(declare-const Y_1 Int)", "expected \\(declare-const X_0 Real\\)"),
    (BOX, "(assert (<= (* X_0 Y_1) 1))", "a product of two variables"),
    (BOX, "(assert (<= (/ Y_1 0) 1))", "a divisor must be a number other than 0"),
    (BOX, "(assert (<= Y_1))", "'<=' takes at least 2 operands, found 1"),
    (BOX, "(assert (and Y_1))", "'and' joins formulas, found a number"),
    (BOX, "(assert (<= (<= Y_0 Y_1) 1))", "'<=' takes numbers, found a formula"),
    (BOX, "(assert Y_1)", "expected a formula that is true or false, found a number"),
    (BOX, "(assert (<= Y_1 1) (<= Y_0 1))", "'assert' takes one formula, found '\\('"),
    (BOX, "(assert)", "found '\\)'"),
    (BOX, "(assert (max Y_0 1))", "expected an operator, found 'max'; allowed are and, or"),
    (BOX, "(assert (<= Y_1 1)", "a command is not closed: 1 '\\)' missing"),
    (BOX, "(assert (<= Y_1 1)))", "expected '\\(' at the start of a command, found '\\)'"),
    (BOX, "\n  assert", "text:6:3: expected '\\('"),
    (BOX, "(minimise Y_0)", "unknown command 'minimise'; allowed are declare-const and assert"),
    (BOX, "()", "unknown command '\\)'"),
    (BOX, "(declare-network f)", "begins with \\(vnnlib-version <2.0>\\)"),
    (BOX, "(assert (<= Y_0 1e999))", "a number beyond 1.79"),
    (BOX, '(assert (<= Y_0 "', "a string without an end"),
    (BOX, f"(assert (<= Y_0 {'1' * 5000}))", "a number of 5000 digits; at most 4000"),
]


@pytest.mark.parametrize("box, text, message", REFUSED, ids=[message[:40] for _, _, message in REFUSED])
def test_refused(box, text, message):
    with pytest.raises(BadQuery, match=message):
        query(text, box=box)


def test_missing_declarations_name_both_sizes():
    with pytest.raises(BadQuery, match="X_1 is not declared; the network's input 'in' has 2 entries, the file declares 1"):
        parse_vnnlib("(declare-const X_0 Real) (assert (= X_0 0))", NETWORK)


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "q.vnnlib").write_bytes(b"\xff\xfe(assert")
    (tmp_path / "q.vnnlib.gz").write_bytes(b"no gzip")
    for name, message in [
        ("q.vnnlib", "not UTF-8"),
        ("q.vnnlib.gz", "cannot be read"),
        ("none.vnnlib", "cannot be read"),
        ("", "cannot"),
    ]:
        with pytest.raises(BadQuery, match=message):
            read_vnnlib(tmp_path / name, NETWORK)
