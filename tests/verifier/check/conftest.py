"""Random networks of every operator, and a certificate writer in plain float64 that shares no code with the checker."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from verifier.evaluate import FORWARD
from verifier.network import Network, Node
from verifier.ops import (
    LINEAR_OPS,
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
    frozen_array,
)


def linear(rng: np.random.Generator, inputs: int, outputs: int) -> Linear:
    weight = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
    return Linear(frozen_array(weight.astype(np.float32)), frozen_array(rng.normal(size=outputs).astype(np.float32) * 0.3))


def conv(rng: np.random.Generator, shape: tuple[int, ...], **settings) -> Conv:
    weight = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    options = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1} | settings
    return Conv(frozen_array(weight.astype(np.float32)), frozen_array(rng.normal(size=shape[0]) * 0.1), **options)


def mlp(rng: np.random.Generator, *sizes: int, activation: object = Relu()) -> Network:
    nodes, last = [], "x"
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        nodes.append(Node(f"z{layer}", linear(rng, inputs, outputs), (last,)))
        last = f"z{layer}"
        if layer < len(sizes) - 2:
            nodes.append(Node(f"a{layer}", activation, (last,)))
            last = f"a{layer}"
    return Network("x", (1, sizes[0]), tuple(nodes), last)


def residual(rng: np.random.Generator) -> Network:
    nodes = (
        Node("z0", linear(rng, 3, 4), ("x",)),
        Node("a0", Relu(), ("z0",)),
        Node("z1", linear(rng, 4, 4), ("a0",)),
        Node("a1", LeakyRelu(0.1), ("z1",)),
        Node("s", Sum((1.0, -0.3)), ("a0", "a1")),
        Node("twice", Sum((0.7, 0.6)), ("s", "s")),
        Node("a2", Relu(), ("twice",)),
        Node("joined", Concat(1), ("a2", "z0", "x")),
        Node("y", linear(rng, 11, 2), ("joined",)),
    )
    return Network("x", (1, 3), nodes, "y")


def convolutional(rng: np.random.Generator) -> Network:
    nodes = (
        Node("z0", conv(rng, (4, 1, 3, 2), stride=(2, 1), padding=((1, 0), (1, 1)), groups=2), ("x",)),
        Node("a0", Relu(), ("z0",)),
        Node("m", MaxPool((2, 2), (1, 2), ((0, 1), (1, 0)), (1, 1)), ("a0",)),
        Node("z1", conv(rng, (2, 4, 2, 1), dilation=(1, 2)), ("m",)),
        Node("b", Scale(frozen_array(rng.normal(size=(1, 2, 1, 1))), frozen_array(rng.normal(size=(1, 2, 1, 1)))), ("z1",)),
        Node("a1", LeakyRelu(0.25), ("b",)),
        Node("p", AveragePool((2, 2), (1, 1), ((0, 1), (0, 0)), frozen_array([[2.0, 3.0]])), ("a1",)),
        Node("t", Transpose((0, 3, 1, 2)), ("p",)),
        Node("f", Reshape((1, 4)), ("t",)),
        Node("y", linear(rng, 4, 2), ("f",)),
    )
    return Network("x", (1, 2, 4, 5), nodes, "y")


def sequence(rng: np.random.Generator) -> Network:
    """One space axis, a linear layer over several positions, and means over three entries, which are not dyadic."""
    nodes = (
        Node("z0", conv(rng, (2, 2, 3), stride=(1,), padding=((1, 1),), dilation=(1,)), ("x",)),
        Node("a0", Relu(), ("z0",)),
        Node("p", AveragePool((3,), (1,), ((1, 1),), frozen_array([2.0, 3.0, 3.0, 2.0])), ("a0",)),
        Node("z1", linear(rng, 4, 3), ("p",)),
        Node("m", MaxPool((2,), (1,), ((0, 0),), (2,)), ("z1",)),
        Node("f", Reshape((1, 2)), ("m",)),
        Node("y", linear(rng, 2, 2), ("f",)),
    )
    return Network("x", (1, 2, 4), nodes, "y")


@dataclass(frozen=True)
class Networks:
    mlp = staticmethod(mlp)
    families = (
        lambda rng: mlp(rng, 2, 4, 3, 2),
        lambda rng: mlp(rng, 3, 5, 4, 4, 2, activation=LeakyRelu(0.1)),
        residual,
        convolutional,
        sequence,
    )


class Writer:
    """Float64 interval bounds and CROWN bounds of a network over a box, with each linear node's matrix read off torch."""

    def __init__(self, network: Network, lower: np.ndarray, upper: np.ndarray) -> None:
        self.network = network
        self.matrices = {n.output: _read_matrices(network, n) for n in network.nodes if isinstance(n.op, LINEAR_OPS)}
        self.windows = {n.output: _read_windows(network, n) for n in network.nodes if isinstance(n.op, MaxPool)}
        self.bounds = {network.input: (lower, upper)}
        for node in network.nodes:
            self.bounds[node.output] = self._image(node)

    def _image(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        ends = [self.bounds[name] for name in node.inputs]
        if isinstance(node.op, LINEAR_OPS):
            matrices, bias = self.matrices[node.output]
            low = sum(np.maximum(w, 0) @ lo + np.minimum(w, 0) @ hi for w, (lo, hi) in zip(matrices, ends, strict=True))
            high = sum(np.maximum(w, 0) @ hi + np.minimum(w, 0) @ lo for w, (lo, hi) in zip(matrices, ends, strict=True))
            return low + bias, high + bias
        if isinstance(node.op, MaxPool):
            return tuple(np.array([end[w].max() for w in self.windows[node.output]]) for end in ends[0])
        slope = getattr(node.op, "slope", 0.0)
        return tuple(np.maximum(end, slope * end) for end in ends[0])

    def slopes(self) -> dict[str, np.ndarray]:
        """The usual choice: 1 where the positive side is wider; the entry with the greatest lower bound."""
        chosen = {}
        for node in self.network.nodes:
            low, high = self.bounds[node.inputs[0]]
            if isinstance(node.op, Relu | LeakyRelu):
                chosen[node.output] = np.where(high > -low, 1.0, getattr(node.op, "slope", 0.0))[None, :]
            elif isinstance(node.op, MaxPool):
                chosen[node.output] = np.array([[w[low[w].argmax()] for w in self.windows[node.output]]])
        return chosen

    def lower_bound(self, form: dict[str, np.ndarray], slopes: dict[str, np.ndarray]) -> float:
        """CROWN's lower bound of a linear form over the network's values."""
        pending, constant = {name: c.astype(float) for name, c in form.items()}, 0.0
        for node in reversed(self.network.nodes):
            c = pending.pop(node.output, None)
            if c is None:
                continue
            if isinstance(node.op, LINEAR_OPS):
                matrices, bias = self.matrices[node.output]
                constant += c @ bias
                moved = list(zip(node.inputs, (c @ w for w in matrices), strict=True))
            else:
                rule = self._through_pool if isinstance(node.op, MaxPool) else self._through_activation
                back, offset = rule(node, c, slopes[node.output][0])
                constant += offset
                moved = [(node.inputs[0], back)]
            for name, back in moved:
                pending[name] = pending.get(name, 0.0) + back
        low, high = self.bounds[self.network.input]
        c = pending.get(self.network.input, np.zeros_like(low))
        return float(constant + np.maximum(c, 0) @ low + np.minimum(c, 0) @ high)

    def _through_activation(self, node: Node, c: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, float]:
        (low, high), least = self.bounds[node.inputs[0]], getattr(node.op, "slope", 0.0)
        crossing = (low < 0) & (high > 0)
        fixed = np.where(low >= 0, 1.0, least)
        chord = np.where(crossing, (high - least * low) / np.where(crossing, high - low, 1.0), fixed)
        below = np.where(crossing, slopes, fixed)
        back = np.maximum(c, 0) * below + np.minimum(c, 0) * chord
        return back, float(np.minimum(c, 0) @ np.where(crossing, (1 - chord) * high, 0.0))

    def _through_pool(self, node: Node, c: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, float]:
        low, high = self.bounds[node.inputs[0]]
        back, offset = np.zeros_like(low), 0.0
        for window, weight, entry in zip(self.windows[node.output], c, entries, strict=True):
            star = window[low[window].argmax()]
            single = all(high[w] <= low[star] for w in window if w != star)
            if weight > 0 or single:
                back[star if single else entry] += weight
            else:
                offset += weight * high[window].max()
        return back, offset


def _apply(network: Network, node: Node, flat: list[np.ndarray]) -> np.ndarray:
    inputs = [torch.tensor(x).reshape(len(x), *network.shapes[name]) for x, name in zip(flat, node.inputs, strict=True)]
    return FORWARD[type(node.op)](node.op, inputs).flatten(1).numpy()


def _read_matrices(network: Network, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
    sizes = [network.size(name) for name in node.inputs]
    bias = _apply(network, node, [np.zeros((1, n)) for n in sizes])[0]
    matrices = []
    for k, size in enumerate(sizes):
        probes = [np.eye(size) if j == k else np.zeros((size, n)) for j, n in enumerate(sizes)]
        matrices.append((_apply(network, node, probes) - bias).T)
    return matrices, bias


def _read_windows(network: Network, node: Node) -> list[np.ndarray]:
    """An entry lies in a window when raising it alone raises the window's maximum."""
    raised = _apply(network, node, [np.eye(network.size(node.inputs[0]))])
    return [np.flatnonzero(raised[:, window]) for window in range(raised.shape[1])]


@pytest.fixture(scope="session")
def networks() -> type[Networks]:
    return Networks


@pytest.fixture(scope="session")
def writer() -> type[Writer]:
    return Writer
