"""The linear domain: backward bound propagation with free slopes and multipliers (METHODS 7).

A pass starts from rows of linear forms over named values and carries them against the edges of the graph to the input box,
where the minimum is a formula. On the way an activation is replaced by a line below it where its coefficient is positive
and by a line above it where negative, and any inequality known to hold may be added with a multiplier >= 0. Every choice of
slopes and multipliers gives a true lower bound (weak duality), so the pass is differentiable in them and `optimise` climbs.

DeepPoly: Singh et al. 2019; slopes: alpha-CROWN, arXiv:2011.13824; split multipliers: beta-CROWN, arXiv:2103.06624;
multipliers on linear atoms over hidden values: GCP-CROWN, arXiv:2208.05740.

The numbers here are plain floats without outward rounding: they steer the search and fill certificates. What is called
proved is decided by `verifier.check`, which replays the certificate exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from verifier.errors import UnsupportedOp
from verifier.evaluate import constant, pad
from verifier.network import Network, Node
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
    Sum,
    Transpose,
)

Interval = tuple[Tensor, Tensor]

PATIENCE = 10


@dataclass(frozen=True)
class Rows:
    """Linear forms sum_v coefficients[v] . v + constant; coefficients[v]: (batch, spec, size of v), constant: (batch, spec)."""

    coefficients: Mapping[str, Tensor]
    constant: Tensor


@dataclass(frozen=True)
class Choices:
    """The free parameters of a pass, each true for every value in its range.

    slopes[a]: (batch, spec or 1, size) for an activation output a. lower[v], upper[v]: multipliers >= 0 on the bounds of v,
    (batch, spec, size). atoms: (batch, spec, count) multipliers >= 0 on `Atoms`.
    """

    slopes: Mapping[str, Tensor]
    lower: Mapping[str, Tensor] = field(default_factory=dict)
    upper: Mapping[str, Tensor] = field(default_factory=dict)
    atoms: Tensor | None = None


@dataclass(frozen=True)
class Atoms:
    """Atoms sum_v coefficients[v] . v + bias <= 0 that hold in the subproblem; coefficients[v]: (batch, count, size of v)."""

    coefficients: Mapping[str, Tensor]
    bias: Tensor

    def select(self, rows: Tensor) -> "Atoms":
        """The atoms of some batch entries."""
        return Atoms({v: c[rows] for v, c in self.coefficients.items()}, self.bias[rows])


def lower_bounds(
    network: Network,
    bounds: Mapping[str, Interval],
    rows: Rows,
    choices: Choices,
    *,
    atoms: Atoms | None = None,
    seen: dict[str, Tensor] | None = None,
    upper_lines: Mapping[str, Interval] | None = None,
) -> Tensor:
    """A lower bound of every row over the inputs within bounds[network.input], shape (batch, spec).

    bounds: (lower, upper) of shape (batch, size) that hold for every value, under the premise. seen: if given, filled with
    the coefficient that arrived at each value before its own multipliers were added. upper_lines: `chords(network, bounds)`,
    where the caller has them already.
    """
    lines = chords(network, bounds) if upper_lines is None else upper_lines
    pending = dict(rows.coefficients)
    total = rows.constant
    if atoms is not None and choices.atoms is not None:
        for value, matrix in atoms.coefficients.items():
            _accumulate(pending, value, choices.atoms @ matrix)
        total = total + (choices.atoms * atoms.bias[:, None, :]).sum(-1)
    for node in reversed(network.nodes):
        coefficient, gain = _with_multipliers(pending.pop(node.output, None), node.output, bounds, choices, seen)
        if coefficient is None:
            continue
        total = total + gain
        transfer = BACKWARD.get(type(node.op))
        if transfer is None:
            raise UnsupportedOp(type(node.op).__name__, node.output, "no rule in the linear domain")
        parts, shift = transfer(node, coefficient, _Context(network, bounds, choices, lines))
        total = total + shift
        for name, part in zip(node.inputs, parts, strict=True):
            _accumulate(pending, name, part)
    coefficient, gain = _with_multipliers(pending.pop(network.input, None), network.input, bounds, choices, seen)
    assert not pending, f"rows over unknown values {sorted(pending)}"
    if coefficient is None:
        return total
    low, high = bounds[network.input]
    # sound: a linear form over a box is smallest at the corner that its signs choose
    smallest = coefficient.clamp(min=0) * low[:, None] + coefficient.clamp(max=0) * high[:, None]
    return total + gain + smallest.sum(-1)


def _accumulate(pending: dict[str, Tensor], value: str, coefficient: Tensor) -> None:
    pending[value] = pending[value] + coefficient if value in pending else coefficient


def _with_multipliers(
    coefficient: Tensor | None,
    value: str,
    bounds: Mapping[str, Interval],
    choices: Choices,
    seen: dict[str, Tensor] | None,
) -> tuple[Tensor | None, Tensor | float]:
    """Add the multipliers on the value's own bounds: sound since lower - v <= 0 and v - upper <= 0 hold and they are >= 0."""
    if seen is not None and coefficient is not None:
        seen[value] = coefficient
    gain: Tensor | float = 0.0
    for multipliers, side, sign in ((choices.lower, 0, -1.0), (choices.upper, 1, 1.0)):
        if value in multipliers:
            m = multipliers[value]
            coefficient = sign * m if coefficient is None else coefficient + sign * m
            gain = gain - sign * (m * bounds[value][side][:, None]).sum(-1)
    return coefficient, gain


