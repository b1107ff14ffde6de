"""Branch and bound by linear programs: every tree is accepted by the kernel, and no verdict contradicts Z3."""

from collections.abc import Callable

import numpy as np
import pytest
from laws.judge import judge
from laws.networks import Weights, chain
from laws.queries import random_query
from torch import Tensor

from verifier.certificate import Certificate, ProofNode
from verifier.check import check
from verifier.engines.bound import start_batch
from verifier.engines.lp_tree import lp_search
from verifier.engines.points import point_test
from verifier.engines.problem import Searched, groups
from verifier.engines.split import branch_and_bound
from verifier.evaluate import evaluate
from verifier.formula import And, Or, at_least
from verifier.ops import Linear, Relu
from verifier.query import Query
from verifier.region import Box

KINDS = ("mlp", "deep", "conv2d", "residual")


def search(query: Query, *, engine: Callable[..., Searched] = lp_search, stop: bool = False) -> Searched:
    """From interval bounds alone, so that there is something to split."""
    batch = start_batch(groups(query))
    test = point_test(query)

    def try_points(_: int, points: Tensor) -> bool:
        return test(points) is not None

    left = {k: frozenset(group.disjuncts) for k, group in enumerate(batch.groups)}
    return engine(batch, left, {}, target=1e-9, out_of_time=lambda: stop, try_points=try_points)


def accepted(query: Query, found: Searched) -> bool:
    parts = tuple(part for k in sorted(found.parts) for part in found.parts[k])
    return check(query, Certificate(query.network.sha256, query.sha256, parts)).accepted


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_z3_and_its_trees_are_accepted(kind: str) -> None:
    proved = refuted = 0
    for seed in range(10):
        query = random_query(kind, seed=seed)
        found, judged = search(query), judge(query, timeout_s=10)
        if found.refuted:
            assert judged != "unsat", (kind, seed)
            refuted += 1
        elif not found.open_bounds:
            assert judged != "sat", (kind, seed)
            assert accepted(query, found), (kind, seed)
            proved += 1
    assert proved and proved + refuted >= 8


def hard(seed: int) -> Query:
    """One hidden layer on eight inputs, asked to pass all that five thousand points of the box reach, and a little more."""
    weights = np.random.default_rng(seed).normal(size=(32, 8)) / 3, np.random.default_rng(seed + 1).normal(size=(2, 32)) / 3
    network = chain((1, 8), Linear(weights[0], np.full(32, 0.1)), Relu(), Linear(weights[1], np.zeros(2)))
    points = np.random.default_rng(0).uniform(-1, 1, size=(5000, 8))
    reached = evaluate(network, points)[network.output].flatten(1).numpy().max(axis=0) * 1.6
    atoms = [at_least(network.output, k, float(top)) for k, top in enumerate(reached)]
    return Query(network, Box(-np.ones(8), np.ones(8)), Or(tuple(atoms)))


def nodes_of(node: ProofNode) -> list[ProofNode]:
    return [node] if node.split is None else [node, *nodes_of(node.split.low), *nodes_of(node.split.high)]


def test_trees_have_steps_below_the_root_and_are_smaller_than_without() -> None:
    query = hard(2)
    found, other = search(query), search(query, engine=branch_and_bound)
    assert not found.open_bounds and accepted(query, found)
    assert 0 < sum(found.splits.values()) < sum(other.splits.values())
    below = [n for parts in found.parts.values() for part in parts for n in nodes_of(part.root)[1:]]
    assert any(node.steps for node in below)
    assert [part.disjuncts for parts in found.parts.values() for part in parts] == [(0,), (1,)]


def test_a_tree_without_the_steps_below_its_root_is_not_accepted() -> None:
    query = hard(5)
    found = search(query)
    (part, *others) = found.parts[0]
    assert part.root.split is not None
    bare = ProofNode(part.root.steps, part.root.closed, None)
    parts = (type(part)(part.disjuncts, bare), *others)
    assert not check(query, Certificate(query.network.sha256, query.sha256, parts)).accepted


def test_points_of_programs_find_counterexamples() -> None:
    weights = Weights(3, grid=True)
    network = chain((1, 6), weights.linear(6, 12), Relu(), weights.linear(12, 2))
    points = np.random.default_rng(0).uniform(-1, 1, size=(5000, 6))
    reached = float(evaluate(network, points)[network.output].flatten(1)[:, 0].max())
    query = Query(network, Box(-np.ones(6), np.ones(6)), at_least(network.output, 0, reached))
    assert search(query).refuted == {0}


def test_without_time_and_without_relus_everything_stays_open() -> None:
    assert set(search(hard(5), stop=True).open_bounds) == {0}
    other = random_query("sigmoids", seed=0)
    assert not search(other).parts and not search(other).refuted


def test_a_search_ends_after_so_many_splits_and_tells_its_bounds() -> None:
    every = hard(5)
    query = Query(every.network, every.region, And(every.disjuncts[0]))
    batch = start_batch(groups(query))
    left = {k: frozenset(group.disjuncts) for k, group in enumerate(batch.groups)}
    told: list[tuple[dict[int, float], int]] = []
    found = lp_search(
        batch,
        left,
        {},
        target=1e-9,
        out_of_time=lambda: False,
        try_points=lambda g, p: False,
        most_splits=3,
        report=lambda bounds, splits: told.append((dict(bounds()), splits)),
    )
    assert sum(search(query).splits.values()) > 3
    assert not found.parts and sum(found.splits.values()) == 3
    assert found.open_bounds[0] < 0
    assert [splits for _, splits in told] == sorted(splits for _, splits in told) and told[-1][1] <= 3
    bounds = [bounds[0] for bounds, _ in told]
    assert all(bound <= 1e-9 for bound in bounds) and max(bounds) > -np.inf
