"""The interval domain: lower and upper bound of every entry, batched over regions, rounded outward."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.domains.bounds import Bounds, Cuts, pushed_back
from verifier.domains.ranges import RANGES, Interval
from verifier.domains.rounding import TINY, UNIT, above, below, center_radius, gamma
from verifier.domains.walk import walk
from verifier.evaluate import FORWARD, constant
from verifier.network import Network
from verifier.ops import (
    AveragePool,
    Concat,
    Conv,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
    Reshape,
    Scale,
    Select,
    Sum,
    Transpose,
)


def interval_bounds(network: Network, lower: Tensor, upper: Tensor, *, cuts: Cuts | None = None) -> Bounds:
    """Bounds on every value over the boxes lower <= x <= upper of shape (batch, inputs), float64, cut at every value.

    A cut on an activation's output cuts its input too. Raises UnsupportedOp.
    """
    kept: dict[str, Interval] = {}
    extra = None if cuts is None else pushed_back(network, cuts)
    empty = (lower > upper).any(1) if extra is None else (lower > upper).any(1) | extra.empty.to(lower.device)

    def visit(name: str, state: Interval) -> Interval:
        nonlocal empty
        if extra is not None and (name in extra.lower or name in extra.upper):
            state, crossed = intersected(state, extra, name)
            empty = empty | crossed
        kept[name] = state
        return state

    shape = (len(lower), *network.input_shape)
    walk(network, INTERVAL, (lower.reshape(shape), torch.maximum(lower, upper).reshape(shape)), visit=visit)
    flat = {name: (low.unsqueeze(-1).flatten(1), high.unsqueeze(-1).flatten(1)) for name, (low, high) in kept.items()}
    return Bounds({name: low for name, (low, _) in flat.items()}, {name: high for name, (_, high) in flat.items()}, empty)


def intersected(state: Interval, cuts: Cuts, name: str) -> tuple[Interval, Tensor]:
    """The interval within the cuts on that value, and which rows have become empty; crossed entries are put in order."""
    lower, upper = state
    if name in cuts.lower:
        lower = torch.maximum(lower, cuts.lower[name].to(lower).reshape(-1, *lower.shape[1:]))
    if name in cuts.upper:
        upper = torch.minimum(upper, cuts.upper[name].to(upper).reshape(-1, *upper.shape[1:]))
    return (lower, torch.maximum(lower, upper)), (lower > upper).unsqueeze(-1).flatten(1).any(1)


def affine(op: Linear | Conv | AveragePool, inputs: list[Interval]) -> Interval:
    """Bounds of an affine operator, from center and radius: two applications."""
    center, radius = center_radius(*inputs[0])
    error = gamma(terms_of(op))
    y = FORWARD[type(op)](op, [center])
    # sound: |W|(r + error (|c| + r)) + error |b| covers the radius and the rounding of both products (Higham, ch. 3)
    spread = FORWARD[type(op)](magnitude(op), [radius + error * (center.abs() + radius)])
    # An overflow of y makes the spread infinite too, and inf - inf is then read as unbounded.
    spread = spread + (4 * UNIT * y.abs() + TINY)
    return _unbounded_if_nan(y - spread, -torch.inf), _unbounded_if_nan(y + spread, torch.inf)


def _unbounded_if_nan(x: Tensor, bound: float) -> Tensor:
    return torch.nan_to_num(x, nan=bound, posinf=torch.inf, neginf=-torch.inf)


@lru_cache(maxsize=4096)
def magnitude(op: Any) -> Any:
    """The operator that maps radii: |weights|, and for bias the rounding error that the bias adds."""
    if isinstance(op, AveragePool):
        return op
    return replace(op, weight=np.abs(op.weight), bias=gamma(terms_of(op)) * np.abs(op.bias))


def terms_of(op: Linear | Conv | AveragePool) -> int:
    """Number of products in one entry of the result, the bias included."""
    match op:
        case Linear():
            return op.weight.shape[1] + 1
        case Conv():
            return prod(op.weight.shape[1:]) + 1
        case AveragePool():
            return prod(op.kernel) + 1


def scale(op: Scale, inputs: list[Interval]) -> Interval:
    """factor * x + offset, each step rounded outward."""
    lower, upper = inputs[0]
    factor = constant(op, "factor", lower.dtype, lower.device)
    offset = constant(op, "offset", lower.dtype, lower.device)
    ends = torch.where(factor >= 0, lower, upper), torch.where(factor >= 0, upper, lower)
    # sound: the map is monotone in x, increasing or decreasing with the sign of the factor
    return below(below(factor * ends[0]) + offset), above(above(factor * ends[1]) + offset)


def weighted_sum(op: Sum, inputs: list[Interval]) -> Interval:
    """Sum of coefficient * interval, each step rounded outward."""
    lower, upper = _multiple(op.coefficients[0], inputs[0])
    for coefficient, interval in zip(op.coefficients[1:], inputs[1:], strict=True):
        low, high = _multiple(coefficient, interval)
        lower, upper = below(lower + low), above(upper + high)
    return lower, upper


def _multiple(coefficient: float, interval: Interval) -> Interval:
    lower, upper = interval if coefficient >= 0 else interval[::-1]
    if abs(coefficient) == 1:
        return coefficient * lower, coefficient * upper
    return below(coefficient * lower), above(coefficient * upper)


def rearranged(op: Reshape | Transpose | Concat | Select, inputs: list[Interval]) -> Interval:
    """Entries move, numbers stay; what a Select puts in is 0, exactly."""
    forward = FORWARD[type(op)]
    return forward(op, [lower for lower, _ in inputs]), forward(op, [upper for _, upper in inputs])


def monotone(op: Relu | MaxPool, inputs: list[Interval]) -> Interval:
    """The operator at both ends."""
    # sound: relu and max are monotone and computed without rounding
    return rearranged(op, inputs)  # type: ignore[arg-type]


def leaky_relu(op: LeakyRelu, inputs: list[Interval]) -> Interval:
    """max(x, slope * x) at both ends, the product rounded outward."""
    lower, upper = inputs[0]
    # sound: monotone; on negative x the value slope * x is at most 0
    low = torch.where(lower >= 0, lower, below(op.slope * lower))
    return low, torch.where(upper >= 0, upper, above(op.slope * upper).clamp(max=0.0))


INTERVAL: dict[type, Callable[[Any, list[Interval]], Interval]] = {
    Linear: affine,
    Conv: affine,
    AveragePool: affine,
    Scale: scale,
    Sum: weighted_sum,
    Reshape: rearranged,
    Transpose: rearranged,
    Concat: rearranged,
    Select: rearranged,
    MaxPool: monotone,
    Relu: monotone,
    LeakyRelu: leaky_relu,
    **RANGES,
}
