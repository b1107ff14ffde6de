"""Passes over the reduced network agree with passes over the network itself, in value, gradient and scores."""

from dataclasses import replace

import pytest
import torch
from laws.queries import random_query
from torch import Tensor

from verifier.engines import climbing, planes
from verifier.engines.bound import Bounder, bound_goals, start_batch, tighten
from verifier.engines.branching import split_scores
from verifier.engines.climbing import acting, climb, evaluate, with_branches
from verifier.engines.problem import Batch, GoalRow, Group, groups
from verifier.engines.reduced import Reduced, gradients, passed
from verifier.engines.reduced_bounds import bound_entries
from verifier.engines.subproblems import (
    Roots,
    Subproblems,
    bounds_of,
    children,
    exact_where_linear,
    pushed,
    roots_of,
    start,
    whole,
)
from verifier.evaluate import evaluate as values_at

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
    subs = start(single, goals, range(len(rows)))
    for _ in range(depth):
        subs, _ = with_branches(single, subs, 3)
        subs = subs.take(subs.branches[:, 0] >= 0)
        subs = pushed(single, children(single, subs, torch.zeros(len(subs), dtype=torch.long)))
        subs = subs.take(~subs.bound.isinf())
    return (roots, mixed(single, subs)) if len(subs) else None


def mixed(roots: Roots, subs: Subproblems) -> Subproblems:
    torch.manual_seed(1)
    below, above = acting(subs)
    # half precision and 255ths, as they are stored
    subs = replace(
        subs,
        shares=(torch.rand(subs.shares.shape) * planes.WHOLE).byte(),
        weights=torch.rand_like(subs.weights).half().float(),
    )
    multipliers = torch.randn_like(subs.multipliers)
    subs = replace(
        subs,
        slopes=torch.rand_like(subs.slopes),
        relations=torch.rand_like(subs.relations) * (not roots.relations_are_goals),
        multipliers=multipliers.clamp(min=0) * below + multipliers.clamp(max=0) * above,
    )
    return exact_where_linear(roots, subs)


CASES = [(kind, seed) for kind in RELU_KINDS for seed in range(8)]


def test_there_is_something_to_compare() -> None:
    found = [planted(kind, seed) for kind, seed in CASES]
    assert sum(case is not None for case in found) > len(CASES) // 3
    assert any(case is not None and case[1].relations.any() for case in found)
    assert any(case is not None and bool(case[0].free.any()) for case in found)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_bounds_and_gradients_agree_with_the_whole_network(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "SOFT", 1e-9)
    monkeypatch.setattr(planes, "quantised", lambda shares: shares * planes.WHOLE)
    case = planted(kind, seed)
    if case is None:
        return
    roots, subs = case
    assert roots.reduced is not None
    point = climbing._point(roots.reduced, subs)
    found = passed(roots.reduced, point, roots.reduced.goal[subs.tree])
    own = gradients(roots.reduced, point, found)
    exact, wide = unpushed(roots, subs)
    leaves = [p.clone().requires_grad_() for p in (wide.slopes, wide.multipliers, wide.relations)]
    used = climbing._used(exact, wide)
    choices = climbing._choices(exact, (leaves[0], leaves[1], leaves[2]), acting(wide), used)
    of_planes = [wide.shares.double().requires_grad_(), wide.weights.clone().requires_grad_()]
    choices = replace(choices, planes=planes.planes_of(exact.fans, bounds_of(exact, wide), *of_planes))
    value = climbing._value(climbing._problem(exact, wide), choices)
    assert close(found.bounds, value.detach())
    of_slopes, of_multipliers, of_relations, *expected = torch.autograd.grad(
        value.sum(), [*leaves, *of_planes], allow_unused=True
    )
    if of_slopes is not None:
        assert close(own.slopes, of_slopes[:, roots.reduced.sloped])
    if of_multipliers is not None:
        moves = subs.multipliers != 0
        assert close(own.multipliers * moves, of_multipliers[:, roots.reduced.watched] * moves)
    if of_relations is not None:
        assert close(own.relations, of_relations)
    if roots.fans:
        assert own.shares is not None and own.weights is not None
        assert close(own.shares, expected[0] * planes.WHOLE) and close(own.weights, expected[1])


