"""VNN-LIB 2.0 in: declarations, hidden values, indices; the `vnnlib` package reads what these tests read."""

from fractions import Fraction

import numpy as np
import pytest
import vnnlib

from verifier.errors import BadQuery
from verifier.formats.vnnlib import declared_networks, parse_vnnlib
from verifier.formats.vnnlib_assignment import format_counterexample
from verifier.formats.vnnlib_declarations import quoted, unquoted
from verifier.formula import And, Or, at_least, at_most, atom
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, Reshape
from verifier.region import Box, exact_bounds

HIDDEN = 'layer "1"/relu\\'
NETWORK = Network(
    "in",
    (1, 2, 3),
    (
        Node("flat", Reshape((1, 6)), ("in",)),
        Node("z", Linear(np.arange(24.0).reshape(4, 6) - 12, np.zeros(4)), ("flat",)),
        Node(HIDDEN, Relu(), ("z",)),
        Node("out", Linear(np.ones((2, 4)), np.zeros(2)), (HIDDEN,)),
    ),
    "out",
)
VERSION = "(vnnlib-version <2.0>)\n"
DECLARED = (
    "(declare-network f (declare-input X real [1,2,3]) "
    f"(declare-hidden H float32 [1, 4] {quoted(HIDDEN)}) (declare-output Y real [2]))\n"
)
BOX = "\n".join(f"(assert (and (>= X[0,{i},{k}] -1.0) (<= X[0,{i},{k}] 1.0)))" for i in range(2) for k in range(3))


def query(text, *, head=VERSION + DECLARED, box=BOX):
    return parse_vnnlib(head + box + text, NETWORK)


def test_entries_of_input_hidden_value_and_output():
    found = query("(assert (<= X[0,1,2] 0.5)) (assert (>= H[0,3] 0.1)) (assert (< Y[1] (* 2.0 Y[0])))")
    assert exact_bounds(found.region) == ([-1] * 6, [1, 1, 1, 1, 1, Fraction(1, 2)])
    assert found.assertion == And((at_least(HIDDEN, 3, Fraction(1, 10)), atom({("out", 1): 1, ("out", 0): -2}, 0, strict=True)))


def test_equalities_and_differences():
    found = query("(assert (== Y[0] 1.0)) (assert (!= Y [ 1 ] -0.5))")
    different = Or((at_most("out", 1, -0.5, strict=True), at_least("out", 1, -0.5, strict=True)))
    assert found.assertion == And((at_most("out", 0, 1), at_least("out", 0, 1), different))


def test_arithmetic_associates_to_the_left():
    found = query("(assert (<= (- 1.0 Y[0] 2.0 (- Y[1])) (+ Y[0] (* -1.5 Y[1] 2.0))))")
    assert found.assertion == atom({("out", 0): -2, ("out", 1): 4}, -1)


def test_scalars_have_no_index():
    network = Network("in", (), (Node("out", Relu(), ("in",)),), "out")
    text = (
        VERSION + "(declare-network f (declare-input X real []) (declare-output Y real []))(assert (== X 0.5))(assert (<= Y X))"
    )
    found = parse_vnnlib(text, network)
    assert exact_bounds(found.region) == ([Fraction(1, 2)],) * 2 and found.assertion == atom({("out", 0): 1, ("in", 0): -1}, 0)
    assert vnnlib.parse_query_string(text)


@pytest.mark.parametrize("shape", ["[2,3]", "[1,2,3]", "[1,2,1,3]"])
def test_shapes_may_differ_in_axes_of_length_one(shape):
    head = VERSION + f'(declare-network f (declare-input X real {shape} "in") (declare-output Y real [2] "out"))'
    zeros = ",".join(["0"] * (shape.count(",") + 1))
    with pytest.raises(BadQuery, match=r"input X\[[0,]+\] has no lower bound"):
        query(f"(assert (<= X[{zeros}] 0.5))", head=head, box="")


def test_what_is_read_here_the_package_reads():
    for text in ("(assert (or (and (<= H[0,0] 0.5) (> Y[0] (- Y[1]))) (!= Y[1] (* 2.0 Y[0]))))", ""):
        assert len(vnnlib.parse_query_string(VERSION + DECLARED + BOX + text).networks) == 1
        assert query(text).network is NETWORK


def test_declarations():
    (found,) = declared_networks(VERSION + DECLARED + BOX)
    assert [(t.kind, t.name, t.element_type, t.shape, t.onnx_name, t.size) for t in found.tensors] == [
        ("input", "X", "real", (1, 2, 3), None, 6),
        ("hidden", "H", "float32", (1, 4), HIDDEN, 4),
        ("output", "Y", "real", (2,), None, 2),
    ]
    assert found.name == "f" and found.equivalence is None
    assert declared_networks("(declare-const X_0 Real)") == ()
    assert query("", head=VERSION + DECLARED.replace("real", "Real")).network is NETWORK


