"""Branch and bound on the phases of activations (METHODS 8), many subproblems at a time.

A leaf is a subproblem: the bounds of its group cut by the splits above it. Splitting an unstable neuron at zero makes its
activation linear on both sides; where nothing is left to split the leaf is a linear program, whose dual gives the multipliers
of a proof and whose optimum gives a point to try.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close, ProofNode, Split
from verifier.domains.linear import (
    Choices,
    Interval,
    chord,
    join,
    lower_bounds,
    select,
)
from verifier.domains.relaxations import activation_nodes
from verifier.engines.bound import Clock, bound_goals, closes, push
from verifier.engines.leaf import linear_program
from verifier.engines.problem import Batch, Goal, GoalRow, Goals, Searched, TryPoints, gather, goal_rows

LEAVES_AT_ONCE = 64
STEPS_PER_LEAF = 20
MAX_SPLITS = 100_000
LAST_RESORT = 1e-12

Bounds = Mapping[str, Interval]


@dataclass(eq=False)
class _Tree:
    """A proof node under construction."""

    closed: list[Close] = field(default_factory=list)
    split: tuple[str, int] | None = None
    low: "_Tree | None" = None
    high: "_Tree | None" = None


@dataclass(frozen=True, eq=False)
class _Leaf:
    """An open subproblem of a group: the disjuncts still to refute and the bounds, (1, size) each, that its splits give.

    warm: the parent's choices, (1, 1, ...), by goal; bound: the parent's bound.
    """

    group: int
    disjuncts: frozenset[int]
    bounds: Bounds
    tree: _Tree
    warm: Mapping[Goal, Choices] = field(default_factory=dict)
    bound: float = -np.inf


def branch_and_bound(
    batch: Batch,
    open_disjuncts: Mapping[int, frozenset[int]],
    closed: Mapping[int, Sequence[Close]],
    *,
    target: float,
    out_of_time: Clock,
    try_points: TryPoints,
) -> Searched:
    """Refute the open disjuncts of some groups of a batch, depth first.

    closed: what the root has refuted already, by group. try_points(group, points) is shown the inputs (points, size) at which
    open bounds are attained and says whether one of them is a counterexample, which ends that group.
    """
    trees = {g: _Tree(list(closed.get(g, ()))) for g in open_disjuncts}
    stack = [_Leaf(g, d, gather(batch.bounds, torch.tensor([g])), trees[g]) for g, d in open_disjuncts.items()]
    splits = dict.fromkeys(open_disjuncts, 0)
    lost: dict[int, float] = {}
    refuted: set[int] = set()
    while stack and not out_of_time():
        leaves, stack = stack[-LEAVES_AT_ONCE:], stack[:-LEAVES_AT_ONCE]
        for leaf, branch, points in _bound_leaves(batch, leaves, target, out_of_time):
            if leaf.group in refuted or leaf.group in lost:
                continue
            if try_points(leaf.group, points):
                refuted.add(leaf.group)
            elif branch is None or splits[leaf.group] >= MAX_SPLITS:
                lost[leaf.group] = leaf.bound
            else:
                splits[leaf.group] += 1
                stack.extend(_children(batch, leaf, *branch))
        stack = [leaf for leaf in stack if leaf.group not in refuted and leaf.group not in lost]
    for leaf in stack:
        lost[leaf.group] = min(leaf.bound, lost.get(leaf.group, np.inf))
    done = [g for g in trees if g not in lost and g not in refuted]
    proofs = {g: _finished(trees[g], batch, g) for g in done}
    return Searched(proofs, lost, frozenset(refuted), splits)


def _bound_leaves(
    batch: Batch, leaves: Sequence[_Leaf], target: float, out_of_time: Clock
) -> list[tuple[_Leaf, tuple[str, int] | None, Tensor]]:
    """Close what can be closed. Returns each leaf that stays open, where to split it (None if nowhere), points to try."""
    stacked = _stack(batch, leaves)
    rows = [
        GoalRow(k, goal)
        for k, leaf in enumerate(leaves)
        for goal in batch.groups[leaf.group].goals
        if goal.disjunct in leaf.disjuncts
    ]
    warm = _warm(leaves, rows)
    goals = bound_goals(stacked, rows, steps=STEPS_PER_LEAF, target=target, warm=warm, out_of_time=out_of_time)
    for (k, disjunct), close in closes(stacked, goals, target).items():
        leaves[k].tree.closed.append(close)
        leaves[k] = replace(leaves[k], disjuncts=leaves[k].disjuncts - {disjunct})  # type: ignore[index]
    return _open_leaves(stacked, leaves, goals, target)


def _open_leaves(
    stacked: Batch, leaves: Sequence[_Leaf], goals: Goals, target: float
) -> list[tuple[_Leaf, tuple[str, int] | None, Tensor]]:
    results = []
    seen, corners = _coefficients(stacked, goals)
    scores = _scores(stacked, goals, seen)
    for k, leaf in enumerate(leaves):
        own = [r for r, row in enumerate(goals.rows) if row.position == k and row.goal.disjunct in leaf.disjuncts]
        if not own:
            continue
        bounds = _disjunct_bounds(goals, own)
        worst = min(own, key=lambda r: float(goals.bounds[r]))
        warm = {goals.rows[r].goal: select(goals.choices, torch.tensor([r])) for r in own}
        leaf = replace(leaf, warm=warm, bound=min(bounds.values()))
        branch = _best_branch(scores, worst)
        points = corners[own]
        if branch is None:
            leaf, points = _finish_linear(stacked, leaf, k, goals, own, target)
        if leaf.disjuncts:
            results.append((leaf, branch, points))
    return results


def _finish_linear(
    stacked: Batch, leaf: _Leaf, k: int, goals: Goals, own: Sequence[int], target: float
) -> tuple[_Leaf, Tensor]:
    """Nothing to split: each goal is a linear program."""
    points = []
    for r in own:
        solved = linear_program(stacked, k, goals.rows[r].goal)
        if solved is None:
            continue
        points.append(solved.point)
        one = Goals((GoalRow(k, solved.goal),), solved.bound, solved.choices)
        for (_, disjunct), close in closes(stacked, one, target).items():
            if disjunct in leaf.disjuncts:
                leaf.tree.closed.append(close)
                leaf = replace(leaf, disjuncts=leaf.disjuncts - {disjunct})
    size = stacked.network.size(stacked.network.input)
    return leaf, torch.stack(points) if points else torch.zeros(0, size, dtype=torch.float64)


def _disjunct_bounds(goals: Goals, own: Sequence[int]) -> dict[int, float]:
    """The best goal of each disjunct."""
    best: dict[int, float] = {}
    for r in own:
        disjunct = goals.rows[r].goal.disjunct
        best[disjunct] = max(float(goals.bounds[r]), best.get(disjunct, -np.inf))
    return best


def _stack(batch: Batch, leaves: Sequence[_Leaf]) -> Batch:
    """The leaves as a batch of their own; multipliers are allowed wherever a split cuts."""
    bounds = {
        v: (torch.cat([leaf.bounds[v][0] for leaf in leaves]), torch.cat([leaf.bounds[v][1] for leaf in leaves]))
        for v in batch.bounds
    }
    positions = torch.tensor([leaf.group for leaf in leaves])
    inputs = {node.inputs[0] for node in activation_nodes(batch.network)}
    multiplied = tuple(v for v in batch.network.shapes if v in inputs or v in batch.multiplied)
    return Batch(
        batch.network,
        tuple(batch.groups[leaf.group] for leaf in leaves),
        bounds,
        torch.zeros(len(leaves), dtype=torch.bool),
        None if batch.atoms is None else batch.atoms.select(positions),
        multiplied,
        tuple(() for _ in leaves),
    )


def _warm(leaves: Sequence[_Leaf], rows: Sequence[GoalRow]) -> Choices | None:
    """The parents' choices for the rows, if all rows have them."""
    parts = [leaves[row.position].warm.get(row.goal) for row in rows]
    known = [part for part in parts if part is not None]
    return join(known) if len(known) == len(rows) else None


