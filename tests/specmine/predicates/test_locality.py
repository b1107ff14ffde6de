"""Which pairs are allowed and why, by hand and against the network's own derivatives; which of them are kept."""

from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.errors import BadClause
from specmine.predicates.edges import edges
from specmine.predicates.form import Grid
from specmine.predicates.locality import Locality
from specmine.predicates.screening import choose_pairs, merge, moments, scores
from specmine.predicates.windows import windows_of
from specmine.tracing import Sites, trace
from specmine.tracing.stream import Stream, part_of
from verifier.evaluate import forward
from verifier.network import Network, Node
from verifier.ops import (
    AveragePool,
    Concat,
    Conv,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
    Reshape,
    Scale,
    Select,
    Sum,
    Transpose,
)

RNG = np.random.default_rng(0)


def conv(outputs: int, inputs: int, kernel: int, *, stride: int = 1, pad: int = 0, dilation: int = 1, groups: int = 1) -> Conv:
    weight = RNG.normal(size=(outputs, inputs // groups, kernel, kernel))
    both = (pad, pad)
    return Conv(weight, RNG.normal(size=outputs), (stride, stride), (both, both), (dilation, dilation), groups)


def convolutional() -> Sites:
    """x (1,2,6,6) -> conv 3x3, padded (4 channels) -> h1 -> max pool 2x2 -> conv 2x2 (3 channels) -> h2 -> dense 5."""
    nodes = (
        Node("c1", conv(4, 2, 3, pad=1), ("in",)),
        Node("r1", Relu(), ("c1",)),
        Node("pool", MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), ("r1",)),
        Node("c2", conv(3, 4, 2), ("pool",)),
        Node("r2", Relu(), ("c2",)),
        Node("flat", Reshape((1, 12)), ("r2",)),
        Node("out", Linear(RNG.normal(size=(5, 12)), np.zeros(5)), ("flat",)),
    )
    return Sites(Network("in", (1, 2, 6, 6), nodes, "out"))


def dense(sizes: tuple[int, ...] = (30, 40, 20, 3)) -> Sites:
    nodes, last = [], "in"
    for depth, (a, b) in enumerate(pairwise(sizes)):
        nodes.append(Node(f"l{depth}", Linear(RNG.normal(size=(b, a)), np.zeros(b)), (last,)))
        last = f"l{depth}"
        if depth < len(sizes) - 2:
            nodes.append(Node(f"r{depth}", Relu(), (last,)))
            last = f"r{depth}"
    return Sites(Network("in", (1, sizes[0]), tuple(nodes), last))


CONV, DENSE = convolutional(), dense()


def neuron(shape, *place) -> int:
    return int(np.ravel_multi_index(place, shape))


def test_windows_by_hand():
    windows = windows_of(CONV, "h1")
    assert (windows.size, windows.count, windows.channels, windows.pool) == ("2x2", 9, 4, "pool")
    assert windows.members[4].tolist() == [14, 15, 20, 21]
    assert windows.neurons(1, 4).tolist() == [50, 51, 56, 57]
    assert windows_of(CONV, "z1").pool is None and windows_of(CONV, "z1").name == "pool"
    corner = windows_of(CONV, "x")
    assert corner.size == "3x3" and sorted(corner.members[0].tolist()) == [-1, -1, -1, -1, -1, 0, 1, 6, 7]
    tiles = windows_of(CONV, "h2")  # nothing that convolves or pools reads it: 2x2 tiles of its own kernel
    assert (tiles.name, tiles.space, tiles.count, tiles.members.tolist()) == ("c2", (2, 2), 1, [[0, 1, 2, 3]])
    assert windows_of(DENSE, "h1") is None and windows_of(CONV, "y") is None


def test_why_by_hand():
    locality = Locality(CONV)
    h1 = (4, 6, 6)
    here = neuron(h1, 1, 2, 3)
    assert locality.why("h1", here, "h1", neuron(h1, 1, 3, 2)) == "same 2x2 window of max pool pool at row 1, column 1"
    assert locality.why("h1", here, "h1", neuron(h1, 3, 2, 3)) == "same 2x2 window of max pool pool at row 1, column 1"
    assert locality.why("h1", here, "h1", neuron(h1, 1, 2, 4)) is None  # beside it, but in the next window of the pool
    assert locality.why("h1", here, "h1", neuron(h1, 3, 2, 2)) is None  # another channel and another position
    assert locality.why("h1", here, "h1", here) is None
    x = (2, 6, 6)
    assert locality.why("x", neuron(x, 0, 4, 5), "x", neuron(x, 0, 3, 4)) == "same 3x3 window of conv c1 at row 3, column 4"
    assert locality.why("y", 0, "y", 4) == "same layer y"
    weight = CONV.network.producers["c2"].op.weight
    below = f"h1 is the layer below h2, weight {weight[2, 3, 0, 1]:.3g}"
    assert locality.why("h2", neuron((3, 2, 2), 2, 1, 0), "h1", neuron(h1, 3, 3, 3)) == below
    assert locality.why("h1", neuron(h1, 3, 3, 3), "h2", neuron((3, 2, 2), 2, 1, 0)) == below
    assert locality.why("h2", neuron((3, 2, 2), 2, 1, 0), "h1", neuron(h1, 3, 0, 0)) is None  # outside of what it reads
    assert locality.why("x", 0, "h2", 0) is None  # two layers apart


def test_why_counts_only_the_wanted_reasons():
    assert Locality(DENSE, ("layer",)).why("h1", 0, "h2", 0) is None
    assert Locality(DENSE, ("neighbour",)).why("h1", 0, "h1", 1) is None
    assert Locality(CONV, ("layer",)).why("h1", 0, "h1", 143) == "same layer h1"
    with pytest.raises(BadClause, match="has neurons 0 to 39, got 40"):
        Locality(DENSE).why("h1", 40, "h1", 0)
    with pytest.raises(BadClause, match="no site 'h9'"):
        Locality(DENSE).why("h9", 0, "h1", 0)


def affine(kind: str) -> Network:
    """A network of affine operators alone, of several shapes and paths, after one activation h1 of the input."""
    flat = Linear(RNG.normal(size=(5, 24)), np.zeros(5))
    start = Node("act", LeakyRelu(1.0), ("in",))
    chains = {
        "two convolutions": [
            Node("a", conv(4, 2, 3, stride=2, pad=1), ("act",)),
            Node("b", conv(4, 4, 2, dilation=1, groups=2), ("a",)),
        ],
        "pool and scale": [
            Node("p", AveragePool((2, 2), (2, 2), ((0, 1), (0, 1)), RNG.uniform(1, 4, size=(3, 3))), ("act",)),
            Node("b", Scale(RNG.normal(size=(1, 2, 1, 1)), np.ones((1, 2, 1, 1))), ("p",)),
        ],
        "residual": [
            Node("a", conv(2, 2, 3, pad=1), ("act",)),
            Node("b", Sum((2.0, -1.0)), ("a", "act")),
        ],
        "rearranged": [
            Node("t", Transpose((0, 2, 3, 1)), ("act",)),
            Node("s", Select(np.array([3, -1, 7, 7, 49, 0, 12, 13] * 3), (1, 24)), ("t",)),
            Node("l", flat, ("s",)),
            Node("r", Select(np.arange(5), (1, 5)), ("l",)),
            Node("b", Concat(1), ("r", "l")),
        ],
    }
    nodes = (start, *chains[kind])
    return Network("in", (1, 2, 5, 5), nodes, nodes[-1].output)


@pytest.mark.parametrize("width", [None, 1000])
@pytest.mark.parametrize("kind", ["two convolutions", "pool and scale", "residual", "rearranged"])
def test_weights_are_the_derivatives(kind, width):
    network = affine(kind)
    size = network.size(network.output)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: forward(network, x, keep=[network.output])[network.output].reshape(-1), torch.ones(1, 50, dtype=torch.double)
    ).reshape(size, 50)
    found = np.zeros((size, 50))
    for block, read in edges(network, network.output, ["act"], np.arange(size), width=width):
        rows = read["act"]
        assert (np.diff(np.abs(rows.weight), axis=1) <= 0).all()
        for place, row in enumerate(block):
            taken = rows.index[place] >= 0
            assert len(set(rows.index[place][taken])) == taken.sum() and not rows.weight[place][~taken].any()
            found[row, rows.index[place][taken]] = rows.weight[place][taken]
    assert np.allclose(found, jacobian.numpy(), atol=1e-12)


