"""Bounds for many input boxes at once through the graph itself: networks with curves, products, steps and pools.

What is found is what a proof node with `rebound` replays: intervals forward, and for each entry that leaves a node undecided
one backward pass for each side, with default slopes. Plain floats: `verifier.check` proves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.domains.choices import Choices, Rows, unit_rows
from verifier.domains.linear import Fixed, lower_bounds
from verifier.domains.relaxations import Interval, undecided, values_read
from verifier.engines.bound import adaptive, interval_is_exact, push
from verifier.engines.box_bounds import Affine
from verifier.engines.box_goals import Members, Refutation, refute
from verifier.engines.box_slopes import Climbed
from verifier.engines.branching import split_scores
from verifier.engines.corner_slopes import climb_from_corners
from verifier.engines.problem import Batch, Goal, goal_rows
from verifier.evaluate import evaluate
from verifier.network import Network

BOXES_AT_ONCE = 4096
ENTRIES_AT_ONCE = 2**22  # of the largest coefficient tensor
NEAR = 1.0  # of an atom's own size: it pays wherever the bound is above 0 at the center of the box
ROUNDING = 1e-10  # relative; what the replay may charge, and more
UNBOUNDED = 1e30  # stands for what no line bounds

Bounds = Mapping[str, Interval]


class CurvedModel:
    """One group's network, premises and goals, for boxes of inputs; bounds are float64. near: how near to 0 climbing pays."""

    near = NEAR

    def __init__(self, batch: Batch, position: int, goals: Sequence[Goal]) -> None:
        self.network = batch.network
        self.root = {name: _row(interval, position) for name, interval in batch.bounds.items()}
        rows = goal_rows(batch.network, [goal.atom for goal in goals])
        self.coefficients = {name: matrix[:, 0] for name, matrix in rows.coefficients.items()}
        self.constant = rows.constant[:, 0]
        self.read = [name for name in values_read(batch.network) if not interval_is_exact(batch.network, name)]
        self.names = [name for name in batch.network.shapes if name != batch.network.input]
        widest = max(batch.network.size(name) for name in batch.network.shapes)
        most = max((int(undecided(batch.network, self.root, name).sum()) for name in self.read), default=1)
        self.at_once = max(1, min(BOXES_AT_ONCE, ENTRIES_AT_ONCE // (2 * widest * max(most, len(goals)))))

    def start(self) -> Tensor:
        """What is known of the whole region, (1, 2, entries): all values side by side."""
        return _side_by_side(self.names, self.root)

    def bounded(self, low: Tensor, high: Tensor, known: Tensor, members: Sequence[Members], target: float) -> "CurvedFound":
        """Bounds of the goals over boxes (boxes, inputs). known: (boxes, 2, entries) as `start`, or without entries."""
        fixed: dict[str, Fixed] = {}
        wide = {**self._known(known, len(low)), self.network.input: (low, high)}
        bounds, empty = rebound(self.network, self.read, wide, fixed=fixed)
        lower = self._goal_bounds(bounds, fixed)
        radius = (high - low) / 2
        size = lower.constant.abs() + (lower.slopes.abs() * ((high + low).abs() / 2 + radius)).sum(-1)
        doubt = ROUNDING * size + target
        how = refute(lower, radius, members, doubt)
        return CurvedFound(self, bounds, lower, how, doubt, empty, torch.zeros(len(low), dtype=torch.bool))

    def _known(self, known: Tensor, boxes: int) -> Bounds:
        if not known.shape[2]:
            return {name: (low.expand(boxes, -1), high.expand(boxes, -1)) for name, (low, high) in self.root.items()}
        sizes = [self.network.size(name) for name in self.names]
        low, high = known.unbind(1)
        return dict(zip(self.names, zip(low.split(sizes, 1), high.split(sizes, 1), strict=True), strict=True))

    def _goal_bounds(self, bounds: Bounds, fixed: dict[str, Fixed] | None = None) -> Affine:
        low, high = bounds[self.network.input]
        wide = {name: matrix.expand(len(low), -1, -1) for name, matrix in self.coefficients.items()}
        seen: dict[str, Tensor] = {}
        rows = Rows(wide, self.constant.expand(len(low), -1))
        least = lower_bounds(self.network, bounds, rows, Choices({}), seen=seen, fixed=fixed)
        slopes = seen.get(self.network.input, torch.zeros(*least.shape, low.shape[1], dtype=least.dtype))
        # sound: a row that no line bounds takes part in nothing, its constant being as good as -infinite
        known = least.isfinite() & slopes.isfinite().all(-1)
        slopes = torch.where(known[..., None], slopes, 0.0)
        constant = torch.where(known, least, -UNBOUNDED) + (slopes.abs() * (high - low)[:, None] / 2).sum(-1)
        return Affine(slopes.transpose(0, 1), constant.T, {})


def rebound(
    network: Network, read: Sequence[str], bounds: Bounds, *, fixed: dict[str, Fixed] | None = None
) -> tuple[Bounds, Tensor]:
    """Bounds of every value over boxes, proved again from the input's; and (boxes,) where they contradict each other.

    fixed: filled with what passes found of nodes before the value at hand, whose bounds change no more.
    """
    bounds, empty = push(network, bounds)
    fixed = {} if fixed is None else fixed
    for name in read:
        open_ = undecided(network, bounds, name) & ~empty[:, None]
        columns = open_.any(0).nonzero()[:, 0]
        if not len(columns):
            continue
        ones = torch.ones(len(open_), len(columns), dtype=torch.float64)
        rows = unit_rows(name, columns.expand(len(open_), -1).repeat(1, 2), torch.cat([ones, -ones], 1))
        least = lower_bounds(network, bounds, rows, Choices({}), fixed=fixed)
        counted = (open_[:, columns].repeat(1, 2)) & ~least.isnan()
        from_below, from_above = torch.where(counted, least, -torch.inf).chunk(2, dim=1)
        low, high = (side.clone() for side in bounds[name])
        low[:, columns] = torch.maximum(low[:, columns], from_below)
        high[:, columns] = torch.minimum(high[:, columns], -from_above)
        bounds, crossed = push(network, {**bounds, name: (low, high)}, changed=name)
        empty = empty | crossed
    return bounds, empty


@dataclass(frozen=True, eq=False)
class CurvedFound:
    """Bounds of every goal on every box, and how they refute the disjuncts; as `LayeredFound`."""

    model: CurvedModel
    bounds: Bounds
    lower: Affine
    how: Refutation
    doubt: Tensor
    empty: Tensor
    tied: Tensor

    def proved(self) -> Tensor:
        """Bounds of all values, (boxes, 2, entries)."""
        return _side_by_side(self.model.names, self.bounds)

    def climbed(self, kept: Tensor, weights: Tensor) -> Climbed:
        """The bound of one weighted sum of goals for each kept box, with better slopes."""
        bound, choices = climb_from_corners(self.model.network, self._bounds_of(kept), self._mixed(weights))
        slopes, upper_slopes = (
            {name: tensor[:, 0] for name, tensor in side.items()} for side in (choices.slopes, choices.upper_slopes)
        )
        return Climbed(bound[:, 0], slopes, upper_slopes)

    def blame(self, kept: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes of one weighted sum of goals for each kept box, and its slack by input, (boxes, inputs)."""
        network, bounds = self.model.network, self._bounds_of(kept)
        seen: dict[str, Tensor] = {}
        choices = adaptive(network, bounds)
        lower_bounds(network, bounds, self._mixed(weights), choices, seen=seen)
        scores = split_scores(network, bounds, seen, choices)
        low, high = bounds[network.input]
        slack = torch.zeros_like(low)
        for name, moved in _moves(network, list(scores), low, high).items():
            share = moved / moved.sum(1, keepdim=True).clamp(min=1e-30)
            slack += torch.einsum("bie,be->bi", share, scores[name].nan_to_num(nan=0.0, posinf=UNBOUNDED))
        slopes = seen.get(network.input, torch.zeros_like(low)[:, None])[:, 0]
        return slopes.nan_to_num(), slack

    def _bounds_of(self, kept: Tensor) -> Bounds:
        return {name: (low[kept], high[kept]) for name, (low, high) in self.bounds.items()}

    def _mixed(self, weights: Tensor) -> Rows:
        forms = {name: (weights @ matrix)[:, None] for name, matrix in self.model.coefficients.items()}
        return Rows(forms, (weights @ self.model.constant)[:, None])


def _moves(network: Network, names: Sequence[str], low: Tensor, high: Tensor) -> Mapping[str, Tensor]:
    """How far each value moves when one input alone goes through a box, (boxes, inputs, entries)."""
    boxes, inputs = low.shape
    center, radius = (low + high) / 2, (high - low) / 2
    steps = torch.eye(inputs, dtype=low.dtype) * radius[:, None]
    points = torch.cat([center[:, None] - steps, center[:, None] + steps], 1).reshape(-1, inputs)
    values = evaluate(network, points, keep=names)
    ends = {name: values[name].reshape(boxes, 2, inputs, -1) for name in names}
    return {name: (value[:, 1] - value[:, 0]).abs() for name, value in ends.items()}


def _row(interval: Interval, position: int) -> Interval:
    low, high = interval
    return low[position : position + 1], high[position : position + 1]


def _side_by_side(names: Sequence[str], bounds: Bounds) -> Tensor:
    sides = zip(*(bounds[name] for name in names), strict=True)
    return torch.stack([torch.cat(side, 1) for side in sides], 1)
