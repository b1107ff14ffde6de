"""The linear domain: backward bound propagation with free slopes and multipliers (METHODS 7).

A pass starts from rows of linear forms over named values and carries them against the edges of the graph to the input box,
where the minimum is a formula. On the way a nonlinear node is replaced by a line below it where its coefficient is positive
and by a line above it where negative, and any inequality known to hold may be added with a multiplier >= 0. Every choice of
slopes and multipliers gives a true lower bound (weak duality), so the pass is differentiable in them and
`verifier.domains.optimise` climbs. A row for which some node has no finite line is bounded by -inf.

DeepPoly: Singh et al. 2019; slopes: alpha-CROWN, arXiv:2011.13824; split multipliers: beta-CROWN, arXiv:2103.06624;
multipliers on linear atoms over hidden values: GCP-CROWN, arXiv:2208.05740.

The numbers here are plain floats without outward rounding: they steer the search and fill certificates. What is called
proved is decided by `verifier.check`, which replays the certificate exactly.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from verifier.domains.choices import Atoms, Choices, Rows, Units
from verifier.domains.curves import intercept
from verifier.domains.gradients import Affine, Bend, LeastOverBox
from verifier.domains.planes import over_plane
from verifier.domains.relaxations import (
    Interval,
    PoolChoice,
    chord,
    default_slopes,
    planes,
    pool_choice,
    windows_of,
)
from verifier.errors import UnsupportedOp
from verifier.evaluate import constant, pad
from verifier.network import Network, Node
from verifier.ops import (
    ACTIVATION_OPS,
    CURVE_OPS,
    STEP_OPS,
    AveragePool,
    Concat,
    Conv,
    Linear,
    MaxPool,
    Product,
    Relu,
    Reshape,
    Scale,
    Select,
    Sum,
    Transpose,
)

MANY = 48
"""Rows from which on it pays to leave out what is 0 before a matrix product."""


def lower_bounds(
    network: Network,
    bounds: Mapping[str, Interval],
    rows: Rows,
    choices: Choices,
    *,
    atoms: Atoms | None = None,
    seen: dict[str, Tensor] | None = None,
    fixed: "dict[str, Fixed] | None" = None,
    stop: Collection[str] = (),
) -> Tensor:
    """A lower bound of every row over the inputs within bounds[network.input], shape (batch, spec); -inf where there is none.

    bounds: (lower, upper) of shape (batch, size) that hold for every value, under the premise; their dtype is that of the
    pass. seen: if given, filled with the coefficient that arrived at each value before its own multipliers were added.
    fixed: what passes under these bounds have found to depend on them alone, by node; kept and added to. stop: values whose
    coefficients are taken no further and are not counted: with them the result is no bound, but the constant of the form in
    these values that `seen` then holds. Raises UnsupportedOp.
    """
    context = _Context(network, bounds, choices, {} if fixed is None else fixed)
    assert atoms is not None or choices.atoms is None, "multipliers on atoms were chosen, but the atoms left out"
    pending, total = dict(rows.coefficients), rows.constant
    if atoms is not None and choices.atoms is not None:
        for value, matrix in atoms.coefficients.items():
            _accumulate(pending, value, choices.atoms @ matrix)
        total = total + (choices.atoms * atoms.bias[:, None, :]).sum(-1)
    units = rows.units
    if units is not None and (seen is not None or not _starts_sparse(units, context)):
        _accumulate(pending, units.value, _one_hot(units, context))
        units = None
    for node in reversed(network.nodes):
        if units is not None and units.value == node.output:
            total = total + _pass_on(node, FIRST[type(node.op)](node, units, context), pending)
        coefficient, gain = _with_multipliers(pending.pop(node.output, None), node.output, context, seen)
        if coefficient is not None and node.output not in stop:
            if node.output in choices.planes:
                plane = choices.planes[node.output]
                coefficient, moved, own = over_plane(network, bounds, node, coefficient, plane)
                _accumulate(pending, plane.source, moved)
                gain = gain + own
            total = total + gain + _pass_on(node, _backward(node, coefficient, context), pending)
    coefficient, gain = _with_multipliers(pending.pop(network.input, None), network.input, context, seen)
    assert not pending, f"rows over unknown values {sorted(pending)}"
    if coefficient is None or network.input in stop:
        return total
    return total + gain + _over_box(coefficient, context)


def _pass_on(node: Node, transferred: "Transferred", pending: dict[str, Tensor]) -> Tensor | float:
    parts, gain = transferred
    for name, part in zip(node.inputs, parts, strict=True):
        if part is not None:
            _accumulate(pending, name, part)
    return gain


def _accumulate(pending: dict[str, Tensor], value: str, coefficient: Tensor) -> None:
    pending[value] = pending[value] + coefficient if value in pending else coefficient


def _with_multipliers(
    coefficient: Tensor | None, value: str, context: "_Context", seen: dict[str, Tensor] | None
) -> tuple[Tensor | None, Tensor | float]:
    """Add the multipliers on the value's own bounds: sound since lower - v <= 0 and v - upper <= 0 hold and they are >= 0."""
    if seen is not None and coefficient is not None:
        seen[value] = coefficient
    gain: Tensor | float = 0.0
    for multipliers, side, sign in ((context.choices.lower, 0, -1.0), (context.choices.upper, 1, 1.0)):
        if value in multipliers:
            m = multipliers[value]
            coefficient = sign * m if coefficient is None else coefficient + sign * m
            gain = gain + _weighed(m, -sign * context.bounds[value][side][:, None])
    return coefficient, gain


