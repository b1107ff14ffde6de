"""What stands for a nonlinear node in a backward pass: lines, planes, steps; where it is exact, and where it is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from verifier.domains.curves import default_slope, slope_range
from verifier.evaluate import pad
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, STEP_OPS, Conv, MaxPool, Product, Relu, Shape

Interval = tuple[Tensor, Tensor]

RELAXED_OPS = (*ACTIVATION_OPS, MaxPool, *CURVE_OPS, Product, *STEP_OPS)


def relaxed_nodes(network: Network) -> list[Node]:
    """The nodes that a backward pass replaces by something linear, in network order."""
    return [node for node in network.nodes if isinstance(node.op, RELAXED_OPS)]


def activation_nodes(network: Network) -> list[Node]:
    """The Relu and LeakyRelu nodes, in network order."""
    return [node for node in network.nodes if isinstance(node.op, ACTIVATION_OPS)]


def values_read(network: Network) -> list[str]:
    """The values that relaxed nodes read, in network order: those whose bounds decide how much is lost."""
    read = {name for node in relaxed_nodes(network) for name in node.inputs}
    return [name for name in network.shapes if name in read]


def undecided(network: Network, bounds: Mapping[str, Interval], value: str) -> Tensor:
    """The entries (batch, size) of a value at which the relaxation of some node that reads it is not exact."""
    low, high = bounds[value]
    found = torch.zeros(low.shape, dtype=torch.bool, device=low.device)
    for node in relaxed_nodes(network):
        if value not in node.inputs:
            continue
        if isinstance(node.op, ACTIVATION_OPS):
            found |= (low < 0) & (high > 0)
        elif isinstance(node.op, STEP_OPS):
            found |= bounds[node.output][0] < bounds[node.output][1]
        elif isinstance(node.op, MaxPool):
            found |= (low < high) & contested(node, network, low, high)
        else:
            found |= torch.stack([bounds[name][0] < bounds[name][1] for name in node.inputs]).all(0)
    return found


@dataclass(frozen=True)
class PoolChoice:
    """For each output of a MaxPool, (batch, outputs): the window entry with the largest lower bound, whether it dominates
    every other entry of its window, and the largest upper bound."""

    index: Tensor
    dominates: Tensor
    upper: Tensor

    def select(self, entries: Tensor) -> "PoolChoice":
        """Those of some batch entries."""
        return PoolChoice(self.index[entries], self.dominates[entries], self.upper[entries])


def pool_choice(node: Node, network: Network, low: Tensor, high: Tensor) -> PoolChoice:
    """The choices of a MaxPool node under bounds (batch, size) of its input."""
    windows = pool_windows(node, network, low.device)
    inside = windows >= 0
    places = windows.clamp(min=0)
    lows = low[:, places].masked_fill(~inside, -torch.inf)
    highs = high[:, places].masked_fill(~inside, -torch.inf)
    best = lows.argmax(-1)
    others = highs.scatter(2, best[..., None], -torch.inf).amax(-1)
    index = places.expand(len(low), -1, -1).gather(2, best[..., None])[..., 0]
    return PoolChoice(index, lows.amax(-1) >= others, highs.amax(-1))


def pool_windows(node: Node, network: Network, device: torch.device) -> Tensor:
    """Flat input indices of each output's window, (outputs, window entries); -1 marks padding."""
    op: MaxPool = node.op  # type: ignore[assignment]
    return windows_of(op, network.shapes[node.inputs[0]], op.kernel, device).flatten(0, 1)


@lru_cache(maxsize=256)
def windows_of(op: Conv | MaxPool, shape: Shape, kernel: tuple[int, ...], device: torch.device) -> Tensor:
    """Flat indices into an input of that shape of each window, (channels, positions, window entries); -1 marks padding."""
    numbers = torch.arange(1, prod(shape) + 1, dtype=torch.float64, device=device).reshape(shape)
    padded = pad(numbers, op.padding, 0.0)
    for axis, (length, stride, dilation) in enumerate(zip(kernel, op.stride, op.dilation, strict=True)):
        span = dilation * (length - 1) + 1
        padded = padded.unfold(axis + 2, span, stride)[..., ::dilation]
    positions = prod(padded.shape[2 : 2 + len(kernel)])
    return padded.reshape(shape[1], positions, -1).long() - 1


def contested(node: Node, network: Network, low: Tensor, high: Tensor) -> Tensor:
    """The entries (batch, size) of a MaxPool's input that some window with no dominating entry may still take."""
    windows = pool_windows(node, network, low.device)
    choice = pool_choice(node, network, low, high)
    reaches = low.gather(1, choice.index)[..., None] < high[:, windows.clamp(min=0)]
    reaches &= (windows >= 0) & ~choice.dominates[..., None]
    return spread_windows(windows, reaches.to(torch.int8), low.shape[1], "amax").bool()


def spread_windows(windows: Tensor, parts: Tensor, size: int, reduce: str) -> Tensor:
    """What each entry of a pool's input receives from its windows; parts: (batch, outputs, window entries), 0 at padding."""
    target = torch.zeros(len(parts), size, dtype=parts.dtype, device=parts.device)
    places = windows.clamp(min=0).flatten().expand(len(parts), -1)
    return target.scatter_reduce(1, places, parts.flatten(1), reduce)