@dataclass(frozen=True)
class _Context:
    network: Network
    bounds: Mapping[str, Interval]
    choices: Choices
    lines: Mapping[str, Interval]

    def shaped(self, coefficient: Tensor, value: str) -> Tensor:
        """(batch, spec, size) as (batch * spec, *value shape)."""
        return coefficient.reshape(-1, *self.network.shapes[value])


Transferred = tuple[list[Tensor], Tensor | float]
Transfer = Callable[[Node, Tensor, _Context], Transferred]


def _linear(node: Node, a: Tensor, context: _Context) -> Transferred:
    weight, bias = (constant(node.op, name, a.dtype, a.device) for name in ("weight", "bias"))
    forms = a.reshape(*a.shape[:2], -1, weight.shape[0])
    # sound: exact substitution of W x + b
    return [(forms @ weight).flatten(2)], (forms * bias).sum((-2, -1))


def _conv(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: Conv = node.op  # type: ignore[assignment]
    weight, bias = (constant(op, name, a.dtype, a.device) for name in ("weight", "bias"))
    forms = context.shaped(a, node.output)[:, 0]
    spread = _transposed_window(forms, weight, context.network.shapes[node.inputs[0]][2:], op, op.dilation, op.groups)
    space = tuple(range(2, forms.ndim))
    shift = (forms.sum(space) * bias).sum(-1)
    # sound: exact substitution, the transposed convolution is the adjoint of the convolution
    return [spread.reshape(*a.shape[:2], -1)], shift.reshape(a.shape[:2])


def _average_pool(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: AveragePool = node.op  # type: ignore[assignment]
    divisor = constant(op, "divisor", a.dtype, a.device)
    forms = context.shaped(a, node.output)[:, 0] / divisor
    channels = forms.shape[1]
    ones = torch.ones((channels, 1, *op.kernel), dtype=a.dtype, device=a.device)
    inner = context.network.shapes[node.inputs[0]][2:]
    spread = _transposed_window(forms, ones, inner, op, (1,) * len(inner), channels)
    # sound: exact substitution of the window means
    return [spread.reshape(*a.shape[:2], -1)], 0.0


def _transposed_window(
    forms: Tensor, weight: Tensor, inner: tuple[int, ...], op: Conv | AveragePool, dilation: tuple[int, ...], groups: int
) -> Tensor:
    """Adjoint of the padded strided window map: forms (rows, channels, *out) to (rows, channels, *inner)."""
    padded = [n + sum(p) for n, p in zip(inner, op.padding, strict=True)]
    kernel = weight.shape[2:]
    reached = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(forms.shape[2:], op.stride, dilation, kernel, strict=True)]
    transposed = functional.conv_transpose1d if len(inner) == 1 else functional.conv_transpose2d
    spread = transposed(forms, weight, None, op.stride, 0, 0, groups, dilation)
    missing = tuple((0, p - r) for p, r in zip(padded, reached, strict=True))
    spread = pad(spread, missing, 0.0)
    for axis, (n, (begin, _)) in enumerate(zip(inner, op.padding, strict=True)):
        spread = spread.narrow(axis + 2, begin, n)
    return spread


def _scale(node: Node, a: Tensor, context: _Context) -> Transferred:
    factor, offset = (constant(node.op, name, a.dtype, a.device) for name in ("factor", "offset"))
    forms = a.reshape(*a.shape[:2], *context.network.shapes[node.output])
    # sound: exact substitution of factor * x + offset
    return [(forms * factor).flatten(2)], (forms * offset).flatten(2).sum(-1)


def _sum(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: Sum = node.op  # type: ignore[assignment]
    return [c * a for c in op.coefficients], 0.0  # sound: exact substitution


def _transpose(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: Transpose = node.op  # type: ignore[assignment]
    forms = a.reshape(*a.shape[:2], *context.network.shapes[node.output])
    inverse = [op.permutation.index(axis) for axis in range(len(op.permutation))]
    return [forms.permute(0, 1, *(axis + 2 for axis in inverse)).flatten(2)], 0.0  # sound: renames entries


def _concat(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: Concat = node.op  # type: ignore[assignment]
    forms = a.reshape(*a.shape[:2], *context.network.shapes[node.output])
    lengths = [context.network.shapes[name][op.axis] for name in node.inputs]
    return [part.flatten(2) for part in forms.split(lengths, dim=op.axis + 2)], 0.0  # sound: renames entries


def _activation(node: Node, a: Tensor, context: _Context) -> Transferred:
    slope, intercept = context.lines[node.output]
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    # sound: f(z) >= slope * z for slopes in the op's range, and a convex f lies below its chord on [low, high]
    coefficient = positive * context.choices.slopes[node.output] + negative * slope[:, None]
    return [coefficient], (negative * intercept[:, None]).sum(-1)


def _max_pool(node: Node, a: Tensor, context: _Context) -> Transferred:
    low, high = context.bounds[node.inputs[0]]
    pool = pool_choice(node, context.network, low, high)
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    kept = positive + negative * pool.dominates[:, None]
    # sound: a maximum is >= each entry, equal to one that dominates the others, and <= the largest upper bound
    coefficient = torch.zeros(*a.shape[:2], low.shape[1], dtype=a.dtype, device=a.device)
    coefficient = coefficient.scatter_add(2, pool.index[:, None].expand_as(kept), kept)
    return [coefficient], (negative * (pool.upper * ~pool.dominates)[:, None]).sum(-1)


BACKWARD: dict[type, Transfer] = {
    Linear: _linear,
    Conv: _conv,
    AveragePool: _average_pool,
    Scale: _scale,
    Sum: _sum,
    Reshape: lambda node, a, context: ([a], 0.0),  # sound: entries keep their C order
    Transpose: _transpose,
    Concat: _concat,
    Relu: _activation,
    LeakyRelu: _activation,
    MaxPool: _max_pool,
}


@dataclass(frozen=True)
class PoolChoice:
    """For each output of a MaxPool, (batch, outputs): the window entry with the largest lower bound, whether it dominates
    every other entry of its window, and the largest upper bound."""

    index: Tensor
    dominates: Tensor
    upper: Tensor


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
    shape = network.shapes[node.inputs[0]]
    size = network.size(node.inputs[0])
    numbers = torch.arange(1, size + 1, dtype=torch.float64, device=device).reshape(shape)
    padded = pad(numbers, op.padding, 0.0)
    for axis, (kernel, stride, dilation) in enumerate(zip(op.kernel, op.stride, op.dilation, strict=True)):
        span = dilation * (kernel - 1) + 1
        padded = padded.unfold(axis + 2, span, stride)[..., ::dilation]
    outputs = network.size(node.output)
    return padded.reshape(outputs, -1).long() - 1


def chord(op: Any, low: Tensor, high: Tensor) -> Interval:
    """Slope and intercept of a line above the activation on [low, high], tight at both ends."""
    f_low, f_high = activation(op, low), activation(op, high)
    width = high - low
    point = width <= 1e-12 * (1.0 + low.abs())
    steepest = torch.ones_like(low)
    slope = torch.where(point, steepest, (f_high - f_low) / width.masked_fill(point, 1.0))
    slope = slope.clamp(slope_floor(op), 1.0)
    return slope, torch.maximum(f_low - slope * low, f_high - slope * high)


def chords(network: Network, bounds: Mapping[str, Interval]) -> dict[str, Interval]:
    """The chord of every activation, by output name."""
    return {node.output: chord(node.op, *bounds[node.inputs[0]]) for node in activation_nodes(network)}


def activation(op: Any, z: Tensor) -> Tensor:
    """The activation function itself."""
    return z.relu() if isinstance(op, Relu) else functional.leaky_relu(z, op.slope)


def slope_floor(op: Any) -> float:
    """The smallest slope of a line through 0 below the activation; the largest is 1."""
    return 0.0 if isinstance(op, Relu) else op.slope


def activation_nodes(network: Network) -> list[Node]:
    """The nodes with a line below and a line above, in network order."""
    return [node for node in network.nodes if isinstance(node.op, (Relu, LeakyRelu))]


def adaptive_slopes(network: Network, bounds: Mapping[str, Interval]) -> dict[str, Tensor]:
    """The lower line that leaves the smaller area (DeepPoly), (batch, 1, size) for each activation; exact where stable."""
    slopes = {}
    for node in activation_nodes(network):
        low, high = bounds[node.inputs[0]]
        slopes[node.output] = torch.where(high > -low, 1.0, slope_floor(node.op)).to(low.dtype)[:, None]
    return slopes


def unit_rows(value: str, size: int, indices: Tensor, signs: Tensor) -> Rows:
    """Rows sign * value[index]; indices and signs: (batch, spec)."""
    one_hot = functional.one_hot(indices, size).to(signs.dtype) * signs[..., None]
    return Rows({value: one_hot}, torch.zeros_like(signs))


@dataclass(frozen=True)
class Optimised:
    """The best bounds found, (batch, spec), with the choices that give them."""

    bounds: Tensor
    choices: Choices


def optimise(
    network: Network,
    bounds: Mapping[str, Interval],
    rows: Rows,
    start: Choices,
    *,
    atoms: Atoms | None = None,
    steps: int = 100,
    rate: float = 0.1,
    scales: Mapping[str, Tensor] | None = None,
    target: float = torch.inf,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Optimised:
    """Climb from `start` by Adam on slopes and multipliers, keeping each row's best.

    scales[v]: (batch, spec, 1) typical size of the coefficients that reach v, the unit of its multipliers' steps; values
    absent from it step in units of 1. Stops early when every row passes `target`.
    """
    leaves = _Leaves(network, start, scales or {})
    lines = chords(network, bounds)
    best = torch.full_like(rows.constant, -torch.inf)
    earlier = best
    kept = start
    momentum = [(torch.zeros_like(p), torch.zeros_like(p)) for p in leaves.parameters]
    for step in range(steps + 1):
        choices = leaves.choices()
        value = lower_bounds(network, bounds, rows, choices, atoms=atoms, upper_lines=lines)
        better = value.detach() > best
        best = torch.where(better, value.detach(), best)
        kept = choose(better, choices, kept)
        if step == steps or not value.requires_grad or bool((best > target).all()) or out_of_time():
            break
        if step % PATIENCE == 0:
            if step and _hopeless(best, earlier, target, steps - step):
                break
            earlier = best
        gradients = torch.autograd.grad(value.sum(), leaves.parameters, allow_unused=True)
        leaves.climb(gradients, momentum, step, rate * 0.98**step)
    return Optimised(best, kept)


def _hopeless(best: Tensor, earlier: Tensor, target: float, steps_left: int) -> bool:
    """Whether no open row would reach the target if it went on gaining at the pace of the last PATIENCE steps.

    Gains shrink as the climb nears its top, so the forecast is generous.
    """
    if target == torch.inf:
        return False
    forecast = best + (best - earlier) * (steps_left / PATIENCE)
    return bool(((best > target) | (forecast < target)).all())


class _Leaves:
    """Flat list of the parameters being optimised, with their units and ranges."""

    def __init__(self, network: Network, start: Choices, scales: Mapping[str, Tensor]) -> None:
        floors = {node.output: slope_floor(node.op) for node in activation_nodes(network)}
        self.names: list[tuple[str, str]] = []
        self.parameters: list[Tensor] = []
        self.units: list[Tensor | float] = []
        self.ranges: list[tuple[float, float]] = []
        for name, slopes in start.slopes.items():
            self._add("slopes", name, slopes, 1.0, (floors[name], 1.0))
        for kind in ("lower", "upper"):
            for name, multipliers in getattr(start, kind).items():
                self._add(kind, name, multipliers, scales.get(name, 1.0), (0.0, torch.inf))
        if start.atoms is not None and start.atoms.numel():
            self._add("atoms", "", start.atoms, scales.get("", 1.0), (0.0, torch.inf))

    def _add(self, kind: str, name: str, tensor: Tensor, unit: Tensor | float, limits: tuple[float, float]) -> None:
        self.names.append((kind, name))
        self.parameters.append(tensor.detach().clone().requires_grad_())
        self.units.append(unit)
        self.ranges.append(limits)

    def choices(self) -> Choices:
        groups: dict[str, dict[str, Tensor]] = {"slopes": {}, "lower": {}, "upper": {}, "atoms": {}}
        for (kind, name), parameter in zip(self.names, self.parameters, strict=True):
            groups[kind][name] = parameter
        return Choices(groups["slopes"], groups["lower"], groups["upper"], groups["atoms"].get(""))

    @torch.no_grad()
    def climb(
        self, gradients: tuple[Tensor | None, ...], momentum: list[tuple[Tensor, Tensor]], step: int, rate: float
    ) -> None:
        """One Adam step upward (Kingma and Ba 2015), clipped to each parameter's range."""
        for parameter, gradient, (first, second), unit, (low, high) in zip(
            self.parameters, gradients, momentum, self.units, self.ranges, strict=True
        ):
            if gradient is None:
                continue
            first.mul_(0.9).add_(gradient, alpha=0.1)
            second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            move = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-12)
            parameter.add_(rate * move * unit).clamp_(low, high)


def choose(better: Tensor, new: Choices, old: Choices) -> Choices:
    """Row by row (batch, spec), the new choices where `better`."""
    mask = better[..., None]

    def pick(fresh: Mapping[str, Tensor], stale: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.where(mask, fresh[name].detach(), stale[name]) for name in stale}

    atoms = None if old.atoms is None or new.atoms is None else torch.where(mask, new.atoms.detach(), old.atoms)
    return Choices(pick(new.slopes, old.slopes), pick(new.lower, old.lower), pick(new.upper, old.upper), atoms)


def select(choices: Choices, rows: Tensor) -> Choices:
    """The choices of some batch entries."""
    return Choices(
        {n: t[rows] for n, t in choices.slopes.items()},
        {n: t[rows] for n, t in choices.lower.items()},
        {n: t[rows] for n, t in choices.upper.items()},
        None if choices.atoms is None else choices.atoms[rows],
    )


def join(parts: Sequence[Choices]) -> Choices:
    """The choices of several batches, one after the other."""
    first = parts[0]
    return Choices(
        {n: torch.cat([p.slopes[n] for p in parts]) for n in first.slopes},
        {n: torch.cat([p.lower[n] for p in parts]) for n in first.lower},
        {n: torch.cat([p.upper[n] for p in parts]) for n in first.upper},
        None if first.atoms is None else torch.cat([p.atoms for p in parts if p.atoms is not None]),
    )
