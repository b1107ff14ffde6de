"""Passes over the reduced network agree with passes over the network itself, in value, gradient and scores."""

from dataclasses import replace

import pytest
import torch
from laws.queries import random_query
from torch import Tensor

from verifier.engines import subproblems
from verifier.engines.bound import bound_goals, start_batch
from verifier.engines.branching import split_scores
from verifier.engines.problem import GoalRow, Group, groups
from verifier.engines.reduced import gradients, passed
from verifier.engines.subproblems import Roots, Subproblems, children, climb, evaluate, pushed, roots_of, start, with_branches

RELU_KINDS = ("deep", "conv2d", "residual")


def planted(kind: str, seed: int, *, depth: int = 2) -> tuple[Roots, Subproblems] | None:
    """Trees of a random query split a few times, with random choices; None where there is nothing to split."""
    batch = start_batch(groups(random_query(kind, seed=seed)))
    firsts = tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups)
    batch = replace(batch, groups=firsts)
    rows = [GoalRow(k, g.goals[0]) for k, g in enumerate(firsts)]
    goals = bound_goals(batch, rows, steps=2, target=torch.inf)
    roots = roots_of(batch)
    if roots.reduced is None or bool(batch.empty.any()):
        return None
    single = roots.to(torch.float32)
    subs = start(batch, single, goals, range(len(rows)))
    for _ in range(depth):
        subs, _ = with_branches(single, subs, 3)
        subs = subs.take(subs.branches[:, 0] >= 0)
        subs = pushed(single, children(single, subs, torch.zeros(len(subs), dtype=torch.long)))
        subs = subs.take(~subs.bound.isinf())
    return (roots, mixed(single, subs)) if len(subs) else None


def mixed(roots: Roots, subs: Subproblems) -> Subproblems:
    torch.manual_seed(0)
    below, above = subproblems._sides(subs)
    multipliers = torch.randn_like(subs.multipliers)
    subs = replace(
        subs,
        slopes=torch.rand_like(subs.slopes),
        relations=torch.rand_like(subs.relations),
        multipliers=multipliers.clamp(min=0) * below + multipliers.clamp(max=0) * above,
    )
    return subproblems.exact_where_linear(roots, subs)


CASES = [(kind, seed) for kind in RELU_KINDS for seed in range(8)]


def test_there_is_something_to_compare() -> None:
    found = [planted(kind, seed) for kind, seed in CASES]
    assert sum(case is not None for case in found) > len(CASES) // 3
    assert any(case is not None and case[1].relations.shape[1] for case in found)
    assert any(case is not None and bool(case[0].free.any()) for case in found)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_bounds_and_gradients_agree_with_the_whole_network(kind: str, seed: int) -> None:
    case = planted(kind, seed)
    if case is None:
        return
    roots, subs = case
    assert roots.reduced is not None
    point = subproblems._point(roots.reduced, subs)
    found = passed(roots.reduced, point)
    own = gradients(roots.reduced, point, found)
    wide = subs.to(torch.float64)
    leaves = [p.clone().requires_grad_() for p in (wide.slopes, wide.multipliers, wide.relations)]
    used = subproblems._used(roots, wide)
    choices = subproblems._choices(roots, (leaves[0], leaves[1], leaves[2]), subproblems._sides(wide), used)
    value = subproblems._value(subproblems._problem(roots, wide), choices)
    assert close(found.bounds, value.detach())
    of_slopes, of_multipliers, of_relations = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    if of_slopes is not None:
        assert close(own[0], of_slopes[:, roots.reduced.sloped])
    if of_multipliers is not None:
        acting = wide.multipliers[:, roots.reduced.watched] != 0
        assert close(own[1] * acting, of_multipliers[:, roots.reduced.watched] * acting)
    if of_relations is not None:
        assert close(own[2], of_relations)


def close(single: Tensor, double: Tensor) -> bool:
    return torch.allclose(single.double(), double, rtol=1e-3, atol=1e-3 * (1 + float(double.abs().max())))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_scores_agree_and_climbing_never_loses(kind: str, seed: int) -> None:
    case = planted(kind, seed)
    if case is None:
        return
    roots, subs = case
    single = roots.to(torch.float32)
    whole = replace(single, reduced=None)
    # multipliers on the bounds of a Relu's output act before its line: the score by the whole network leaves them out
    subs = replace(subs, multipliers=torch.where(roots.free, 0.0, subs.multipliers))
    (own, points), (_, others) = with_branches(single, subs, 1), with_branches(whole, subs, 1)
    scores = every_score(whole, subs)
    taken = scores.gather(1, own.branches.clamp(min=0))
    assert close(torch.where(own.branches < 0, 0.0, taken), scores.amax(1, keepdim=True).double())
    assert bool(((points >= roots.box[0][subs.tree] - 1e-5) & (points <= roots.box[1][subs.tree] + 1e-5)).all())
    assert points.shape == others.shape
    before = evaluate(single, subs)
    subs = replace(subs, bound=before)
    after = climb(single, subs, steps=5, target=torch.inf, out_of_time=lambda: False)
    assert bool((after.bound >= before).all())
    assert close(after.bound, evaluate(whole, after).double())


def every_score(whole: Roots, subs: Subproblems) -> Tensor:
    problem, choices = subproblems._problem(whole, subs), subproblems._choices_of(whole, subs)
    seen: dict[str, Tensor] = {}
    subproblems._value(problem, choices, seen)
    found = split_scores(whole.network, problem.bounds, seen, choices)
    return torch.cat([found.get(v, torch.zeros(len(subs), n)) for v, n in zip(*layout(whole), strict=True)], 1)


def layout(roots: Roots) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return roots.watched.names, roots.watched.sizes


def test_networks_with_other_nodes_are_not_reduced() -> None:
    batch = start_batch(groups(random_query("leaky", seed=0)))
    batch = replace(batch, groups=tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups))
    assert roots_of(batch).reduced is None
