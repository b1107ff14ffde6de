"""Better slopes for one row on each of many boxes of a curved network, from where the row's bound is attained.

A form over a box is smallest at one corner. Lines and planes that are close to the network there raise the bound, as a
supergradient step would: the bound is concave in slopes and weights, with its derivative known at that corner. Plain floats:
whatever slopes come out are allowed ones, and `verifier.check` replays them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from verifier.domains.choices import Choices, Rows, choose
from verifier.domains.curves import DERIVATIVE, intercept
from verifier.domains.linear import Fixed, lower_bounds
from verifier.domains.relaxations import (
    Interval,
    adaptive_slopes,
    adaptive_upper_slopes,
    has_slopes,
    has_upper_slopes,
    relaxed_nodes,
    slope_floor,
    slope_limits,
)
from verifier.evaluate import evaluate
from verifier.network import Network, Node
from verifier.ops import CURVE_OPS, Product

ROUNDS = 5
RATE, DECAY = 0.7, 0.7

Bounds = Mapping[str, Interval]


def climb_from_corners(network: Network, bounds: Bounds, rows: Rows) -> tuple[Tensor, Choices]:
    """The best lower bound found for one row on each box, (boxes, 1), and its slopes, (boxes, 1, size) by node.

    rows: (boxes, 1) forms; bounds (boxes, size). The default slopes are among those tried.
    """
    choices = Choices(adaptive_slopes(network, bounds), upper_slopes=adaptive_upper_slopes(network, bounds))
    kept, best = choices, torch.full_like(rows.constant, -torch.inf)
    fixed: dict[str, Fixed] = {}
    low, high = bounds[network.input]
    rate = RATE
    for step in range(ROUNDS):
        seen: dict[str, Tensor] = {}
        value = lower_bounds(network, bounds, rows, choices, seen=seen, fixed=fixed)
        better = value > best
        best, kept = torch.where(better, value, best), choose(better, choices, kept)
        if step + 1 == ROUNDS or network.input not in seen:
            break
        nodes = [node for node in relaxed_nodes(network) if has_slopes(node) and node.output in seen]
        choices = _moved(network, nodes, bounds, choices, torch.where(seen[network.input][:, 0] >= 0, low, high), rate)
        rate *= DECAY
    return best, kept


def _moved(network: Network, nodes: Sequence[Node], bounds: Bounds, choices: Choices, corner: Tensor, rate: float) -> Choices:
    """Slopes of some nodes moved by a share of the way to those that are best at a corner, (boxes, inputs)."""
    values = evaluate(network, corner, keep=sorted({name for node in nodes for name in node.inputs}))
    at = {name: value.reshape(len(corner), -1).clamp(*bounds[name]) for name, value in values.items()}
    slopes, upper_slopes = dict(choices.slopes), dict(choices.upper_slopes)
    for node in nodes:
        for side, lowest in ((slopes, True), (upper_slopes, False)):
            if lowest or has_upper_slopes(node):
                old = side[node.output]
                moved = old + rate * (_best_at(node, bounds, at, old, lowest=lowest) - old)
                side[node.output] = moved.clamp(*slope_limits(node, bounds))
    return Choices(slopes, upper_slopes=upper_slopes)


def _best_at(node: Node, bounds: Bounds, at: Mapping[str, Tensor], old: Tensor, *, lowest: bool) -> Tensor:
    """The slopes or weights, (boxes, 1, size), that stand closest to a node where its inputs are `at`."""
    low, high = bounds[node.inputs[0]]
    z = at[node.inputs[0]]
    if isinstance(node.op, Product):
        (q_low, q_high), q = bounds[node.inputs[1]], at[node.inputs[1]]
        first, second = (q - q_low, q_high - q) if lowest else (q_high - q, q - q_low)
        return ((z - low) * first < (high - z) * second).to(z.dtype)[:, None]
    if isinstance(node.op, CURVE_OPS):
        low, high, z = low[:, None], high[:, None], z[:, None]
        tangent = torch.nan_to_num(DERIVATIVE[type(node.op)](node.op, z), nan=0.0, posinf=0.0, neginf=0.0)
        sign = 1.0 if lowest else -1.0
        reach = [sign * (slope * z + intercept(node.op, slope, low, high, lowest=lowest)) for slope in (tangent, old)]
        return torch.where(reach[0] > reach[1], tangent, old)
    return torch.where(z > 0, 1.0, slope_floor(node.op)).to(z.dtype)[:, None]
