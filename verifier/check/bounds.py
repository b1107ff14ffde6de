"""Proven bounds of every value, and how they are pushed through the graph: interval arithmetic, rounded outward."""

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import numpy as np

from verifier.check.exact import (
    BOUND_BITS,
    Part,
    Slices,
    column,
    float_above,
    float_below,
    floats,
    gather,
    multiply,
    spread,
    times,
)
from verifier.check.float_model import least_slope
from verifier.check.model import Model, Weights
from verifier.formula import Atom
from verifier.network import Node
from verifier.ops import ACTIVATION_OPS, Array, LeakyRelu


@dataclass(frozen=True, eq=False)
class Interval:
    """lower <= value <= upper entrywise, flat; shared between proof nodes, never written to."""

    lower: Array
    upper: Array

    @cached_property
    def empty(self) -> bool:
        return bool((self.lower > self.upper).any())

    @cached_property
    def magnitude(self) -> Slices:
        """A column at least |value|."""
        return column(np.maximum(np.abs(self.lower), np.abs(self.upper)), count=1, rounding=np.ceil)

    @cached_property
    def lower_column(self) -> Slices:
        """A column at most the lower bound, and to 88 bits equal to it."""
        return column(self.lower, count=4, rounding=np.floor)

    @cached_property
    def upper_column(self) -> Slices:
        """A column at least the upper bound, and to 88 bits equal to it."""
        return column(self.upper, count=4, rounding=np.ceil)


Bounds: TypeAlias = Mapping[str, Interval]


def start(model: Model, lower: Array, upper: Array, atoms: Iterable[Atom]) -> Bounds | None:
    """Bounds of all values over an input box and under atoms; None where they cross, so that no point is left."""
    network = model.network
    bounds: dict[str, Interval] = {
        name: Interval(np.full(network.size(name), -np.inf), np.full(network.size(name), np.inf)) for name in network.shapes
    }
    bounds[network.input] = Interval(lower, upper)
    for atom in atoms:
        coefficients = combined(atom)
        if len(coefficients) == 1:
            (((name, index), coefficient),) = coefficients.items()
            bounds[name] = _cut(bounds[name], index, coefficient, atom.bias)
            producer = network.producers.get(name)
            if producer is not None and isinstance(producer.op, ACTIVATION_OPS) and _above_zero(atom, coefficient):
                # sound: an activation passes t >= 0 only where it is z itself.
                bounds[producer.inputs[0]] = _cut(bounds[producer.inputs[0]], index, coefficient, atom.bias)
    if any(interval.empty for interval in bounds.values()):
        return None
    return push(model, bounds, list(network.shapes))


def _above_zero(atom: Atom, coefficient: Fraction) -> bool:
    """Whether an atom of one entry says v > t for some t >= 0."""
    return atom.strict and coefficient < 0 and atom.bias >= 0


def tightened(model: Model, bounds: Bounds, value: str, lower: Array, upper: Array) -> Bounds | None:
    """Bounds with more proven about one value, pushed on; None where bounds cross."""
    old = bounds[value]
    met = meet(old, Interval(lower, upper))
    if met is old:
        return bounds
    return None if met.empty else push(model, {**bounds, value: met}, [value])


def meet(old: Interval, new: Interval) -> Interval:
    """The intersection; `old` itself where nothing was gained."""
    if (new.lower <= old.lower).all() and (new.upper >= old.upper).all():
        return old
    return Interval(np.maximum(old.lower, new.lower), np.minimum(old.upper, new.upper))


def push(model: Model, bounds: Bounds, changed: Collection[str]) -> Bounds | None:
    """Bounds after everything that follows by interval arithmetic from a change of some values; None where they cross.

    Forward through every node, and back through an activation to its input.
    """
    nodes = model.network.nodes
    known = dict(bounds)
    queue: list[int] = []
    for name in changed:
        _enqueue(model, queue, name, None)
    while queue:
        position = heapq.heappop(queue)
        if queue and queue[0] == position:
            continue
        node = nodes[position]
        met = meet(known[node.output], image(model, node, known))
        changes = {} if met is known[node.output] else {node.output: met}
        if isinstance(node.op, ACTIVATION_OPS):
            source = known[node.inputs[0]]
            back = meet(source, _preimage(met))
            changes |= {} if back is source else {node.inputs[0]: back}
        for name, interval in changes.items():
            if interval.empty:
                return None
            known[name] = interval
            _enqueue(model, queue, name, position)
    return known


