"""Branch and bound on the phases of activations (METHODS 8): many subproblems at a time, each with slopes and multipliers.

Every open disjunct has a tree of its own. Splitting an unstable neuron at zero makes its activation linear on both sides. The
neuron is chosen by bounding the children of a few candidates (filtered smart branching, De Palma et al. 2021), which the
coefficients of the last pass propose. Where nothing is left to split the subproblem is a linear program, whose dual gives the
multipliers of a proof and whose optimum gives a point to try.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close, ProofNode
from verifier.certificate import Group as ProofGroup
from verifier.domains.optimise import Optimised
from verifier.engines.bound import Bounder, Clock, bound_goals, push, tighten
from verifier.engines.branching import merit
from verifier.engines.climbing import climb, evaluate, evaluate_children, loosening, with_branches
from verifier.engines.closing import closes_of, stored
from verifier.engines.leaf import linear_program
from verifier.engines.prices import prices
from verifier.engines.problem import (
    Batch,
    GoalRow,
    Goals,
    Report,
    Searched,
    TryPoints,
    apart,
    entries_of,
    over,
    unheard,
)
from verifier.engines.proof_tree import Node, finished
from verifier.engines.record import close_of as close_of_row
from verifier.engines.record import recorded
from verifier.engines.reduced import Reduced
from verifier.engines.reduced_bounds import bound_entries
from verifier.engines.subproblems import (
    Subproblems,
    children,
    joined,
    narrowed,
    pushed,
    roots_of,
    start,
    whole,
    without_planes,
)

ENTRIES_AT_ONCE = 8_000_000  # of one coefficient tensor
MOST_AT_ONCE = 256
CANDIDATES = 16
PLANE_CANDIDATES = 32  # where they share their planes, and are bounded together
STEPS = 20
ROOT_STEPS = 60
PLANE_GAIN = 0.05  # of a root's bound, below which its search goes without
PLANE_STEPS = 200  # of a root with planes, slowly: twenty steps leave half of what they gain
NEURON_STEPS = (3, 8, *(20,) * 13)  # of each round in which roots are bounded again
QUICK_SPLITS = 32  # of a tree before its root is bounded better
ROOT_ENTRIES = 128  # of a tree that are bounded again, those that loosen its bound most
WIDER = 2  # times as many in the next round
NODE_ENTRIES = 256
STALE = 6  # splits of a subproblem until its neurons are worth bounding again
REBOUND_STEPS = 8
REBOUND_AT_ONCE = 8
SHARE = 0.5  # of the work for splits, to bound neurons again
MOST_RECORDED = 200_000_000  # numbers in the steps of proof nodes below the roots
PATIENCE = 0.3  # of the work that a round will take, before it is begun
GAIN = 0.02  # of an open tree's root bound, for which another round pays
MAX_SPLITS = 1_000_000


def branch_and_bound(
    batch: Batch,
    open_disjuncts: Mapping[int, frozenset[int]],
    closed: Mapping[int, Sequence[Close]],
    *,
    target: float,
    out_of_time: Clock,
    try_points: TryPoints,
    most_splits: int | None = None,
    report: Report = unheard,
) -> Searched:
    """Refute the open disjuncts of some groups of a batch, each by a tree of its own.

    closed: what the root has refuted already, by group. try_points(group, points) is shown the inputs (points, size) at which
    open bounds are attained and says whether one of them is a counterexample, which ends that group. most_splits: of each
    tree. What the search does next hangs on the work done, counted in multiplications, and never on the clock.
    """
    jobs = [(g, d) for g, disjuncts in open_disjuncts.items() for d in sorted(disjuncts)]
    by_tree = apart(batch, jobs)
    search = _Search(by_tree, [g for g, _ in jobs], target, out_of_time, try_points, report)
    most = MAX_SPLITS if most_splits is None else most_splits
    price, entries = 0.0, ROOT_ENTRIES
    for k, steps in enumerate(NEURON_STEPS):
        # a round throws the trees away: only where they had a good part of the work that it will take
        search.run(min(QUICK_SPLITS, most), at_least=price)
        if out_of_time() or not search.open_trees():
            break
        gained = search.deepen(steps, entries)
        if not search.open_trees() or not (gained or entries < search.exact.watched.width):
            break
        entries *= WIDER
        price = PATIENCE * search.bounding_work(NEURON_STEPS[min(k + 1, len(NEURON_STEPS) - 1)], entries)
    search.rebounds = True
    search.run(most)
    return search.searched(batch, jobs, closed)


class _Search:
    """The open subproblems of all trees, and the trees so far; owners: the group that each tree belongs to."""

    def __init__(
        self,
        batch: Batch,
        owners: Sequence[int],
        target: float,
        out_of_time: Clock,
        try_points: TryPoints,
        report: Report,
    ) -> None:
        self.owners, self.target, self.out_of_time, self.try_points = owners, target, out_of_time, try_points
        self.report = report
        self.splits = [0] * len(owners)
        self.lost: dict[int, float] = {}
        self.refuted: set[int] = set()
        self.stack: list[Subproblems] = []
        self.rebounds = False
        self.bounding = self.splitting = 0.0  # work so far
        self.entries = 0
        self.nodes = [Node() for _ in owners]
        self.widest = max(batch.network.size(v) for v in batch.network.shapes)
        self._plant(batch, list(range(len(owners))))

    def _plant(self, batch: Batch, trees: Sequence[int]) -> None:
        """Begin some trees anew from the bounds of a batch, which has an entry for every tree."""
        rows = [GoalRow(k, goal) for k, group in enumerate(batch.groups) for goal in group.goals]
        goals = bound_goals(batch, rows, steps=ROOT_STEPS, target=self.target, out_of_time=self.out_of_time)
        best: dict[int, int] = {}
        for r, row in enumerate(rows):
            if row.position not in best or goals.bounds[r] > goals.bounds[best[row.position]]:
                best[row.position] = r
        chosen = [best[k] for k in range(len(batch.groups))]
        # the other atoms of a disjunct are relations of its premise, so they are not lost
        groups = tuple(replace(g, goals=(rows[chosen[k]].goal,)) for k, g in enumerate(batch.groups))
        self.batch = replace(batch, groups=groups)
        roots = roots_of(self.batch)
        self.exact, self.roots = replace(roots, reduced=None), roots.to(torch.float32)
        first = self._climbed(start(roots, goals, chosen))
        first = replace(first, bound=torch.where(batch.empty, torch.inf, first.bound))
        self.first, self.root_bounds = first, first.bound
        for tree in trees:
            self.nodes[tree], self.splits[tree] = Node(), 0
        self._settle(first.take(torch.tensor(trees, dtype=torch.long)))

    def _climbed(self, first: Subproblems) -> Subproblems:
        """The roots' subproblems with planes, where these gain enough; else without, and the roots without them, too."""
        if self.roots.fans:
            found = climb(
                self.roots, first, steps=PLANE_STEPS, target=self.target, out_of_time=self.out_of_time, rate=0.05, decay=0.99
            )
            gained = (found.own - first.own) / first.own.abs().clamp(min=1e-9)
            if bool((gained >= PLANE_GAIN).any()) or bool((found.own > self.target).any()):
                first = found
            else:
                self.exact, self.roots, first = replace(self.exact, fans=()), self.roots.without_planes(), without_planes(first)
        self.prices = prices(self.batch.network, self.roots.reduced)
        entries = self.widest + sum(fan.weight.numel() for fan in self.roots.fans)
        self.at_once = max(1, min(MOST_AT_ONCE, ENTRIES_AT_ONCE // entries))
        return first

    def open_trees(self) -> list[int]:
        """The trees with open subproblems that are not given up."""
        left = {tree for subs in self.stack for tree in subs.tree.tolist()}
        return sorted(t for t in left if t not in self.lost and self.owners[t] not in self.refuted)

    def deepen(self, steps: int, most: int) -> bool:
        """Bound so many neurons of the open trees' roots again, each under the goal's negation, and begin these trees anew.

        Returns whether some root gained enough to go on.
        """
        trees = self.open_trees()
        entries = torch.tensor(trees)
        bound = None if self.batch.multiplied else self._bounder(entries)
        wanted = self._loosest(self.first.take(entries), most)
        tight = tighten(entries_of(self.batch, trees), steps=steps, out_of_time=self.out_of_time, bound=bound, wanted=wanted)
        bounds = {
            v: (low.index_copy(0, entries, tight.bounds[v][0]), high.index_copy(0, entries, tight.bounds[v][1]))
            for v, (low, high) in self.batch.bounds.items()
        }
        proofs = list(self.batch.steps)
        for tree, own in zip(trees, tight.steps, strict=True):
            proofs[tree] = own
        empty = self.batch.empty.index_copy(0, entries, tight.empty)
        self.stack = []
        before = self.root_bounds[entries]
        self._plant(replace(self.batch, bounds=bounds, empty=empty, steps=tuple(proofs)), trees)
        return bool((self.root_bounds[entries] - before > GAIN * before.abs()).any())

    def _bounder(self, trees: Tensor, cut: Tensor | None = None) -> Bounder | None:
        """How the neurons of some subproblems of these trees are bounded, where the network is reduced."""
        reduced = self.roots.reduced
        if reduced is None:
            return None

        def bound(batch: Batch, value: str, columns: Tensor, steps: int, out_of_time: Clock) -> Optimised:
            return bound_entries(reduced, batch, value, columns, steps=steps, out_of_time=out_of_time, trees=trees, cut=cut)

        return bound

    def run(self, most_splits: int, *, at_least: float = 0.0) -> None:
        """Search until nothing is open, time is up, or every open tree has taken that many splits and that work was done."""
        until = self.splitting + at_least
        while self.stack and not self.out_of_time():
            enough = self.splitting >= until and sum(self.splits) >= most_splits
            if enough and all(self.splits[t] >= most_splits for t in self.open_trees()):
                break
            self.report(self.open_bounds, sum(self.splits))
            self._expand(self._rebounded(self._pop()))

    def open_bounds(self) -> dict[int, float]:
        """The smallest bound of the open subproblems, by group."""
        least = dict.fromkeys((self.owners[t] for t in self.open_trees()), np.inf)
        for subs in self.stack:
            for tree, bound in zip(subs.tree.tolist(), subs.bound.tolist(), strict=True):
                owner = self.owners[tree]
                if owner in least:
                    least[owner] = min(bound, least[owner])
        return least

    def bounding_work(self, steps: int, most: int) -> float:
        """What it takes to bound so many neurons of the open trees' roots again."""
        reduced, trees = self.roots.reduced is not None and not self.batch.multiplied, self.open_trees()
        wanted = self._loosest(self.first.take(torch.tensor(trees)), most)
        return self.prices.bounding(entries_of(self.batch, trees), wanted, steps=steps, reduced=reduced)

    def _loosest(self, subs: Subproblems, most: int) -> dict[str, Tensor]:
        """Of each value, (subproblems, size), the entries that loosen the bounds most."""
        scores = loosening(self.roots, subs)
        best = scores.topk(min(most, scores.shape[1]), dim=1)
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best.indices, best.values > 0)
        if self.roots.reduced is not None:
            every = torch.zeros(len(subs), self.exact.watched.width, dtype=torch.bool)
            every[:, self.roots.reduced.watched] = chosen
            chosen = every
        return self.exact.watched.parts(chosen)

    def _rebounded(self, subs: Subproblems) -> Subproblems:
        """With the neurons of a few bounded again, where many splits were made since and there is time to spare for it."""
        reduced = self.roots.reduced
        if reduced is None or not self.rebounds or self.bounding >= SHARE * self.splitting or self.entries > MOST_RECORDED:
            return subs
        due = torch.tensor([self.nodes[n].unbounded >= STALE for n in subs.node.tolist()]) & (subs.branches >= 0).any(1)
        chosen = due.nonzero()[:, 0]
        chosen = chosen[subs.bound[chosen].argsort()][:REBOUND_AT_ONCE]
        if not len(chosen):
            return subs
        rest = torch.ones(len(subs), dtype=torch.bool)
        rest[chosen] = False
        candidates = subs.branches.shape[1]
        fresh = climb(
            self.roots,
            self._with_neurons(reduced, subs.take(chosen)),
            steps=STEPS,
            target=self.target,
            out_of_time=self.out_of_time,
        )
        fresh = self._closed(fresh)
        if len(fresh):
            fresh, _ = with_branches(self.roots, fresh, candidates)
        return joined([subs.take(rest), fresh])

    def _with_neurons(self, reduced: Reduced, subs: Subproblems) -> Subproblems:
        """Subproblems with their neurons bounded again under what was split; the steps that prove it stay at their nodes."""
        batch, trees, wanted = self._batch_of(subs), subs.tree, self._loosest(subs, NODE_ENTRIES)
        self.bounding += self.prices.bounding(batch, wanted, steps=REBOUND_STEPS, reduced=True)
        bound = self._bounder(trees, subs.cut)
        tight = tighten(batch, steps=REBOUND_STEPS, out_of_time=self.out_of_time, bound=bound, wanted=wanted)
        for number, old, new in zip(subs.node.tolist(), batch.steps, tight.steps, strict=True):
            node = self.nodes[number]
            node.steps, node.unbounded = (*node.steps, *new[len(old) :]), 0
            self.entries += sum(recorded(step) for step in new[len(old) :])
        low, high = (torch.cat([tight.bounds[v][side] for v in self.exact.watched.names], 1) for side in (0, 1))
        return narrowed(self.roots, subs, low[:, reduced.watched], high[:, reduced.watched], tight.empty)

    def _give_up(self) -> None:
        for subs in self.stack:
            for tree, bound in zip(subs.tree.tolist(), subs.bound.tolist(), strict=True):
                self.lost[tree] = min(bound, self.lost.get(tree, np.inf))

    def _pop(self) -> Subproblems:
        """The last subproblems of the stack, up to a batch of them, without those of trees that are given up."""
        parts: list[Subproblems] = []
        count = 0
        while self.stack and count < self.at_once:
            last = self.stack.pop()
            room = self.at_once - count
            if len(last) > room:
                self.stack.append(last.take(torch.arange(len(last) - room)))
                last = last.take(torch.arange(len(last) - room, len(last)))
            parts.append(last)
            count += len(last)
        return joined(parts)

    def _alive(self, subs: Subproblems) -> Subproblems:
        gone = torch.tensor([t in self.lost or self.owners[t] in self.refuted for t in range(len(self.owners))])
        return subs.take(~gone[subs.tree]) if bool(gone.any()) else subs

    def _expand(self, subs: Subproblems) -> None:
        """Split each subproblem where the children of some candidates are bounded best, and settle these children."""
        subs = self._alive(subs)
        if not len(subs):
            return
        count, candidates = subs.branches.shape
        merits = torch.full((count, candidates), -torch.inf)
        bounds = torch.empty(2 * count, candidates)
        most = max(1, ENTRIES_AT_ONCE // (2 * count * self.widest)) if self.roots.fans else 1
        for k in range(0, candidates, most):
            at_once = min(most, candidates - k)
            if self.out_of_time():
                self.stack.append(subs)
                return
            self.splitting += self.prices.passes(2 * count) * at_once
            own = evaluate_children(self.roots, subs, k, at_once)
            bounds[:, k : k + at_once] = torch.maximum(own, subs.bound[:, None]).flatten(0, 1)
            gained = merit(own[0], own[1], subs.own[:, None], self.target)
            merits[:, k : k + at_once] = torch.where(subs.branches[:, k : k + at_once] < 0, -torch.inf, gained)
        if self.out_of_time():
            self.stack.append(subs)
            return
        best = merits.argmax(1)
        pair = replace(children(self.roots, subs, best), bound=bounds.gather(1, torch.cat([best, best])[:, None])[:, 0])
        self._settle(pushed(self.roots, self._numbered(subs, best, pair)))

    def _numbered(self, subs: Subproblems, best: Tensor, pair: Subproblems) -> Subproblems:
        """The children with proof nodes of their own."""
        places, ats = (t.gather(1, best[:, None])[:, 0].tolist() for t in (subs.branches, subs.at))
        numbers = torch.arange(len(self.nodes), len(self.nodes) + 2 * len(subs))
        for k, (tree, node) in enumerate(zip(subs.tree.tolist(), subs.node.tolist(), strict=True)):
            parent = self.nodes[node]
            parent.split = (*self.roots.place(places[k]), ats[k])
            parent.low, parent.high = len(self.nodes) + k, len(self.nodes) + len(subs) + k
            self.splits[tree] += 1
        ages = [self.nodes[n].unbounded + 1 for n in subs.node.tolist()]
        self.nodes += [Node(unbounded=age) for age in (*ages, *ages)]
        return replace(pair, node=numbers)

    def _settle(self, subs: Subproblems) -> None:
        """Close what can be closed, climb with the rest, and put on the stack what stays open."""
        subs = self._closed(subs)
        if len(subs):
            self.splitting += self.prices.climb(len(subs), steps=STEPS)
            subs = climb(self.roots, subs, steps=STEPS, target=self.target, out_of_time=self.out_of_time)
            subs = self._closed(subs)
        if len(subs) and self.out_of_time():
            self.stack.append(subs)
        elif len(subs):
            self._keep(subs)

    def _closed(self, subs: Subproblems) -> Subproblems:
        """What stays open: a bound above the target is confirmed in float64, with slopes and multipliers as stored."""
        passed = subs.bound > torch.where(self.exact.strict[subs.tree], -self.target, self.target)
        if not bool(passed.any()):
            return subs
        candidates = stored(self.exact, self._whole(subs.take(passed)))
        result = evaluate(self.exact, candidates)
        # a strict atom is refuted by zero itself
        confirmed = (result > self.target) | (self.exact.strict[candidates.tree] & (result >= 0)) | candidates.bound.isinf()
        refuted = candidates.take(confirmed & ~candidates.bound.isinf())
        for node, close in zip(refuted.node.tolist(), closes_of(self.exact, self.batch.groups, refuted), strict=True):
            self.nodes[node].closed = close
        bound = subs.bound.clone()
        bound[passed] = result.to(bound.dtype)
        left = ~passed
        left[passed] = ~confirmed
        return replace(subs, bound=bound).take(left)

    def _whole(self, subs: Subproblems) -> Subproblems:
        return whole(self.exact, self.roots.reduced, subs)

    def _keep(self, subs: Subproblems) -> None:
        subs, points = with_branches(self.roots, subs, PLANE_CANDIDATES if self.roots.fans else CANDIDATES)
        for owner in sorted({self.owners[t] for t in subs.tree.tolist()}):
            own = torch.tensor([self.owners[t] == owner for t in subs.tree.tolist()])
            if owner not in self.refuted and self.try_points(owner, points[own].double()):
                self.refuted.add(owner)
        stuck = (subs.branches < 0).all(1)
        for k in stuck.nonzero()[:, 0].tolist():
            self._finish_linear(subs.take(torch.tensor([k])))
        subs = self._alive(subs.take(~stuck))
        if len(subs):
            self.stack.append(subs.take(subs.bound.argsort()))

    def _finish_linear(self, sub: Subproblems) -> None:
        tree = int(sub.tree)
        owner = self.owners[tree]
        if owner in self.refuted or tree in self.lost:
            return
        alone = replace(self._batch_of(sub), multiplied=self.exact.watched.names)
        solved = linear_program(alone, 0, self.batch.groups[tree].goals[0])
        if solved is not None and float(solved.bound) > self.target:
            goals = Goals((GoalRow(tree, solved.goal),), solved.bound, solved.choices)
            self.nodes[int(sub.node)].closed = close_of_row(self.batch, goals, 0)
        elif solved is not None and self.try_points(owner, solved.point[None]):
            self.refuted.add(owner)
        else:
            self.lost[tree] = float(sub.bound)

    def _batch_of(self, subs: Subproblems) -> Batch:
        """Subproblems as a batch, with the steps of their roots."""
        trees, subs = subs.tree, self._whole(subs)
        lows, highs = (self.exact.watched.parts(side) for side in (subs.low, subs.high))
        low, high = self.exact.box
        bounds = {self.batch.network.input: (low[trees], high[trees]), **{v: (lows[v], highs[v]) for v in lows}}
        every, empty = push(self.batch.network, bounds)
        atoms = None if self.batch.atoms is None else self.batch.atoms.select(trees)
        groups = tuple(self.batch.groups[t] for t in trees.tolist())
        steps = tuple(self.batch.steps[t] for t in trees.tolist())
        return Batch(self.batch.network, groups, every, empty | subs.bound.isinf(), atoms, (), steps)

    def searched(self, batch: Batch, jobs: Sequence[tuple[int, int]], closed: Mapping[int, Sequence[Close]]) -> Searched:
        """What was found, by group."""
        self._give_up()
        groups = dict.fromkeys(g for g, _ in jobs)
        lost = {
            g: min(bound for t, bound in self.lost.items() if jobs[t][0] == g)
            for g in groups
            if any(jobs[t][0] == g for t in self.lost)
        }
        parts = {
            g: tuple(self._proofs(batch, g, jobs, closed.get(g, ()))) for g in groups if g not in lost and g not in self.refuted
        }
        splits = {g: sum(n for n, (owner, _) in zip(self.splits, jobs, strict=True) if owner == g) for g in groups}
        return Searched({}, lost, frozenset(self.refuted), splits, parts)

    def _proofs(self, batch: Batch, g: int, jobs: Sequence[tuple[int, int]], closed: Sequence[Close]) -> Iterator[ProofGroup]:
        for tree, (owner, disjunct) in enumerate(jobs):
            if owner == g:
                root = finished(self.nodes, tree)
                yield ProofGroup((disjunct,), replace(root, steps=(*self.batch.steps[tree], *root.steps)))
        rest = tuple(close.disjunct for close in closed)
        if rest:
            query = batch.groups[g].query
            shared = set(query.disjuncts[rest[0]]).intersection(*(query.disjuncts[d] for d in rest))
            common = tuple(a for a in query.disjuncts[rest[0]] if a in shared)
            steps = tuple(over(step, batch.groups[g].common, common) for step in batch.steps[g])
            yield ProofGroup(rest, ProofNode(steps, tuple(closed)))
