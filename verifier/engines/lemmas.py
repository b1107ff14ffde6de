"""Bounds of single neurons proved by small trees of cases: lemmas, on which all later layers rest.

One backward pass bounds a neuron as loosely as the relaxations before it allow, every later layer inherits that, and in a deep
network it multiplies. Where a network is small enough for mixed integer programs these bounds used to come from them (Tjeng et
al. 2019; the refinement of alpha-beta-CROWN). Here each open neuron has a tree of its own, of a few splits, in the network up
to it; its leaf with the worst bound is split next, so that the bound grows with every split and there is a lemma whenever
time runs out. All trees of a layer grow side by side in one set of tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.certificate import NODE, Close, Lemmas, Prelude, ProofNode, Relaxation
from verifier.domains.relaxations import relaxed_nodes, undecided, values_read
from verifier.engines.bound import Clock, bound_goals, push, tighten
from verifier.engines.branching import merit
from verifier.engines.climbing import climb, evaluate, evaluate_children, with_branches
from verifier.engines.closing import closes_of, stored
from verifier.engines.problem import Batch, Goal, GoalRow, Group, relation_atoms
from verifier.engines.proof_tree import Node, finished
from verifier.engines.subproblems import Roots, Subproblems, children, joined, pushed, roots_of, start, whole
from verifier.formula import And, Atom, Term
from verifier.network import Network
from verifier.ops import Conv, Relu
from verifier.query import Query

NEURON_STEPS = 20
MOST_EACH = 1000  # leaves of a tree
AT_A_TIME = 6  # the share of its leaves, as one in so many, that are split before others are looked at
MOST_AT_ONCE = 512  # subproblems
ENTRIES_AT_ONCE = 8_000_000
CANDIDATES = 8
STEPS = 12
CLOSED_AT_ONCE = 512
WORTH = 0.01  # of a neuron's width: what a lemma must gain
MARGIN = 1e-8  # what a lemma gives away, so that its leaves are refuted in floats
LEVEL = 0.0  # beyond it a neuron is decided


def has_lemmas(network: Network) -> bool:
    """Whether `prove_lemmas` is made for the network: Relus, without convolutions, whose neurons are too many."""
    nodes = relaxed_nodes(network)
    is_dense = not any(isinstance(node.op, Conv) for node in network.nodes)
    return is_dense and len(nodes) > 1 and all(isinstance(node.op, Relu) for node in nodes)


def prove_lemmas(batch: Batch, *, leaves: int, out_of_time: Clock) -> tuple[Batch, Prelude]:
    """The batch, of one group without goals, with narrower bounds, and the prelude that proves them.

    Layer by layer: backward passes for what is undecided, then a tree for each side of what is left. leaves: of all trees of a
    layer together.
    """
    prelude: Prelude = ()
    for value in values_read(batch.network):
        if out_of_time() or bool(batch.empty.all()):
            break
        before = len(batch.steps[0])
        batch = tighten(batch, steps=NEURON_STEPS, out_of_time=out_of_time, values=(value,))
        prelude = (*prelude, *batch.steps[0][before:])
        found = _lemmas_of(batch, value, leaves, out_of_time)
        if found is not None:
            prelude, batch = (*prelude, found), _with_lemmas(batch, found)
    return batch, prelude


def _with_lemmas(batch: Batch, found: Lemmas) -> Batch:
    low, high = (side.clone() for side in batch.bounds[found.value])
    for index, sign, at in zip(found.indices.tolist(), found.signs.tolist(), found.ats.tolist(), strict=True):
        if sign > 0:
            low[0, index] = max(float(low[0, index]), at)
        else:
            high[0, index] = min(float(high[0, index]), at)
    bounds, empty = push(batch.network, {**batch.bounds, found.value: (low, high)}, changed=found.value)
    return replace(batch, bounds=bounds, empty=batch.empty | empty)


def _lemmas_of(batch: Batch, value: str, leaves: int, out_of_time: Clock) -> Lemmas | None:
    """For the undecided entries of a value; None where there are none, or a tree gains nothing."""
    entries = undecided(batch.network, batch.bounds, value)[0].nonzero()[:, 0].tolist()
    part = batch.network.up_to(value)
    if not entries or not relaxed_nodes(part):
        return None
    rows = [(entry, sign) for entry in entries for sign in (1, -1)]
    rooted = _rows_batch(batch, part, value, rows)
    exact = roots_of(rooted).without_planes()  # which gain nothing here, and cost four times as much
    if exact.reduced is None:
        return None
    forest = _Forest(rooted, exact, out_of_time)
    forest.grow(max(leaves, 2 * len(rows)), MOST_EACH)
    low, high = (side[0] for side in batch.bounds[value])
    chosen, ats = [], []
    for row, ((entry, sign), bound) in enumerate(zip(rows, forest.proved().tolist(), strict=True)):
        known = float(low[entry]) if sign > 0 else -float(high[entry])
        at = bound - MARGIN * (1 + abs(bound))
        if np.isfinite(at) and at - known > WORTH * float(high[entry] - low[entry]):
            chosen.append(row)
            ats.append(sign * at)
    if not chosen:
        return None
    indices, signs = (np.array([rows[row][k] for row in chosen], dtype=np.int64) for k in (0, 1))
    shared = batch.groups[0].common
    trees = forest.trees(chosen, lambda close, row: _denied(close, value, rows[row], part, shared))
    return Lemmas(value, indices, signs, np.array(ats), tuple(trees))


def _known_there(atoms: Sequence[Atom], part: Network) -> tuple[Atom, ...]:
    return tuple(a for a in atoms if all(t.value in part.shapes for t in a.terms))


def _rows_batch(batch: Batch, part: Network, value: str, rows: Sequence[tuple[int, int]]) -> Batch:
    """An entry for each (entry, sign), whose goal is sign * value[entry] <= 0, under the premise as far as it reaches."""
    premise = _known_there(batch.groups[0].common, part)
    region, groups = batch.groups[0].query.region, []
    for entry, sign in rows:
        atom = Atom((Term(value, entry, Fraction(sign)),), Fraction(0), strict=False)
        query = Query(part, region, And((*premise, atom)))
        groups.append(Group(query, (0,), premise, (Goal(0, atom),)))
    known = {v: pair for v, pair in batch.bounds.items() if v in part.shapes}
    bounds = {v: (low.expand(len(rows), -1), high.expand(len(rows), -1)) for v, (low, high) in known.items()}
    multiplied = tuple(v for v in batch.multiplied if v in part.shapes)
    empty = torch.zeros(len(rows), dtype=torch.bool)
    return Batch(part, tuple(groups), bounds, empty, relation_atoms(part, groups), multiplied, ((),) * len(rows))


def _denied(close: Close, value: str, row: tuple[int, int], part: Network, shared: Sequence[Atom]) -> Close:
    """A close that refutes sign * value[entry] <= 0 as one of the lemma's denial, which is a bound at its node."""
    (entry, sign), given = row, close.relaxation
    goal = given.atoms[0, -1]
    atoms = np.zeros((1, len(shared)))
    for multiplier, atom in zip(given.atoms[0, :-1], _known_there(shared, part), strict=True):
        atoms[0, list(shared).index(atom)] += multiplier
    side = dict(given.upper if sign > 0 else given.lower)
    size = part.size(value)
    side[value] = side[value].astype(np.float64) if value in side else np.zeros((1, size))
    side[value][0, entry] += goal
    lower, upper = (given.lower, side) if sign > 0 else (side, given.upper)
    return Close(NODE, Relaxation(given.slopes, lower, upper, atoms, given.upper_slopes, given.planes))


