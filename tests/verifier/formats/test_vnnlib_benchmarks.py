"""Every benchmark file is read, and means what a plain evaluator of its s-expressions says it means."""

import csv
import gzip
import os
import re
from fractions import Fraction
from functools import cache
from operator import ge, gt, le, lt
from pathlib import Path

import numpy as np
import pytest

from verifier.errors import VerifierError
from verifier.evaluate import evaluate
from verifier.formats import read_network
from verifier.formats.vnnlib import read_vnnlib
from verifier.formula import holds
from verifier.network import Network, Node
from verifier.ops import Linear
from verifier.query import Query
from verifier.region import constraints, exact_bounds, outer_bounds

BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", Path(__file__).parents[4] / "shared" / "benchmarks"))
FOLDERS = sorted(path.parent.name for path in BENCHMARKS.glob("*/instances.csv"))
COMPARE = {"<=": le, ">=": ge, "<": lt, ">": gt}
COMBINE = {"and": all, "or": any}


def instances(folder: str) -> dict[Path, Path]:
    """The network of the first instance of each query file."""
    pairs: dict[Path, Path] = {}
    with (BENCHMARKS / folder / "instances.csv").open() as file:
        for network, query, *_ in csv.reader(file):
            pairs.setdefault(stored(folder, query), stored(folder, network))
    return pairs


def stored(folder: str, name: str) -> Path:
    path = BENCHMARKS / folder / name
    return path if path.exists() else path.with_name(path.name + ".gz")


@cache
def network_of(path: Path, query: Path) -> Network:
    """The network, or where it has an operator that is not read, a linear one with as many inputs and outputs."""
    try:
        return read_network(path)
    except VerifierError:
        inputs, outputs = (len(re.findall(rf"declare-const {letter}_", text_of(query))) for letter in "XY")
        return Network("x", (inputs,), (Node("y", Linear(np.ones((outputs, inputs)), np.zeros(outputs)), ("x",)),), "y")


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def judge(path: Path):
    """A function from the entries of X and Y to the truth of the file's assertions, in rational arithmetic."""
    tokens = re.findall(r"[()]|[^\s()]+", re.sub(";.*", "", text_of(path)))
    stack: list[list] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    asserted = [command[1] for command in stack[0] if command[0] == "assert"]
    return lambda entries: all(truth(part, entries) for part in asserted)


def truth(part, entries):
    if isinstance(part, str):
        return entries[part] if part in entries else Fraction(part)
    head, *rest = part
    if head in COMBINE:
        return COMBINE[head](truth(p, entries) for p in rest)
    values = [truth(p, entries) for p in rest]
    if head in COMPARE:
        return COMPARE[head](*values)
    if head == "+":
        return sum(values)
    if head == "*":
        return np.prod(values)
    return -values[0] if len(values) == 1 else values[0] - sum(values[1:])


def samples(query: Query, count: int, generator: np.random.Generator) -> np.ndarray:
    """Points in and just around the box, some at its corners."""
    lower, upper = outer_bounds(query.region)
    share = generator.random((count, lower.size))
    share[::4] = share[::4].round()
    share[1::8] += generator.choice([0, 0.01], share[1::8].shape, p=[0.99, 0.01])
    return np.where(share == 1, upper, lower + share * (upper - lower))


def outputs(query: Query, points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """What the network gives there, moved about and shuffled, and some of the numbers that the assertion speaks of."""
    network = query.network
    values = (
        evaluate(network, points.astype(np.float64), keep=[network.output])[network.output].reshape(len(points), -1).numpy()
    )
    noisy = values + generator.normal(size=values.shape) * generator.choice([0, 1, 100], (len(points), 1))
    edges = [float(-a.bias) for d in query.disjuncts[:20] for a in d if a.bias] or [0.0]
    return np.where(
        generator.random(values.shape) < 0.2, generator.choice(edges, values.shape), generator.permuted(noisy, axis=1)
    )


def same_meaning(path: Path, query: Query, generator: np.random.Generator) -> set[bool]:
    """Compare truth on samples; which truth values occurred."""
    network, said = query.network, judge(path)
    lower, upper = exact_bounds(query.region)
    count = 1000 if len(lower) < 50 else 60
    points = samples(query, count, generator)
    seen = set()
    for x, y in zip(points.tolist(), outputs(query, points, generator).tolist(), strict=True):
        xs, ys = [Fraction(v) for v in x], [Fraction(v) for v in y]
        if count < 1000:  # with hundreds of inputs hardly a sample would lie in the box
            xs = [min(max(v, lo), hi) for lo, v, hi in zip(lower, xs, upper, strict=True)]
        entries = {f"X_{i}": v for i, v in enumerate(xs)} | {f"Y_{i}": v for i, v in enumerate(ys)}
        values = {network.input: xs, network.output: ys}
        inside = all(lo <= v <= hi for lo, v, hi in zip(lower, xs, upper, strict=True))
        mine = inside and all(holds(c, values) for c in constraints(query.region)) and holds(query.assertion, values)
        assert mine == said(entries), (path, xs, ys)
        seen.add(mine)
    return seen


@pytest.mark.benchmarks
@pytest.mark.parametrize("folder", FOLDERS)
def test_files_mean_what_they_say(folder):
    generator = np.random.default_rng(7)
    seen: set[bool] = set()
    pairs = instances(folder)
    for number, (path, network_path) in enumerate(pairs.items()):
        network = network_of(network_path, path)
        query = read_vnnlib(path, network)
        assert query.region.size == network.size(network.input) and query.disjuncts
        if number < (10 if query.region.size < 50 else 2):
            seen |= same_meaning(path, query, generator)
    network_of.cache_clear()
    assert len(pairs) and (seen == {True, False} or folder == "test"), f"only {seen} among the samples of {folder}"
