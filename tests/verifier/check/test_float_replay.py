"""The float64 replay against judges that share no code: exact rationals, mpmath, and numbers chosen to fool plain floats."""

from collections.abc import Callable, Mapping
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.check.boxes import first_boxes
from verifier.check.float_backward import Choices, Seen, lower_bounds
from verifier.check.float_model import prepare_floats
from verifier.check.rebound import rebounded
from verifier.network import Network, Node
from verifier.ops import (
    CURVE_OPS,
    Cos,
    Erf,
    Exp,
    Floor,
    Linear,
    Power,
    Product,
    Reciprocal,
    Relu,
    Select,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    frozen_array,
)

seeds = st.integers(0, 2**32 - 1)
CURVES = (Sigmoid(), Tanh(), Erf(), Sin(), Cos(), Exp(), Power(2), Power(3), Power(5), Reciprocal())
EXACT: Mapping[type, Callable] = {
    Sigmoid: lambda x: 1 / (1 + mpmath.exp(-x)),
    Tanh: mpmath.tanh,
    Sin: mpmath.sin,
    Cos: mpmath.cos,
    Exp: mpmath.exp,
    Reciprocal: lambda x: 1 / x,
    Sqrt: mpmath.sqrt,
    Erf: mpmath.erf,
    Relu: lambda x: max(x, mpmath.mpf(0)),
    Sign: mpmath.sign,
    Floor: mpmath.floor,
}


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(60):
        yield


def linear(rng: np.random.Generator, inputs: int, outputs: int) -> Linear:
    return Linear(frozen_array(rng.normal(size=(outputs, inputs))), frozen_array(rng.normal(size=outputs)))


def mixed(rng: np.random.Generator) -> Network:
    """Every nonlinear operator of one entry, products of two values and of one with itself, selections."""
    nodes = [Node("z", linear(rng, 3, 4), ("x",))]
    kept = []
    for k, op in enumerate(rng.permutation(np.array([*CURVES[:-1], Relu(), Sign(), Floor()], dtype=object))[:4]):
        nodes.append(Node(f"c{k}", op, ("z",)))
        kept.append(f"c{k}")
    nodes += [
        Node("s", Sum((0.5, -0.25, 1.0, 0.125)), tuple(kept)),
        Node("p", Product(), ("s", "z")),
        Node("q", Product(), ("s", "s")),
        Node("e", Select(np.array([3, -1, 0, 0]), (1, 4)), ("p",)),
        Node("w", Sum((0.3, -0.1, 0.7)), ("p", "q", "e")),
        Node("t", Tanh(), ("w",)),
        Node("one", linear(rng, 4, 3), ("t",)),
        Node("y", Product(), ("one", "x")),
    ]
    return Network("x", (1, 3), tuple(nodes), "y")


def inverted(rng: np.random.Generator) -> Network:
    """Divisions by what is surely positive, and by what may be zero."""
    nodes = (
        Node("z", linear(rng, 3, 3), ("x",)),
        Node("q", Power(2), ("z",)),
        Node("b", Linear(frozen_array(np.eye(3)), frozen_array(rng.choice([0.0, 0.5, 1.0], size=3))), ("q",)),
        Node("r", Reciprocal(), ("b",)),
        Node("d", Sqrt(), ("b",)),
        Node("i", Reciprocal(), ("d",)),
        Node("n", Product(), ("z", "i")),
        Node("w", Sum((1.0, -0.5, 0.25)), ("r", "n", "d")),
        Node("y", linear(rng, 3, 2), ("w",)),
    )
    return Network("x", (1, 3), nodes, "y")


