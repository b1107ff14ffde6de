"""Candidates against neurons, for dense and convolutional networks of a thousand to a million neurons. Run by `make bench`."""

import time
from itertools import pairwise

import numpy as np
import pytest

from specmine.predicates.families import candidates
from specmine.predicates.families.ternary import triples_of
from specmine.predicates.form import Grid
from specmine.predicates.screening import choose_pairs
from specmine.tracing import Sites
from specmine.tracing.stream import Stream
from verifier.network import Network, Node
from verifier.ops import Conv, Linear, Relu, Reshape

pytestmark = pytest.mark.bench

SAMPLES, EXPONENT = 64, 1.05
FAMILIES = ("unary", "binary", "ternary")
LISTED = 10_000
"""Up to so many neurons the candidates themselves are made and counted; beyond it the pairs and triples they come from."""


def dense(neurons: int) -> Sites:
    """Layers of at most a thousand neurons; those of one width share their weights."""
    width = min(1000, neurons // 4)
    rng = np.random.default_rng(0)
    first, inner = (Linear(rng.normal(size=(width, n)) / n**0.5, np.zeros(width)) for n in (16, width))
    nodes, last = [], "in"
    for depth in range(neurons // width):
        nodes += [Node(f"l{depth}", inner if depth else first, (last,)), Node(f"r{depth}", Relu(), (f"l{depth}",))]
        last = f"r{depth}"
    nodes.append(Node("out", Linear(rng.normal(size=(2, width)), np.zeros(2)), (last,)))
    return Sites(Network("in", (1, 16), tuple(nodes), "out"))


def convolutional(neurons: int) -> Sites:
    """Two layers of eight channels, windows of 3x3."""
    side = round((neurons / 16) ** 0.5)
    rng = np.random.default_rng(0)
    same = ((1, 1), (1, 1))
    nodes, last, channels = [], "in", 1
    for depth in range(2):
        op = Conv(rng.normal(size=(8, channels, 3, 3)), np.zeros(8), (1, 1), same, (1, 1), 1)
        nodes += [Node(f"c{depth}", op, (last,)), Node(f"r{depth}", Relu(), (f"c{depth}",))]
        last, channels = f"r{depth}", 8
    nodes.append(Node("flat", Reshape((1, 8 * side * side)), (last,)))
    nodes.append(Node("out", Linear(rng.normal(size=(2, 8 * side * side)), np.zeros(2)), ("flat",)))
    return Sites(Network("in", (1, 1, side, side), tuple(nodes), "out"))


@pytest.mark.parametrize("build", [dense, convolutional])
def test_candidates_against_neurons(build):
    print(f"\n{build.__name__:14} {'neurons':>9} {'pairs':>10} {'triples':>10} {'candidates':>11} {'CPU s':>7}")
    rows = []
    for size in (10**3, 10**4, 10**5, 10**6):
        sites = build(size)
        neurons = sum(sites.size(site) for site in sites.hidden)
        x = np.random.default_rng(1).normal(size=(SAMPLES, sites.size("x")))
        heads, grid, begin = np.arange(SAMPLES) % 2, Grid(sites.hidden, thresholds=2, head_levels=(0.0,)), time.process_time()
        pairs = choose_pairs(Stream(sites, x), grid, heads)
        paired, triples = sum(len(p.i) for p in pairs), sum(len(triples_of(p).neurons) for p in pairs)
        seconds = time.process_time() - begin
        listed = len(candidates(FAMILIES, Stream(sites, x), grid=grid, heads=heads)) if size <= LISTED else None
        rows.append((neurons, paired, triples, listed))
        shown = "-" if listed is None else str(listed)
        print(f"{'':14} {neurons:9} {paired:10} {triples:10} {shown:>11} {seconds:7.1f}")
    for column in (1, 2, 3):
        made = [(row[0], row[column]) for row in rows if row[column] is not None]
        growth = [np.log(b / a) / np.log(n / m) for (m, a), (n, b) in pairwise(made)]
        whole = np.log(made[-1][1] / made[0][1]) / np.log(made[-1][0] / made[0][0])
        print(f"{'':14} exponent of {('pairs', 'triples', 'candidates')[column - 1]}: {whole:.3f}, at most {max(growth):.3f}")
        assert whole <= EXPONENT
