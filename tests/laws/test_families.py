"""The laws of predicate families; every family in FAMILIES is held to them.

Vectorised truth equals the truth of the denoted formula in exact arithmetic on the traced float64 values, sample by sample,
with values that lie exactly on thresholds and outputs that tie. A table row is the same bits. The number of candidates grows
linearly with the neurons.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.predicates.families import FAMILIES, bits, candidates, denote, validate
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, unpack
from specmine.tracing import Sites, trace
from verifier.formula import holds, negate
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

SIZE = 4
# Few distinct numbers, so that values meet thresholds and each other; 0.1 is no exact decimal, the last two are neighbours.
LEVELS = (-1.0, -0.1, 0.0, 0.1, 0.75, 1.0, float(np.nextafter(1.0, 2.0)), 5e-324)


def identity_sites(size: int) -> Sites:
    layer = Linear(np.eye(size), np.zeros(size))
    nodes = (Node("pre", layer, ("in",)), Node("post", Relu(), ("pre",)), Node("out", layer, ("pre",)))
    return Sites(Network("in", (1, size), nodes, "out"))


SITES = identity_sites(SIZE)
ARGUMENTS = {
    "site": st.sampled_from(["x", "z1", "h1", "y", "post"]),
    "neuron": st.integers(0, SIZE - 1),
    "threshold": st.sampled_from(LEVELS) | st.floats(-2, 2),
    "class": st.integers(0, SIZE - 1),
}
SAMPLES = st.lists(st.tuples(*[st.sampled_from(LEVELS) | st.floats(-2, 2)] * SIZE), min_size=1, max_size=70)


@st.composite
def predicate_of(draw, family):
    form = draw(st.sampled_from(list(family.forms.values())))
    arguments = tuple(draw(ARGUMENTS[kind]) for kind in form.signature)
    if form.check(arguments, SITES):
        arguments = (*arguments[:2], *sorted(arguments[2:]))
    return validate(Predicate(form.name, arguments), SITES)


def exact_truth(predicate, made):
    """Truth by the definition: the formula in exact arithmetic, one sample at a time."""
    formula = denote(predicate, made.sites)
    truth = []
    for sample in range(made.samples):
        values = {made.sites.value(site): [Fraction(v) for v in array[sample].tolist()] for site, array in made.values.items()}
        truth.append(holds(formula, values))
        assert holds(negate(formula), values) is not truth[-1]
    return truth


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None)
@given(st.data())
def test_bits_are_the_truth_of_the_formula(name, data):
    predicates = data.draw(st.lists(predicate_of(FAMILIES[name]), min_size=1, max_size=5))
    made = trace(SITES, np.array(data.draw(SAMPLES)), keep=("x", "z1", "h1", "y", "post"))
    expected = [exact_truth(predicate, made) for predicate in predicates]
    assert [bits(predicate, made).tolist() for predicate in predicates] == expected
    table = build_table(predicates, made, batch=64)
    assert unpack(table.bits, table.samples).tolist() == expected


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=20)
@given(st.data())
def test_candidates_mean_what_they_say(name, data):
    made = trace(SITES, np.array(data.draw(SAMPLES)), keep=("x", "z1", "h1", "y"))
    for predicate in candidates(name, made, grid=Grid(("x", "z1", "h1"), thresholds=2))[:30]:
        assert validate(predicate, SITES) == predicate
        assert bits(predicate, made).tolist() == exact_truth(predicate, made)


@pytest.mark.parametrize("name", FAMILIES)
def test_candidates_grow_linearly(name):
    counted = []
    for size in (200, 1600):
        x = np.random.default_rng(0).normal(size=(300, size))
        heads = np.arange(300) % 3
        made = trace(identity_sites(size), x, keep=("z1", "y"))
        counted.append(len(candidates(name, made, grid=Grid(("z1",)), heads=heads)))
    assert np.log(counted[1] / counted[0]) / np.log(8) <= 1.05


@pytest.mark.parametrize("name", FAMILIES)
def test_single_output_networks(name):
    layer = Linear(np.ones((1, 2)), np.zeros(1))
    sites = Sites(Network("in", (1, 2), (Node("out", layer, ("in",)),), "out"))
    made = trace(sites, [[1.0, 2.0], [0.0, 0.0]], keep=("x", "y"))
    for predicate in candidates(name, made, grid=Grid(("x", "y"))):
        assert bits(predicate, made).tolist() == exact_truth(predicate, made)
