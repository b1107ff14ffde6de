"""Polytopes of the last hidden layer: judged by exact linear programs over rationals (Z3), which share no code with them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import z3

from specmine.data import load_dataset
from specmine.errors import BadData
from specmine.predicates.families import bits, denote
from specmine.rules.peel import readout_of
from specmine.rules.polytopes import polytopes
from specmine.tracing.sites import Sites
from specmine.tracing.trace import trace
from verifier.formats.onnx import read_onnx
from verifier.formula import atoms_of
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array

DIGITS = Path(__file__).parents[3] / "datasets" / "digits" / "digits-64-32-32-10.onnx"


def network(generator, inputs=3, neurons=4, classes=3):
    def layer(rows, columns):
        return Linear(frozen_array(generator.normal(size=(rows, columns))), frozen_array(np.zeros(rows)))

    nodes = (
        Node("z", layer(neurons, inputs), ("x",)),
        Node("h", Relu(), ("z",)),
        Node("y", layer(classes, neurons), ("h",)),
    )
    return Network("x", (inputs,), nodes, "y")


def implied_by_the_layer_alone(clause, sites, readout):
    """Whether every h >= 0 that satisfies the body has the head's output strictly above all others, exactly."""
    (label,) = clause.head.arguments
    h = [z3.Real(f"h{i}") for i in range(readout.weight.shape[1])]

    def exact(value):
        fraction = Fraction(float(value))
        return z3.Q(fraction.numerator, fraction.denominator)

    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*(v >= 0 for v in h))
    for literal in clause.body:
        for a in atoms_of(denote(literal, sites)):
            left = sum((exact(t.coefficient) * h[t.index] for t in a.terms), exact(a.bias))
            solver.add(left < 0 if a.strict else left <= 0)
    y = [
        sum((exact(w) * v for w, v in zip(row, h, strict=True)), exact(b))
        for row, b in zip(readout.weight, readout.bias, strict=True)
    ]
    solver.add(z3.Or([y[rival] >= y[label] for rival in range(len(y)) if rival != label]))
    return solver.check() == z3.unsat


@pytest.mark.parametrize("seed", range(12))
def test_clauses_of_small_networks_hold_exactly(seed):
    generator = np.random.default_rng(seed)
    sites = Sites(network(generator))
    samples = trace(sites, generator.normal(size=(200, 3)) * 2)
    readout = readout_of(sites)
    found = 0
    for label in range(3):
        rows = samples.predictions == label
        if rows.sum() < 2:
            continue
        clauses = polytopes(samples, readout, label=label, rows=rows, clauses=3, rooms=(0.1,))
        covered = np.zeros(200, dtype=bool)
        for clause in clauses:
            assert implied_by_the_layer_alone(clause, sites, readout), clause
            own = np.logical_and.reduce([bits(literal, samples) for literal in clause.body])
            assert (own & rows & ~covered).any(), "each clause covers what the ones before do not"
            covered |= own
            found += 1
        assert not (covered & ~rows).any()
    assert found


def test_most_of_a_class_of_digits_in_one_clause():
    sites, dataset = Sites(read_onnx(DIGITS)), load_dataset("digits")
    samples = trace(sites, dataset.x)
    rows = (dataset.split == 0) & (dataset.y == 0) & (samples.predictions == 0)
    readout = readout_of(sites)
    (clause,) = polytopes(samples, readout, label=0, rows=rows, clauses=1, timeout_s=120)
    own = np.logical_and.reduce([bits(literal, samples) for literal in clause.body])
    assert own[rows].mean() > 0.9
    assert not own[samples.predictions != 0].any()
    test = (dataset.split == 2) & (dataset.y == 0)
    assert own[test].mean() > 0.6, "a box of the same layer that is proved covers a third"
    assert {literal.form for literal in clause.body} & {"less_by", "sum_above", "sum_below"}


def test_nothing_without_samples_and_mistakes_are_named():
    generator = np.random.default_rng(0)
    sites = Sites(network(generator))
    samples = trace(sites, generator.normal(size=(20, 3)))
    readout = readout_of(sites)
    assert polytopes(samples, readout, label=0, rows=np.zeros(20, dtype=bool)) == []
    with pytest.raises(BadData, match="label must be one of 0 to 2"):
        polytopes(samples, readout, label=3, rows=np.ones(20, dtype=bool))
    with pytest.raises(BadData, match="clauses at least 1, got 0 and 0"):
        polytopes(samples, readout, label=0, rows=np.ones(20, dtype=bool), clauses=0)