def chord(op: Any, low: Tensor, high: Tensor) -> Interval:
    """Slope and intercept of a line above the activation on [low, high], tight at both ends; inf where there is none."""
    f_low, f_high = activation(op, low), activation(op, high)
    width = high - low
    point = width <= 1e-12 * (1.0 + low.abs())
    steepest = torch.ones_like(low)
    slope = torch.where(point, steepest, (f_high - f_low) / width.masked_fill(point, 1.0))
    # an end at infinity sets the slope: the least where only low is, else 1
    slope = torch.nan_to_num(slope, nan=1.0).clamp(slope_floor(op), 1.0)
    # where the activation is linear the line is that of the activation, as in a replay
    slope = slope.masked_fill(high <= 0, slope_floor(op)).masked_fill(low >= 0, 1.0)
    ends = (f - torch.where(slope == 0, 0.0, slope * z) for f, z in ((f_low, low), (f_high, high)))
    least_known = (torch.nan_to_num(e, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) for e in ends)
    return slope, torch.maximum(*least_known)


def activation(op: Any, z: Tensor) -> Tensor:
    """The activation function itself."""
    return z.relu() if isinstance(op, Relu) else functional.leaky_relu(z, op.slope)


def slope_floor(op: Any) -> float:
    """The smallest slope of a line through 0 below the activation; the largest is 1."""
    return 0.0 if isinstance(op, Relu) else op.slope


def adaptive_slopes(network: Network, bounds: Mapping[str, Interval]) -> dict[str, Tensor]:
    """Slopes of the lines below that leave the smaller area, (batch, 1, size) by node; exact where the node is linear.

    For an activation slope 1 or the least (DeepPoly), for a curve its chord or tangent, for a Product the weight 1/2.
    """
    return {node.output: default_slopes(node, bounds, lowest=True) for node in relaxed_nodes(network) if has_slopes(node)}


def adaptive_upper_slopes(network: Network, bounds: Mapping[str, Interval]) -> dict[str, Tensor]:
    """As `adaptive_slopes`, of the lines above curves and products."""
    return {
        node.output: default_slopes(node, bounds, lowest=False) for node in relaxed_nodes(network) if has_upper_slopes(node)
    }


def has_slopes(node: Node) -> bool:
    """Whether a pass may choose the slope (or weight) of what stands below the node."""
    return isinstance(node.op, (*ACTIVATION_OPS, *CURVE_OPS, Product))


def has_upper_slopes(node: Node) -> bool:
    """Whether a pass may choose the slope (or weight) of what stands above the node."""
    return isinstance(node.op, (*CURVE_OPS, Product))


def default_slopes(node: Node, bounds: Mapping[str, Interval], *, lowest: bool) -> Tensor:
    """The slopes (or weights) of one node that `adaptive_slopes` and `adaptive_upper_slopes` take, (batch, 1, size)."""
    low, high = bounds[node.inputs[0]]
    if isinstance(node.op, ACTIVATION_OPS):
        slope = torch.where((high > -low) | (low >= 0), 1.0, slope_floor(node.op)).to(low.dtype)
    elif isinstance(node.op, Product):
        slope = torch.full_like(low, 0.5)
    else:
        slope = default_slope(node.op, low, high, lowest=lowest)
    return slope[:, None]


def slope_limits(node: Node, bounds: Mapping[str, Interval]) -> Interval:
    """The least and the greatest slope (or weight) worth choosing for a node, (batch, 1, size).

    Where an activation is linear they are one: a replay takes its line there, whatever was chosen.
    """
    low, high = bounds[node.inputs[0]]
    if isinstance(node.op, CURVE_OPS):
        least, greatest = slope_range(node.op, low, high)
    elif isinstance(node.op, ACTIVATION_OPS):
        floor, one = torch.full_like(low, slope_floor(node.op)), torch.ones_like(low)
        least, greatest = torch.where(low >= 0, one, floor), torch.where((high <= 0) & (low < 0), floor, one)
    else:
        least, greatest = torch.zeros_like(low), torch.ones_like(low)
    return least[:, None], greatest[:, None]


def planes(p: Interval, q: Interval, weight: Tensor, *, lowest: bool) -> tuple[Tensor, Tensor, Tensor]:
    """McCormick's planes under (lowest) or over p * q, mixed by weight: coefficient of p, coefficient of q, constant.

    Bounds (batch, size), weight (batch, spec or 1, size). McCormick 1976; mixed as in arXiv:2002.06622.
    """
    (p_low, p_high), (q_low, q_high) = ((low[:, None], high[:, None]) for low, high in (p, q))
    # sound: (p - lp)(q - lq) >= 0 and (up - p)(uq - q) >= 0; above (p - lp)(uq - q) >= 0 and (up - p)(q - lq) >= 0;
    # a mixture of two true inequalities is true
    first, second = ((q_low, p_low), (q_high, p_high)) if lowest else ((q_high, p_low), (q_low, p_high))
    (a, b), (c, d) = first, second
    other = 1.0 - weight
    return weight * a + other * c, weight * b + other * d, -weight * (a * b) - other * (c * d)
