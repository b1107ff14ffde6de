"""Gradient steps towards the points of a box at which every atom of a target holds; many targets, many points at once.

Three kinds of row take turns among the points of a target, since none is best everywhere:
- sign steps on the weighted sum of violated atoms, the weights rising on atoms that stay violated (so that a premise on hidden
  values is kept while the goal is sought); good in many dimensions, where corners of the box matter;
- Adam's steps on the same sum;
- subgradient projection on the worst atom (Polyak's step for the known optimal value 0), which lands on the boundary of a
  linear piece at once; good for thin sets.
Each point halves its step and returns to its best place where it stops gaining (as in AutoAttack's APGD, arXiv:2003.01690).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from verifier.device import random_integers, random_like
from verifier.engines.program import run
from verifier.engines.targets import Batch, at_own_points, worst
from verifier.network import Network
from verifier.ops import AveragePool, Conv, Linear

Watch: TypeAlias = Callable[[Tensor, Tensor], bool]
"""Is shown points (targets, points, inputs) with their worst left sides (targets, points) after each step; True to stop."""

KINDS = 3
FIRST_STEP, LAST_STEP = 0.25, 1e-4
PATIENCE = 5
MARGIN = 1e-6
LEAK = 0.1
TRIALS = 32
OVERSHOOT = 0.02


@dataclass(frozen=True, eq=False)
class Descended:
    """The best points (targets, points, inputs) on the way of each start, and their worst left sides (targets, points)."""

    points: Tensor
    values: Tensor


def multiplications(network: Network) -> int:
    """Multiplications of one evaluation, roughly: what a point costs, whatever the machine."""
    count = 0
    for node in network.nodes:
        size = network.size(node.output)
        match node.op:
            case Linear(weight=weight):
                count += size * weight.shape[1]
            case Conv(weight=weight):
                count += size * math.prod(weight.shape[1:])
            case AveragePool(kernel=kernel):
                count += size * math.prod(kernel)
            case _:
                count += size
    return count


def descend(
    batch: Batch, begin: Tensor, *, steps: int, watch: Watch, first_step: float = FIRST_STEP, leak: float = 0.0
) -> Descended:
    """The best point on the way from each start (targets, points, inputs), of the batch's float type, inside its boxes.

    first_step: the length of the first steps, as a share of the box's width. leak: the slope of rectifiers that are off, for
    the first half of the steps; a way out where the network is dead.
    """
    width = batch.upper - batch.lower
    kind = torch.arange(begin.shape[1]).reshape(1, -1, 1) % KINDS
    x, best = begin, begin
    lowest = torch.full(begin.shape[:2], torch.inf, dtype=begin.dtype)
    milestone = lowest
    size = torch.full_like(begin[..., :1], first_step)
    mean, square = torch.zeros_like(begin), torch.zeros_like(begin)
    weights: Tensor | None = None
    for step in range(steps):
        x = x.detach().requires_grad_()
        left = at_own_points(batch, x, leak=leak if 2 * step < steps else 0.0)
        values = worst(batch, left)
        weights = torch.ones_like(left) if weights is None else (weights * torch.where(left > 0, 1.3, 0.95)).clamp(0.05, 50.0)
        summed = (weights * (left + MARGIN).clamp(min=0))[:, kind.flatten() < 2].sum()
        (slope,) = torch.autograd.grad(summed + values[:, kind.flatten() == 2].sum(), x)
        x, values = x.detach(), values.detach()
        best = torch.where((values < lowest).unsqueeze(2), x, best)
        lowest = torch.minimum(values, lowest)
        if watch(x, values) or step == steps - 1:
            break
        if step % PATIENCE == PATIENCE - 1:
            stuck = (lowest > milestone - 1e-3 * milestone.abs()).unsqueeze(2)
            size, x, milestone = torch.where(stuck, size / 2, size), torch.where(stuck, best, x), lowest
        slope = slope * width
        blocked = ((x <= batch.lower) & (slope > 0)) | ((x >= batch.upper) & (slope < 0))
        slope = torch.where(blocked, 0.0, slope)
        mean, square = 0.8 * mean + 0.2 * slope, 0.95 * square + 0.05 * slope**2
        adam = mean / (square.sqrt() + 1e-20)
        stepped = torch.where(kind == 0, size * slope.sign(), size * adam)
        move = torch.where(kind == 2, _projection(slope, values, size), stepped)
        x = torch.clamp(x - width * move, batch.lower, batch.upper)
    return Descended(best, lowest)


def _projection(slope: Tensor, values: Tensor, size: Tensor) -> Tensor:
    """The shortest move to where the linear piece of the worst atom is a little below 0, no coordinate by more than size."""
    excess = values.unsqueeze(2) * (1 + OVERSHOOT) + MARGIN
    length = excess / slope.square().sum(2, keepdim=True).clamp(min=1e-30)
    return slope * torch.minimum(length, size / slope.abs().amax(2, keepdim=True).clamp(min=1e-30))


def wander(batch: Batch, begin: Tensor, *, steps: int, generator: torch.Generator) -> Tensor:
    """Starts spread over what the network can do: sign steps along a random direction of the atoms' values for each point.

    Output diversified initialisation (arXiv:2003.06878), for every value that the atoms read.
    """
    x, width = begin, batch.upper - batch.lower
    direction: Tensor | None = None
    for _ in range(steps):
        x = x.detach().requires_grad_()
        entries = run(batch.program, x.flatten(0, 1), leak=LEAK)
        if direction is None:
            direction = random_like(entries, entries.shape, generator) * 2 - 1
            direction = direction / entries.detach().std(0).clamp(min=1e-30)
        (slope,) = torch.autograd.grad((direction * entries).sum(), x)
        x = torch.clamp(x.detach() + 0.2 * width * slope.sign(), batch.lower, batch.upper)
    return x.detach()


@torch.no_grad()
def zoom(batch: Batch, begin: Tensor, *, rounds: int, generator: torch.Generator, watch: Watch) -> Descended:
    """Random search around each start, without gradients, the reach shrinking from round to round.

    Each round moves a random part of the coordinates; half of the moves are along one coordinate.
    """
    width = batch.upper - batch.lower
    targets, points, inputs = begin.shape
    best = begin
    lowest = worst(batch, at_own_points(batch, best))
    for number in range(rounds):
        reach = 0.5 * 0.6**number
        move = random_like(begin, (targets, points, TRIALS, inputs), generator) * 2 - 1
        single = torch.nn.functional.one_hot(random_integers(0, inputs, (targets, points, TRIALS // 2), generator), inputs)
        move[:, :, : TRIALS // 2] *= single
        tried = best.unsqueeze(2) + reach * width.unsqueeze(2) * move
        tried = tried.clamp(batch.lower.unsqueeze(2), batch.upper.unsqueeze(2))
        values = worst(batch, at_own_points(batch, tried.flatten(1, 2))).unflatten(1, (points, TRIALS))
        value, place = values.min(2)
        chosen = tried.gather(2, place[:, :, None, None].expand(-1, -1, 1, inputs)).squeeze(2)
        best = torch.where((value < lowest).unsqueeze(2), chosen, best)
        lowest = torch.minimum(value, lowest)
        if watch(best, lowest):
            break
    return Descended(best, lowest)
