"""Certificates worked out by hand, and everything that must make one fail."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from verifier.certificate import Certificate, Close, Group, ProofNode, Relaxation, Split, Step
from verifier.check import CheckResult, check, confirms
from verifier.check.bounds import combined
from verifier.errors import BadQuery
from verifier.formula import FALSE, TRUE, Atom, Formula, Or, Term, at_least, at_most, atom, conjoin
from verifier.network import Network, Node
from verifier.ops import AveragePool, LeakyRelu, Linear, MaxPool, Relu, frozen_array
from verifier.query import Query
from verifier.region import Ball, Box, Polytope, Region


def hat() -> Network:
    """z = (x, -x, x - 1/2), a = relu(z), y = (|x|, min(relu(x), 1/2))."""
    nodes = (
        Node("z", Linear(frozen_array([[1.0], [-1.0], [1.0]]), frozen_array([0.0, 0.0, -0.5])), ("x",)),
        Node("a", Relu(), ("z",)),
        Node("y", Linear(frozen_array([[1.0, 1.0, 0.0], [1.0, 0.0, -1.0]]), frozen_array([0.0, 0.0])), ("a",)),
    )
    return Network("x", (1, 1), nodes, "y")


UNIT = Box([-1.0], [1.0])


def slopes(*values: float) -> dict[str, np.ndarray]:
    return {"a": np.array([values])}


def close(*atoms: float, disjunct: int = 0, **choices) -> Close:
    return Close(disjunct, Relaxation(atoms=np.array([atoms], dtype=float).reshape(1, -1), **choices))


def certificate(query: Query, *groups: Group) -> Certificate:
    return Certificate(query.network.sha256, query.sha256, groups)


def decide(assertion: Formula, root: ProofNode, region: Region = UNIT, network: Network | None = None) -> CheckResult:
    query = Query(network or hat(), region, assertion)
    return check(query, certificate(query, Group(tuple(range(len(query.disjuncts))), root)))


def leaf(*closed: Close, steps: tuple[Step, ...] = ()) -> ProofNode:
    return ProofNode(steps, closed)


BOTH = atom({("y", 0): -1, ("x", 0): Fraction(1, 4)}, Fraction(3, 4), strict=True)
"""y0 > x/4 + 3/4: true at x = -1."""


def test_a_bound_above_zero_is_accepted_and_counted() -> None:
    result = decide(atom({("y", 0): 1, ("x", 0): -1}, Fraction(1, 100)), leaf(close(1.0, slopes=slopes(1, 0, 0))))
    assert result.accepted and result.reason is None and result.place is None
    assert (result.disjuncts, result.steps, result.splits, result.closes) == (1, 0, 0, 1)


def test_a_tie_needs_a_strict_atom() -> None:
    proof = leaf(close(1.0, slopes=slopes(1, 0, 0)))
    below = {("y", 0): 1, ("x", 0): -1}
    assert decide(atom(below, 0, strict=True), proof).accepted
    result = decide(atom(below, 0), proof)
    assert not result.accepted and result.reason == "the bound on disjunct 0 is 0, which refutes nothing"
    assert result.place == "group 0"


def test_a_strict_atom_without_a_multiplier_does_not_break_a_tie() -> None:
    tie, other = atom({("y", 0): 1, ("x", 0): -1}, 0), atom({("y", 0): 1, ("y", 1): -3}, -5, strict=True)
    query = Query(hat(), UNIT, conjoin(tie, other))
    assert confirms(query, np.array([0.5]))
    assert not decide(query.assertion, leaf(close(1.0, 0.0, slopes=slopes(1, 0, 0)))).accepted


def test_the_chord_is_exact_at_both_ends() -> None:
    above = {("y", 0): -1, ("x", 0): Fraction(1, 4)}
    assert decide(atom(above, Fraction(5, 4), strict=True), leaf(close(1.0))).accepted
    assert not decide(atom(above, Fraction(5, 4)), leaf(close(1.0))).accepted
    assert confirms(Query(hat(), UNIT, atom(above, Fraction(5, 4))), np.array([-1.0]))


def test_a_slope_left_out_is_chosen() -> None:
    assertion = atom({("y", 0): 1, ("x", 0): -1}, Fraction(1, 100))
    assert decide(assertion, leaf(close(1.0)), Box([-1.0], [1.5])).accepted
    assert not decide(assertion, leaf(close(1.0)), Box([-1.5], [1.0])).accepted


CAP = atom({("y", 1): -1, ("x", 0): 0, ("z", 2): Fraction(1, 1000)}, Fraction(6, 10))
"""y1 >= 0.6 + z2/1000: never, but one linear relaxation does not show it."""


@pytest.mark.parametrize(("value", "index"), [("x", 0), ("z", 0)])
def test_a_split_proves_what_one_relaxation_cannot(value: str, index: int) -> None:
    shut = leaf(close(1.0, slopes=slopes(1, 0, 1)))
    assert not decide(CAP, shut).accepted
    low = leaf(close(1.0, slopes=slopes(0, 0, 0)))
    result = decide(CAP, ProofNode(split=Split(value, index, 0.0, low, shut)))
    assert result.accepted and result.splits == 1 and result.closes == 2


def test_a_child_left_open_is_named() -> None:
    shut = leaf(close(1.0, slopes=slopes(0, 0, 0)))
    result = decide(CAP, ProofNode(split=Split("x", 0, 0.0, shut, ProofNode(split=Split("x", 0, 0.5, shut, leaf())))))
    assert not result.accepted and result.place == "group 0, high high"
    result = decide(CAP, ProofNode(split=Split("x", 0, 0.0, shut, leaf())))
    assert result.place == "group 0, high"
    assert result.reason == "disjunct 0 is left open where bounds are not empty and nothing is split"


def test_a_premise_on_a_hidden_value_counts_through_its_multiplier() -> None:
    premise = atom({("a", 0): -1, ("a", 2): Fraction(1, 8)}, Fraction(1, 2))
    query = Query(hat(), UNIT, conjoin(premise, atom({("y", 0): 1, ("y", 1): Fraction(1, 16)}, Fraction(-2, 5))))
    held = close(1.0, 1.0, slopes=slopes(1, 0, 0))
    assert check(query, certificate(query, Group((0,), leaf(held)))).accepted
    alone = close(0.0, 1.0, slopes=slopes(1, 0, 0))
    assert not check(query, certificate(query, Group((0,), leaf(alone)))).accepted


def test_bounds_are_cut_by_single_atoms_and_used_through_multipliers() -> None:
    query = Query(hat(), UNIT, conjoin(at_least("a", 0, 0.5), atom({("y", 0): 1, ("a", 2): 1}, Fraction(-2, 5))))
    held = close(0.0, 1.0, lower={"z": np.array([[1.0, 0, 0]])})
    assert check(query, certificate(query, Group((0,), leaf(held)))).accepted


def test_a_vacuous_body_needs_no_close() -> None:
    assert decide(conjoin(at_least("a", 0, 0.5), at_least("a", 1, Fraction(1, 3))), leaf()).accepted is False
    assert decide(conjoin(at_least("a", 0, 0.5), at_most("z", 0, 0.25)), leaf()).accepted
    assert decide(at_least("x", 0, 2), leaf()).accepted
    assert decide(at_least("y", 0, Fraction(21, 10)), leaf()).accepted


def test_a_step_tightens_what_follows() -> None:
    step = Step("z", np.array([0]), np.array([1]), Relaxation(atoms=np.array([[1.0, 0.0]]), slopes=slopes(1, 0, 0)))
    premise = atom({("x", 0): -1, ("a", 2): Fraction(1, 1000)}, Fraction(1, 2))
    goal = atom({("y", 0): 1, ("y", 1): Fraction(-1, 1000)}, Fraction(-2, 5))
    held = close(0.0, 1.0, lower={"z": np.array([[1.0, 0, 0]])})
    assert decide(conjoin(premise, goal), leaf(held, steps=(step,))).accepted
    assert not decide(conjoin(premise, goal), leaf(held)).accepted


def test_an_upper_step_may_empty_the_bounds() -> None:
    step = Step("z", np.array([0, 0]), np.array([1, -1]), Relaxation(atoms=np.array([[1.0, 0.0], [0.0, 1.0]])))
    right = atom({("x", 0): -1, ("z", 2): Fraction(-1, 8)}, Fraction(1, 2))
    left = atom({("x", 0): 1, ("z", 2): Fraction(1, 8)}, Fraction(1, 2))
    assert decide(conjoin(right, left), leaf(steps=(step,))).accepted


def test_disjuncts_may_be_closed_in_several_groups_and_nodes() -> None:
    parts = (atom({("y", 0): 1, ("x", 0): -1}, Fraction(1, 100)), CAP)
    query = Query(hat(), UNIT, Or(parts))
    first, shut = (
        close(1.0, slopes=slopes(1, 0, 0)),
        leaf(close(1.0, disjunct=1, slopes=slopes(1, 0, 1))),
    )
    split = Split("x", 0, 0.0, leaf(close(1.0, disjunct=1)), ProofNode(split=Split("x", 0, 0.5, shut, shut)))
    together = certificate(query, Group((0, 1), ProofNode((), (first,), split)))
    apart = certificate(query, Group((1,), ProofNode(split=split)), Group((0,), leaf(first)))
    assert check(query, together).reason is None and check(query, apart).reason is None
    assert check(query, certificate(query, Group((0,), leaf(first)))).reason == "no group covers disjunct 1"
    assert not check(query, certificate(query, Group((0, 1), leaf(first)))).accepted


def test_no_disjunct_is_proved_and_no_atom_is_not() -> None:
    query = Query(hat(), UNIT, FALSE)
    assert check(query, certificate(query)).accepted
    assert not decide(TRUE, leaf()).accepted
    assert not decide(TRUE, leaf(close(upper={"x": np.ones((1, 1))}, lower={"x": np.ones((1, 1))}))).accepted


def test_regions_with_exact_bounds() -> None:
    ball = Ball([0.1], 0.2, UNIT)
    edge = Fraction(0.1) + Fraction(0.2)
    beyond = {("x", 0): -1, ("y", 1): Fraction(0)}
    assert not decide(atom(beyond, edge), leaf(close(1.0)), ball).accepted
    assert decide(atom(beyond, edge + Fraction(1, 10**15)), leaf(), ball).accepted
    point = Box([0.1], [0.1])
    assert decide(at_least("y", 0, 0.1, strict=True), leaf(close(1.0)), point).accepted
    assert not decide(at_least("y", 0, 0.1), leaf(close(1.0)), point).accepted


def test_constraints_of_a_polytope_are_atoms_of_every_disjunct() -> None:
    network = Network("x", (1, 2), (Node("y", Linear(frozen_array([[1.0, 1.0]]), frozen_array([0.0])), ("x",)),), "y")
    triangle = Polytope(Box([0.0, 0.0], [1.0, 1.0]), (atom({("x", 0): 1, ("x", 1): 1}, -1),))
    goal = atom({("y", 0): -1, ("x", 0): Fraction(-1, 8)}, Fraction(5, 4))
    assert decide(goal, leaf(close(1.125, 1.0)), triangle, network).accepted
    assert not decide(goal, leaf(close(0.0, 1.0)), triangle, network).accepted


def test_repeated_terms_of_an_atom_are_added_exactly() -> None:
    """No query has such an atom; the kernel does not rest on that."""
    terms = (Term("y", 0, Fraction(1, 10)), Term("y", 0, Fraction(2, 10)), Term("x", 0, Fraction(0)))
    assert combined(Atom(terms, Fraction(-3, 10), strict=True)) == {("y", 0): Fraction(3, 10)}
    assert combined(Atom((Term("x", 0, Fraction(1)), Term("x", 0, Fraction(-1))), Fraction(0))) == {}
    with pytest.raises(BadQuery, match="two terms for one entry"):
        decide(Atom(terms, Fraction(-1, 10)), leaf(), Box([1.0], [1.0]))


def test_rounding_that_fools_floats_does_not_fool_the_check() -> None:
    """y = (w x + 1) - w x is 1, though in float64 it is 0 for x = 1."""
    w = 2.0**60
    first = Node("z", Linear(frozen_array([[w], [w]]), frozen_array([1.0, 0.0])), ("x",))
    last = Node("y", Linear(frozen_array([[1.0, -1.0]]), frozen_array([0.0])), ("z",))
    network = Network("x", (1, 1), (first, last), "y")
    wrong, right = (atom({("y", 0): c, ("x", 0): Fraction(1, 16)}, b) for c, b in ((-1, Fraction(1, 2)), (1, Fraction(-1, 2))))
    box = Box([0.5], [1.0])
    assert confirms(Query(network, box, wrong), np.array([1.0]))
    assert not decide(wrong, leaf(close(1.0)), box, network).accepted
    assert decide(right, leaf(close(1.0)), box, network).accepted


def test_weights_too_small_for_the_slices_are_charged() -> None:
    """y = w x0 + x1 / 2**50 reaches w x0 - 2**-50."""
    w = 1 + 2.0**-30
    node = Node("y", Linear(frozen_array([[w, 2.0**-50]]), frozen_array([0.0])), ("x",))
    network, box = Network("x", (1, 2), (node,), "y"), Box([0.5, -1.0], [0.5, 1.0])
    for least, is_true in ((Fraction(1, 2**51), False), (Fraction(1, 2**48), True)):
        claim = atom({("y", 0): 1, ("x", 0): -w}, least)
        assert confirms(Query(network, box, claim), np.array([0.5, -1.0])) is not is_true
        assert decide(claim, leaf(close(1.0)), box, network).accepted is is_true


def test_a_mean_of_three_is_not_its_nearest_float() -> None:
    pool = AveragePool((3,), (1,), ((0, 0),), frozen_array([3.0]))
    network, ones = Network("x", (1, 1, 3), (Node("y", pool, ("x",)),), "y"), Box([1.0] * 3, [1.0] * 3)
    for sign in (1, -1):
        tie = atom({("y", 0): sign, ("x", 0): -sign}, 0)
        assert confirms(Query(network, ones, tie), np.ones(3))
        assert not decide(tie, leaf(close(1.0)), ones, network).accepted
        assert not decide(atom({("y", 0): sign}, -sign), leaf(), ones, network).accepted
        assert decide(atom({("y", 0): sign, ("x", 0): -sign}, Fraction(1, 10**9)), leaf(close(1.0)), ones, network).accepted


def test_a_divisor_whose_inverse_fits_the_slices_but_is_rounded() -> None:
    """1 / (1 + 2**-30) is 1 - 2**-30 + 2**-60 - ..., and its nearest float 1 - 2**-30."""
    d = 1 + 2.0**-30
    pool = AveragePool((1,), (1,), ((0, 0),), frozen_array([d]))
    network, point = Network("x", (1, 1, 1), (Node("y", pool, ("x",)),), "y"), Box([d], [d])
    tie = atom({("y", 0): -1, ("x", 0): 1}, -(2.0**-30))
    assert confirms(Query(network, point, tie), np.array([d]))
    assert not decide(tie, leaf(close(1.0)), point, network).accepted


@pytest.mark.parametrize("x", [-1e-9, 0.0, 1e-9])
@pytest.mark.parametrize("value", ["x", "z"])
def test_the_halves_of_a_split_leave_no_gap(x: float, value: str) -> None:
    here = conjoin(at_least("z", 0, x), at_most("z", 0, x))
    assert confirms(Query(hat(), UNIT, here), np.array([x]))
    assert not decide(here, ProofNode(split=Split(value, 0, 0.0, leaf(), leaf()))).accepted


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"slopes": slopes(1.0000001, 0, 0)}, "outside [0, 1]"),
        ({"slopes": slopes(-1e-9, 0, 0)}, "outside [0, 1]"),
        ({"slopes": slopes(np.nan, 0, 0)}, "the slopes of 'a' are not finite"),
        ({"slopes": slopes(1, 0)}, "the slopes of 'a' have shape (1, 2)"),
        ({"slopes": {"z": np.zeros((1, 3))}}, "slopes name 'z'"),
        ({"slopes": {"x": np.zeros((1, 1))}}, "slopes name 'x'"),
        ({"slopes": {"nothing": np.zeros((1, 1))}}, "slopes name 'nothing'"),
        ({"lower": {"x": np.array([[-1e-300]])}}, "a multiplier of x is negative"),
        ({"upper": {"x": np.array([[np.inf]])}}, "the multipliers of x are not finite"),
        ({"upper": {"x": np.zeros((1, 2))}}, "the multipliers of x have shape (1, 2), not (1, 1)"),
        ({"upper": {"x": np.array([["1"]])}}, "are not an array of numbers"),
        ({"upper": {"nothing": np.zeros((1, 1))}}, "multipliers name 'nothing'"),
        ({"atoms": np.array([[-1.0]])}, "a multiplier of the atoms is negative"),
        ({"atoms": np.array([[1.0, 0.0]])}, "the multipliers of the atoms have shape (1, 2), not (1, 1)"),
    ],
)
def test_choices_beyond_their_limits_are_rejected(choices: dict, reason: str) -> None:
    relaxation = Relaxation(**({"atoms": np.array([[1.0]])} | choices))
    result = decide(atom({("y", 0): 1, ("x", 0): -1}, Fraction(1, 100)), leaf(Close(0, relaxation)))
    assert not result.accepted and reason in str(result.reason)


def test_numbers_near_the_end_of_float64_are_rejected_not_wrong() -> None:
    claim = atom({("y", 0): 1, ("x", 0): -1}, Fraction(1, 100))
    result = decide(claim, leaf(close(1e308, slopes=slopes(1, 0, 0))))
    assert not result.accepted and result.reason == "numbers are out of range: a number passes 2**900"
    assert decide(claim, leaf(close(1e-200, slopes=slopes(1, 0, 0)))).accepted
    huge = decide(atom({("x", 0): 1}, Fraction(10) ** 400), leaf())
    assert not huge.accepted and "out of range" in str(huge.reason)


def test_leaky_slopes_have_their_own_floor() -> None:
    network = Network("x", (1, 1), (Node("y", LeakyRelu(0.25), ("x",)),), "y")
    claim = atom({("y", 0): 1, ("x", 0): Fraction(-1, 4)}, Fraction(1, 100))
    assert decide(claim, leaf(close(1.0, slopes={"y": np.array([[0.25]])})), UNIT, network).accepted
    low = decide(claim, leaf(close(1.0, slopes={"y": np.array([[0.2]])})), UNIT, network)
    assert low.reason == "a slope of 'y' is outside [0.25, 1]"


def test_maxima_are_represented_from_within_their_window() -> None:
    network = Network("x", (1, 1, 3), (Node("y", MaxPool((2,), (1,), ((0, 0),), (1,)), ("x",)),), "y")
    box, claim = Box([0.0] * 3, [1.0] * 3), atom({("y", 0): 1, ("x", 1): -1}, Fraction(1, 100))
    assert decide(claim, leaf(close(1.0, slopes={"y": np.array([[1, 2]])})), box, network).accepted
    assert not decide(claim, leaf(close(1.0, slopes={"y": np.array([[0, 2]])})), box, network).accepted
    for outside in (np.array([[2, 2]]), np.array([[-1, 2]])):
        result = decide(claim, leaf(close(1.0, slopes={"y": outside})), box, network)
        assert result.reason == "a window of 'y' is represented by an entry outside it"
    assert "not an array of numbers" in str(decide(claim, leaf(close(1.0, slopes={"y": np.ones((1, 2))})), box, network).reason)
    above = atom({("y", 0): -1, ("x", 2): Fraction(1, 2)}, Fraction(3, 2))
    assert decide(replace(above, strict=False), leaf(close(1.0)), Box([0.0] * 3, [1.0, 1.0, 0.5]), network).accepted is True


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Step("nothing", np.array([0]), np.array([1]), Relaxation()), "a value that the network lacks"),
        (Step("z", np.array([3]), np.array([1]), Relaxation()), "index is out of range for 'z'"),
        (Step("z", np.array([-1]), np.array([1]), Relaxation()), "index is out of range for 'z'"),
        (Step("z", np.array([0]), np.array([2]), Relaxation()), "signs must be 1 or -1"),
        (Step("z", np.array([0, 1]), np.array([1]), Relaxation()), "not vectors of one length"),
        (Step("z", np.array([0.0]), np.array([1]), Relaxation()), "indices are not an array of numbers"),
        (Step("z", np.array([0]), np.array([1]), Relaxation(atoms=np.ones((1, 1)))), "shape (1, 1), not (1, 0)"),
    ],
)
def test_bad_steps_are_rejected(step: Step, reason: str) -> None:
    """The last one weighs an atom that only one of the two disjuncts has."""
    result = decide(Or((CAP, BOTH)), leaf(steps=(step,)))
    assert not result.accepted and reason in str(result.reason)


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        (Split("nothing", 0, 0.0, leaf(), leaf()), "a split names 'nothing'"),
        (Split("z", 3, 0.0, leaf(), leaf()), "split index 3 is out of range; there are 3"),
        (Split("z", 0, np.nan, leaf(), leaf()), "a split is at nan"),
        (Split("z", 0, np.inf, leaf(), leaf()), "a split is at inf"),
    ],
)
def test_bad_splits_are_rejected(split: Split, reason: str) -> None:
    result = decide(CAP, ProofNode(split=split))
    assert not result.accepted and reason in str(result.reason)


def test_certificates_for_something_else_are_rejected() -> None:
    query = Query(hat(), UNIT, CAP)
    good = certificate(query, Group((0,), ProofNode(split=Split("x", 0, 0.0, leaf(), leaf()))))
    for change, reason in (
        ({"network_sha256": "0"}, "it was made for another network"),
        ({"query_sha256": "0"}, "it was made for another query"),
        ({"groups": ()}, "no group covers disjunct 0"),
        ({"groups": (Group((), leaf()),)}, "a group has no disjuncts"),
        ({"groups": (Group((1,), leaf()),)}, "disjunct 1 is out of range; there are 1"),
    ):
        result = check(query, replace(good, **change))
        assert (result.accepted, result.reason, result.place) == (False, reason, "certificate")
    twice = leaf(close(1.0, disjunct=1))
    pair = Query(hat(), UNIT, Or((CAP, BOTH)))
    result = check(pair, certificate(pair, Group((0,), twice), Group((1,), leaf())))
    assert result.reason == "disjunct 1 is closed but is not of this group"


def test_a_tree_of_thousands_of_nodes_needs_no_recursion() -> None:
    node = leaf(close(1.0, slopes=slopes(1, 0, 1)))
    for at in np.linspace(0.5, -1.0, 1010):
        node = ProofNode(split=Split("x", 0, float(at), leaf(close(1.0, slopes=slopes(0, 0, 0))), node))
    result = decide(CAP, node)
    assert result.accepted and result.splits == 1010


def test_masked_arrays_hide_nothing() -> None:
    network = Network("x", (1,), (Node("y", Linear(frozen_array([[1.0]]), frozen_array([0.0])), ("x",)),), "y")
    signs = np.ma.MaskedArray([1, -5], mask=[False, True])
    proof = leaf(steps=(Step("y", np.array([0, 0]), signs, Relaxation()),))
    result = decide(at_least("y", 0, -1.5), proof, Box([-2.0], [-1.0]), network)
    assert not result.accepted and result.reason == "a step's signs must be 1 or -1"


@pytest.mark.parametrize("at", [10**400, -(10**400), np.nan, np.inf, 1j, "0"], ids=["big", "-big", "nan", "inf", "i", "text"])
def test_a_split_is_at_a_finite_number(at: object) -> None:
    split = Split("z", 0, at, leaf(), leaf())  # type: ignore[arg-type]
    result = decide(BOTH, ProofNode(split=split))
    assert not result.accepted and "a split is at" in str(result.reason)