def test_the_strongest_edges_survive_a_narrow_row():
    network = Network("in", (1, 300), (Node("b", Linear(RNG.normal(size=(4, 300)), np.zeros(4)), ("in",)),), "b")
    _, read = next(edges(network, "b", ["in"], np.arange(4), width=5))
    weight = network.producers["b"].op.weight
    assert read["in"].index.tolist() == np.argsort(-np.abs(weight), axis=1)[:, :5].tolist()


def source_of(sites: Sites, samples: int = 90) -> tuple[Stream, np.ndarray]:
    x = np.random.default_rng(1).normal(size=(samples, sites.network.size("in")))
    return Stream(sites, x), np.arange(samples) % 3 - 1 + (np.arange(samples) % 7 == 0)


SITES_OF = {"dense": (DENSE, ("x", "h1", "h2", "y")), "conv": (CONV, ("x", "z1", "h1", "h2", "y"))}


@pytest.mark.parametrize("reasons", [("window", "layer", "neighbour"), ("layer", "neighbour"), ("window",), ("neighbour",)])
@pytest.mark.parametrize("name", SITES_OF)
def test_kept_pairs_are_allowed_few_and_listed_once(name, reasons):
    sites, names = SITES_OF[name]
    source, heads = source_of(sites)
    grid = Grid(names, partners=4, locality=reasons)
    pairs = choose_pairs(source, grid, heads)
    locality, seen, chosen = Locality(sites, reasons), set(), {}
    for one in pairs:
        for i, j in zip(one.i.tolist(), one.j.tolist(), strict=True):
            why = locality.why(one.first, i, one.second, j)
            assert why is not None and {"window": "window", "layer": "same layer", "neighbour": "below"}[one.reason] in why
            ends = frozenset({(one.first, i), (one.second, j)})
            assert ends not in seen
            seen.add(ends)
            chosen[one.first, i] = chosen.get((one.first, i), 0) + 1
    assert {one.reason for one in pairs} <= set(reasons) and (pairs or (name, reasons) == ("dense", ("window",)))
    assert max(chosen.values(), default=0) <= 4


