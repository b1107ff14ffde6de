"""Passing on what is on, and multiplying it out, make the same bounds."""

from dataclasses import replace

import pytest
import torch
from laws.queries import random_query

from verifier.engines.bound import bound_goals, start_batch
from verifier.engines.climbing import evaluate
from verifier.engines.problem import GoalRow, Group, groups
from verifier.engines.subproblems import roots_of, start

CASES = [(kind, seed) for kind in ("deep", "conv2d", "residual") for seed in range(12)]


def both(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch):
    """Roots with what is on passed on, those with it multiplied out, and the subproblems of the former."""
    batch = start_batch(groups(random_query(kind, seed=seed)))
    firsts = tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups)
    batch = replace(batch, groups=firsts)
    if bool(batch.empty.any()):
        return None
    goals = bound_goals(batch, [GoalRow(k, g.goals[0]) for k, g in enumerate(firsts)], steps=2, target=torch.inf)
    merged = roots_of(batch, merged=True)
    with monkeypatch.context() as patch:
        patch.setattr("verifier.engines.reduction._Left.multiplied_out", float("inf"))
        passing = roots_of(batch)
    return passing, merged, start(passing, goals, range(len(firsts)))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_the_bounds_are_the_same(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = both(kind, seed, monkeypatch)
    if found is None or found[0].reduced is None:
        return
    passing, merged, subs = found
    assert torch.equal(passing.reduced.watched, merged.reduced.watched)
    one, other = (evaluate(roots.to(torch.float32), subs) for roots in (passing, merged))
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * (1 + float(other.abs().max())))


def test_some_have_neurons_that_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [both(kind, seed, monkeypatch) for kind, seed in CASES]
    pairs = [(a.reduced, b.reduced) for a, b, _ in filter(None, found) if a.reduced is not None]
    assert any(one.width > other.width for one, other in pairs)
    assert all(other.width == len(other.read) for _, other in pairs)


def test_the_cheaper_way_is_taken() -> None:
    taken = {True: 0, False: 0}
    for kind, seed in CASES:
        batch = start_batch(groups(random_query(kind, seed=seed)))
        firsts = tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups)
        reduced = roots_of(replace(batch, groups=firsts)).reduced
        if reduced is not None:
            taken[reduced.width == len(reduced.read)] += 1
    assert taken[True] and taken[False], "nothing to choose between"


def test_what_is_too_large_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = start_batch(groups(random_query("deep", seed=1)))
    firsts = tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups)
    batch = replace(batch, groups=firsts)
    assert roots_of(batch).reduced is not None
    for limit in ("MOST_FORMED", "MOST_WORK"):
        with monkeypatch.context() as patch:
            patch.setattr(f"verifier.engines.reduction.{limit}", 1)
            assert roots_of(batch).reduced is None
    with monkeypatch.context() as patch:
        patch.setattr("verifier.engines.reduction.MOST_MERGED", -1)
        assert roots_of(batch, merged=True).reduced is None
        assert roots_of(batch).reduced is not None