def _alike(closes: Sequence[Close]) -> list[Close]:
    """The closes with multipliers on the same values, so that a replay takes many in one pass."""
    every: tuple[dict[str, NDArray], dict[str, NDArray]] = ({}, {})
    for close in closes:
        for zeros, side in zip(every, (close.relaxation.lower, close.relaxation.upper), strict=True):
            zeros.update({v: np.zeros((1, m.shape[1])) for v, m in side.items() if v not in zeros})
    lower, upper = every
    return [
        replace(close, relaxation=replace(given, lower={**lower, **given.lower}, upper={**upper, **given.upper}))
        for close in closes
        for given in (close.relaxation,)
    ]


class _Forest:
    """One tree for each group of a batch; leaves: the subproblems at the ends of all of them."""

    def __init__(self, batch: Batch, exact: Roots, out_of_time: Clock) -> None:
        self.batch, self.out_of_time = batch, out_of_time
        rows = [GoalRow(k, group.goals[0]) for k, group in enumerate(batch.groups)]
        goals = bound_goals(batch, rows, steps=0, target=LEVEL, out_of_time=out_of_time)
        self.exact, self.roots = replace(exact, reduced=None), exact.to(torch.float32)
        self.nodes = [Node() for _ in rows]
        entries = max(map(batch.network.size, batch.network.shapes))
        self.at_once = max(1, min(MOST_AT_ONCE, ENTRIES_AT_ONCE // entries))
        first = start(exact, goals, list(range(len(rows))))
        self.leaves = joined([self._climbed(first.take(part)) for part in torch.arange(len(rows)).split(self.at_once)])

    def _climbed(self, subs: Subproblems) -> Subproblems:
        return climb(self.roots, subs, steps=STEPS, target=LEVEL, out_of_time=self.out_of_time)

    def grow(self, most: int, most_each: int) -> None:
        """Split the worst leaves of every tree, until all are above the level, there are so many, or time is up."""
        stuck = torch.zeros(len(self.batch.groups), dtype=torch.bool)
        while len(self.leaves) < most and not self.out_of_time():
            chosen = self._worst(most_each, ~stuck)[: most - len(self.leaves)]
            if not len(chosen):
                break
            subs, _ = with_branches(self.roots, self.leaves.take(chosen), CANDIDATES)
            can_split = (subs.branches >= 0).any(1)
            stuck[subs.tree[~can_split]] = True  # its bound cannot grow any more
            if not bool(can_split.any()):
                continue
            rest = torch.ones(len(self.leaves), dtype=torch.bool)
            rest[chosen[can_split]] = False
            split = [self._split(subs.take(part)) for part in can_split.nonzero()[:, 0].split(self.at_once)]
            self.leaves = joined([self.leaves.take(rest), *split])

    def _worst(self, most_each: int, growing: Tensor) -> Tensor:
        """The places of the worst leaves of each tree that grows, at least one of it, the worst of all trees first."""
        leaves = self.leaves
        counts = leaves.tree.bincount(minlength=len(growing))
        growing = growing & (counts < most_each)
        order = leaves.bound.argsort(stable=True)
        order = order[leaves.tree[order].argsort(stable=True)]  # by tree, then by bound
        trees = leaves.tree[order]
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[trees]
        chosen = growing[trees] & (rank <= (counts // AT_A_TIME)[trees]) & (leaves.bound[order] <= LEVEL)
        return order[chosen][rank[chosen].argsort(stable=True)]

    def _split(self, subs: Subproblems) -> Subproblems:
        """The children of subproblems where these are bounded best."""
        bounds = evaluate_children(self.roots, subs, 0, subs.branches.shape[1])
        gains = merit(bounds[0], bounds[1], subs.own[:, None], LEVEL)
        best = torch.where(subs.branches < 0, -torch.inf, gains).argmax(1)
        places, ats = (t.gather(1, best[:, None])[:, 0].tolist() for t in (subs.branches, subs.at))
        first = len(self.nodes)
        for k, node in enumerate(subs.node.tolist()):
            own = self.nodes[node]
            own.split, own.low, own.high = (*self.roots.place(places[k]), ats[k]), first + k, first + len(subs) + k
        self.nodes += [Node() for _ in range(2 * len(subs))]
        pair = replace(children(self.roots, subs, best), node=torch.arange(first, len(self.nodes)))
        pair = replace(pair, branches=pair.branches[:, :1], at=pair.at[:, :1], seeds=pair.seeds[:, :1])
        return self._climbed(pushed(self.roots, pair))

    def proved(self) -> Tensor:
        """What the trees prove of their goals' left sides: the least bound over the leaves, with choices as stored."""
        found = []
        for part in torch.arange(len(self.leaves)).split(CLOSED_AT_ONCE):
            exact = self._stored(self.leaves.take(part))
            found.append(torch.where(exact.bound.isinf(), torch.inf, evaluate(self.exact, exact)))
        bounds = torch.cat(found)
        return torch.full((len(self.batch.groups),), torch.inf, dtype=bounds.dtype).scatter_reduce(
            0, self.leaves.tree, bounds, "amin"
        )

    def _stored(self, subs: Subproblems) -> Subproblems:
        return stored(self.exact, whole(self.exact, self.roots.reduced, subs))

    def trees(self, chosen: Sequence[int], denied: Callable[[Close, int], Close]) -> Iterator[ProofNode]:
        """The proofs of some trees; denied(close, tree): what stands for a close there."""
        mask = torch.zeros(len(self.batch.groups), dtype=torch.bool)
        mask[torch.tensor(chosen)] = True
        closed: dict[int, Close] = {}
        for part in mask[self.leaves.tree].nonzero()[:, 0].split(CLOSED_AT_ONCE):
            exact = self._stored(self.leaves.take(part))
            exact = exact.take(~exact.bound.isinf())  # interval arithmetic finds nothing left there
            for node, tree, close in zip(
                exact.node.tolist(), exact.tree.tolist(), closes_of(self.exact, self.batch.groups, exact), strict=True
            ):
                closed[node] = denied(close, tree)
        for node, close in zip(closed, _alike(list(closed.values())), strict=True):
            self.nodes[node].closed = close
        return (finished(self.nodes, tree) for tree in chosen)
