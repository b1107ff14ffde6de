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
from verifier.engines.box_bounds import Affine, Boxes, Form, Interval, Layers, has_layers, layers_of, slack_by_input
from verifier.engines.box_goals import Members, Refutation, refute
from verifier.engines.box_slopes import Climbed, climb_slopes
from verifier.engines.box_tree import ROOT, Tree
from verifier.engines.problem import Batch, Goal, Group, Searched, TryPoints
from verifier.formula import Atom
from verifier.network import Network

MAX_INPUTS = 30
BOXES_AT_ONCE = 64
ENTRIES_AT_ONCE = 2**22  # of the largest coefficient tensor of a batch of boxes
MAX_BOXES = 2_000_000
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-11}  # relative; float32 bounds within it are found again in float64
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


def can_split_inputs(network: Network) -> bool:
    """Whether `split_inputs` is made for the network: piecewise linear, of few inputs."""
    return network.size(network.input) <= MAX_INPUTS and has_layers(network)


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
    whether one of them is a counterexample, which ends that group and those after it of the same query. The network must be
    one that `can_split_inputs` accepts.
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
            proofs[position] = search.tree.finished(batch.network.input, search.close_of, batch.steps[position], first)
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
        self.group = group
        # the goals that may refute each disjunct, by number
        self.members = [_members(self.goals, group, d) for d in self.disjuncts]
        self.alone: dict[int, Close] = {}
        named = {term.value for goal in self.goals for term in goal.atom.terms}
        layers = layers_of(batch.network, named)
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
        found = self.models[torch.float32].bounded(boxes, self.members, self.target)
        refuted, empty, weights = found.how.score > found.how.doubt, found.empty, found.how.weights.double()
        unsure = (found.how.score.abs() <= found.how.doubt) | (found.tied[:, None] & refuted) | empty[:, None]
        again = (unsure & boxes.open).any(1)
        if bool(again.any()):
            exact = self.models[torch.float64].bounded(boxes[again], self.members, self.target)
            refuted[again] = exact.how.score > exact.how.doubt
            weights[again] = exact.how.weights
            empty[again] = exact.empty
        left = self._closed(boxes, refuted, weights, empty)
        if boxes.known.shape[2]:
            inherits = (left != boxes.open).any(1)[:, None, None]
            boxes = replace(boxes, known=torch.where(inherits, found.proved(), boxes.known))
        kept = left.any(1).nonzero()[:, 0]
        if not len(kept):
            return False
        open_ = left[kept]
        bound = torch.where(open_, found.how.bound[kept], torch.inf).amin(1).double()
        worst = torch.where(open_, found.how.score[kept], torch.inf).argmin(1)
        rest = replace(boxes[kept], open=open_, bound=bound)
        mixture = torch.zeros_like(weights[kept])
        for d, own in enumerate(self.members):
            mixture[:, own.all] = torch.where((worst == d)[:, None], weights[kept][:, own.all], 0.0)
        climbed = found.climbed(kept, mixture, self.models[torch.float32].rows)
        sure = (climbed.bound > (mixture * found.doubt[:, kept].T).sum(1)) & ~found.tied[kept]
        if bool(sure.any()):
            self._close_climbed(rest, worst, mixture, climbed, sure)
            open_ = open_ & ~(sure[:, None] & (worst[:, None] == torch.arange(open_.shape[1])))
            if rest.known.shape[2]:
                rest = replace(rest, known=torch.where(sure[:, None, None], found.proved()[kept], rest.known))
            more = open_.any(1)
            rest, kept, mixture = replace(rest, open=open_)[more], kept[more], mixture[more]
            if not len(kept):
                return False
        slopes, slack = found.blame(kept, mixture)
        corners = torch.where(slopes >= 0, rest.low, rest.high)
        if self.try_points(self.position, torch.cat([corners, (rest.low + rest.high) / 2])):
            return True
        self._split(rest, slack + SLOPE_SHARE * slopes.abs() * (rest.high - rest.low))
        return False

    def _closed(self, boxes: _Open, refuted: Tensor, weights: Tensor, empty: Tensor) -> Tensor:
        """Record what is refuted, (boxes, disjuncts). Returns which disjuncts stay open."""
        left = boxes.open & ~empty[:, None]
        for d, (disjunct, members) in enumerate(zip(self.disjuncts, self.members, strict=True)):
            own = members.all
            which = refuted[:, d] & left[:, d]
            if bool(which.any()):
                self.tree.close(
                    boxes.node[which], disjunct, torch.zeros_like(weights[which]).index_copy(1, own, weights[which][:, own])
                )
        return left & ~refuted

    def _close_climbed(self, boxes: _Open, worst: Tensor, weights: Tensor, climbed: Climbed, sure: Tensor) -> None:
        blocks = self.models[torch.float32].layers.blocks
        for row in sure.nonzero()[:, 0].tolist():
            plain = self.close_of(self.disjuncts[int(worst[row])], weights[row])
            slopes = {b.after: s[row : row + 1].double().numpy() for b, s in zip(blocks, climbed.slopes, strict=True)}
            self.tree.close_by(int(boxes.node[row]), replace(plain, relaxation=replace(plain.relaxation, slopes=slopes)))

    def close_of(self, disjunct: int, weights: Tensor) -> Close:
        """The close by a weighted sum of goals, with default slopes; those by one goal are shared."""
        used = weights.nonzero()[:, 0].tolist()
        if len(used) == 1 and used[0] in self.alone:
            return self.alone[used[0]]
        atoms = self.group.query.disjuncts[disjunct]
        multipliers = np.zeros((1, len(atoms)))
        top = float(weights.max())
        for k in used:
            multipliers[0, atoms.index(self.goals[k].atom)] = float(weights[k]) / top
        close = Close(disjunct, Relaxation(atoms=multipliers))
        if len(used) == 1:
            self.alone[used[0]] = close
        return close

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
    """The atoms that may refute each open disjunct: its own goals, and the premises of the whole group."""
    own = [goal for goal in group.goals if goal.disjunct in disjuncts]
    atoms = {(goal.disjunct, goal.atom) for goal in own}
    return own + [Goal(d, a) for d in sorted(disjuncts) for a in _premises(group) if (d, a) not in atoms]


