"""The zonotope domain: affine forms over shared noise symbols (DeepZ, Singh et al. 2018), kept together with intervals.

For each input x of the region some noise values e in [-1, 1] give, at once for every value v,
    |v - (center + sum_k generators[k] * e[k])| <= slack,   and   lower <= v <= upper.
The slack is interval noise that nothing correlates with: rounding errors, the values of undecided max pools, and all of a value
that nothing bounds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, product
from typing import Any

import torch
from torch import Tensor

from verifier.domains.bounds import Bounds, Cuts, pushed_back
from verifier.domains.interval import INTERVAL, Interval, intersected, magnitude, terms_of
from verifier.domains.parallelograms import parallelogram
from verifier.domains.rounding import TINY, UNIT, center_radius, gamma
from verifier.domains.walk import walk
from verifier.evaluate import FORWARD, constant, pad
from verifier.network import Network
from verifier.ops import (
    ACTIVATION_OPS,
    CURVE_OPS,
    STEP_OPS,
    AveragePool,
    Concat,
    Conv,
    LeakyRelu,
    Linear,
    MaxPool,
    Product,
    Relu,
    Reshape,
    Scale,
    Select,
    Sum,
    Transpose,
    frozen_array,
)

CHUNK_ENTRIES = 2**26
FRESH_OPS = (*ACTIVATION_OPS, *CURVE_OPS, *STEP_OPS, Product)
"""The operators that may need a symbol of their own for each entry."""


@dataclass(frozen=True, eq=False)
class Zonotope:
    """center, slack, lower, upper: (batch, *shape); generators: (batch, symbols, *shape); symbols: the name of each noise."""

    center: Tensor
    generators: Tensor
    slack: Tensor
    symbols: tuple[int, ...]
    names: Iterator[int]
    lower: Tensor
    upper: Tensor

    @property
    def interval(self) -> Interval:
        return self.lower, self.upper


def zonotope_bounds(network: Network, lower: Tensor, upper: Tensor, *, cuts: Cuts | None = None) -> Bounds:
    """Bounds on every value over the boxes lower <= x <= upper of shape (batch, inputs), float64, cut at every value.

    Never wider than the interval bounds, but not monotone: the relaxation of a node is the best for its own bounds and may
    be worse, further on, than that for wider ones. Raises UnsupportedOp.
    """
    relaxed = sum(network.size(n.output) for n in network.nodes if isinstance(n.op, FRESH_OPS))
    entries = (lower.shape[1] + relaxed) * max(map(network.size, network.shapes))
    step = max(1, CHUNK_ENTRIES // entries)
    if len(lower) <= step:
        return _bounds(network, lower, upper, cuts)
    starts = range(0, len(lower), step)
    parts = [_bounds(network, lower[i : i + step], upper[i : i + step], _rows(cuts, i, step)) for i in starts]
    return Bounds(
        {name: torch.cat([part.lower[name] for part in parts]) for name in parts[0].lower},
        {name: torch.cat([part.upper[name] for part in parts]) for name in parts[0].upper},
        torch.cat([part.empty for part in parts]),
    )


def _rows(cuts: Cuts | None, start: int, step: int) -> Cuts | None:
    if cuts is None:
        return None

    def take(x: Tensor) -> Tensor:
        return x if len(x) == 1 else x[start : start + step]

    return Cuts({v: take(x) for v, x in cuts.lower.items()}, {v: take(x) for v, x in cuts.upper.items()}, take(cuts.empty))


def _bounds(network: Network, lower: Tensor, upper: Tensor, cuts: Cuts | None) -> Bounds:
    kept: dict[str, Interval] = {}
    extra = None if cuts is None else pushed_back(network, cuts)
    empty = (lower > upper).any(1) if extra is None else (lower > upper).any(1) | extra.empty.to(lower.device)

    def visit(name: str, state: Zonotope) -> Zonotope:
        nonlocal empty
        state, crossed = concretised(state)
        empty = empty | crossed
        if extra is not None and (name in extra.lower or name in extra.upper):
            (low, high), crossed = intersected(state.interval, extra, name)
            state, empty = replace(state, lower=low, upper=high), empty | crossed
        kept[name] = state.lower.unsqueeze(-1).flatten(1), state.upper.unsqueeze(-1).flatten(1)
        return state

    walk(network, ZONOTOPE, from_box(lower, torch.maximum(lower, upper), network.input_shape), visit=visit)
    return Bounds({name: low for name, (low, _) in kept.items()}, {name: high for name, (_, high) in kept.items()}, empty)


def from_box(lower: Tensor, upper: Tensor, shape: tuple[int, ...]) -> Zonotope:
    """One symbol for each input that is not a point in every row."""
    center, radius = center_radius(lower, upper)
    moving = torch.nonzero((radius > 0).any(0)).flatten()
    generators = radius.new_zeros(len(center), len(moving), center.shape[1])
    generators[:, torch.arange(len(moving)), moving] = radius[:, moving]
    names = count()
    rows = (len(center), *shape)
    return Zonotope(
        center.reshape(rows),
        generators.reshape(len(center), len(moving), *shape),
        torch.zeros_like(center).reshape(rows),
        tuple(next(names) for _ in moving),
        names,
        lower.reshape(rows),
        upper.reshape(rows),
    )


def concretised(z: Zonotope) -> tuple[Zonotope, Tensor]:
    """The interval bounds tightened by those of the affine form, and which rows have become empty.

    An affine form that overflowed says nothing: it is replaced by center 0 with infinite slack.
    """
    radius = reach(z)
    if not torch.isfinite(radius + z.center).all():
        broken = ~torch.isfinite(radius + z.center)
        z = replace(
            z,
            center=z.center.masked_fill(broken, 0.0),
            generators=z.generators.masked_fill(broken.unsqueeze(1), 0.0),
            slack=z.slack.masked_fill(broken, torch.inf),
        )
        radius = radius.masked_fill(broken, torch.inf)
    # sound: the sum of |generators| and the last difference are off by at most gamma times what is summed
    radius = radius * (1 + gamma(len(z.symbols) + 2)) + 4 * UNIT * z.center.abs()
    lower = torch.maximum(z.lower, z.center - radius)
    upper = torch.minimum(z.upper, z.center + radius)
    return replace(z, lower=lower, upper=torch.maximum(lower, upper)), (lower > upper).unsqueeze(-1).flatten(1).any(1)


def reach(z: Zonotope) -> Tensor:
    """sum |generators| + slack, in float64."""
    return z.generators.abs().sum(1) + z.slack


def _size(z: Zonotope) -> Tensor:
    return z.center.abs() + reach(z)


def _linear_part(op: Any, generators: Tensor) -> Tensor:
    """The operator without its bias, on each generator; op must be linear in one input."""
    flat = generators.flatten(0, 1)
    return FORWARD[type(op)](op, [flat]).unflatten(0, generators.shape[:2])


@lru_cache(maxsize=4096)
def unbiased(op: Any) -> Any:
    """The operator with bias 0."""
    return op if isinstance(op, AveragePool) else replace(op, bias=frozen_array(op.bias * 0.0))


def affine(op: Linear | Conv | AveragePool, inputs: list[Zonotope]) -> Zonotope:
    """Affine operators map affine forms exactly, up to rounding."""
    (z,) = inputs
    # sound: all rounding, of center and generators, is at most error * |W| (|c| + sum |g|) + error |b| (Higham, ch. 3)
    error = gamma(terms_of(op) + len(z.symbols))
    slack = FORWARD[type(op)](magnitude(op), [z.slack * (1 + error) + error * _size(z)]) + TINY
    center = FORWARD[type(op)](op, [z.center])
    return _with_interval(
        op, inputs, replace(z, center=center, generators=_linear_part(unbiased(op), z.generators), slack=slack)
    )


def scale(op: Scale, inputs: list[Zonotope]) -> Zonotope:
    """factor * z + offset."""
    (z,) = inputs
    factor = constant(op, "factor", z.center.dtype, z.center.device)
    offset = constant(op, "offset", z.center.dtype, z.center.device)
    # sound: each product and sum is off by at most UNIT times its size; gamma covers the sum of |generators|
    error = gamma(len(z.symbols) + 2)
    slack = factor.abs() * (z.slack * (1 + error) + error * _size(z)) + error * offset.abs() + TINY
    moved = replace(z, center=factor * z.center + offset, generators=factor * z.generators, slack=slack)
    return _with_interval(op, inputs, moved)


def weighted_sum(op: Sum, inputs: list[Zonotope]) -> Zonotope:
    """Sum of coefficient * z; symbols that inputs share stay correlated."""
    aligned = shared_symbols(inputs)
    # sound: as for an inner product of all terms and symbols
    error = gamma(len(inputs) + len(aligned[0].symbols) + 2)
    slack, center, generators = (torch.zeros_like(x) for x in (aligned[0].slack, aligned[0].center, aligned[0].generators))
    for c, z in zip(op.coefficients, aligned, strict=True):
        center, generators = center + c * z.center, generators + c * z.generators
        slack = slack + abs(c) * (z.slack * (1 + error) + error * _size(z))
    total = replace(aligned[0], center=center, generators=generators, slack=slack * (1 + error) + TINY)
    return _with_interval(op, inputs, total)


def shared_symbols(inputs: list[Zonotope]) -> list[Zonotope]:
    """The same zonotopes over one common list of symbols."""
    symbols = tuple(sorted({s for z in inputs for s in z.symbols}))
    place = {s: k for k, s in enumerate(symbols)}
    aligned = []
    for z in inputs:
        generators = z.generators.new_zeros(len(z.center), len(symbols), *z.center.shape[1:])
        generators[:, [place[s] for s in z.symbols]] = z.generators
        aligned.append(replace(z, generators=generators, symbols=symbols))
    return aligned


def rearranged(op: Reshape | Transpose | Concat | Select, inputs: list[Zonotope]) -> Zonotope:
    """Entries move, numbers stay; what a Select puts in is 0, exactly."""
    aligned = shared_symbols(inputs) if len(inputs) > 1 else inputs
    forward = FORWARD[type(op)]
    rows = aligned[0].generators.shape[:2]
    generators = forward(op, [z.generators.flatten(0, 1) for z in aligned]).unflatten(0, rows)
    center, slack = forward(op, [z.center for z in aligned]), forward(op, [z.slack for z in aligned])
    return _with_interval(op, inputs, replace(aligned[0], center=center, generators=generators, slack=slack))


def rectified(op: Relu | LeakyRelu, inputs: list[Zonotope]) -> Zonotope:
    """max(x, s * x) = steep * x + [0, top] over lower <= x <= upper, with a fresh symbol for each unstable entry."""
    (z,) = inputs
    slope = op.slope if isinstance(op, LeakyRelu) else 0.0
    steep, top = relaxation(z.lower, z.upper, slope)
    half = 0.5 * top
    error = gamma(len(z.symbols) + 2)
    # sound: the products by steep and the shift by half round once each; by 0 and 1 they are exact
    rounding = torch.where((steep == 0) | (steep == 1), 0.0, error * _size(z) + TINY) + 4 * UNIT * (_size(z) + half) * (top > 0)
    scaled = replace(
        z,
        center=steep * z.center + half,
        generators=steep.unsqueeze(1) * z.generators,
        slack=steep * z.slack * (1 + error) + rounding,
    )
    return _with_interval(op, inputs, with_noise(scaled, half))


def relaxation(lower: Tensor, upper: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """steep in [slope, 1] and top >= 0 with 0 <= max(x, slope * x) - steep * x <= top for all lower <= x <= upper."""
    chord = ((upper - slope * lower) / (upper - lower)).clamp(slope, 1.0).nan_to_num(nan=1.0)
    steep = torch.where(lower >= 0, 1.0, torch.where(upper <= 0, slope, chord))
    # sound: the difference is convex in x, 0 at x = 0 and not negative, so its maximum lies at an end
    top = torch.maximum((slope - steep) * lower, (1 - steep) * upper) * (1 + 8 * UNIT) + TINY
    unbounded = torch.isinf(lower) | torch.isinf(upper)
    stable = (lower >= 0) | (upper <= 0)
    return steep, torch.where(stable, 0.0, torch.where(unbounded, torch.inf, top))


def curved(op: Any, inputs: list[Zonotope]) -> Zonotope:
    """slope * z + middle, with a fresh symbol for what the parallelogram leaves open."""
    (z,) = inputs
    slope, middle, half = parallelogram(op, z.lower, z.upper)
    level, unbounded = slope == 0, half.isinf()
    half = half.masked_fill(unbounded, 0.0)
    error = gamma(len(z.symbols) + 4)
    # sound: the product by the slope and the shift round once each, at most by UNIT times their size
    slack = (slope.abs() * (z.slack + error * _size(z))).masked_fill(level, 0.0) * (1 + error)
    slack = (slack + 4 * UNIT * (middle.abs() + half) + TINY).masked_fill(unbounded, torch.inf)
    moved = replace(z, center=slope * z.center + middle, generators=slope.unsqueeze(1) * z.generators, slack=slack)
    return _with_interval(op, inputs, with_noise(moved, half))


def bilinear(op: Product, inputs: list[Zonotope]) -> Zonotope:
    """a * b = q * a + p * b - p * q + (a - p) * (b - q), the last with a fresh symbol.

    p and q are the middles of the bounds, or the centers of the affine forms where these leave less open.
    """
    a, b = shared_symbols(inputs)
    middles = [center_radius(z.lower, z.upper) for z in (a, b)]
    within = middles[0][1] * middles[1][1] * (1 + 8 * UNIT)
    shift, around = _square_terms(a, b)
    closer = around < within
    p, q = (torch.where(closer, z.center, middle) for z, (middle, _) in zip((a, b), middles, strict=True))
    shift, half = torch.where(closer, shift, 0.0), torch.where(closer, around, within)
    unbounded = ~(half + p.abs() + q.abs() + (p * q).abs()).isfinite()
    p, q, shift, half = (x.masked_fill(unbounded, 0.0) for x in (p, q, shift, half))
    # sound: as for a sum with four coefficients
    error = gamma(len(a.symbols) + 8)
    sizes = q.abs() * _size(a) + p.abs() * _size(b) + (p * q).abs() + shift.abs() + half
    slack = (q.abs() * a.slack + p.abs() * b.slack) * (1 + error) + error * sizes + TINY
    generators = q.unsqueeze(1) * a.generators + p.unsqueeze(1) * b.generators
    center = q * a.center + p * b.center - p * q + shift
    moved = replace(a, center=center, generators=generators, slack=slack.masked_fill(unbounded, torch.inf))
    return _with_interval(op, inputs, with_noise(moved, half))


def _square_terms(a: Zonotope, b: Zonotope) -> tuple[Tensor, Tensor]:
    """Middle and radius of (a - center) * (b - center): symbol by symbol, e * e lies in [0, 1]."""
    alike = (a.generators * b.generators).sum(1), (a.generators * b.generators).abs().sum(1)
    radii = a.generators.abs().sum(1), b.generators.abs().sum(1)
    # sound: of all products of two symbols, those of one with itself keep half their size after the shift
    rest = a.slack * (radii[1] + b.slack) + radii[0] * b.slack
    error = 4 * gamma(len(a.symbols) + 8) * (radii[0] * radii[1] + rest)
    return 0.5 * alike[0], radii[0] * radii[1] - 0.5 * alike[1] + rest + error


def with_noise(z: Zonotope, radius: Tensor) -> Zonotope:
    """Fresh symbols of the given radii, one for each entry where any row has a positive one."""
    flat = radius.unsqueeze(-1).flatten(1)
    where = torch.nonzero((flat > 0).any(0)).flatten()
    fresh = flat.new_zeros(len(flat), len(where), flat.shape[1])
    fresh[:, torch.arange(len(where)), where] = flat[:, where]
    generators = torch.cat([z.generators, fresh.reshape(*fresh.shape[:2], *radius.shape[1:])], 1)
    return replace(z, generators=generators, symbols=z.symbols + tuple(next(z.names) for _ in where))


def max_pool(op: MaxPool, inputs: list[Zonotope]) -> Zonotope:
    """The affine form of the entry that dominates its window; where none does, the interval between the greatest bounds."""
    (z,) = inputs
    lowers = torch.stack([_shifted(op, z.lower, k, -torch.inf) for k in _offsets(op)])
    uppers = torch.stack([_shifted(op, z.upper, k, -torch.inf) for k in _offsets(op)])
    winner = lowers.argmax(0, keepdim=True)
    rivals = uppers.scatter(0, winner, -torch.inf).amax(0)
    # sound: an entry whose lower bound reaches every other's upper bound is the maximum
    decided = lowers.amax(0) >= rivals
    middle, radius = center_radius(lowers.amax(0), uppers.amax(0))
    center, slack = torch.where(decided, 0.0, middle), torch.where(decided, 0.0, radius)
    generators = z.generators.new_zeros(*z.generators.shape[:2], *center.shape[1:])
    for place, offset in enumerate(_offsets(op)):
        taken = decided & (winner[0] == place)
        center = torch.where(taken, _shifted(op, z.center, offset, 0.0), center)
        slack = torch.where(taken, _shifted(op, z.slack, offset, 0.0), slack)
        moved = _shifted(op, z.generators.flatten(0, 1), offset, 0.0).unflatten(0, z.generators.shape[:2])
        generators = torch.where(taken.unsqueeze(1), moved, generators)
    return _with_interval(op, inputs, replace(z, center=center, generators=generators, slack=slack))


def _offsets(op: MaxPool) -> Iterator[tuple[int, ...]]:
    return product(*map(range, op.kernel))


def _shifted(op: MaxPool, x: Tensor, offset: tuple[int, ...], padding: float) -> Tensor:
    """The entry at that place of each window: (batch, 1, channels, *out space)."""
    padded = pad(x.squeeze(1), op.padding, padding)
    for axis, (k, size, stride, dilation) in enumerate(zip(offset, op.kernel, op.stride, op.dilation, strict=True), start=2):
        count_out = (padded.shape[axis] - dilation * (size - 1) - 1) // stride + 1
        places = torch.arange(count_out, device=x.device) * stride + k * dilation
        padded = padded.index_select(axis, places)
    return padded.unsqueeze(1)


def _with_interval(op: Any, inputs: list[Zonotope], z: Zonotope) -> Zonotope:
    lower, upper = INTERVAL[type(op)](op, [x.interval for x in inputs])
    return replace(z, lower=lower, upper=upper)


ZONOTOPE: dict[type, Callable[[Any, list[Zonotope]], Zonotope]] = {
    Linear: affine,
    Conv: affine,
    AveragePool: affine,
    Scale: scale,
    Sum: weighted_sum,
    Reshape: rearranged,
    Transpose: rearranged,
    Concat: rearranged,
    Select: rearranged,
    MaxPool: max_pool,
    Relu: rectified,
    LeakyRelu: rectified,
    Product: bilinear,
    **{kind: curved for kind in (*CURVE_OPS, *STEP_OPS)},
}