def image(model: Model, node: Node, bounds: Bounds) -> Interval:
    """Bounds of a node's value from those of its inputs."""
    source = bounds[node.inputs[0]]
    if node.output in model.affine:
        return _affine_image(model, node, bounds)
    if node.output in model.windows:
        return _pool_image(source, model.windows[node.output])
    # sound: an activation is monotone.
    lower, upper = np.maximum(source.lower, 0.0), np.maximum(source.upper, 0.0)
    if isinstance(node.op, LeakyRelu):
        slope = least_slope(node)
        lower = lower + _scaled(np.minimum(source.lower, 0.0), slope, np.floor)
        upper = upper + _scaled(np.minimum(source.upper, 0.0), slope, np.ceil)
    return Interval(lower, upper)


def _enqueue(model: Model, queue: list[int], name: str, done: int | None) -> None:
    """Those who read the value, and the activation that made it, whose input may follow."""
    for position in model.readers[name]:
        if position != done:
            heapq.heappush(queue, position)
    made = model.activations.get(name, done)
    if made is not None and made != done:
        heapq.heappush(queue, made)


def combined(atom: Atom) -> Mapping[tuple[str, int], Fraction]:
    """An atom's coefficients by value and index: equal places added up exactly, zeros dropped."""
    sums: dict[tuple[str, int], Fraction] = {}
    for term in atom.terms:
        place = (term.value, term.index)
        sums[place] = sums.get(place, Fraction(0)) + term.coefficient
    return {place: coefficient for place, coefficient in sums.items() if coefficient}


def _cut(old: Interval, index: int, coefficient: Fraction, bias: Fraction) -> Interval:
    """c * v + b <= 0 bounds v by -b / c, from above where c > 0."""
    limit = -bias / coefficient
    lower, upper = old.lower.copy(), old.upper.copy()
    if coefficient > 0:
        upper[index] = min(upper[index], float_above(limit))
    else:
        lower[index] = max(lower[index], float_below(limit))
    return Interval(lower, upper)


def _preimage(image: Interval) -> Interval:
    """Bounds of z from those of f(z), an activation."""
    # sound: z <= f(z); and f(z) >= t > 0 is met by z = f(z) alone.
    return Interval(np.where(image.lower > 0, image.lower, -np.inf), image.upper)


def _pool_image(source: Interval, windows: np.ndarray) -> Interval:
    # sound: the maximum is monotone in each entry; padded places hold minus infinity.
    lower, upper = np.append(source.lower, -np.inf), np.append(source.upper, -np.inf)
    return Interval(lower[windows].max(axis=1), upper[windows].max(axis=1))


def _affine_image(model: Model, node: Node, bounds: Bounds) -> Interval:
    affine = model.affine[node.output]
    parts: list[Part] = []
    for weights, name in zip(affine.weights, node.inputs, strict=True):
        parts += _affine_parts(weights, bounds[name])
    parts += [_transposed_bias(m, e) for m, e in zip(affine.bias.matrices, affine.bias.exponents, strict=True)]
    if not parts:
        parts = [_transposed_bias(np.zeros((len(bounds[node.output].lower), 1)), 0)]
    result = floats(gather(parts, BOUND_BITS, np.floor)[0])
    return Interval(result[0], -result[1])


def _affine_parts(weights: Weights, x: Interval) -> list[Part]:
    """Two rows: a lower bound of weights @ x, and of its negative."""
    # sound: W @ x = W+ @ x + W- @ x, least where x is least for W+ and greatest for W-; x is rounded towards that side.
    parts = []
    for part in spread(np.stack([x.lower, -x.upper]), rounding=np.floor):
        parts += multiply(part, weights.positive)
    for part in spread(np.stack([x.upper, -x.lower]), rounding=np.ceil):
        parts += multiply(part, weights.negative)
    if weights.margin_forward is not None:
        parts += [_twice(part.negative()) for part in margin_parts(weights.margin_forward, x)]
    return parts


def margin_parts(margin_forward: Slices, x: Interval) -> list[Part]:
    """One row: at least the largest error of a matrix times x whose entries are known within a margin."""
    magnitude = np.maximum(np.abs(x.lower), np.abs(x.upper)).reshape(1, -1)
    (row,) = spread(magnitude, count=1, bits=22, rounding=np.ceil)
    return multiply(row, margin_forward)


def _twice(part: Part) -> Part:
    return Part(np.repeat(part.integers, 2, axis=0), np.repeat(part.exponents, 2, axis=0))


def _transposed_bias(bias: Array, exponent: int) -> Part:
    row = bias.reshape(-1)
    return Part(np.stack([row, -row]), np.full((2, 1), exponent, dtype=np.int64))


def _scaled(values: Array, factor: float, rounding: np.ufunc) -> Array:
    """factor * values, rounded in one direction; factor >= 0."""
    (multiplier,) = spread(np.array([[factor]]), count=1, bits=53)
    parts = [product for part in spread(values.reshape(1, -1), rounding=rounding) for product in times(part, multiplier)]
    return floats(gather(parts, BOUND_BITS, rounding)[0])[0]
