"""Proven bounds of every value at many proof nodes at once, and their push through the graph, rounded outward."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.check import curves
from verifier.check.bounds import combined
from verifier.check.exact import float_above, float_below
from verifier.check.float_maps import FloatMap
from verifier.check.float_model import FloatModel, least_slope
from verifier.check.rounding import FLOOR, TINY, above, below, gamma
from verifier.formula import Atom
from verifier.network import Node
from verifier.ops import (
    ACTIVATION_OPS,
    Array,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    MaxPool,
    Power,
    Product,
    Reciprocal,
    Relu,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Tanh,
)

Pair = tuple[Array, Array]
"""Lower and upper bounds, (nodes, size) each."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """sides[v] = lower, upper with lower[k] <= v <= upper[k] at proof node k; arrays (nodes, size), shared, never written to.

    alive: (nodes,), False where bounds have crossed, so that no point is left.
    """

    sides: Mapping[str, Pair]
    alive: NDArray[np.bool_]

    def take(self, nodes: NDArray[np.int64]) -> "Boxes":
        """The boxes of some of the nodes, repeats allowed."""
        return Boxes({name: (low[nodes], high[nodes]) for name, (low, high) in self.sides.items()}, self.alive[nodes])

    def among(self, names: Collection[str]) -> "Boxes":
        """The boxes of some of the values."""
        return Boxes({name: pair for name, pair in self.sides.items() if name in names}, self.alive)

    def replaced(self, name: str, pair: Pair) -> "Boxes":
        """These with other bounds of one value, and what crosses there dead."""
        return Boxes({**self.sides, name: pair}, self.alive & ~(pair[0] > pair[1]).any(axis=1))


def joined(parts: Sequence[Boxes]) -> Boxes:
    """The nodes of all parts, in order."""
    sides = {
        name: (np.concatenate([p.sides[name][0] for p in parts]), np.concatenate([p.sides[name][1] for p in parts]))
        for name in parts[0].sides
    }
    return Boxes(sides, np.concatenate([p.alive for p in parts]))


def met(first: Boxes, second: Boxes) -> Boxes:
    """The intersection, node by node."""
    sides = {name: _met(pair, second.sides[name]) for name, pair in first.sides.items()}
    crossed = np.any([(low > high).any(axis=1) for low, high in sides.values()], axis=0)
    return Boxes(sides, first.alive & second.alive & ~crossed)


def first_boxes(model: FloatModel, lower: Array, upper: Array, atoms: Iterable[Atom]) -> Boxes:
    """One node: bounds of all values over an input box and under atoms of a single term."""
    network = model.network
    sides = {name: (np.full(network.size(name), -np.inf), np.full(network.size(name), np.inf)) for name in network.shapes}
    sides[network.input] = lower.copy(), upper.copy()
    for atom in atoms:
        coefficients = combined(atom)
        if len(coefficients) != 1:
            continue
        (((name, index), coefficient),) = coefficients.items()
        limit = -atom.bias / coefficient
        if coefficient > 0:
            # sound: c v + b <= 0 is v <= -b / c where c > 0.
            sides[name][1][index] = min(sides[name][1][index], float_above(limit))
            continue
        sides[name][0][index] = max(sides[name][0][index], float_below(limit))
        producer = network.producers.get(name)
        if producer is not None and isinstance(producer.op, ACTIVATION_OPS) and atom.strict and atom.bias >= 0:
            # sound: an activation passes t >= 0 only where it is z itself.
            source = sides[producer.inputs[0]][0]
            source[index] = max(source[index], float_below(limit))
    alive = np.array([all((low <= high).all() for low, high in sides.values())])
    return push(model, Boxes({name: (low[None], high[None]) for name, (low, high) in sides.items()}, alive), None)


def push(model: FloatModel, boxes: Boxes, changed: Collection[str] | None) -> Boxes:
    """The boxes after everything that follows by interval arithmetic from a change of some values (None: of all).

    Forward through every node, and back through an activation to its input; again while something went back.
    """
    sides, alive = dict(boxes.sides), boxes.alive
    dirty = set(model.network.shapes if changed is None else changed)
    while dirty:
        fresh, dirty, gone_back = dirty, set(), set()
        for node in model.network.nodes:
            if not fresh.isdisjoint(node.inputs):
                old = sides[node.output]
                sides[node.output] = _met(old, image(model, node, sides))
                if sides[node.output] is not old:
                    fresh.add(node.output)
            if node.output in fresh and isinstance(node.op, ACTIVATION_OPS):
                source = sides[node.inputs[0]]
                sides[node.inputs[0]] = _met(source, _preimage(sides[node.output]))
                if sides[node.inputs[0]] is not source:
                    gone_back.add(node.inputs[0])
        crossed = [(low > high).any(axis=1) for low, high in (sides[name] for name in fresh | gone_back)]
        alive = alive & ~np.any(crossed, axis=0)
        if alive.any():
            # sound: an activation's own image follows from a cut of its input that came from its output
            dirty = {name for name in gone_back if len(_readers(model, name)) > 1}
    return Boxes(sides, alive)


def _readers(model: FloatModel, name: str) -> list[Node]:
    return [node for node in model.network.nodes if name in node.inputs]


def _met(old: Pair, new: Pair) -> Pair:
    """The intersection; `old` itself where nothing was gained at any node."""
    if (new[0] <= old[0]).all() and (new[1] >= old[1]).all():
        return old
    return np.maximum(old[0], new[0]), np.minimum(old[1], new[1])


def _preimage(pair: Pair) -> Pair:
    """Bounds of z from those of f(z), an activation."""
    # sound: z <= f(z); and f(z) >= t > 0 is met by z = f(z) alone.
    return np.where(pair[0] > 0, pair[0], -np.inf), pair[1]


def image(model: FloatModel, node: Node, sides: Mapping[str, Pair]) -> Pair:
    """Bounds of a node's value from those of its inputs; -inf and inf where nothing is known."""
    inputs = [sides[name] for name in node.inputs]
    match node.op:
        case Relu():
            # sound: relu is monotone.
            return np.maximum(inputs[0][0], 0.0), np.maximum(inputs[0][1], 0.0)
        case LeakyRelu():
            return _leaky_image(least_slope(node), *inputs[0])
        case MaxPool():
            return _pool_image(model.windows[node.output], *inputs[0])
        case Product():
            return _product_image(*inputs, is_square=node.inputs[0] == node.inputs[1])
        case Sign():
            # sound: the sign rises.
            return np.sign(inputs[0][0]), np.sign(inputs[0][1])
        case Floor():
            # sound: the floor rises, and is exact in float64.
            return np.floor(inputs[0][0]), np.floor(inputs[0][1])
        case Sigmoid() | Tanh() | Sin() | Cos() | Exp() | Reciprocal() | Sqrt() | Erf() | Power():
            return curves.image(node.op, *inputs[0])
        case _:
            return _linear_image(model.maps[node.output], inputs)


