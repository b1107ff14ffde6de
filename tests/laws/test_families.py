"""The laws of predicate families; every family in FAMILIES is held to them.

Vectorised truth equals the truth of the denoted formula in exact arithmetic on the traced float64 values, sample by sample,
with values that lie exactly on thresholds, sums that rounding puts on the wrong side, and outputs that tie. A table row is
the same bits. A candidate is a conjunction of atoms. The number of candidates grows linearly with the neurons.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from specmine.predicates.families import FAMILIES, bits, candidates, denote, validate
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, unpack
from specmine.tracing import Sites, trace
from verifier.formats.torch_export import read_module
from verifier.formula import disjuncts, holds, negate
from verifier.network import Network, Node
from verifier.ops import Conv, Linear, MaxPool, Relu, Reshape

SIZE = 4
# Few distinct numbers, so that values meet thresholds and each other, and their sums do but for rounding: 0.1 + 0.2 is 0.3 to
# nearest only, 1e16 + 1 is 1e16; some are neighbours.
LEVELS = (-1.0, -0.1, 0.0, 0.1, 0.2, 0.3, float(np.nextafter(0.3, 1)), 1.0, float(np.nextafter(1, 2)), 5e-324, 1e16, 1e16 + 2)


def identity_sites(size: int) -> Sites:
    layer = Linear(np.eye(size), np.zeros(size))
    nodes = (Node("pre", layer, ("in",)), Node("post", Relu(), ("pre",)), Node("out", layer, ("pre",)))
    return Sites(Network("in", (1, size), nodes, "out"))


def channel_sites() -> Sites:
    """x (1,2,3,3), of which a convolution reads 2x2 windows with padding; h1 (1,2,2,4), of which a pool of 2x2 does."""
    weight = np.zeros((2, 2, 2, 1))
    weight[0, 0, 0], weight[1, 1, 1] = 1, 1
    nodes = (
        Node("pre", Conv(weight, np.zeros(2), (1, 1), ((0, 0), (0, 1)), (1, 1), 1), ("in",)),
        Node("post", Relu(), ("pre",)),
        Node("pool", MaxPool((2, 2), (1, 2), ((1, 0), (0, 0)), (1, 1)), ("post",)),
        Node("flat", Reshape((1, 8)), ("pool",)),
        Node("out", Linear(np.eye(8)[:4], np.zeros(4)), ("flat",)),
    )
    return Sites(Network("in", (1, 2, 3, 3), nodes, "out"))


class Heads(nn.Module):
    """Two causal heads over three tokens, added to them, and a linear output of four logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.write, self.out = nn.Linear(2, 6), nn.Linear(2, 2), nn.Linear(6, 4)
        self.mask = torch.ones(3, 3, dtype=torch.bool).triu(1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.view(1, 3, 2, 1).transpose(1, 2) for part in self.read(x).chunk(3, -1))
        shares = (query @ key.transpose(-1, -2)).masked_fill(self.mask, float("-inf")).softmax(-1)
        return self.out((x + self.write((shares @ value).transpose(1, 2).reshape(1, 3, 2))).reshape(1, 6))


SITES = identity_sites(SIZE)
NETWORKS = {
    "dense": SITES,
    "channels": channel_sites(),
    "heads": Sites(read_module(Heads().double(), torch.zeros(1, 3, 2, dtype=torch.double))),
}
KEEP = {
    "dense": ("x", "z1", "h1", "y", "post"),
    "channels": ("x", "z1", "h1", "p1", "y"),
    "heads": ("x", "s1", "a1", "o1", "y"),
}
NUMBERS = st.sampled_from([*LEVELS, *(-level for level in LEVELS)]) | st.floats(-2, 2)


def samples_of(network: str) -> st.SearchStrategy[list[tuple[float, ...]]]:
    numbers = st.floats(-2, 2) if network == "heads" else NUMBERS
    return st.lists(st.tuples(*[numbers] * NETWORKS[network].size("x")), min_size=1, max_size=70)


def usable(form, network: str) -> bool:
    """Whether the form means something on a network: those with indices are about channels or about heads."""
    about = "heads" if form.name in FAMILIES["attention"].forms else "channels" if "index" in form.signature else None
    return about in (None, network)


@st.composite
def predicate_of(draw, family, network):
    kinds = {
        "site": st.sampled_from(KEEP[network]),
        "neuron": st.integers(0, SIZE - 1),
        "threshold": NUMBERS | st.sampled_from([1 / 3, 0.5]),
        "class": st.integers(0, SIZE - 1),
        "index": st.integers(0, 3),
    }
    form = draw(st.sampled_from([form for form in family.forms.values() if usable(form, network)]))
    if family.name == "attention":
        kinds["site"] = st.just({"attends": "s1", "prefers": "s1", "writes": "o1"}.get(form.name, "a1"))
        kinds["index"] = st.integers(0, 2)
    arguments = tuple(draw(kinds[kind]) for kind in form.signature)
    if form.name == "within":
        arguments = (*arguments[:2], *sorted(arguments[2:]))
    assume(form.check(arguments, NETWORKS[network]) is None)
    return validate(Predicate(form.name, arguments), NETWORKS[network])


CASES = [(name, network) for name in FAMILIES for network in NETWORKS if name != "attention" or network == "heads"]


def exact_truth(predicate, made):
    """Truth by the definition: the formula in exact arithmetic, one sample at a time."""
    formula = denote(predicate, made.sites)
    truth = []
    for sample in range(made.samples):
        values = {made.sites.value(site): [Fraction(v) for v in array[sample].tolist()] for site, array in made.values.items()}
        truth.append(holds(formula, values))
        assert holds(negate(formula), values) is not truth[-1]
    return truth


@pytest.mark.parametrize(("name", "network"), CASES)
@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.data())
def test_bits_are_the_truth_of_the_formula(name, network, data):
    sites = NETWORKS[network]
    predicates = data.draw(st.lists(predicate_of(FAMILIES[name], network), min_size=1, max_size=5))
    made = trace(sites, np.array(data.draw(samples_of(network))), keep=KEEP[network])
    expected = [exact_truth(predicate, made) for predicate in predicates]
    assert [bits(predicate, made).tolist() for predicate in predicates] == expected
    table = build_table(predicates, made)
    assert unpack(table.bits, table.samples).tolist() == expected


@pytest.mark.parametrize(("name", "network"), CASES)
@settings(deadline=None, max_examples=20)
@given(st.data())
def test_candidates_mean_what_they_say(name, network, data):
    sites = NETWORKS[network]
    made = trace(sites, np.array(data.draw(samples_of(network))), keep=KEEP[network])
    found = candidates(name, made, grid=Grid(KEEP[network][:3], thresholds=2))
    for predicate in found[:: max(1, len(found) // 30)]:
        assert validate(predicate, sites) == predicate
        assert len(disjuncts(denote(predicate, sites))) == 1
        assert bits(predicate, made).tolist() == exact_truth(predicate, made)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "attention"])  # that one: test_attention_family.py
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
