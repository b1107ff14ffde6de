"""Where a case split would help: how much each entry loosens a bound, and at which number to split it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from verifier.domains.choices import Choices
from verifier.domains.curves import bends, intercept
from verifier.domains.relaxations import (
    Interval,
    chord,
    contested,
    pool_choice,
    pool_windows,
    relaxed_nodes,
    spread_windows,
    undecided,
    values_read,
)
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, STEP_OPS, Floor, MaxPool, Product, Sign

LAST_RESORT = 1e-12

Bounds = Mapping[str, Interval]


@torch.no_grad()
def split_scores(network: Network, bounds: Bounds, seen: Mapping[str, Tensor], choices: Choices) -> dict[str, Tensor]:
    """How much each entry of a value that relaxed nodes read loosens each row's bound: value -> (rows, size), >= 0.

    bounds: (rows, size), those of the row's subproblem; seen and choices, (rows, 1, size): what `lower_bounds` filled in and
    what it was given. The score is the gap of the relaxation where it is widest, times the coefficient that arrived (after
    BaBSR, Bunel et al. 2020), summed over the nodes that read the value; zero exactly at the entries that are decided. An
    entry that no coefficient reaches may still matter to a premise: its score is tiny, but not zero.
    """
    scores = {}
    for value in values_read(network):
        low, high = bounds[value]
        width = torch.nan_to_num(high - low, nan=0.0, posinf=1e300)
        scores[value] = torch.where(undecided(network, bounds, value), LAST_RESORT * width, 0.0)
    for node in relaxed_nodes(network):
        if node.output not in seen:
            continue
        gap = torch.nan_to_num(_gap(node, network, bounds, seen[node.output][:, 0], choices), nan=1e300, posinf=1e300)
        for value in node.inputs:
            share = gap
            if isinstance(node.op, MaxPool):
                windows = pool_windows(node, network, gap.device)
                parts = gap[..., None].expand(-1, -1, windows.shape[1]) * (windows >= 0)
                share = spread_windows(windows, parts, network.size(value), "sum") * contested(node, network, *bounds[value])
            scores[value] = torch.where(scores[value] > 0, scores[value] + share, 0.0)
    return scores


def _gap(node: Node, network: Network, bounds: Bounds, a: Tensor, choices: Choices) -> Tensor:
    """What the relaxation of each entry may lose, (rows, size), under coefficients a of the same shape."""
    positive, negative = a.clamp(min=0), -a.clamp(max=0)
    low, high = bounds[node.inputs[0]]
    if isinstance(node.op, MaxPool):
        choice = pool_choice(node, network, low, high)
        return a.abs() * (choice.upper - low.gather(1, choice.index)).masked_fill(choice.dominates, 0.0)
    if isinstance(node.op, STEP_OPS):
        low, high = bounds[node.output]
        return torch.where(a == 0, 0.0, a.abs() * (high - low))
    if isinstance(node.op, Product):
        (p_low, p_high), (q_low, q_high) = (bounds[name] for name in node.inputs)
        return a.abs() * (p_high - p_low) * (q_high - q_low) / 4  # of McCormick's planes, in the middle
    if isinstance(node.op, ACTIVATION_OPS):
        slope = choices.slopes[node.output][:, 0]
        below = torch.maximum((1 - slope) * high, -slope * low)
        above = chord(node.op, low, high)[1]
        return torch.where(positive > 0, positive * below, 0.0) + torch.where(negative > 0, negative * above, 0.0)
    total = torch.zeros_like(a)
    for weight, slopes in ((positive, choices.slopes), (negative, choices.upper_slopes)):
        if node.output in slopes:
            slope = slopes[node.output][:, 0]
            under, over = (intercept(node.op, slope, low, high, lowest=lowest) for lowest in (True, False))
            total = total + torch.where(weight > 0, weight * (over - under), 0.0)
    return total


def split_points(network: Network, bounds: Bounds) -> dict[str, Tensor]:
    """Where to split each entry of a value that relaxed nodes read: value -> (rows, size), strictly inside the bounds.

    0 where an activation (or Sign) bends; for Floor a whole number near the middle; for a curve its point of inflection where
    that lies in the middle half; else the middle. The numbers at decided entries mean nothing. Where several nodes read a
    value the first that is not content with the middle chooses.
    """
    points = {}
    for value in values_read(network):
        low, high = bounds[value]
        at = middle(low, high)
        for node in reversed([n for n in relaxed_nodes(network) if value in n.inputs]):
            for wanted in _places(node, low, high):
                inside = (wanted > low) & (wanted < high)
                if isinstance(node.op, CURVE_OPS):
                    inside &= (wanted - low >= 0.25 * (high - low)) & (high - wanted >= 0.25 * (high - low))
                at = torch.where(inside, wanted, at)
        points[value] = at
    return points


def middle(low: Tensor, high: Tensor) -> Tensor:
    """A finite number between the bounds, half way where they are finite."""
    beyond = torch.where(low.isfinite(), 2 * low.abs() + 1, torch.where(high.isfinite(), -2 * high.abs() - 1, 0.0))
    return torch.where(low.isfinite() & high.isfinite(), 0.5 * low + 0.5 * high, beyond.clamp(low, high))


def _places(node: Node, low: Tensor, high: Tensor) -> list[Tensor]:
    """Numbers at which the node would rather be split than in the middle."""
    if isinstance(node.op, (*ACTIVATION_OPS, Sign)):
        return [torch.zeros_like(low)]
    if isinstance(node.op, Floor):
        near = middle(low, high).round()
        return [near + 1, near - 1, near]
    if isinstance(node.op, CURVE_OPS):
        return bends(node.op, torch.where(low.isfinite(), middle(low, high) - 0.25 * (high - low), 0.0))
    return []


def merit(low: Tensor, high: Tensor, parent: Tensor, target: float) -> Tensor:
    """How good a split is, from its children's bounds: the product of what each gains, a closed child gaining the most."""
    gap = (target - parent).clamp(min=1e-9)
    gains = [((child - parent) / gap).clamp(1e-3, 1.0) for child in (low, high)]
    return gains[0] * gains[1]