def unpushed(roots: Roots, subs: Subproblems) -> tuple[Roots, Subproblems]:
    """The roots and the subproblems on all axes, with the bounds of the subproblems as they are."""
    assert roots.reduced is not None
    exact = replace(roots, reduced=None)
    wide = whole(exact, roots.reduced, subs)
    low, high = (side[subs.tree] for side in exact.known)
    low[:, roots.reduced.watched], high[:, roots.reduced.watched] = subs.low.double(), subs.high.double()
    slopes = wide.slopes.clone()
    slopes[:, roots.reduced.sloped] = subs.slopes.double()
    return exact, exact_where_linear(exact, replace(wide, low=low, high=high, slopes=slopes))


def close(single: Tensor, double: Tensor) -> bool:
    return torch.allclose(single.double(), double, rtol=1e-3, atol=1e-3 * (1 + float(double.abs().max())))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_scores_agree_and_climbing_never_loses(kind: str, seed: int) -> None:
    case = planted(kind, seed)
    if case is None:
        return
    roots, subs = case
    single = roots.to(torch.float32)
    assert single.reduced is not None
    # multipliers on the bounds of a Relu's output act before its line: the score by the whole network leaves them out
    subs = replace(subs, multipliers=torch.where(roots.free[single.reduced.watched], 0.0, subs.multipliers))
    exact, wide = unpushed(roots, subs)
    own, points = with_branches(single, subs, 1)
    scores = every_score(exact, wide)
    taken = scores.gather(1, single.reduced.watched[own.branches.clamp(min=0)])
    assert close(torch.where(own.branches < 0, 0.0, taken), scores.amax(1, keepdim=True))
    assert bool(((points >= roots.box[0][subs.tree] - 1e-5) & (points <= roots.box[1][subs.tree] + 1e-5)).all())
    before = evaluate(single, subs)
    subs = replace(subs, bound=before)
    after = climb(single, subs, steps=5, target=torch.inf, out_of_time=lambda: False)
    assert bool((after.bound >= before).all())
    assert close(after.bound, evaluate(*unpushed(roots, after)))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_what_is_made_whole_keeps_every_sample_of_the_subproblem(kind: str, seed: int) -> None:
    case = planted(kind, seed)
    if case is None:
        return
    roots, subs = case
    exact = replace(roots, reduced=None)
    wide = whole(exact, roots.reduced, subs)
    assert roots.reduced is not None
    assert bool((wide.low[:, roots.reduced.watched] >= subs.low.double()).all())
    assert bool((wide.high[:, roots.reduced.watched] <= subs.high.double()).all())
    torch.manual_seed(seed)
    for k, tree in enumerate(subs.tree.tolist()):
        low, high = (side[tree] for side in roots.box)
        points = low + (high - low) * torch.rand(2000, len(low), dtype=torch.float64)
        every = values_at(roots.network, points)
        reached = torch.cat([every[v].flatten(1) for v in roots.watched.names], 1)
        at = reached[:, roots.reduced.watched]
        reached = reached[((at >= subs.low[k]) & (at <= subs.high[k])).all(1)]
        assert bool((reached >= wide.low[k] - 1e-9).all()) and bool((reached <= wide.high[k] + 1e-9).all())


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_bounds_of_neurons_over_the_reduced_network_hold_and_gain(kind: str, seed: int) -> None:
    batch = start_batch(groups(random_query(kind, seed=seed)))
    batch = replace(batch, groups=tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups))
    if bool(batch.empty.any()):
        return
    reduced = roots_of(batch).reduced
    assert reduced is not None
    plain, climbed = tighten(batch), tighten(batch, steps=6, bound=bounder(reduced, batch))
    torch.manual_seed(seed)
    low, high = batch.bounds[batch.network.input]
    for b in range(len(batch.groups)):
        points = low[b] + (high[b] - low[b]) * torch.rand(2000, low.shape[1], dtype=torch.float64)
        every = values_at(batch.network, points)
        allowed = within(batch, b, every)
        for v, (least, greatest) in climbed.bounds.items():
            reached = every[v].flatten(1)[allowed]
            assert bool((reached >= least[b] - 1e-9).all()) and bool((reached <= greatest[b] + 1e-9).all())
    size = {k: sum(float((high - low).sum()) for low, high in side.bounds.values()) for k, side in enumerate((plain, climbed))}
    assert size[1] <= size[0] * 1.01


