"""The graph: what it accepts, the shapes it finds, the identity it has."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws.networks import random_network

from verifier.errors import BadNetwork
from verifier.evaluate import evaluate
from verifier.network import Network, Node, output_shape, pooled_length
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


def zeros(*shape):
    return frozen_array(np.zeros(shape))


def linear(rows, columns):
    return Linear(zeros(rows, columns), zeros(rows))


def conv(*shape, groups=1, padding=((0, 0),)):
    return Conv(zeros(*shape), zeros(shape[0]), (2,), padding, (1,), groups)


SHAPES = [
    (linear(4, 3), [(1, 3)], (1, 4)),
    (linear(4, 3), [(3,)], (4,)),
    (linear(4, 3), [(1, 2, 3)], (1, 2, 4)),
    (conv(4, 2, 3), [(1, 2, 7)], (1, 4, 3)),
    (conv(4, 1, 3, groups=2, padding=((1, 0),)), [(1, 2, 6)], (1, 4, 3)),
    (MaxPool((3, 1), (1, 2), ((0, 0), (0, 0)), (2, 1)), [(1, 5, 6, 4)], (1, 5, 2, 2)),
    (AveragePool((2,), (2,), ((0, 1),), zeros(3)), [(1, 5, 5)], (1, 5, 3)),
    (Scale(zeros(1, 3), zeros(1, 1)), [(1, 3)], (1, 3)),
    (Sum((1.0, 2.0)), [(1, 3), (1, 3)], (1, 3)),
    (Reshape((6,)), [(1, 2, 3)], (6,)),
    (Transpose((2, 0, 1)), [(1, 2, 3)], (3, 1, 2)),
    (Concat(1), [(1, 2, 3), (1, 4, 3)], (1, 6, 3)),
    (Relu(), [(1, 3)], (1, 3)),
    (Select(np.array([2, -1, 0, 0]), (2, 2)), [(1, 3)], (2, 2)),
    (Select(np.array([1]), ()), [(3,)], ()),
    (Product(), [(1, 3), (1, 3)], (1, 3)),
    (Power(3), [(1, 3)], (1, 3)),
    *((op, [(2, 3)], (2, 3)) for op in (Sigmoid(), Tanh(), Sin(), Cos(), Exp(), Reciprocal(), Sqrt(), Erf(), Sign(), Floor())),
]

MISFITS = [
    (linear(4, 3), (1, 2), "last axis must have length 3"),
    (conv(4, 2, 3), (2, 2, 7), "leading axis 1"),
    (conv(4, 2, 3), (1, 3, 7), "needs 2 channels"),
    (conv(4, 2, 3), (1, 2, 2), "window of 3 does not fit length 2"),
    (Scale(zeros(2, 3), zeros(1, 1)), (1, 3), "must not widen x"),
    (Scale(zeros(3), zeros(3)), (1, 3), "must have rank 2"),
    (Reshape((7,)), (1, 6), "another number of entries"),
    (Transpose((0, 0)), (1, 6), "does not permute the axes"),
    (Concat(2), (1, 6), "axis 2 is out of range"),
    (Select(np.array([0, 1]), (3,)), (1, 6), "needs 3 indices"),
    (Select(np.array([6]), (1,)), (1, 6), "indices must lie in -1..5"),
    (Select(np.array([-2]), (1,)), (1, 6), "indices must lie in -1..5"),
    (Select(np.array([1.0]), (1,)), (1, 6), "indices must be int64, got float64"),
    (Product(), (1, 6), "must share one shape"),
    (Power(1), (1, 6), "must be a whole number >= 2, got 1"),
    (LeakyRelu(2.0), (1, 6), "slope must lie in .0, 1., got 2.0"),
    (LeakyRelu(float("nan")), (1, 6), "slope must lie in .0, 1., got nan"),
]


@pytest.mark.parametrize("op, inputs, expected", SHAPES)
def test_output_shapes_by_hand(op, inputs, expected):
    assert output_shape(op, inputs) == expected


@pytest.mark.parametrize("op, shape, message", MISFITS)
def test_misfits_are_named(op, shape, message):
    network = Network("x", shape, (Node("y", op, ("x",)),), "y")
    with pytest.raises(BadNetwork, match=f"{type(op).__name__} at 'y' does not fit its inputs 'x' .*{message}"):
        _ = network.shapes


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))
def test_pooled_length_counts_the_windows(length, kernel, stride, begin, end, dilation):
    span = dilation * (kernel - 1) + 1
    starts = [s for s in range(0, length + begin + end, stride) if s + span <= length + begin + end]
    if starts:
        assert pooled_length(length, kernel, stride, (begin, end), dilation) == len(starts)
    else:
        with pytest.raises(AssertionError):
            pooled_length(length, kernel, stride, (begin, end), dilation)


def test_order_and_names_are_checked():
    relu = Relu()
    with pytest.raises(BadNetwork, match="value 'a' reads 'b' before it is computed"):
        Network("x", (1,), (Node("a", relu, ("b",)), Node("b", relu, ("x",))), "a")
    with pytest.raises(BadNetwork, match="value 'a' is assigned twice"):
        Network("x", (1,), (Node("a", relu, ("x",)), Node("a", relu, ("x",))), "a")
    with pytest.raises(BadNetwork, match="output 'y' is not computed"):
        Network("x", (1,), (), "y")


def two_layers(*, weight=1.0, slope_first=True, name="y"):
    first, second = (Relu(), linear(1, 1)) if slope_first else (linear(1, 1), Relu())
    last = Linear(frozen_array([[weight]]), frozen_array([0.0]))
    return Network("x", (1,), (Node("a", first, ("x",)), Node("b", second, ("a",)), Node(name, last, ("b",))), name)


def test_identity_is_a_function_of_the_content():
    same = [two_layers().sha256, two_layers().sha256]
    others = [
        two_layers(weight=np.nextafter(1, 2)).sha256,
        two_layers(slope_first=False).sha256,
        two_layers(name="z").sha256,
        Network("x", (1,), two_layers().nodes, "b").sha256,
        Network("x", (1, 1), two_layers().nodes, "y").sha256,
    ]
    assert len(set(same)) == 1 and len({*same, *others}) == 1 + len(others)


def test_identity_ignores_memory_layout():
    weight = np.arange(6.0).reshape(2, 3)
    rows, columns = frozen_array(weight), frozen_array(np.asfortranarray(weight))
    found = {Network("x", (3,), (Node("y", Linear(w, frozen_array([0.0, 0.0])), ("x",)),), "y").sha256 for w in (rows, columns)}
    assert len(found) == 1


def test_sizes_and_producers():
    network = two_layers()
    assert network.size("x") == 1 and network.producers["y"] is network.nodes[-1] and "x" not in network.producers


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        frozen_array([1.0, 2.0])[0] = 3.0


def test_the_part_up_to_a_value_computes_the_same_there() -> None:
    network = random_network("residual", seed=0)
    x = np.random.default_rng(0).random((5, network.size(network.input)))
    whole = evaluate(network, x)
    for value in [node.output for node in network.nodes]:
        part = network.up_to(value)
        assert part.output == value and len(part.nodes) <= len(network.nodes)
        for name, found in evaluate(part, x).items():
            assert torch.equal(found, whole[name])
