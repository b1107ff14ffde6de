"""Branch and bound by linear programs, for Relu networks in which few neurons are undecided.

Every subproblem is the triangle relaxation of what its splits leave (see `triangles`). Its neurons are bounded anew, each by
two programs that know the splits, the premise and the goal's negation; then that one is split whose children are bounded best.
Some hundred programs a subproblem leave a tree smaller by orders of magnitude than one whose neurons keep the bounds of the
root. Programs only propose: what is recorded are backward passes with their multipliers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from highspy import HighsBasis
from torch import Tensor

from verifier.certificate import Close, ProofNode
from verifier.certificate import Group as ProofGroup
from verifier.domains.choices import Choices, unit_rows
from verifier.domains.linear import lower_bounds
from verifier.domains.optimise import Optimised
from verifier.domains.relaxations import Interval, values_read
from verifier.engines.bound import Clock, push
from verifier.engines.leaf import linear_program
from verifier.engines.problem import Batch, GoalRow, Goals, Report, Searched, TryPoints, apart, goal_rows, unheard
from verifier.engines.proof_tree import Node, finished
from verifier.engines.record import close_of, steps_of
from verifier.engines.subproblems import roots_of
from verifier.engines.triangles import Optimum, Triangles

CANDIDATES = 8
GAIN = 0.01  # of a neuron's width, below which a new bound is not recorded
RAY_SCALES = (1e2, 1e4, 1e6)
TINY = 1e-9
NONE = -1


@dataclass(frozen=True, eq=False)
class _Open:
    """A subproblem not yet looked at; bound: of the goal, as its parent saw it, and the basis of that program."""

    number: int
    bounds: Mapping[str, Interval]
    bound: float
    basis: HighsBasis | None


def lp_search(
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
    """Refute the open groups of a batch, each disjunct by a tree of its own; the arguments are those of `branch_and_bound`.

    closed is not used: what the root refutes is refuted by the first program of its tree. Nothing is found for networks with
    other nonlinear nodes than Relu.
    """
    parts: dict[int, tuple[ProofGroup, ...]] = {}
    lost: dict[int, float] = {}
    splits: dict[int, int] = dict.fromkeys(open_disjuncts, 0)
    refuted: set[int] = set()
    for g in open_disjuncts:
        proofs: list[ProofGroup] = []
        for disjunct in batch.groups[g].disjuncts:
            earlier = sum(splits.values())
            tree = _Tree(apart(batch, [(g, disjunct)]), target, out_of_time, partial(try_points, g))
            # of disjuncts that are not begun nothing is known
            last = disjunct == batch.groups[g].disjuncts[-1]
            most = None if most_splits is None else most_splits - earlier
            root = tree.run(most, partial(_told, report, g, earlier, last))
            splits[g] += tree.splits
            if tree.refuted:
                refuted.add(g)
            elif root is None:
                lost[g] = tree.weakest() if last else -np.inf
            if root is None:
                break
            proofs.append(ProofGroup((disjunct,), root))
        else:
            parts[g] = tuple(proofs)
        if refuted:
            break
    lost |= {g: -np.inf for g in open_disjuncts if g not in lost and g not in parts and g not in refuted}
    return Searched({}, lost, frozenset(refuted), splits, parts)


def _told(report: Report, group: int, earlier: int, last: bool, tree: "_Tree") -> None:
    report(lambda: {group: tree.weakest()} if last else {}, earlier + tree.splits)


class _Tree:
    """The tree of one disjunct; batch: its one entry."""

    def __init__(self, batch: Batch, target: float, out_of_time: Clock, try_point: Callable[[Tensor], bool]) -> None:
        group = batch.groups[0]
        self.goal = group.goals[0]
        self.batch = replace(batch, groups=(replace(group, goals=(self.goal,)),))
        self.target, self.out_of_time, self.try_point = target, out_of_time, try_point
        self.rows = goal_rows(batch.network, [self.goal.atom])
        self.roots = roots_of(self.batch, merged=True)
        self.own = group.relations.index(self.goal.atom) if self.goal.atom in group.relations else None
        self.nodes = [Node()]
        self.stack = [_Open(0, batch.bounds, -np.inf, None)]
        self.splits = 0
        self.refuted = False
        self.lost: _Open | None = None

    def weakest(self) -> float:
        """The least bound of what is open."""
        return min((sub.bound for sub in (*self.stack, self.lost) if sub is not None), default=-np.inf)

    def run(self, most_splits: int | None, report: Callable[["_Tree"], None]) -> ProofNode | None:
        """The proof; None where a counterexample was found, time or splits ran out, or some subproblem stays open."""
        if bool(self.batch.empty[0]):
            return ProofNode(self.batch.steps[0])
        if self.roots.reduced is None:
            return None
        program = Triangles(self.roots, self.roots.reduced)
        while self.stack and not self.refuted and self.lost is None:
            if self.out_of_time() or (most_splits is not None and self.splits >= most_splits):
                return None
            report(self)
            self._expand(program, self.stack.pop())
        if self.refuted or self.lost is not None:
            return None
        root = finished(self.nodes, 0)
        return replace(root, steps=(*self.batch.steps[0], *root.steps))

    def _expand(self, program: Triangles, sub: _Open) -> None:
        """Close a subproblem, or bound its neurons again and split it."""
        at, node = (
            replace(self.batch, bounds=sub.bounds, multiplied=self.roots.watched.names, steps=((),)),
            self.nodes[sub.number],
        )
        best = self._least(program, at, sub.basis)
        if best is not None and not self._done(program, at, node, best):
            at = self._tightened(program, at)
            node.steps = at.steps[0]
            if bool(at.empty[0]):
                return
            best = self._least(program, at, program.basis())
            if best is not None and not self._done(program, at, node, best):
                self._branch(program, at, replace(sub, bound=min(best.value, self.target)), best)
        if best is None:
            self.lost = sub

    def _least(self, program: Triangles, at: Batch, basis: HighsBasis | None) -> Optimum | None:
        program.restrict(at.bounds)
        if self.own is not None:
            program.leave_out(self.own)
        return program.minimise_goal(basis)

    def _done(self, program: Triangles, at: Batch, node: Node, best: Optimum) -> bool:
        """Whether an optimum closes a subproblem or is a counterexample."""
        if best.value > -self.target if self.goal.atom.strict else best.value > self.target:
            node.closed = self._close(program, at, best)
            return node.closed is not None
        self.refuted = self.try_point(torch.from_numpy(best.point)[None])
        return self.refuted

    def _close(self, program: Triangles, at: Batch, best: Optimum) -> Close | None:
        for scale in RAY_SCALES if np.isinf(best.value) else (1.0,):
            choices = program.choices([best], at, scale=scale)
            bound = lower_bounds(at.network, at.bounds, self.rows, choices, atoms=at.atoms)
            if self._closes(float(bound)):
                return self._recorded(at, bound, choices)
        return None

    def _closes(self, bound: float) -> bool:
        # a strict atom is refuted by zero itself
        return bound > self.target or (self.goal.atom.strict and bound >= 0)

    def _recorded(self, at: Batch, bound: Tensor, choices: Choices) -> Close:
        return close_of(at, Goals((GoalRow(0, self.goal),), bound[0], choices), 0)

    def _tightened(self, program: Triangles, at: Batch) -> Batch:
        """With the undecided neurons bounded again, value by value, and the steps that prove it."""
        if self.own is not None:
            program.take_in(self.own)
        for value in values_read(at.network):
            if bool(at.empty[0]) or self.out_of_time():
                break
            program.restrict(at.bounds)
            at = self._value_tightened(program, at, value)
        return at

    def _value_tightened(self, program: Triangles, at: Batch, value: str) -> Batch:
        watched = self.roots.watched
        first = sum(watched.sizes[: watched.names.index(value)])
        inside = (program.watched >= first) & (program.watched < first + at.network.size(value))
        open_ = program.read[(inside & (program.low < 0) & (program.high > 0))[program.read]].tolist()
        better = self._better(program, open_)
        places = sorted({place for place, _ in better})
        if not places:
            return at
        choices = program.choices([better.get((p, sign), program.nothing()) for sign in (1.0, -1.0) for p in places], at)
        columns = torch.from_numpy(program.watched[places] - first)[None]
        ones = torch.ones(columns.shape, dtype=torch.float64)
        rows = unit_rows(value, torch.cat([columns, columns], 1), torch.cat([ones, -ones], 1))
        found = Optimised(lower_bounds(at.network, at.bounds, rows, choices, atoms=at.atoms), choices)
        from_below, from_above = found.bounds.chunk(2, dim=1)
        low, high = at.bounds[value]
        new = low.scatter_reduce(1, columns, from_below, "amax"), high.scatter_reduce(1, columns, -from_above, "amin")
        bounds, empty = push(at.network, {**at.bounds, value: new}, changed=value)
        steps = tuple(step for _, step in steps_of(at, value, columns, torch.ones(low.shape, dtype=torch.bool), found))
        return replace(at, bounds=bounds, empty=at.empty | empty, steps=((*at.steps[0], *steps),))

    def _better(self, program: Triangles, places: Sequence[int]) -> dict[tuple[int, float], Optimum]:
        """The optima that bound some neurons better, by place and sign: of z from below, and of -z."""
        found: dict[tuple[int, float], Optimum] = {}
        reached = {1.0: np.full(len(program.low), np.inf), -1.0: np.full(len(program.low), np.inf)}
        for sign, known in ((1.0, program.low), (-1.0, -program.high)):
            for place in places:
                enough = known[place] + GAIN * (program.high[place] - program.low[place])
                if reached[sign][place] < enough:
                    continue  # a point of the relaxation shows that no bound is better
                best = None if self.out_of_time() else program.minimise_entry(place, sign)
                if best is None or np.isinf(best.value):
                    return found  # where nothing is left, the goal is closed by the same ray
                for side, least in reached.items():
                    np.minimum(least, side * best.z, out=least)
                if best.value > enough:
                    found[place, sign] = best
        return found

    def _branch(self, program: Triangles, at: Batch, sub: _Open, best: Optimum) -> None:
        """Split the neuron whose children have the best bounds; a subproblem without one is a linear program."""
        basis = program.basis()
        merit, chosen, sides = -1.0, NONE, list[tuple[float, HighsBasis]]()
        for place in self._candidates(program, best):
            if self.out_of_time():
                self.stack.append(sub)
                return
            pair = [self._child(program, at, place, side, basis) for side in (0, 1)]
            gains = [(bound - sub.bound) / max(self.target - sub.bound, TINY) for bound, _ in pair]
            product = float(np.prod(np.clip(gains, 1e-3, 1.0)))
            if product > merit:
                merit, chosen, sides = product, place, pair
            if product >= 1.0:
                break
        if chosen == NONE:
            self._finish_linear(at, sub)
        else:
            self._split(at, sub, self.roots.watched.place(int(program.watched[chosen])), sides)

    def _child(self, program: Triangles, at: Batch, place: int, side: int, basis: HighsBasis) -> tuple[float, HighsBasis]:
        program.restrict(_cut(at.bounds, *self.roots.watched.place(int(program.watched[place])), side))
        found = program.minimise_goal(basis)
        return (-np.inf if found is None else found.value), program.basis()

    def _split(self, at: Batch, sub: _Open, split: tuple[str, int], sides: Sequence[tuple[float, HighsBasis]]) -> None:
        node = self.nodes[sub.number]
        node.split, node.low, node.high = (*split, 0.0), len(self.nodes), len(self.nodes) + 1
        self.nodes += [Node(), Node()]
        self.splits += 1
        opened = []
        for side, (bound, basis) in enumerate(sides):
            bounds, empty = push(at.network, _cut(at.bounds, *split, side), changed=split[0])
            if not bool(empty[0]):
                opened.append(_Open(node.low + side, bounds, max(bound, sub.bound), basis))
        self.stack += sorted(opened, key=lambda child: -child.bound)

    def _finish_linear(self, at: Batch, sub: _Open) -> None:
        """What is left where every neuron is decided; `triangles` computes with rounded weights, and this does not."""
        solved = linear_program(at, 0, self.goal)
        if solved is not None and self._closes(float(solved.bound)):
            self.nodes[sub.number].closed = self._recorded(at, solved.bound[None], solved.choices)
        elif solved is not None and self.try_point(solved.point[None]):
            self.refuted = True
        else:
            self.lost = sub

    def _candidates(self, program: Triangles, best: Optimum) -> list[int]:
        """The undecided neurons whose lines above the optimum uses most, best first, and then the widest."""
        low, high, z = (of[program.read] for of in (program.low, program.high, best.z))
        open_ = (low < 0) & (high > 0)
        lines = (-best.of_rows[program.chords : program.first_relation]).clip(min=0.0)
        gap = program.slope * (z - low) - np.maximum(z, 0.0)
        score = np.where(open_, lines * gap.clip(min=0.0) + TINY * np.minimum(high, -low), 0.0)
        order = np.argsort(-score, kind="stable")[:CANDIDATES]
        return [int(program.read[n]) for n in order if score[n] > 0]


def _cut(bounds: Mapping[str, Interval], value: str, index: int, side: int) -> dict[str, Interval]:
    """The bounds under value[index] <= 0 (side 0), or >= 0."""
    low, high = (end.clone() for end in bounds[value])
    (high if side == 0 else low)[0, index] = 0.0
    return {**bounds, value: (low, high)}
