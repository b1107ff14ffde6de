from fractions import Fraction

import numpy as np
import pytest

from verifier.check import replay
from verifier.check.linear_map import linear_map, pool_windows, window_indices
from verifier.errors import BadNetwork
from verifier.evaluate import evaluate
from verifier.network import Network, Node
from verifier.ops import AveragePool, Linear, MaxPool, frozen_array


@pytest.mark.parametrize("family", range(5))
def test_every_linear_operator_agrees_with_torch(networks, writer, family: int) -> None:
    network = networks.families[family](np.random.default_rng(family))
    size = network.size(network.input)
    judge = writer(network, np.zeros(size), np.ones(size))
    for name, (matrices, bias) in judge.matrices.items():
        node = network.producers[name]
        found = linear_map(node, [network.shapes[i] for i in node.inputs])
        for matrix, expected in zip(found.matrices, matrices, strict=True):
            dense = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
            np.testing.assert_allclose(dense / found.divisor[:, None], expected, atol=1e-12)
        np.testing.assert_allclose(found.bias, bias, atol=1e-12)


@pytest.mark.parametrize("family", range(5))
def test_replay_agrees_with_torch(networks, family: int) -> None:
    rng = np.random.default_rng(family)
    network = networks.families[family](rng)
    x = rng.normal(size=network.size(network.input))
    exact = replay(network, x)
    for name, value in evaluate(network, x[None]).items():
        np.testing.assert_allclose(np.array(exact[name], dtype=float), value[0].flatten().numpy(), atol=1e-11)


def test_pool_windows_agree_with_torch(networks, writer) -> None:
    network = networks.families[3](np.random.default_rng(0))
    node = network.producers["m"]
    found = pool_windows(node, network.shapes["a0"])
    size = network.size("x")
    expected = writer(network, np.zeros(size), np.ones(size)).windows["m"]
    assert [sorted(w[w >= 0].tolist()) for w in found] == [w.tolist() for w in expected]


def test_windows_by_hand() -> None:
    assert window_indices((4,), (2,), (2,), ((1, 0),), (2,)).tolist() == [[-1, 1], [1, 3]]
    assert window_indices((2, 2), (2, 1), (1, 1), ((0, 0), (0, 1)), (1, 1)).tolist() == [[0, 2], [1, 3], [-1, -1]]


def test_means_of_three_are_replayed_exactly() -> None:
    op = AveragePool((3,), (3,), ((0, 0),), frozen_array([3.0]))
    network = Network("x", (1, 1, 3), (Node("y", op, ("x",)),), "y")
    assert replay(network, np.array([1.0, 0.0, 0.0]))["y"] == (Fraction(1, 3),)


def test_replay_is_exact_where_floats_are_not() -> None:
    weight = frozen_array([[1.0, 1.0, -1.0], [5e-324, 0.0, 1e300]])
    network = Network("x", (1, 3), (Node("y", Linear(weight, frozen_array([0.0, 0.1])), ("x",)),), "y")
    first, second = replay(network, np.array([1.0, 2.0**-80, 1.0]))["y"]
    assert first == Fraction(1, 2**80)
    assert second == Fraction(5e-324) + Fraction(1e300) + Fraction(0.1)


def test_bad_weights_are_refused() -> None:
    nan = Node("y", Linear(frozen_array([[np.nan]]), frozen_array([0.0])), ("x",))
    with pytest.raises(BadNetwork, match="'y' must be finite"):
        linear_map(nan, [(1, 1)])
    padded = Node("y", MaxPool((1,), (1,), ((1, 0),), (1,)), ("x",))
    with pytest.raises(BadNetwork, match="inside its padding"):
        pool_windows(padded, (1, 1, 2))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int64])
def test_numbers_that_are_not_float64_are_refused(kind: type) -> None:
    op = Linear(np.array([[60000, 3]], dtype=np.float32).astype(kind), np.zeros(1))
    with pytest.raises(BadNetwork, match="float64"):
        linear_map(Node("y", op, ("x",)), [(2,)])
