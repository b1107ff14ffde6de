"""Random small networks of every kind the verifier reads, for the law tests.

    network = random_network("conv2d", seed=3)
    points = sample_box(network, *unit_box(network), count=50, seed=3)

`grid=True` draws weights from multiples of 1/8: on inputs that are multiples of 1/16 float64 evaluation is then exact.
"""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np

from verifier.network import Network, Node
from verifier.ops import (
    AveragePool,
    Concat,
    Conv,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Op,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    Transpose,
    frozen_array,
)


class Weights:
    """Random arrays of one kind."""

    def __init__(self, seed: int, grid: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.grid = grid

    def array(self, *shape: int) -> np.ndarray:
        if self.grid:
            return frozen_array(self.rng.integers(-8, 9, shape) / 8)
        return frozen_array(self.rng.normal(size=shape).astype(np.float32))

    def linear(self, inputs: int, outputs: int) -> Linear:
        return Linear(self.array(outputs, inputs), self.array(outputs))

    def conv(
        self, inputs: int, outputs: int, kernel: tuple[int, ...], *, padding: int = 0, stride: int = 1, groups: int = 1
    ) -> Conv:
        axes = len(kernel)
        weight = self.array(outputs, inputs // groups, *kernel)
        return Conv(weight, self.array(outputs), (stride,) * axes, ((padding, padding),) * axes, (1,) * axes, groups)


def chain(input_shape: tuple[int, ...], *ops: Op) -> Network:
    """One operator after the other; values v1, v2, ... and input x."""
    names = ["x", *(f"v{k + 1}" for k in range(len(ops)))]
    nodes = tuple(Node(names[k + 1], op, (names[k],)) for k, op in enumerate(ops))
    return Network("x", input_shape, nodes, names[-1])


def mlp(w: Weights) -> Network:
    return chain((1, 3), w.linear(3, 5), Relu(), w.linear(5, 4), Relu(), w.linear(4, 2))


def deep(w: Weights) -> Network:
    widths = [2, 4, 4, 4, 3]
    layers = [op for a, b in pairwise(widths) for op in (w.linear(a, b), Relu())]
    return chain((1, 2), *layers[:-1])


def leaky(w: Weights) -> Network:
    return chain((1, 3), w.linear(3, 4), LeakyRelu(0.25), w.linear(4, 3), LeakyRelu(0.125), w.linear(3, 2))


def conv1d(w: Weights) -> Network:
    pool = MaxPool((2,), (2,), ((0, 1),), (1,))
    return chain((1, 1, 7), w.conv(1, 2, (3,), padding=1), Relu(), pool, Reshape((1, 8)), w.linear(8, 2))


def conv2d(w: Weights) -> Network:
    first, second = w.conv(2, 4, (2, 2), padding=1, groups=2), w.conv(4, 2, (2, 2), stride=2)
    return chain((1, 2, 3, 3), first, Relu(), second, Relu(), Reshape((1, 8)), w.linear(8, 2))


def average_pool(w: Weights) -> Network:
    divisor = frozen_array(np.full((2, 2), 4.0))
    pool = AveragePool((2, 2), (2, 2), ((0, 0), (0, 0)), divisor)
    return chain((1, 1, 4, 4), w.conv(1, 2, (1, 1)), pool, Relu(), Reshape((1, 8)), w.linear(8, 3))


def max_pool(w: Weights) -> Network:
    pool = MaxPool((2, 2), (1, 1), ((1, 0), (0, 1)), (1, 2))
    return chain((1, 1, 3, 4), w.conv(1, 2, (1, 1)), pool, w.conv(2, 1, (2, 2)), Relu(), Reshape((1, 4)), w.linear(4, 2))


def residual(w: Weights) -> Network:
    nodes = (
        Node("h", w.linear(3, 3), ("x",)),
        Node("r", Relu(), ("h",)),
        Node("g", w.linear(3, 3), ("r",)),
        Node("s", Sum((1.0, -0.5, 1.0)), ("g", "h", "x")),
        Node("t", Relu(), ("s",)),
        Node("y", w.linear(3, 2), ("t",)),
    )
    return Network("x", (1, 3), nodes, "y")


def branches(w: Weights) -> Network:
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("b", Relu(), ("a",)),
        Node("c", w.linear(2, 2), ("x",)),
        Node("d", LeakyRelu(0.5), ("c",)),
        Node("e", Concat(1), ("b", "d", "x")),
        Node("y", w.linear(7, 2), ("e",)),
    )
    return Network("x", (1, 2), nodes, "y")


def normalised(w: Weights) -> Network:
    scale = Scale(w.array(1, 2, 1, 1), w.array(1, 2, 1, 1))
    ops = (w.conv(1, 2, (2, 2)), scale, Relu(), Transpose((0, 2, 3, 1)), Reshape((1, 8)), w.linear(8, 2))
    return chain((1, 1, 3, 3), *ops)


def selected(w: Weights) -> Network:
    """Entries repeated, left out, moved, and zeros put in."""
    indices = np.concatenate([w.rng.integers(-1, 4, 5), [-1]])
    return chain((1, 3), w.linear(3, 4), Relu(), Select(indices, (1, 2, 3)), w.linear(3, 2), Select(np.array([3, 0, 0]), (3,)))


def polynomial(w: Weights) -> Network:
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("b", w.linear(2, 3), ("x",)),
        Node("p", Product(), ("a", "b")),
        Node("s", Power(2), ("a",)),
        Node("c", Power(3), ("b",)),
        Node("d", Sum((1.0, -1.0, 0.5)), ("p", "s", "c")),
        Node("r", Relu(), ("d",)),
        Node("e", Product(), ("r", "r")),
        Node("y", w.linear(3, 2), ("e",)),
    )
    return Network("x", (1, 2), nodes, "y")