@torch.no_grad()
def _coefficients(stacked: Batch, goals: Goals) -> tuple[dict[str, Tensor], Tensor]:
    """The coefficient that each value received, and the corner of the input box at which each row's bound is attained."""
    positions = torch.tensor([row.position for row in goals.rows])
    own = gather(stacked.bounds, positions)
    seen: dict[str, Tensor] = {}
    atoms = None if stacked.atoms is None else stacked.atoms.select(positions)
    rows = goal_rows(stacked.network, [row.goal.atom for row in goals.rows])
    lower_bounds(stacked.network, own, rows, goals.choices, atoms=atoms, seen=seen)
    low, high = own[stacked.network.input]
    slope = seen.get(stacked.network.input, torch.zeros_like(low)[:, None])[:, 0]
    return seen, torch.where(slope >= 0, low, high)


def _scores(stacked: Batch, goals: Goals, seen: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """How much each unstable neuron loosens each row's bound: (activation input, (rows, size)), zero where stable.

    The gap of the relaxation where it is widest, times the coefficient (after BaBSR, Bunel et al. 2020). A neuron that no
    coefficient reaches may still matter to the premise, so it is split when nothing better is left.
    """
    positions = torch.tensor([row.position for row in goals.rows])
    scores = []
    for node in activation_nodes(stacked.network):
        z = node.inputs[0]
        low, high = (side[positions] for side in stacked.bounds[z])
        unstable = (low < 0) & (high > 0)
        score = LAST_RESORT * (high - low)
        if node.output in seen:
            _, intercept = chord(node.op, low, high)
            a, slope = seen[node.output][:, 0], goals.choices.slopes[node.output][:, 0]
            below = torch.maximum((1 - slope) * high, -slope * low)
            score = score - a.clamp(max=0) * intercept + a.clamp(min=0) * below
        scores.append((z, torch.where(unstable, score, 0.0)))
    return scores


def _best_branch(scores: Sequence[tuple[str, Tensor]], row: int) -> tuple[str, int] | None:
    best, branch = 0.0, None
    for value, score in scores:
        top, index = score[row].max(0)
        if float(top) > best:
            best, branch = float(top), (value, int(index))
    return branch


def _children(batch: Batch, leaf: _Leaf, value: str, index: int) -> list[_Leaf]:
    """The leaf with value[index] <= 0 and with >= 0, less what is empty."""
    leaf.tree.split = (value, index)
    leaf.tree.low, leaf.tree.high = _Tree(), _Tree()
    low, high = leaf.bounds[value]
    sides = {v: (torch.cat([lo, lo]), torch.cat([hi, hi])) for v, (lo, hi) in leaf.bounds.items()}
    sides[value][1][0, index] = 0.0
    sides[value][0][1, index] = 0.0
    assert low[0, index] < 0 < high[0, index], "only unstable neurons are split"
    bounds, empty = push(batch.network, sides)
    children = []
    for side, tree in enumerate((leaf.tree.low, leaf.tree.high)):
        if not bool(empty[side]):
            own = {v: (lo[side : side + 1], hi[side : side + 1]) for v, (lo, hi) in bounds.items()}
            children.append(replace(leaf, bounds=own, tree=tree))
    return children


def _finished(tree: _Tree, batch: Batch, group: int) -> ProofNode:
    """The tree as certificate data, built from the leaves up without recursion."""
    order, todo = [], [tree]
    while todo:
        node = todo.pop()
        order.append(node)
        todo.extend(child for child in (node.low, node.high) if child is not None)
    built: dict[int, ProofNode] = {}
    for node in reversed(order):
        steps = batch.steps[group] if node is tree else ()
        split = None
        if node.split is not None:
            split = Split(*node.split, 0.0, built[id(node.low)], built[id(node.high)])
        built[id(node)] = ProofNode(steps, tuple(node.closed), split)
    return built[id(tree)]
