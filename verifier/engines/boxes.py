"""Input splitting: branch and bound on boxes of inputs, many at a time (METHODS 8), for networks with few inputs.

Every box is bounded again from itself alone, as a proof node with `rebound` is replayed, and split in the middle of the input
that causes most of the slack of its worst disjunct. Boxes wait on a stack, so memory grows with the depth only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close, ProofNode, Relaxation
from verifier.device import array_of
from verifier.engines.bound import Clock
from verifier.engines.box_bounds import has_layers, layers_of
from verifier.engines.box_goals import Members
from verifier.engines.box_slopes import Climbed
from verifier.engines.box_tree import ROOT, Tree
from verifier.engines.curved_boxes import CurvedFound, CurvedModel
from verifier.engines.layered_boxes import LayeredFound, LayeredModel
from verifier.engines.problem import Batch, Goal, Group, Report, Searched, TryPoints, unheard
from verifier.formula import Atom
from verifier.network import Network

MAX_INPUTS = 30
MAX_BOXES = 2_000_000
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
    """Whether `split_inputs` is made for the network: of few inputs."""
    return network.size(network.input) <= MAX_INPUTS


@torch.no_grad()
def split_inputs(
    batch: Batch,
    open_disjuncts: Mapping[int, frozenset[int]],
    *,
    target: float,
    out_of_time: Clock,
    try_points: TryPoints,
    closed: Mapping[int, Sequence[Close]] | None = None,
    most_splits: int | None = None,
    report: Report = unheard,
    begun: dict[Group, "BoxSearch"] | None = None,
) -> Searched:
    """Refute the open disjuncts of some groups of a batch by splitting the input box.

    closed: what the root has refuted already, by group. try_points(group, points) is shown inputs (points, size) and says
    whether one of them is a counterexample, which ends that group and those after it of the same query. most_splits: how many
    boxes are bounded at most, over all groups. begun: searches of earlier calls, which go on where they were; those of this
    call are added. The network must be one that `can_split_inputs` accepts.
    """
    proofs: dict[int, ProofNode] = {}
    lost: dict[int, float] = {}
    refuted: set[int] = set()
    splits: dict[int, int] = {}
    most = MAX_BOXES if most_splits is None else most_splits
    for position, disjuncts in open_disjuncts.items():
        group = batch.groups[position]
        if any(batch.groups[r].query is group.query for r in refuted):
            lost[position] = -np.inf
            continue
        search = None if begun is None else begun.get(group)
        if search is None or search.disjuncts != sorted(disjuncts):
            first = () if closed is None else tuple(closed.get(position, ()))
            search = BoxSearch(batch, position, disjuncts, target, first)
        if begun is not None:
            begun[group] = search
        done, earlier = sum(splits.values()), search.boxes
        told = partial(_told, report, position, done - earlier)
        outcome = search.run(out_of_time, most - done, partial(try_points, position), told)
        splits[position] = search.boxes - earlier
        if outcome is None:
            refuted.add(position)
        elif outcome > target:
            proofs[position] = search.proof()
        else:
            lost[position] = outcome
    return Searched(proofs, lost, frozenset(refuted), splits)


def _told(report: Report, position: int, earlier: int, search: "BoxSearch") -> None:
    report(lambda: {position: search.weakest()}, earlier + search.boxes)


class BoxSearch:
    """The boxes of one group that a search has left open, and its tree so far. first: what the root has refuted already."""

    def __init__(self, batch: Batch, position: int, disjuncts: frozenset[int], target: float, first: tuple[Close, ...]) -> None:
        group = batch.groups[position]
        self.target, self.source = target, batch.network.input
        self.steps, self.first = batch.steps[position], first
        self.goals = _goals(group, disjuncts)
        self.disjuncts = sorted(disjuncts)
        self.group = group
        # the goals that may refute each disjunct, by number
        self.members = [_members(self.goals, group, d) for d in self.disjuncts]
        self.alone: dict[int, Close] = {}
        self.model, self.exact = _models(batch, position, self.goals)
        low, high = (side[position : position + 1] for side in batch.bounds[batch.network.input])
        everything = torch.ones(1, len(self.disjuncts), dtype=torch.bool)
        # one disjunct is closed at leaves alone, whose bounds nothing inherits
        known = (self.exact or self.model).start()[:, :, : None if len(self.disjuncts) > 1 else 0]
        start = torch.tensor([-torch.inf], dtype=torch.float64)
        self.stack = [_Open(low, high, everything, torch.tensor([ROOT]), start, known)]
        self.tree = Tree()
        self.boxes, self.at_once = 0, 1

    def run(
        self,
        out_of_time: Clock,
        most: int,
        try_points: Callable[[Tensor], bool],
        report: Callable[["BoxSearch"], None],
    ) -> float | None:
        """inf where everything is refuted, None where a counterexample was found, else the smallest bound left open.

        most: how many more boxes are bounded.
        """
        until = min(self.boxes + most, MAX_BOXES)
        while self.stack:
            if out_of_time() or self.boxes >= until:
                return self.weakest()
            report(self)
            boxes = self._popped(min(self.at_once, until - self.boxes))
            self.at_once = min(2 * self.at_once, self.model.at_once)
            self.boxes += len(boxes)
            if self._bounded(boxes, out_of_time, try_points):
                return None
        return torch.inf

    def proof(self) -> ProofNode:
        """The whole tree, where nothing is open."""
        return self.tree.finished(self.source, self.close_of, self.steps, self.first)

    def weakest(self) -> float:
        """The smallest bound of the boxes that wait, as their parents saw them."""
        return min((float(part.bound.min()) for part in self.stack), default=torch.inf)

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

    def _bounded(self, boxes: _Open, out_of_time: Clock, try_points: Callable[[Tensor], bool]) -> bool:
        """Bound boxes, close what can be closed and split the rest; whether a counterexample was met.

        Where time runs out on the way, boxes go back as they are, but for the disjuncts closed: what their node proves is
        proved there once.
        """
        found = self.model.bounded(boxes.low, boxes.high, boxes.known, self.members, self.target)
        refuted, empty, weights = self._refuted(boxes, found)
        if out_of_time():
            self.stack.append(boxes)
            return False
        left, given = self._closed(boxes, refuted, weights, empty), boxes.known
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
        if out_of_time():
            self.stack.append(replace(rest, known=given[kept]))
            return False
        rest, still, mixture = self._raised(rest, found, kept, worst, mixture)
        if not len(still):
            return False
        if out_of_time():
            self.stack.append(replace(rest, known=given[still]))
            return False
        slopes, slack = found.blame(still, mixture)
        corners = torch.where(slopes >= 0, rest.low, rest.high)
        if try_points(torch.cat([corners, (rest.low + rest.high) / 2])):
            return True
        self._split(rest, slack + SLOPE_SHARE * slopes.abs() * (rest.high - rest.low))
        return False

    def _raised(
        self, rest: _Open, found: LayeredFound | CurvedFound, kept: Tensor, worst: Tensor, mixture: Tensor
    ) -> tuple[_Open, Tensor, Tensor]:
        """Close the worst disjunct of open boxes by better slopes, where its score is near; what stays open of the three.

        kept: the boxes' places among those bounded.
        """
        score = found.how.score[kept].gather(1, worst[:, None])[:, 0]
        near = (score > -self.model.near).nonzero()[:, 0]
        if not len(near):
            return rest, kept, mixture
        climbed = found.climbed(kept[near], mixture[near])
        doubt = (mixture[near] * found.doubt[:, kept[near]].T).sum(1)
        passed = (climbed.bound > doubt) & ~found.tied[kept[near]]
        if not bool(passed.any()):
            return rest, kept, mixture
        self._close_climbed(rest[near], worst[near], mixture[near], climbed, passed)
        sure = torch.zeros(len(kept), dtype=torch.bool).index_put((near,), passed)
        open_ = rest.open & ~(sure[:, None] & (worst[:, None] == torch.arange(rest.open.shape[1])))
        if rest.known.shape[2]:
            rest = replace(rest, known=torch.where(sure[:, None, None], found.proved()[kept], rest.known))
        more = open_.any(1)
        return replace(rest, open=open_)[more], kept[more], mixture[more]

    def _refuted(self, boxes: _Open, found: LayeredFound | CurvedFound) -> tuple[Tensor, Tensor, Tensor]:
        """What is refuted (boxes, disjuncts), which boxes are empty, and the weights of goals; where unsure, found exactly."""
        refuted, empty, weights = found.how.score > found.how.doubt, found.empty, found.how.weights.double()
        unsure = (found.how.score.abs() <= found.how.doubt) | (found.tied[:, None] & refuted) | empty[:, None]
        again = (unsure & boxes.open).any(1)
        if self.exact is not None and bool(again.any()):
            part = boxes[again]
            exact = self.exact.bounded(part.low, part.high, part.known, self.members, self.target)
            refuted[again] = exact.how.score > exact.how.doubt
            weights[again] = exact.how.weights
            empty[again] = exact.empty
        return refuted, empty, weights

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
        rows = sure.nonzero()[:, 0]
        slopes, upper_slopes = (
            {name: array_of(tensor[rows].double()) for name, tensor in side.items()}
            for side in (climbed.slopes, climbed.upper_slopes)
        )
        columns = (boxes.node[rows].tolist(), worst[rows].tolist(), weights[rows])
        for k, (node, d, row) in enumerate(zip(*columns, strict=True)):
            plain = self.close_of(self.disjuncts[d], row)
            own, above = ({name: array[k : k + 1] for name, array in side.items()} for side in (slopes, upper_slopes))
            relaxation = replace(plain.relaxation, slopes=own, upper_slopes=above)
            self.tree.close_by(node, replace(plain, relaxation=relaxation))

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


def _models(batch: Batch, position: int, goals: Sequence[Goal]) -> tuple[LayeredModel | CurvedModel, LayeredModel | None]:
    """What bounds the boxes of a group, and what bounds them again where rounding may decide."""
    if not has_layers(batch.network):
        return CurvedModel(batch, position, goals), None
    layers = layers_of(batch.network, {term.value for goal in goals for term in goal.atom.terms})
    quick, exact = (LayeredModel(layers, batch, position, goals, dtype) for dtype in (torch.float32, torch.float64))
    return quick, exact


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