def test_counterexamples_are_written_in_both_manners():
    found = query("")
    (declared,) = declared_networks(VERSION + DECLARED)
    x = np.array([0.1, 0, 0, 0, 0, 1e-7])
    lines = format_counterexample(found, x, declaration=declared).splitlines()
    assert lines[:8] == ["X real [1,2,3]", "0.1", "0.0", "0.0", "0.0", "0.0", "1e-07", "H float32 [1,4]"]
    assert lines[8:10] == ["0.0", "0.0"] and lines[12] == "Y real [2]" and len(lines) == 15
    assert float(lines[13]) == pytest.approx(0.6 + 0.1e-6 * (11 + 5), rel=1e-12)  # (6, 12, ...) of x_0 and (5, 11) of x_5
    plain = format_counterexample(found, x).splitlines()
    assert plain[0] == "((X_0 0.1)" and plain[5] == "(X_5 1e-07)" and plain[6].startswith("(Y_0 ") and plain[7].endswith("))")


def test_strings_of_any_kind_read_back():
    for text in ("plain", 'a"b', "a\\b", "a\nb\tc", "\\n", "é ;(", ""):
        assert unquoted(quoted(text)) == text


SECOND = "(declare-network g (equal-to f) (declare-input A real [6]) (declare-output B real [2]))"
REFUSED = [
    ("(vnnlib-version <2.1>)", "", "1:17: version '<2.1>' is not read; allowed are <1.0> and <2.0>"),
    ("(vnnlib-version <3.0>)", "", "1:17: version '<3.0>' is not read; allowed are <1.0> and <2.0>"),
    ("(vnnlib-version 2.0)", "", "version '2.0' is not read"),
    (VERSION, "", "no network is declared"),
    (VERSION + DECLARED + SECOND, "", "a second network g \\(equal-to f\\); queries about one network are supported"),
    (VERSION + DECLARED + SECOND.replace(" g", " f"), "", "f is declared twice"),
    (VERSION + DECLARED.replace("float32", "int64"), "", "element type 'int64' is not supported; allowed are real"),
    (
        VERSION + DECLARED.replace("[1,2,3]", "[1000000000000]"),
        "",
        "X is declared with shape \\[1000000000000\\].*has \\[1, 2, 3\\], 6",
    ),
    (VERSION + DECLARED.replace("[1,2,3]", "[1,0,3]"), "", "expected a dimension, a whole number from 1.*found '0'"),
    (VERSION + DECLARED.replace("layer", "lay"), "", "hidden H: no such value .* allowed: in, flat, z"),
    (VERSION + DECLARED.replace("Y real", "X real"), "", "X is declared twice"),
    (VERSION + DECLARED.replace(" X ", " _X "), "", "expected a name, a letter .* found '_X'"),
    (
        VERSION + DECLARED.replace(quoted(HIDDEN), ""),
        "",
        "expected the value's name in the model in double quotes, found '\\)'",
    ),
    (
        VERSION + "(declare-network f (declare-output Y real [2]) (declare-input X real [6]))",
        "",
        "input X is declared after output Y",
    ),
    (VERSION + "(declare-network f (declare-input X real [6]))", "", "network f declares no output"),
    (
        VERSION + '(declare-network f (declare-input X real [6] "out") (declare-output Y real [2]))',
        "",
        "no such value 'out'.*allowed: in",
    ),
    (
        VERSION + "(declare-network f (declare-input X real [6]) (declare-input Z real [6]) (declare-output Y real [2]))",
        "",
        "a second input",
    ),
    (
        VERSION + "(declare-network f (isomorphic-to g) (declare-input X real [6]) (declare-output Y real [2]))",
        "",
        "no such network",
    ),
    (VERSION + DECLARED, "(assert (<= Y[2] 0.0))", "index 2 is out of range for Y of shape \\[2\\]"),
    (VERSION + DECLARED, "(assert (<= Y[-1] 0.0))", "expected an index such as \\[0,3\\], found '\\['"),
    (VERSION + DECLARED, "(assert (<= Y[0 1] 0.0))", "expected an index such as"),
    (VERSION + DECLARED, "(assert (<= Y 0.0))", "Y has shape \\[2\\]; 1 indices are needed, found 0"),
    (VERSION + DECLARED, "(assert (<= H[0] 0.0))", "2 indices are needed, found 1"),
    (VERSION + DECLARED, "(assert (<= Z[0] 0.0))", "expected a formula, a number or an entry of X, H, Y, found 'Z'"),
    (VERSION + DECLARED, "(assert (not (<= Y[0] 0.0)))", "found 'not'; allowed are and, or"),
    (VERSION + DECLARED, "(assert (<= 0.0 Y[0] 1.0))", "'<=' compares two sides, found 3"),
    (VERSION + DECLARED, SECOND, "unknown or misplaced command 'declare-network'; allowed here are assert"),
    (VERSION + DECLARED, "(check-sat)", "unknown or misplaced command 'check-sat'"),
]


@pytest.mark.parametrize("head, text, message", REFUSED, ids=[message[:40] for _, _, message in REFUSED])
def test_refused(head, text, message):
    with pytest.raises(BadQuery, match=message):
        query(text, head=head, box=BOX if head == VERSION + DECLARED else "")


def test_bad_box_is_named_as_the_text_names_it():
    with pytest.raises(BadQuery, match=r"input X\[0,1,2\] has no upper bound; .* say \(assert \(<= X\[0,1,2\] NUMBER\)\)"):
        query("(assert (>= X[0,1,2] 0.0))", box=BOX[: BOX.rindex("(assert")])
    assert isinstance(query("").region, Box)
