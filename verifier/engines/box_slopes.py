"""Better slopes for one row on each of many boxes, with the gradient in closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.engines.box_bounds import INPUT, Layers, Lines

ROUNDS = 5
RATE, DECAY = 0.6, 0.6


@dataclass(frozen=True, eq=False)
class Climbed:
    """The best bound of each box's row, (boxes,); the slopes that give it, below each node and above it, (boxes, size)."""

    bound: Tensor
    slopes: Mapping[str, Tensor]
    upper_slopes: Mapping[str, Tensor]


def climb_slopes(
    layers: Layers, lines: Sequence[Lines], center: Tensor, radius: Tensor, weights: Mapping[int, Tensor], constant: Tensor
) -> Climbed:
    """Raise the lower bound of one row for each box over the slopes of the lines below undecided activations.

    weights[source]: (boxes, size), constant: (boxes,). The bound's derivative by a slope is the coefficient there, where
    positive, times the value that the relaxed network takes before the activation at the minimiser, so steps follow its sign.
    """
    slopes = [line.below for line in lines]
    best = torch.full_like(constant, -torch.inf)
    kept = slopes
    rate = RATE
    for step in range(ROUNDS):
        bound, values, signs = _passed(layers, lines, slopes, center, radius, weights, constant)
        better = bound > best
        best = torch.where(better, bound, best)
        kept = [torch.where(better[:, None], new, old) for new, old in zip(slopes, kept, strict=True)]
        if step + 1 < ROUNDS:
            slopes = [
                # sound: any slope from that of the negative side to 1 gives a line below a convex activation through 0
                torch.where(moved, (s + rate * z.sign()).clamp(block.floor, 1.0), s)
                for s, z, moved, block in zip(slopes, values, signs, layers.blocks, strict=True)
            ]
            rate *= DECAY
    return Climbed(best, {block.after: s for block, s in zip(layers.blocks, kept, strict=True)}, {})


def _passed(
    layers: Layers,
    lines: Sequence[Lines],
    slopes: Sequence[Tensor],
    center: Tensor,
    radius: Tensor,
    weights: Mapping[int, Tensor],
    constant: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The bound with given slopes; of each block the relaxed value at the minimiser, and where its slope below is in use."""
    pending = dict(weights)
    used: dict[int, Tensor] = {}
    for k in range(len(lines) - 1, -1, -1):
        a = pending.pop(k, None)
        if a is None:
            continue
        line, form = lines[k], layers.blocks[k].form
        below, above = a.clamp(min=0), a.clamp(max=0)
        used[k] = below > 0
        shift = line.value - line.above * line.at
        # sound: below the activation where the coefficient is positive, above it where negative
        a = below * slopes[k] + above * line.above
        constant = constant + (above * shift).sum(1) + a @ form.bias
        for source, matrix in form.weights.items():
            part = a @ matrix
            pending[source] = pending[source] + part if source in pending else part
    slope = pending.get(INPUT, torch.zeros_like(center))
    x = center - slope.sign() * radius
    bound = constant + (slope * x).sum(1)
    outputs = {INPUT: x}
    values, moved = [], []
    for k, (block, line) in enumerate(zip(layers.blocks, lines, strict=True)):
        z = block.form.bias + torch.stack([outputs[s] @ matrix.T for s, matrix in block.form.weights.items()]).sum(0)
        low_side = used.get(k, torch.zeros_like(z, dtype=torch.bool))
        outputs[k] = torch.where(low_side, slopes[k] * z, line.above * (z - line.at) + line.value)
        values.append(z)
        moved.append(low_side & (line.low < 0) & (line.high > 0))
    return bound, values, moved
