"""What holds somewhere or everywhere in a window of a channel: formulas, truth and refusals by hand, and candidates."""

import re

import numpy as np
import pytest

from specmine.errors import BadClause
from specmine.predicates.families import bits, candidates, denote, validate
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.tracing import Sites, trace
from verifier.formula import And, Or, at_least, at_most
from verifier.network import Network, Node
from verifier.ops import Conv, Linear, MaxPool, Relu, Reshape

SAME = np.zeros((2, 2, 1, 1))
SAME[0, 0] = SAME[1, 1] = 1
NONE = ((0, 0), (0, 0))
NODES = (
    Node("pre", Conv(SAME, np.zeros(2), (1, 1), NONE, (1, 1), 1), ("in",)),
    Node("post", Relu(), ("pre",)),
    Node("pool", MaxPool((1, 2), (1, 2), ((0, 0), (0, 1)), (1, 1)), ("post",)),
    Node("flat", Reshape((1, 4)), ("pool",)),
    Node("out", Linear(np.eye(4), np.zeros(4)), ("flat",)),
)
SITES = Sites(Network("in", (1, 2, 1, 3), NODES, "out"))  # two channels of three places; windows of two, the last one padded
X = np.array([[1.0, 2, 3, -1, -2, -3], [0.5, -1, 0.5, 4, 0, 1], [0, 0, 0, 0, 0, 0]]).reshape(3, 2, 1, 3)
MADE = trace(SITES, X, keep=("x", "z1", "h1", "p1", "y"))


@pytest.mark.parametrize(
    ("form", "arguments", "truth"),
    [
        ("somewhere_active", ("z1", 0, 0), [1, 1, 0]),
        ("everywhere_active", ("z1", 0, 0), [1, 0, 0]),
        ("somewhere_inactive", ("z1", 0, 0), [0, 1, 1]),
        ("everywhere_inactive", ("z1", 1, 0), [1, 0, 1]),
        ("somewhere_above", ("h1", 0, 0, 2.0), [1, 0, 0]),
        ("everywhere_above", ("h1", 0, 0, 1.0), [1, 0, 0]),
        ("somewhere_below", ("z1", 1, 0, -2.0), [1, 0, 0]),
        ("everywhere_below", ("z1", 1, 0, 0.0), [1, 0, 1]),
        ("everywhere_above", ("z1", 0, 1, 0.5), [1, 1, 0]),
    ],
)
def test_truth_by_hand(form, arguments, truth):
    assert bits(Predicate(form, arguments), MADE).astype(int).tolist() == truth


def test_formulas_by_hand():
    def made(form, *arguments):
        return denote(Predicate(form, arguments), SITES)

    assert made("somewhere_above", "z1", 1, 0, 0.5) == Or((at_least("pre", 3, 0.5), at_least("pre", 4, 0.5)))
    assert made("everywhere_active", "z1", 1, 0) == And(tuple(at_least("pre", k, 0, strict=True) for k in (3, 4)))
    assert made("somewhere_inactive", "z1", 1, 0) == Or((at_most("pre", 3, 0), at_most("pre", 4, 0)))
    assert made("everywhere_below", "z1", 1, 1, 0.5) == at_most("pre", 5, 0.5)  # the padded place is none
    # the network pools h1 itself, so what concerns the greatest value is one atom
    assert made("somewhere_above", "h1", 1, 0, 0.5) == at_least("pool", 2, 0.5)
    assert made("everywhere_below", "h1", 1, 1, 0.5) == at_most("pool", 3, 0.5)
    assert made("everywhere_inactive", "h1", 0, 1) == at_most("pool", 1, 0)
    assert made("everywhere_above", "h1", 0, 0, 0.5) == And((at_least("post", 0, 0.5), at_least("post", 1, 0.5)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y", 0, 0, 1.0), "site 'y' has no windows, since no convolution or pool reads or makes it"),
        (("h1", 2, 0, 1.0), "site 'h1' has channels 0 to 1, got 2"),
        (("h1", 1, 2, 1.0), "site 'h1' has windows 0 to 1 in each channel, got 2"),
        (("h1", -1, 0, 1.0), "-1 is not an index; write a whole number from 0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(BadClause, match=re.escape(message)):
        validate(Predicate("somewhere_above", arguments), SITES)


def test_candidates_are_conjunctions_and_tell_channels():
    rng = np.random.default_rng(0)
    heads = np.arange(300) % 2
    x = rng.uniform(0, 1, size=(300, 2, 1, 3))
    place = rng.integers(0, 2, 300)
    x[np.arange(300), 1, 0, place] += 2.0 * heads  # head 1: above 2 somewhere in window 0 of channel 1, never in one place
    made = trace(SITES, x, keep=("z1", "h1", "y"))
    listed = candidates("unary", made, grid=Grid(("h1",)), heads=heads)
    assert any(p.form == "somewhere_above" and p.arguments[1:3] == (1, 0) and (bits(p, made) == heads).all() for p in listed)
    assert not any(p.form == "above" and (bits(p, made) == heads).all() for p in listed)
    of_scores = candidates("unary", made, grid=Grid(("z1",)), heads=heads)
    assert {p.form for p in of_scores if "where" in p.form} == {
        "everywhere_active",
        "everywhere_inactive",
        "everywhere_above",
        "everywhere_below",
    }