def steps(w: Weights) -> Network:
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("s", Sign(), ("a",)),
        Node("f", Floor(), ("a",)),
        Node("g", Floor(), ("f",)),
        Node("d", Sum((1.0, -0.5, 0.25)), ("s", "g", "a")),
        Node("y", w.linear(3, 2), ("d",)),
    )
    return Network("x", (1, 2), nodes, "y")


def sigmoids(w: Weights) -> Network:
    return chain((1, 3), w.linear(3, 4), Sigmoid(), w.linear(4, 4), Tanh(), w.linear(4, 2), Sigmoid())


def waves(w: Weights) -> Network:
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("s", Sin(), ("a",)),
        Node("c", Cos(), ("a",)),
        Node("p", Product(), ("s", "c")),
        Node("q", Product(), ("p", "a")),
        Node("y", w.linear(3, 2), ("q",)),
    )
    return Network("x", (1, 2), nodes, "y")


def quotient(w: Weights) -> Network:
    """a / (1 + b * b), the divisor positive to every domain."""
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("b", w.linear(2, 3), ("x",)),
        Node("s", Power(4), ("b",)),
        Node("d", Scale(frozen_array([[1.0]]), frozen_array([[1.0]])), ("s",)),
        Node("i", Reciprocal(), ("d",)),
        Node("q", Product(), ("a", "i")),
        Node("y", w.linear(3, 2), ("q",)),
    )
    return Network("x", (1, 2), nodes, "y")


def softmax(w: Weights) -> Network:
    others = Select(np.array([1, 2, 0, 2, 0, 1]), (1, 3, 2))
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("o", others, ("a",)),
        Node("w", Select(np.array([0, 0, 1, 1, 2, 2]), (1, 3, 2)), ("a",)),
        Node("d", Sum((1.0, -1.0)), ("o", "w")),
        Node("e", Exp(), ("d",)),
        Node("s", Linear(frozen_array([[1.0, 1.0]]), frozen_array([1.0])), ("e",)),
        Node("p", Reciprocal(), ("s",)),
        Node("y", Reshape((1, 3)), ("p",)),
    )
    return Network("x", (1, 2), nodes, "y")


def gelu(w: Weights) -> Network:
    """a (1 + erf(a / sqrt(2))) / 2 of a linear map."""
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("i", Scale(frozen_array([[0.5**0.5]]), frozen_array([[0.0]])), ("a",)),
        Node("e", Erf(), ("i",)),
        Node("g", Scale(frozen_array([[0.5]]), frozen_array([[0.5]])), ("e",)),
        Node("p", Product(), ("a", "g")),
        Node("y", w.linear(3, 2), ("p",)),
    )
    return Network("x", (1, 2), nodes, "y")


def layer_norm(w: Weights) -> Network:
    """The differences of three entries from their mean, over the square root of their variance."""
    center = np.eye(3) - np.full((3, 3), 1 / 3)
    nodes = (
        Node("a", w.linear(2, 3), ("x",)),
        Node("c", Linear(frozen_array(center), frozen_array(np.zeros(3))), ("a",)),
        Node("q", Power(2), ("c",)),
        Node("v", Linear(frozen_array(np.full((3, 3), 1 / 3)), frozen_array(np.full(3, 0.1))), ("q",)),
        Node("r", Sqrt(), ("v",)),
        Node("i", Reciprocal(), ("r",)),
        Node("n", Product(), ("c", "i")),
        Node("y", w.linear(3, 2), ("n",)),
    )
    return Network("x", (1, 2), nodes, "y")


KINDS: dict[str, Callable[[Weights], Network]] = {
    "mlp": mlp,
    "deep": deep,
    "leaky": leaky,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "average_pool": average_pool,
    "max_pool": max_pool,
    "residual": residual,
    "branches": branches,
    "normalised": normalised,
}

RATIONAL_KINDS: dict[str, Callable[[Weights], Network]] = {"selected": selected, "polynomial": polynomial, "steps": steps}
"""Not piecewise linear, or not continuous; float64 is still exact on the grid."""

CURVED_KINDS: dict[str, Callable[[Weights], Network]] = {
    "sigmoids": sigmoids,
    "waves": waves,
    "quotient": quotient,
    "softmax": softmax,
    "gelu": gelu,
    "layer_norm": layer_norm,
}
"""With values that are rounded on every grid."""

ALL_KINDS = {**KINDS, **RATIONAL_KINDS, **CURVED_KINDS}


def random_network(kind: str, *, seed: int, grid: bool = False) -> Network:
    """A network of one of ALL_KINDS; the same for the same arguments."""
    return ALL_KINDS[kind](Weights(seed, grid))


def random_box(network: Network, *, seed: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper of shape (batch, inputs) on the grid of 1/16, widths from 0 to 2."""
    rng = np.random.default_rng(seed)
    shape = (batch, network.size(network.input))
    lower = rng.integers(-32, 17, shape) / 16
    return lower, lower + rng.integers(0, 33, shape) / 16


def sample_box(lower: np.ndarray, upper: np.ndarray, *, count: int, seed: int, grid: bool = False) -> np.ndarray:
    """Points of one flat box: corners (all of them, or as many random ones as asked for) and `count` inner points."""
    rng = np.random.default_rng(seed)
    n = lower.size
    bits = np.array(list(product((0, 1), repeat=n))) if n <= 5 else rng.integers(0, 2, (count, n))
    share = rng.integers(0, 17, (count, n)) / 16 if grid else rng.uniform(size=(count, n))
    inner = lower + share * (upper - lower)
    inner = np.round(inner * 16) / 16 if grid else inner
    return np.clip(np.concatenate([np.where(bits == 1, upper, lower), inner]), lower, upper)