def bounder(reduced: Reduced, batch: Batch) -> Bounder:
    trees = torch.arange(len(batch.groups))
    return lambda own, value, columns, steps, out: bound_entries(
        reduced, own, value, columns, steps=steps, out_of_time=out, trees=trees
    )


def within(batch: Batch, b: int, every: dict[str, Tensor]) -> Tensor:
    """Which samples satisfy the common atoms of a group."""
    holds = torch.ones(len(every[batch.network.input]), dtype=torch.bool)
    for atom in batch.groups[b].common:
        total = sum((float(t.coefficient) * every[t.value].flatten(1)[:, t.index] for t in atom.terms), torch.tensor(0.0))
        holds &= total + float(atom.bias) <= 0
    return holds


def every_score(whole: Roots, subs: Subproblems) -> Tensor:
    problem, choices = climbing._problem(whole, subs), climbing._choices_of(whole, subs)
    seen: dict[str, Tensor] = {}
    climbing._value(problem, choices, seen)
    found = split_scores(whole.network, problem.bounds, seen, choices)
    return torch.cat([found.get(v, torch.zeros(len(subs), n)) for v, n in zip(*layout(whole), strict=True)], 1)


def layout(roots: Roots) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return roots.watched.names, roots.watched.sizes


def test_networks_with_other_nodes_are_not_reduced() -> None:
    batch = start_batch(groups(random_query("leaky", seed=0)))
    batch = replace(batch, groups=tuple(Group(g.query, g.disjuncts, g.common, g.goals[:1]) for g in batch.groups))
    assert roots_of(batch).reduced is None


@pytest.mark.parametrize(("kind", "seed"), CASES[::3])
def test_choices_climb_on_below_a_bound_that_was_inherited(kind: str, seed: int) -> None:
    """Else a child begins each time anew from choices that bounds proved again have made worse."""
    case = planted(kind, seed)
    if case is None:
        return
    roots, subs = case
    for own, there in ((roots.to(torch.float32), subs), unpushed(roots, subs)):
        alone = replace(there, bound=torch.full_like(there.bound, -torch.inf))
        free = climb(own, alone, steps=8, target=torch.inf, out_of_time=lambda: False)
        inherited = replace(there, bound=free.bound + 1)
        found = climb(own, inherited, steps=8, target=torch.inf, out_of_time=lambda: False)
        assert torch.equal(found.bound, inherited.bound)
        assert torch.equal(evaluate(own, found), evaluate(own, free))
        assert bool((evaluate(own, found) >= evaluate(own, there)).all())


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_children_under_a_positive_coefficient_begin_from_their_parents_bound(kind: str, seed: int) -> None:
    case = planted(kind, seed)
    if case is None:
        return
    single = case[0].to(torch.float32)
    subs, _ = with_branches(single, case[1], 8)
    before = evaluate(single, subs)
    for k in range(subs.branches.shape[1]):
        after = evaluate(single, children(single, subs, torch.full((len(subs),), k))).view(2, -1)
        seeded = (subs.branches[:, k] >= 0) & (subs.seeds[:, k] != 0).any(1)
        assert bool((after >= before - 1e-4 * (1 + before.abs()))[:, seeded].all())


def test_some_children_are_seeded_on_either_side() -> None:
    found = [planted(kind, seed) for kind, seed in CASES]
    seeds = [with_branches(case[0].to(torch.float32), case[1], 8)[0].seeds for case in found if case is not None]
    assert all(any(bool((s[..., side] != 0).any()) for s in seeds) for side in (0, 1))