def test_pairs_are_the_same_on_processes_and_from_a_trace():
    source, heads = source_of(CONV, 200)
    grid = Grid(("h1", "h2"), partners=4)
    alone = choose_pairs(source, grid, heads, memory_mb=1)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        shared = choose_pairs(source, grid, heads, executor=executor, memory_mb=1)
    kept = choose_pairs(trace(CONV, source.x, keep=("h1", "h2")), grid, heads, memory_mb=1)
    for one, two, three in zip(alone, shared, kept, strict=True):
        assert (one.reason, one.first, one.second) == (two.reason, two.first, two.second)
        assert one.i.tolist() == two.i.tolist() == three.i.tolist() and one.j.tolist() == two.j.tolist() == three.j.tolist()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 88), st.integers(0, 2**32))
def test_scores_are_the_definition_whatever_the_parts(cut, seed):
    source, heads = source_of(DENSE)
    heads = np.random.default_rng(seed).integers(-1, 4, size=90)
    labels = np.unique(heads[heads >= 0])
    shifts = Locality(DENSE).within("h2", 8)
    options = {"labels": labels, "sites": ("h2",), "within": [shifts]}
    parts = [moments(part_of(source, rows), rows, heads[rows], **options) for rows in (slice(0, cut), slice(cut, 90))]
    found = scores(shifts, merge(*parts, [shifts]))
    values = trace(DENSE, source.x, keep=("h2",)).values["h2"]
    known = heads >= 0
    for m in range(8):
        difference = (values[:, shifts.partners(m)] - values)[known]
        overall = difference.mean(axis=0)
        means = np.stack([difference[heads[known] == label].mean(axis=0) for label in labels])
        within = sum(((difference[heads[known] == k] - mean) ** 2).sum(axis=0) for k, mean in zip(labels, means, strict=True))
        expected = np.abs(means - overall).max(axis=0) / np.sqrt(within / known.sum() + 1e-300)
        assert np.allclose(found[m], expected, rtol=1e-6)


def test_constant_neurons_have_no_partner():
    source, heads = source_of(DENSE)
    flat = Stream(DENSE, source.x * (np.arange(30) >= 5))
    pairs = choose_pairs(flat, Grid(("x", "h1")), heads)
    assert {one.reason for one in pairs} == {"layer", "neighbour"}
    for one in pairs:
        for site, neurons in ((one.first, one.i), (one.second, one.j)):
            assert site != "x" or neurons.min() >= 5


def test_no_head_value_still_gives_pairs():
    source, _ = source_of(DENSE)
    (pairs,) = choose_pairs(source, Grid(("h2",), locality=("layer",)), np.full(90, -1))
    assert len(pairs.i) >= 8 * 20 / 2


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_pairs_grow_linearly_with_the_neurons(name):
    counted = []
    for scale in (1, 3):
        if name == "dense":
            sites = dense((20, 100 * scale, 100 * scale, 3))
        else:
            side = 8 * scale
            op = conv(8, 1, 3, pad=1)
            nodes = (Node("c", op, ("in",)), Node("r", Relu(), ("c",)), Node("d", conv(8, 8, 3, pad=1), ("r",)))
            sites = Sites(Network("in", (1, 1, side, side), (*nodes, Node("s", Relu(), ("d",))), "s"))
        neurons = sum(sites.size(site) for site in ("h1", "h2"))
        x = np.random.default_rng(0).normal(size=(64, sites.size("x")))
        pairs = choose_pairs(Stream(sites, x), Grid(("h1", "h2")), np.arange(64) % 2)
        counted.append((neurons, sum(len(one.i) for one in pairs)))
    (few, some), (many, more) = counted
    assert some > 4 * few and np.log(more / some) / np.log(many / few) <= 1.05