def judged(network: Network, x: list) -> dict[str, list] | None:
    """Every value at a point by mpmath; None where one is not defined."""
    values = {network.input: [mpmath.mpf(v) for v in x]}
    for node in network.nodes:
        inputs, op = [values[name] for name in node.inputs], node.op
        if isinstance(op, Linear):
            result = [mpmath.fdot(row, inputs[0]) + b for row, b in zip(op.weight.tolist(), op.bias.tolist(), strict=True)]
        elif isinstance(op, Sum):
            result = [mpmath.fdot(op.coefficients, entries) for entries in zip(*inputs, strict=True)]
        elif isinstance(op, Select):
            result = [inputs[0][i] if i >= 0 else mpmath.mpf(0) for i in op.indices]
        elif isinstance(op, Product):
            result = [a * b for a, b in zip(*inputs, strict=True)]
        elif isinstance(op, Power):
            result = [v**op.exponent for v in inputs[0]]
        elif isinstance(op, Reciprocal) and not all(inputs[0]):
            return None
        else:
            result = [EXACT[type(op)](v) for v in inputs[0]]
        values[node.output] = result
    return values


def number(value) -> mpmath.mpf:
    """A float or a fraction as an exact number."""
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else mpmath.mpf(float(value))


def random_choices(network: Network, rng: np.random.Generator, nodes: int, rows: int, atoms: int) -> Choices:
    slopes, upper_slopes = {}, {}
    for node in network.nodes:
        shape = (nodes, int(rng.choice([1, rows])), network.size(node.output))
        if isinstance(node.op, CURVE_OPS) and rng.random() < 0.7:
            slopes[node.output], upper_slopes[node.output] = rng.normal(size=(2, *shape)) * rng.choice([0.1, 1.0, 10.0])
        elif isinstance(node.op, Product) and rng.random() < 0.7:
            slopes[node.output], upper_slopes[node.output] = rng.random(size=(2, *shape))
        elif isinstance(node.op, Relu) and rng.random() < 0.7:
            slopes[node.output] = rng.random(size=shape)
    multiplier = lambda size: rng.exponential(size=(nodes, rows, size)) * (rng.random((nodes, rows, size)) < 0.2)  # noqa: E731
    lower, upper = ({n: multiplier(network.size(n)) for n in network.shapes if rng.random() < 0.2} for _ in range(2))
    return Choices(slopes, lower, upper, multiplier(atoms) if atoms else None, upper_slopes)


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from([mixed, inverted]), st.sampled_from([0.0, 1e-12, 1e-3, 0.3, 2.0]))
def test_no_bound_passes_a_value_of_mpmath(seed: int, family, radius: float) -> None:
    """Forward bounds, bounds proved again, and backward passes with random choices, at two nodes of different boxes."""
    rng = np.random.default_rng(seed)
    network = family(rng)
    model = prepare_floats(network)
    center = rng.normal(size=3)
    low, high = center - radius, center + radius
    whole = first_boxes(model, low, high, ())
    half = rng.random(3) < 0.5
    boxes = float_boxes(model, [(low, high), (np.where(half, center, low), high)])
    again = rebounded(model, boxes, np.array([True, True]))
    points = [center, high, np.where(half, high, center)]
    truth = [values for values in (judged(network, p.tolist()) for p in points) if values is not None]
    for values in truth:
        for name in network.shapes:
            for sides in (whole.sides[name], boxes.sides[name], again.sides[name]):
                for node in range(len(sides[0])):
                    assert all(
                        number(lo) <= v <= number(hi)
                        for lo, v, hi in zip(sides[0][node], values[name], sides[1][node], strict=True)
                    )
    value = str(rng.choice(list(network.shapes)))
    forms = rng.integers(-3, 4, size=(2, 3, network.size(value))).astype(float)
    for sides in (boxes, again):
        proven = lower_bounds(model, Seen(sides, None), {value: forms}, (2, 3), random_choices(network, rng, 2, 3, 0))
        for values in truth:
            exact = [[mpmath.fdot(row.tolist(), values[value]) for row in node] for node in forms]
            assert all(number(b) <= e for bs, es in zip(proven, exact, strict=True) for b, e in zip(bs, es, strict=True))


def float_boxes(model, pairs):
    from_each = [first_boxes(model, low, high, ()) for low, high in pairs]
    sides = {name: tuple(np.concatenate([b.sides[name][k] for b in from_each]) for k in (0, 1)) for name in from_each[0].sides}
    return type(from_each[0])(sides, np.concatenate([b.alive for b in from_each]))
