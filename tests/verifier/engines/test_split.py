"""Branch and bound on cases: every tree is accepted by the kernel, and no verdict contradicts Z3 or samples."""

import time
from dataclasses import replace

import numpy as np
import pytest
from laws.networks import KINDS, Weights, chain
from laws.queries import random_query
from torch import Tensor

from verifier.certificate import Certificate, ProofNode
from verifier.check import check
from verifier.domains.optimise import Optimised
from verifier.engines import split
from verifier.engines.bound import start_batch
from verifier.engines.points import point_test
from verifier.engines.problem import Searched, groups
from verifier.engines.smt import decide_smt
from verifier.evaluate import evaluate
from verifier.formula import at_least
from verifier.ops import LeakyRelu
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify
from verifier.verdict import Proved, Refuted


def search(query: Query) -> Searched:
    """Branch and bound from interval bounds alone, so that there is something to split."""
    batch = start_batch(groups(query))
    test = point_test(query)

    def try_points(_: int, points: Tensor) -> bool:
        return test(points) is not None

    left = {k: frozenset(group.disjuncts) for k, group in enumerate(batch.groups)}
    return split.branch_and_bound(batch, left, {}, target=1e-9, out_of_time=lambda: False, try_points=try_points)


def accepted(query: Query, found: Searched) -> bool:
    parts = tuple(part for k in sorted(found.parts) for part in found.parts[k])
    return check(query, Certificate(query.network.sha256, query.sha256, parts)).accepted


@pytest.mark.parametrize("rounds", [(), (3,)])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_z3_and_its_trees_are_accepted(kind: str, rounds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "NEURON_STEPS", rounds)
    for seed in range(4):
        query = random_query(kind, seed=seed)
        found = search(query)
        judged = decide_smt(query, timeout_s=10).verdict
        if found.refuted:
            assert not isinstance(judged, Proved), (kind, seed)
        elif not found.open_bounds:
            assert not isinstance(judged, Refuted), (kind, seed)
            assert accepted(query, found), (kind, seed)


def depth(node: ProofNode) -> int:
    return 0 if node.split is None else 1 + max(depth(node.split.low), depth(node.split.high))


def test_splits_are_taken_and_a_tree_that_lost_a_leaf_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "NEURON_STEPS", ())
    taken = 0
    for seed in range(40):
        query = random_query("deep", seed=seed, hidden=False)
        found = search(query)
        for parts in found.parts.values():
            for part in parts:
                if depth(part.root):
                    taken += 1
                    cut = replace(part.root, split=replace(part.root.split, low=ProofNode()))
                    broken = replace(part, root=cut)
                    assert not check(query, Certificate(query.network.sha256, query.sha256, (broken,))).accepted
    assert taken > 0


def inner_steps(node: ProofNode, *, root: bool = True) -> int:
    below = () if node.split is None else (node.split.low, node.split.high)
    return (0 if root else len(node.steps)) + sum(inner_steps(child, root=False) for child in below)


def test_neurons_bounded_again_inside_a_tree_are_proved_by_steps_that_the_kernel_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(split, "NEURON_STEPS", ())
    monkeypatch.setattr(split, "STALE", 1)
    monkeypatch.setattr(split, "SHARE", float("inf"))
    monkeypatch.setattr(split, "STEPS", 1)
    monkeypatch.setattr(split, "ROOT_STEPS", 0)
    taken = 0
    for seed in range(20):
        query = random_query("deep", seed=seed)
        found = search(query)
        if not (found.refuted or found.open_bounds):
            own = sum(inner_steps(part.root) for parts in found.parts.values() for part in parts)
            taken += own > 0
            assert accepted(query, found), seed
    assert taken


def test_a_slow_machine_makes_the_same_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded again, and when, hangs on counted work: making one kind of it slow changes nothing."""
    monkeypatch.setattr(split, "NEURON_STEPS", ())
    monkeypatch.setattr(split, "STALE", 1)
    monkeypatch.setattr(split, "SHARE", 3.0)
    monkeypatch.setattr(split, "ROOT_STEPS", 0)
    monkeypatch.setattr(split, "STEPS", 1)
    original = split.bound_entries

    def slowly(*args: object, **options: object) -> Optimised:
        slow.append(time.sleep(0.02))
        return original(*args, **options)  # type: ignore[arg-type]

    slow: list[None] = []
    compared = 0
    for seed in range(20):
        query = random_query("deep", seed=seed)
        monkeypatch.setattr(split, "bound_entries", original)
        quick = search(query)
        monkeypatch.setattr(split, "bound_entries", slowly)
        again = search(query)
        assert (again.splits, again.refuted, dict(again.open_bounds)) == (quick.splits, quick.refuted, dict(quick.open_bounds))
        compared += sum(quick.splits.values())
    assert slow and compared


def test_a_search_ends_after_so_many_splits() -> None:
    cut = 0
    for seed in range(12):
        query = random_query("deep", seed=seed)
        batch = start_batch(groups(query))
        left = {k: frozenset(group.disjuncts) for k, group in enumerate(batch.groups)}
        found = split.branch_and_bound(
            batch, left, {}, target=1e-9, out_of_time=lambda: False, try_points=lambda g, p: False, most_splits=1
        )
        assert set(found.open_bounds) | set(found.parts) == set(left)
        cut += bool(found.open_bounds)
        whole = search(query)
        assert whole.refuted or whole.open_bounds or sum(found.splits.values()) <= sum(whole.splits.values())
    assert cut


def test_time_that_is_up_takes_no_split_and_accounts_for_every_group() -> None:
    opened = 0
    for seed in range(6):
        query = random_query("deep", seed=seed)
        batch = start_batch(groups(query))
        left = {k: frozenset(group.disjuncts) for k, group in enumerate(batch.groups)}
        found = split.branch_and_bound(batch, left, {}, target=1e-9, out_of_time=lambda: True, try_points=lambda g, p: False)
        assert set(found.open_bounds) | set(found.parts) == set(left)
        assert not any(found.splits.values())
        opened += len(found.open_bounds)
    assert opened > 0


def test_slopes_in_half_precision_stay_within_a_leaky_relus_limits() -> None:
    """0.1 is rounded down to 0.09998 in half precision, which a replay refuses."""
    w = Weights(3, grid=False)
    network = chain((1, 3), w.linear(3, 8), LeakyRelu(0.1), w.linear(8, 8), LeakyRelu(0.1), w.linear(8, 1))
    points = np.random.default_rng(3).uniform(-1, 1, (2000, 3))
    top = float(evaluate(network, points)[network.output].max())
    query = Query(network, Box(-np.ones(3), np.ones(3)), at_least(network.output, 0, 1.3 * top + 0.3))
    decision = verify(query, engine="split", timeout_s=60)
    assert isinstance(decision.verdict, Proved), decision.verdict
