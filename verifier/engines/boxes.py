"""Input splitting: branch and bound on boxes of inputs, many at a time (METHODS 8), for networks with few inputs.

Every box is bounded again from itself alone, as a proof node with `rebound` is replayed, and split in the middle of the input
that causes most of the slack of its worst disjunct. Boxes wait on a stack, so memory grows with the depth only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close, ProofNode, Relaxation
from verifier.engines.bound import Clock
from verifier.engines.box_bounds import Boxes, Form, Interval, Layers, layers_of, slack_by_input
from verifier.engines.box_tree import ROOT, Tree
from verifier.engines.problem import Batch, Goal, Group, Searched, TryPoints

MAX_INPUTS = 30
BOXES_AT_ONCE = 64
ENTRIES_AT_ONCE = 2**22  # of the largest coefficient tensor of a batch of boxes
MAX_BOXES = 2_000_000
ROUNDING = 1e-5  # relative: float32 bounds nearer to the target than this are found again in float64
TIE = 1e-4  # relative: where an entry's bounds are as far from 0 on both sides, rounding could change its default slope
SLOPE_SHARE = 0.05  # weight of the goal's own slope, against the slack of the activations, in the choice of a split


@dataclass(frozen=True, eq=False)
class _Open:
    """Boxes that wait: low, high (boxes, inputs) float64; open (boxes, disjuncts); node: their proof nodes; bound: parent's.

    known: (boxes, 2, entries) bounds before the blocks, side by side, that proof nodes above have proved; without entries
    where those of the root are all.
    """

    low: Tensor
    high: Tensor
    open: Tensor
    node: Tensor
    bound: Tensor
    known: Tensor

    def __len__(self) -> int:
        return len(self.node)

    def __getitem__(self, rows: Tensor | slice) -> "_Open":
        return _Open(*(getattr(self, field.name)[rows] for field in fields(self)))


def _joined(parts: Sequence[_Open]) -> _Open:
    return _Open(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(_Open)))


@torch.no_grad()
def split_inputs(
    batch: Batch,
    open_disjuncts: Mapping[int, frozenset[int]],
    *,
    target: float,
    out_of_time: Clock,
    try_points: TryPoints,
    closed: Mapping[int, Sequence[Close]] | None = None,
) -> Searched:
    """Refute the open disjuncts of some groups of a batch by splitting the input box.

    closed: what the root has refuted already, by group. try_points(group, points) is shown inputs (points, size) and says
    whether one of them is a counterexample, which ends that group and those after it of the same query. Gives up at once
    where the network is not piecewise linear.
    """
    proofs: dict[int, ProofNode] = {}
    lost: dict[int, float] = {}
    refuted: set[int] = set()
    splits: dict[int, int] = {}
    for position, disjuncts in open_disjuncts.items():
        group = batch.groups[position]
        if any(batch.groups[r].query is group.query for r in refuted):
            lost[position] = -np.inf
            continue
        first = () if closed is None else tuple(closed.get(position, ()))
        search = _Search(batch, position, disjuncts, target, try_points)
        outcome = search.run(out_of_time)
        splits[position] = search.boxes
        if outcome is None:
            refuted.add(position)
        elif outcome > target:
            proofs[position] = search.tree.finished(batch.network.input, search.closes, batch.steps[position], first)
        else:
            lost[position] = outcome
    return Searched(proofs, lost, frozenset(refuted), splits)


class _Search:
    """The boxes of one group."""

    def __init__(self, batch: Batch, position: int, disjuncts: frozenset[int], target: float, try_points: TryPoints) -> None:
        group = batch.groups[position]
        self.position, self.target, self.try_points = position, target, try_points
        self.goals = _goals(group, disjuncts)
        self.disjuncts = sorted(disjuncts)
        self.closes = [_plain_close(group, goal) for goal in self.goals]
        # which disjuncts a goal refutes: those that hold its atom
        place = {d: k for k, d in enumerate(self.disjuncts)}
        self.of_goal = torch.tensor([place[goal.disjunct] for goal in self.goals])
        named = {term.value for goal in self.goals for term in goal.atom.terms}
        layers = layers_of(batch.network, named)
        assert layers is not None, "only piecewise linear networks are split into boxes"
        self.models = {dtype: _Model(layers, batch, position, self.goals, dtype) for dtype in (torch.float32, torch.float64)}
        low, high = (side[position : position + 1] for side in batch.bounds[batch.network.input])
        everything = torch.ones(1, len(self.disjuncts), dtype=torch.bool)
        # one disjunct is closed at leaves alone, whose bounds nothing inherits
        known = _side_by_side(self.models[torch.float64].known)[:, :, : None if len(self.disjuncts) > 1 else 0]
        start = torch.tensor([-torch.inf], dtype=torch.float64)
        self.stack = [_Open(low, high, everything, torch.tensor([ROOT]), start, known)]
        self.tree = Tree()
        self.boxes = 0

    def run(self, out_of_time: Clock) -> float | None:
        """inf where everything is refuted, None where a counterexample was found, else the smallest bound left open."""
        at_once = 1
        while self.stack:
            boxes = self._popped(at_once)
            at_once = min(2 * at_once, self.models[torch.float32].at_once)
            if out_of_time() or self.boxes > MAX_BOXES:
                return min(float(part.bound.min()) for part in (*self.stack, boxes))
            self.boxes += len(boxes)
            if self._bounded(boxes):
                return None
        return torch.inf

    def _popped(self, count: int) -> _Open:
        parts, found = [], 0
        while self.stack and found < count:
            part = self.stack.pop()
            spare = found + len(part) - count
            if spare > 0:
                self.stack.append(part[:spare])
                part = part[spare:]
            parts.append(part)
            found += len(part)
        return _joined(parts)

    def _bounded(self, boxes: _Open) -> bool:
        """Bound boxes, close what can be closed and split the rest; whether a counterexample was met."""
        found = self.models[torch.float32].bounded(boxes)
        least, passes, empty = found.least, found.least > self.target + found.error, found.empty
        unsure = ((found.least > self.target - found.error) & ~passes).any(1) | empty | (found.tied & passes.any(1))
        if bool(unsure.any()):
            exact = self.models[torch.float64].bounded(boxes[unsure])
            least = least.index_put((unsure,), exact.least)
            passes[unsure] = exact.least > self.target
            empty[unsure] = exact.empty
        left = self._closed(boxes, passes, empty)
        if boxes.known.shape[2]:
            inherits = (left != boxes.open).any(1)[:, None, None]
            boxes = replace(boxes, known=torch.where(inherits, found.proved(), boxes.known))
        kept = left.any(1)
        if not bool(kept.any()):
            return False
        best = torch.full(left.shape, -torch.inf, dtype=least.dtype)
        best = best.scatter_reduce(1, self.of_goal.expand(len(boxes), -1), least, "amax")[kept]
        best = torch.where(left[kept], best, torch.inf)
        bound, worst = best.min(1)
        rest = replace(boxes[kept], open=left[kept], bound=bound)
        row = torch.where(self.of_goal == worst[:, None], least[kept], -torch.inf).argmax(1)
        slopes = found.slopes(kept, row)
        corners = torch.where(slopes >= 0, rest.low, rest.high)
        if self.try_points(self.position, torch.cat([corners, (rest.low + rest.high) / 2])):
            return True
        self._split(rest, found.slack(kept, row) + SLOPE_SHARE * slopes.abs() * (rest.high - rest.low))
        return False

    def _closed(self, boxes: _Open, passes: Tensor, empty: Tensor) -> Tensor:
        """Record what is refuted: passes (boxes, goals). Returns which disjuncts stay open, (boxes, disjuncts)."""
        left = boxes.open & ~empty[:, None]
        for d in range(len(self.disjuncts)):
            own = (self.of_goal == d).nonzero()[:, 0]
            which = passes[:, own] & left[:, d : d + 1]
            refuted = which.any(1)
            self.tree.close(boxes.node[refuted], own[which[refuted].to(torch.int8).argmax(1)])
            left[:, d] &= ~refuted
        return left

    def _split(self, boxes: _Open, scores: Tensor) -> None:
        """Halve boxes on the input of the largest score, less those that are too narrow for it."""
        middle = (boxes.low + boxes.high) / 2
        divisible = (boxes.low < middle) & (middle < boxes.high)
        dims = scores.masked_fill(~divisible, -1.0).argmax(1, keepdim=True)
        at = middle.gather(1, dims)
        low, high = self.tree.split(boxes.node, dims[:, 0], at[:, 0])
        halves = (
            replace(boxes, high=boxes.high.scatter(1, dims, at), node=low),
            replace(boxes, low=boxes.low.scatter(1, dims, at), node=high),
        )
        both = _joined(halves)
        # the most hopeful box for a counterexample, and the hardest to prove, comes off the stack first
        self.stack.append(both[both.bound.argsort(descending=True, stable=True)])


def _goals(group: Group, disjuncts: frozenset[int]) -> list[Goal]:
    """The atoms that may refute each open disjunct: its own goals, and relations that are premises of the whole group."""
    own = [goal for goal in group.goals if goal.disjunct in disjuncts]
    shared = [Goal(d, atom) for d in sorted(disjuncts) for atom in group.relations]
    return list(dict.fromkeys([*own, *shared]))


def _plain_close(group: Group, goal: Goal) -> Close:
    """The close by the goal's atom alone, with default slopes."""
    atoms = group.query.disjuncts[goal.disjunct]
    multipliers = np.zeros((1, len(atoms)))
    multipliers[0, atoms.index(goal.atom)] = 1.0
    return Close(goal.disjunct, Relaxation(atoms=multipliers))