def _weighed(a: Tensor, constants: Tensor) -> Tensor:
    """sum of a * constants over the last axis, (batch, spec); -inf where an infinite constant has a weight other than 0.

    a: (batch, spec, size), constants: (batch, spec or 1, size).
    """
    known = constants.isfinite()
    if not bool(known.all()):
        lost = ((a != 0) & ~known).any(-1)
        return (a * constants.masked_fill(~known, 0.0)).sum(-1).masked_fill(lost, -torch.inf)
    if constants.shape[1] == 1:
        return torch.matmul(a, constants.mT)[..., 0]
    return (a * constants).sum(-1)


def _over_box(a: Tensor, context: "_Context") -> Tensor:
    """The least value of the forms a (batch, spec, size) over the input box."""
    name = context.network.input
    box: Middle = context.kept(name, lambda: _middle(*context.bounds[name]))
    # sound: a linear form over a box is smallest at the corner that its signs choose, a * center - |a| * radius
    if box.known:
        return LeastOverBox.apply(a, box.center, box.radius)
    return _weighed(a, box.center) + _weighed(a.abs(), -box.radius)


@dataclass(frozen=True)
class _Context:
    network: Network
    bounds: Mapping[str, Interval]
    choices: Choices
    fixed: dict[str, "Fixed"]

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What `fixed` has under this name; made where it has nothing yet."""
        if name not in self.fixed:
            self.fixed[name] = make()
        return self.fixed[name]

    def kept_default(self, node: Node, make: Callable[[], "Planes"]) -> "Planes":
        """The planes of a node; kept where neither side was chosen."""
        chosen = node.output in self.choices.slopes or node.output in self.choices.upper_slopes
        return make() if chosen else self.kept(node.output, make)

    def shaped(self, coefficient: Tensor, value: str) -> Tensor:
        """(batch, spec, size) as (batch * spec, *value shape)."""
        return coefficient.reshape(-1, *self.network.shapes[value])

    def slopes(self, node: Node, *, lowest: bool) -> Tensor:
        """The chosen slopes of the line below (lowest) or above a node, else the default."""
        chosen = self.choices.slopes if lowest else self.choices.upper_slopes
        return chosen[node.output] if node.output in chosen else default_slopes(node, self.bounds, lowest=lowest)


@dataclass(frozen=True)
class Chord:
    """The line above an activation, slope and shift (batch, 1, size); known: whether all of it is finite."""

    slope: Tensor
    shift: Tensor
    known: bool

    def select(self, entries: Tensor) -> "Chord":
        """Those of some batch entries."""
        return Chord(self.slope[entries], self.shift[entries], self.known)


@dataclass(frozen=True)
class Middle:
    """The input box as center and radius, (batch, 1, size); known: whether all of it is finite."""

    center: Tensor
    radius: Tensor
    known: bool

    def select(self, entries: Tensor) -> "Middle":
        """Those of some batch entries."""
        return Middle(self.center[entries], self.radius[entries], self.known)


@dataclass(frozen=True)
class Planes:
    """The planes below and above a node, one coefficient for each input, then a constant, all (batch, spec or 1, size).

    known: whether all of it is finite.
    """

    below: Sequence[Tensor]
    above: Sequence[Tensor]
    known: bool

    def select(self, entries: Tensor) -> "Planes":
        """Those of some batch entries."""
        below, above = ([part[entries] for part in side] for side in (self.below, self.above))
        return Planes(below, above, self.known)


Fixed = Chord | Middle | PoolChoice | Planes
"""What a pass uses but does not choose: the chord of an activation, the entries of a pool, the middle of the input box, the
planes of a curve or a product where these are the default."""


def _chord(node: Node, bounds: Mapping[str, Interval]) -> Chord:
    slope, shift = (side[:, None] for side in chord(node.op, *bounds[node.inputs[0]]))
    return Chord(slope, shift, bool(shift.isfinite().all()))


def _middle(low: Tensor, high: Tensor) -> Middle:
    center, radius = (0.5 * low + 0.5 * high)[:, None], (0.5 * high - 0.5 * low)[:, None]
    return Middle(center, radius, bool(center.isfinite().all() and radius.isfinite().all()))


Transferred = tuple[list[Tensor | None], Tensor | float]
Transfer = Callable[[Node, Tensor, _Context], Transferred]


def _backward(node: Node, coefficient: Tensor, context: _Context) -> Transferred:
    transfer = BACKWARD.get(type(node.op))
    if transfer is None:
        raise UnsupportedOp(type(node.op).__name__, node.output, "no rule in the linear domain")
    return transfer(node, coefficient, context)


def _linear(node: Node, a: Tensor, context: _Context) -> Transferred:
    weight, bias = (constant(node.op, name, a.dtype, a.device) for name in ("weight", "bias"))
    # sound: exact substitution of W x + b
    if a.requires_grad or a.shape[0] * a.shape[1] < MANY or a.shape[2] != weight.shape[0]:
        part, gain = Affine.apply(a, weight, bias)
        return [part], gain
    forms = a.flatten(0, 1)
    used, wanted = (forms != 0).any(0).nonzero()[:, 0], _not_off(node.inputs[0], context)
    if len(used) * len(wanted) > 0.7 * weight.numel():
        return [a @ weight], a @ bias
    # sound: exact substitution, less products with coefficients that are all 0, and with units that are 0 in the whole batch
    part = torch.zeros(len(forms), weight.shape[1], dtype=a.dtype, device=a.device)
    part[:, wanted] = forms[:, used] @ weight[used][:, wanted]
    return [part.reshape(*a.shape[:2], -1)], a @ bias


def _not_off(value: str, context: _Context) -> Tensor:
    """The entries of a value that are not known to be 0 in the whole batch, since a Relu is off there."""
    node = context.network.producers.get(value)
    on = torch.ones(context.network.size(value), dtype=torch.bool)
    if node is not None and isinstance(node.op, Relu):
        on = (context.bounds[node.inputs[0]][1] > 0).any(0)
    return on.nonzero()[:, 0]


def _conv(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: Conv = node.op  # type: ignore[assignment]
    weight, bias = (constant(op, name, a.dtype, a.device) for name in ("weight", "bias"))
    forms = context.shaped(a, node.output)[:, 0]
    spread = _transposed_window(forms, weight, context.network.shapes[node.inputs[0]][2:], op, op.dilation, op.groups)
    shift = a @ bias.repeat_interleave(a.shape[2] // len(bias))
    # sound: exact substitution, the transposed convolution is the adjoint of the convolution
    return [spread.reshape(*a.shape[:2], -1)], shift


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
    return [a if c == 1 else c * a for c in op.coefficients], 0.0  # sound: exact substitution


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


def _select(node: Node, a: Tensor, context: _Context) -> Transferred:
    op: Select = node.op  # type: ignore[assignment]
    kept, places = _selected(op, a.device)
    spread = torch.zeros(*a.shape[:2], context.network.size(node.inputs[0]), dtype=a.dtype, device=a.device)
    # sound: exact substitution; entries that are 0 carry nothing
    return [spread.index_add(2, places, a[..., kept])], 0.0


@lru_cache(maxsize=256)
def _selected(op: Select, device: torch.device) -> tuple[Tensor, Tensor]:
    """The outputs that are not 0, and the input entries that they are."""
    indices = torch.from_numpy(np.array(op.indices)).to(device)
    kept = (indices >= 0).nonzero()[:, 0]
    return kept, indices[kept]


def _activation(node: Node, a: Tensor, context: _Context) -> Transferred:
    above: Chord = context.kept(node.output, lambda: _chord(node, context.bounds))
    below = context.slopes(node, lowest=True)
    # sound: f(z) >= slope * z for slopes in the op's range, and a convex f lies below its chord on [low, high]
    if above.known:
        part, gain = Bend.apply(a, below, above.slope, above.shift)
        return [part], gain
    return _between(a, Planes((below, torch.zeros_like(above.shift)), (above.slope, above.shift), known=False))


def _between(a: Tensor, planes: Planes) -> Transferred:
    """Coefficients a of a node onto its inputs, and the gain, with the planes that the signs of a call for.

    a: (batch, spec, size). A row that would take an infinite coefficient or constant gets the gain -inf.
    """
    if planes.known:
        positive, negative = a.clamp(min=0), a.clamp(max=0)
        pairs = list(zip(planes.below, planes.above, strict=True))
        return [positive * b + negative * c for b, c in pairs[:-1]], _weighed(positive, pairs[-1][0]) + _weighed(
            negative, pairs[-1][1]
        )
    chosen = [torch.where(a >= 0, b, c) for b, c in zip(planes.below, planes.above, strict=True)]
    known = torch.stack([c.detach().isfinite() for c in chosen]).all(0)
    lost = ((a != 0) & ~known).any(-1)
    *parts, gains = (a * c.masked_fill(~known, 0.0) for c in chosen)
    return [*parts], gains.sum(-1).masked_fill(lost, -torch.inf)


def _planes(below: Sequence[Tensor], above: Sequence[Tensor]) -> Planes:
    return Planes(below, above, all(bool(part.detach().isfinite().all()) for part in (*below, *above)))


def _curve(node: Node, a: Tensor, context: _Context) -> Transferred:
    # sound: each intercept is that of a line which stays on its side of the curve on [low, high]
    return _between(a, context.kept_default(node, lambda: _curve_lines(node, context)))


def _curve_lines(node: Node, context: _Context) -> Planes:
    low, high = (side[:, None] for side in context.bounds[node.inputs[0]])
    lines = []
    for lowest in (True, False):
        slope = context.slopes(node, lowest=lowest)
        lines.append((slope, intercept(node.op, slope, low, high, lowest=lowest)))
    return _planes(*lines)


def _product(node: Node, a: Tensor, context: _Context) -> Transferred:
    # sound: McCormick's planes hold for every p and q within their bounds, which for a square are those of one value
    return _between(a, context.kept_default(node, lambda: _product_planes(node, context)))


def _product_planes(node: Node, context: _Context) -> Planes:
    p, q = (context.bounds[name] for name in node.inputs)
    known = torch.stack([side.isfinite() for side in (*p, *q)]).all(0)
    if not bool(known.all()):
        p, q = ((low.masked_fill(~known, 0.0), high.masked_fill(~known, 0.0)) for low, high in (p, q))
    sides = []
    for lowest in (True, False):
        *slopes, shift = planes(p, q, context.slopes(node, lowest=lowest), lowest=lowest)
        # sound: without finite bounds there is no plane
        sides.append((*slopes, shift.masked_fill(~known[:, None], -torch.inf if lowest else torch.inf)))
    return _planes(*sides)


def _step(node: Node, a: Tensor, context: _Context) -> Transferred:
    low, high = (side[:, None] for side in context.bounds[node.output])
    # sound: the bounds of the result
    return [None], _between(a, _planes((low,), (high,)))[1]


def _max_pool(node: Node, a: Tensor, context: _Context) -> Transferred:
    pool: PoolChoice = context.kept(node.output, lambda: pool_choice(node, context.network, *context.bounds[node.inputs[0]]))
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    kept = positive + negative * pool.dominates[:, None]
    # sound: a maximum is >= each entry, equal to one that dominates the others, and <= the largest upper bound
    coefficient = torch.zeros(*a.shape[:2], context.network.size(node.inputs[0]), dtype=a.dtype, device=a.device)
    coefficient = coefficient.scatter_add(2, pool.index[:, None].expand_as(kept), kept)
    return [coefficient], _weighed(-negative, -pool.upper.masked_fill(pool.dominates, 0.0)[:, None])


BACKWARD: dict[type, Transfer] = {
    Linear: _linear,
    Conv: _conv,
    AveragePool: _average_pool,
    Scale: _scale,
    Sum: _sum,
    Reshape: lambda node, a, context: ([a], 0.0),  # sound: entries keep their C order
    Transpose: _transpose,
    Concat: _concat,
    Select: _select,
    MaxPool: _max_pool,
    Product: _product,
    **dict.fromkeys(ACTIVATION_OPS, _activation),
    **dict.fromkeys(CURVE_OPS, _curve),
    **dict.fromkeys(STEP_OPS, _step),
}


def _one_hot(units: Units, context: _Context) -> Tensor:
    return functional.one_hot(units.indices, context.network.size(units.value)).to(units.signs.dtype) * units.signs[..., None]


def _starts_sparse(units: Units, context: _Context) -> bool:
    """Whether the rows can start from the weights of the node that computes their value."""
    node = context.network.producers.get(units.value)
    if node is None or type(node.op) not in FIRST:
        return False
    return isinstance(node.op, Conv) or context.network.size(units.value) == len(node.op.weight)  # type: ignore[union-attr]


def _linear_units(node: Node, units: Units, context: _Context) -> Transferred:
    weight, bias = (constant(node.op, name, units.signs.dtype, units.signs.device) for name in ("weight", "bias"))
    # sound: the row of W x + b that the unit names
    return [weight[units.indices] * units.signs[..., None]], bias[units.indices] * units.signs


def _conv_units(node: Node, units: Units, context: _Context) -> Transferred:
    op: Conv = node.op  # type: ignore[assignment]
    weight, bias = (constant(op, name, units.signs.dtype, units.signs.device) for name in ("weight", "bias"))
    entries = windows_of(op, context.network.shapes[node.inputs[0]], weight.shape[2:], units.signs.device)
    positions = entries.shape[1]
    channel, position = units.indices // positions, units.indices % positions
    group = channel // (len(weight) // op.groups)
    places = entries.reshape(op.groups, -1, positions, entries.shape[2]).transpose(1, 2).flatten(2)[group, position]
    size = context.network.size(node.inputs[0])
    spread = torch.zeros(*units.indices.shape, size + 1, dtype=weight.dtype, device=weight.device)
    # padding is written to one entry past the end, which is cut off
    taken = weight.flatten(1)[channel] * units.signs[..., None]
    spread = spread.scatter(2, torch.where(places < 0, size, places), taken)[..., :size]
    # sound: the window of the input that the unit reads, with its weights
    return [spread], bias[channel] * units.signs


FIRST: dict[type, Callable[[Node, Units, _Context], Transferred]] = {Linear: _linear_units, Conv: _conv_units}
"""Rows that start at single entries of a value, through the node that computes it, with no matrix of zeros and ones."""