def _leaky_image(slope: float, low: Array, high: Array) -> Pair:
    # sound: max(z, slope * z) is monotone for slope >= 0; each product is rounded outward.
    return np.where(low >= 0, low, below(slope * low)), np.where(high >= 0, high, above(slope * high))


def _pool_image(windows: NDArray[np.int64], low: Array, high: Array) -> Pair:
    # sound: the maximum is monotone in each entry; padded places hold minus infinity.
    padding = np.full((len(low), 1), -np.inf)
    lower, upper = np.concatenate([low, padding], axis=1), np.concatenate([high, padding], axis=1)
    return lower[:, windows].max(axis=2), upper[:, windows].max(axis=2)


def _product_image(left: Pair, right: Pair, *, is_square: bool) -> Pair:
    # sound: a product is least and greatest at a corner; 0 * inf = NaN leaves nothing known.
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.stack([a * b for a in left for b in right])
        low, high = below(corners.min(axis=0)), above(corners.max(axis=0))
    # sound: a square is not negative.
    return (np.maximum(low, 0.0) if is_square else low), high


def middle_and_reach(low: Array, high: Array) -> Pair:
    """A float c and an r with c - r <= low and high <= c + r in exact arithmetic; r is infinite where a bound is."""
    middle = 0.5 * low + 0.5 * high
    middle = np.where(np.isfinite(middle), middle, 0.0)
    # sound: any c will do; each difference is rounded up.
    return middle, above(np.maximum(high - middle, middle - low))


def _linear_image(mapped: FloatMap, inputs: list[Pair]) -> Pair:
    slack = gamma(mapped.terms)
    center, reach = mapped.bias, np.zeros(1)
    # An unknown entry makes 0 * inf = NaN; `above` and `below` turn that into an unknown result.
    with np.errstate(invalid="ignore", over="ignore"):
        for part, (low, high) in zip(mapped.parts, inputs, strict=True):
            middle, radius = middle_and_reach(low, high)
            center = center + part.forward(middle)
            # sound: lemma 2 charges the products of the middle, and those of the radius; FLOOR outweighs underflow.
            reach = reach + part.spread(radius + (slack * (radius + np.abs(middle)) + FLOOR))
        # sound: sums of a few terms err by u of the magnitudes, which slack, far above u, covers along with the bias.
        reach = reach * (1 + slack) + slack * (np.abs(mapped.bias) + np.abs(center)) + (1 + mapped.terms) * TINY
        return below(center - reach), above(center + reach)