@dataclass(frozen=True, eq=False)
class _Found:
    """Bounds of every goal on every box, (boxes, goals); error: what rounding may have done to them.

    empty, tied: (boxes,) no input is left; some default slope hangs on rounding.
    """

    boxes: Boxes
    lower: Tensor
    seen: Mapping[int, Tensor]
    least: Tensor
    error: Tensor
    empty: Tensor
    tied: Tensor

    def proved(self) -> Tensor:
        """Bounds before the blocks, (boxes, 2, entries)."""
        return _side_by_side([(line.low, line.high) for line in self.boxes.lines]).double()

    def slopes(self, kept: Tensor, row: Tensor) -> Tensor:
        """Of one goal for each kept box, (boxes, inputs)."""
        return self.lower[row, kept.nonzero()[:, 0]].double()

    def slack(self, kept: Tensor, row: Tensor) -> Tensor:
        places = kept.nonzero()[:, 0]
        seen = {k: a[row, places] for k, a in self.seen.items()}
        inside = self.boxes
        lines = [line.select(places) for line in inside.lines]
        return slack_by_input(inside.layers, lines, inside.radius[places], seen).double()


class _Model:
    """One group's network, premises and goals in one precision."""

    def __init__(self, layers: Layers, batch: Batch, position: int, goals: Sequence[Goal], dtype: torch.dtype) -> None:
        self.layers, self.dtype = layers.to(dtype), dtype
        self.rows: Form = layers.rows([goal.atom for goal in goals]).to(dtype)
        self.known = [_known(batch, position, block.before, dtype) for block in layers.blocks]
        widest = max((len(block.form.bias) for block in layers.blocks), default=1)
        self.at_once = max(1, min(BOXES_AT_ONCE, ENTRIES_AT_ONCE // (2 * widest * widest)))

    def _known_of(self, boxes: _Open) -> Sequence[Interval]:
        if not boxes.known.shape[2]:
            return self.known
        sizes = [len(block.form.bias) for block in self.layers.blocks]
        low, high = boxes.known.to(self.dtype).unbind(1)
        return list(zip(low.split(sizes, 1), high.split(sizes, 1), strict=True))

    def bounded(self, boxes: _Open) -> _Found:
        low, high = boxes.low, boxes.high
        center, radius = ((low + high) / 2).to(self.dtype), ((high - low) / 2).to(self.dtype)
        inside = Boxes(self.layers, center, radius, self._known_of(boxes))
        affine = inside.goal_bounds(self.rows, keep=True)
        least = affine.least(radius)
        size = affine.constant.abs() + (affine.slopes.abs() * (center.abs() + radius)).sum(-1)
        tied = torch.zeros(len(low), dtype=torch.bool)
        for line in inside.lines:
            near = (line.low + line.high).abs() < TIE * (line.high - line.low)
            tied |= near.any(1)
        return _Found(inside, affine.slopes, affine.seen, least.T.double(), ROUNDING * size.T.double(), inside.crossed, tied)


def _side_by_side(bounds: Sequence[Interval]) -> Tensor:
    """(boxes, 2, entries) from (boxes, size) for each block."""
    if not bounds:
        return torch.zeros(1, 2, 0, dtype=torch.float64)
    return torch.stack([torch.cat(side, 1) for side in zip(*bounds, strict=True)], 1)


def _known(batch: Batch, position: int, value: str, dtype: torch.dtype) -> Interval:
    low, high = (side[position : position + 1] for side in batch.bounds[value])
    return low.to(dtype), high.to(dtype)
