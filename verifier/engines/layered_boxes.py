"""Bounds of many input boxes for the search: networks of affine maps and ReLUs, as the layers of `box_bounds`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.engines.box_bounds import Affine, Boxes, Form, Interval, Layers, slack_by_input
from verifier.engines.box_goals import Members, Refutation, refute
from verifier.engines.box_slopes import Climbed, climb_slopes
from verifier.engines.problem import Batch, Goal

BOXES_AT_ONCE = 64
ENTRIES_AT_ONCE = 2**22  # of the largest coefficient tensor of a batch of boxes
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-11}  # relative; float32 bounds within it are found again in float64
TIE = 1e-4  # relative: where an entry's bounds are as far from 0 on both sides, rounding could change its default slope


@dataclass(frozen=True, eq=False)
class LayeredFound:
    """Bounds of every goal on every box, and how they refute the disjuncts.

    empty, tied: (boxes,) no input is left; some default slope hangs on rounding.
    """

    boxes: Boxes
    rows: Form
    lower: Affine
    how: Refutation
    doubt: Tensor
    empty: Tensor
    tied: Tensor

    def climbed(self, kept: Tensor, weights: Tensor) -> Climbed:
        """The bound of one weighted sum of goals for each kept box, with better slopes."""
        rows = self.rows
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


class LayeredModel:
    """One group's network, premises and goals in one precision. near: climbing is cheap, and pays everywhere."""

    near = float("inf")

    def __init__(self, layers: Layers, batch: Batch, position: int, goals: Sequence[Goal], dtype: torch.dtype) -> None:
        self.layers, self.dtype = layers.to(dtype), dtype
        self.rows: Form = layers.rows([goal.atom for goal in goals]).to(dtype)
        self.known = [_known(batch, position, block.before, dtype) for block in layers.blocks]
        widest = max((len(block.form.bias) for block in layers.blocks), default=1)
        self.at_once = max(1, min(BOXES_AT_ONCE, ENTRIES_AT_ONCE // (2 * widest * widest)))

    def start(self) -> Tensor:
        """What is known of the whole region before the blocks, (1, 2, entries)."""
        return _side_by_side(self.known)

    def _known_of(self, known: Tensor) -> Sequence[Interval]:
        if not known.shape[2]:
            return self.known
        sizes = [len(block.form.bias) for block in self.layers.blocks]
        low, high = known.to(self.dtype).unbind(1)
        return list(zip(low.split(sizes, 1), high.split(sizes, 1), strict=True))

    def bounded(self, low: Tensor, high: Tensor, known: Tensor, members: Sequence[Members], target: float) -> LayeredFound:
        """Bounds of the goals over boxes (boxes, inputs). known: (boxes, 2, entries) as `start`, or without entries."""
        center, radius = ((low + high) / 2).to(self.dtype), ((high - low) / 2).to(self.dtype)
        inside = Boxes(self.layers, center, radius, self._known_of(known))
        lower = inside.goal_bounds(self.rows, keep=True)
        error = ROUNDING[self.dtype] * (lower.constant.abs() + (lower.slopes.abs() * (center.abs() + radius)).sum(-1))
        how = refute(lower, radius, members, error + target)
        tied = torch.zeros(len(low), dtype=torch.bool)
        for line in inside.lines:
            tied |= ((line.low + line.high).abs() < TIE * (line.high - line.low)).any(1)
        return LayeredFound(inside, self.rows, lower, how, error + target, inside.crossed, tied)


def _side_by_side(bounds: Sequence[Interval]) -> Tensor:
    """(boxes, 2, entries) from (boxes, size) for each block."""
    if not bounds:
        return torch.zeros(1, 2, 0, dtype=torch.float64)
    return torch.stack([torch.cat(side, 1) for side in zip(*bounds, strict=True)], 1)


def _known(batch: Batch, position: int, value: str, dtype: torch.dtype) -> Interval:
    low, high = (side[position : position + 1] for side in batch.bounds[value])
    return low.to(dtype), high.to(dtype)