def _members(goals: Sequence[Goal], group: Group, disjunct: int) -> Members:
    own = {goal.atom for goal in group.goals if goal.disjunct == disjunct}
    numbers = [k for k, goal in enumerate(goals) if goal.disjunct == disjunct]
    chosen, others = ([k for k in numbers if (goals[k].atom in own) is wanted] for wanted in (True, False))
    return Members(torch.tensor(chosen, dtype=torch.long), torch.tensor(others, dtype=torch.long))


def _premises(group: Group) -> list[Atom]:
    """The common atoms, less bounds on one input, of which a box says all that there is."""
    source = group.query.network.input
    return [a for a in group.common if len(a.terms) > 1 or a.terms[0].value != source]


@dataclass(frozen=True, eq=False)
class _Found:
    """Bounds of every goal on every box, and how they refute the disjuncts.

    empty, tied: (boxes,) no input is left; some default slope hangs on rounding.
    """

    boxes: Boxes
    lower: Affine
    how: Refutation
    doubt: Tensor
    empty: Tensor
    tied: Tensor

    def climbed(self, kept: Tensor, weights: Tensor, rows: Form) -> Climbed:
        """The bound of one weighted sum of goals for each kept box, with better slopes."""
        mix = weights.to(rows.bias)
        lines = [line.select(kept) for line in self.boxes.lines]
        forms = {source: mix @ matrix for source, matrix in rows.weights.items()}
        boxes = self.boxes
        return climb_slopes(boxes.layers, lines, boxes.center[kept], boxes.radius[kept], forms, mix @ rows.bias)

    def proved(self) -> Tensor:
        """Bounds before the blocks, (boxes, 2, entries)."""
        return _side_by_side([(line.low, line.high) for line in self.boxes.lines]).double()

    def blame(self, kept: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes of one weighted sum of goals for each kept box, and its slack by input, (boxes, inputs)."""
        mix = weights.to(self.lower.slopes.dtype).T[..., None]
        slopes = (mix * self.lower.slopes[:, kept]).sum(0)
        seen = {k: (mix * a[:, kept]).sum(0) for k, a in self.lower.seen.items()}
        lines = [line.select(kept) for line in self.boxes.lines]
        return slopes.double(), slack_by_input(self.boxes.layers, lines, self.boxes.radius[kept], seen).double()


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

    def bounded(self, boxes: _Open, members: Sequence[Members], target: float) -> _Found:
        low, high = boxes.low, boxes.high
        center, radius = ((low + high) / 2).to(self.dtype), ((high - low) / 2).to(self.dtype)
        inside = Boxes(self.layers, center, radius, self._known_of(boxes))
        lower = inside.goal_bounds(self.rows, keep=True)
        error = ROUNDING[self.dtype] * (lower.constant.abs() + (lower.slopes.abs() * (center.abs() + radius)).sum(-1))
        how = refute(lower, radius, members, error + target)
        tied = torch.zeros(len(low), dtype=torch.bool)
        for line in inside.lines:
            tied |= ((line.low + line.high).abs() < TIE * (line.high - line.low)).any(1)
        return _Found(inside, lower, how, error + target, inside.crossed, tied)


def _side_by_side(bounds: Sequence[Interval]) -> Tensor:
    """(boxes, 2, entries) from (boxes, size) for each block."""
    if not bounds:
        return torch.zeros(1, 2, 0, dtype=torch.float64)
    return torch.stack([torch.cat(side, 1) for side in zip(*bounds, strict=True)], 1)


def _known(batch: Batch, position: int, value: str, dtype: torch.dtype) -> Interval:
    low, high = (side[position : position + 1] for side in batch.bounds[value])
    return low.to(dtype), high.to(dtype)
