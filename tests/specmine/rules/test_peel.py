"""The judge is exact interval arithmetic in rationals over the literals of each clause, written apart from the product."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.data import load_dataset
from specmine.errors import BadData, BadModel
from specmine.predicates.families import bits
from specmine.rules.boxes import Sides, hull, inside, margins, rivals_of
from specmine.rules.peel import Readout, peel, readout_of
from specmine.tracing.sites import Sites
from specmine.tracing.trace import make_trace, select_samples, trace
from verifier.formats.onnx import read_onnx
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

DIGITS = Path(__file__).parents[3] / "datasets" / "digits" / "digits-64-32-32-10.onnx"


def network(weight, bias):
    neurons = weight.shape[1]
    identity = Linear(np.eye(neurons, dtype=np.float32), np.zeros(neurons, dtype=np.float32))
    nodes = (
        Node("z", identity, ("x",)),
        Node("h", Relu(), ("z",)),
        Node("y", Linear(weight.astype(np.float32), bias.astype(np.float32)), ("h",)),
    )
    return Network("x", (neurons,), nodes, "y")


def exact_sides(body, neurons, upper):
    low, high = [Fraction(0)] * neurons, list(upper)
    for literal in body:
        _, neuron, *thresholds = literal.arguments
        if literal.form in ("above", "within"):
            low[neuron] = max(low[neuron], Fraction(thresholds[0]))
        if literal.form in ("below", "within"):
            high[neuron] = Fraction(thresholds[-1])
        if literal.form == "inactive":
            high[neuron] = Fraction(0)
    return low, high


def proved(clause, readout, upper=None):
    """Whether each rival's margin is positive over the box, exactly; None stands for no upper bound."""
    (label,) = clause.head.arguments
    neurons = readout.weight.shape[1]
    low, high = exact_sides(clause.body, neurons, upper or [None] * neurons)
    for rival in range(len(readout.bias)):
        if rival == label:
            continue
        margin = Fraction(readout.bias[label]) - Fraction(readout.bias[rival])
        for i in range(neurons):
            d = Fraction(readout.weight[label, i]) - Fraction(readout.weight[rival, i])
            if d < 0 and high[i] is None:
                return False
            margin += d * low[i] if d >= 0 else d * high[i]
        if margin <= 0:
            return False
    return True


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 6), st.sampled_from([0.0, 0.2]), st.booleans())
def test_every_clause_holds_exactly_and_covers_samples(seed, classes, neurons, smoothing, bounded):
    generator = np.random.default_rng(seed)
    net = network(generator.normal(size=(classes, neurons)), generator.normal(size=classes) / 2)
    seen = trace(Sites(net), generator.normal(size=(60, neurons)) * 2)
    readout = readout_of(seen.sites)
    upper = np.maximum(seen.values["h1"].max(axis=0), 1.0) if bounded else None
    for label in range(classes):
        rows = seen.predictions == label
        covered = np.zeros(60, dtype=bool)
        for clause in peel(seen, readout, label=label, rows=rows, clauses=3, smoothing=smoothing, upper=upper):
            assert proved(clause, readout, None if upper is None else [Fraction(v) for v in upper.tolist()])
            held = np.all([bits(literal, seen) for literal in clause.body], axis=0) if clause.body else np.ones(60, bool)
            assert (held & rows & ~covered).any() and (seen.predictions[held] == label).all()
            covered |= held


def test_by_hand():
    net = network(np.eye(2), np.zeros(2))
    seen = trace(Sites(net), [[3.0, 1.0], [4.0, 0.5], [2.5, 2.25], [0.0, 2.0]])
    (clause,) = peel(seen, readout_of(seen.sites), label=0, rows=np.arange(3), clauses=1, smoothing=0)
    assert str(clause) == "class(0) :- above(h1,0,2.5), below(h1,1,2.25)."
    (free,) = peel(seen, readout_of(seen.sites), label=0, rows=np.arange(3), clauses=1, smoothing=0, upper=np.array([9, 2.25]))
    assert str(free) == "class(0) :- above(h1,0,2.5)."


def test_margins_are_the_minimum_over_the_box():
    rivals = rivals_of(np.array([[1.0, -2.0], [0.5, 1.0]]), np.array([4.0, 1.0]), 0, scale=np.zeros(2), slack=0.0)
    assert margins(rivals, Sides(np.array([1.0, 0.0]), np.array([2.0, 0.5]))).tolist() == [3.0 + 0.5 - 1.5]
    assert margins(rivals, Sides(np.array([1.0, 0.0]), np.array([np.inf, 0.5]))).tolist() == [2.0]
    assert margins(rivals, Sides(np.array([1.0, 0.0]), np.array([2.0, np.inf]))).tolist() == [-np.inf]
    assert inside(np.eye(2), hull(np.eye(2))).all()


def test_nothing_to_cover_gives_no_clause():
    net = network(np.zeros((2, 1)), np.zeros(2))
    seen = trace(Sites(net), [[1.0], [2.0]])
    assert peel(seen, readout_of(seen.sites), label=0, rows=np.ones(2, dtype=bool)) == []
    assert peel(seen, readout_of(seen.sites), label=0, rows=np.zeros(2, dtype=bool)) == []


def test_bad_input():
    net = network(np.eye(2), np.zeros(2))
    seen = make_trace(Sites(net), {"h1": np.ones((1, 2))}, np.zeros(1, dtype=np.int64))
    readout, rows = readout_of(seen.sites), np.ones(1, dtype=bool)
    with pytest.raises(BadData, match="label must be one of 0 to 1"):
        peel(seen, readout, label=2, rows=rows)
    with pytest.raises(BadData, match="lower <= upper with 2 entries each"):
        peel(seen, readout, label=0, rows=rows, lower=np.ones(2), upper=np.zeros(2))
    with pytest.raises(BadModel, match="takes 3 neurons to 2 classes"):
        peel(seen, Readout("h1", np.ones((2, 3)), np.zeros(2)), label=0, rows=rows)
    bent = Network("x", (2,), (*net.nodes, Node("end", Relu(), ("y",))), "end")
    with pytest.raises(BadModel, match="one linear layer after the last activation"):
        readout_of(Sites(bent))


@pytest.mark.skipif(not DIGITS.exists(), reason="datasets/digits holds no trained network")
def test_digits_recall_with_every_clause_proved_exactly():
    data, net = load_dataset("digits"), read_onnx(DIGITS)
    seen, tested = (trace(Sites(net), x) for x in (data.mine[0], data.test[0]))
    readout, right = readout_of(seen.sites), tested.predictions == data.test[1]
    covered = np.zeros(tested.samples, dtype=bool)
    for label in range(10):
        found = peel(seen, readout, label=label, rows=(seen.predictions == label) & (data.mine[1] == label))
        assert found
        for clause in found:
            assert proved(clause, readout)
            held = np.all([bits(literal, tested) for literal in clause.body], axis=0)
            assert (tested.predictions[held] == label).all()
            covered |= held
    assert (covered & right).mean() >= 0.25


def test_the_same_seed_gives_the_same_clauses():
    generator = np.random.default_rng(5)
    net = network(generator.normal(size=(3, 5)), np.zeros(3))
    seen = trace(Sites(net), generator.normal(size=(80, 5)))
    rows = seen.predictions == 0
    first = peel(seen, readout_of(seen.sites), label=0, rows=rows)
    assert first == peel(seen, readout_of(seen.sites), label=0, rows=rows)
    assert first == peel(select_samples(seen, rows), readout_of(seen.sites), label=0, rows=np.ones(rows.sum(), dtype=bool))
