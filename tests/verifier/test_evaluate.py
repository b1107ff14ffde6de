"""Evaluation against definitions written out as loops."""

import gc
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.errors import VerifierError
from verifier.evaluate import _CONSTANTS, constant, evaluate, forward, output
from verifier.network import Network, Node, output_shape
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


def single(op, shape, arity=1):
    return Network("x", shape, (Node("y", op, ("x",) * arity),), "y")


def run(op, x, arity=1):
    """The operator on one sample."""
    return evaluate(single(op, x.shape, arity), x[None])["y"][0].numpy()


def taps(op, x, dilation, out):
    """For each output position: the kernel places that meet a real entry, with that entry's index."""
    places = itertools.product(*(range(k) for k in (op.weight.shape[2:] if isinstance(op, Conv) else op.kernel)))
    for place in places:
        index = tuple(o * s - p[0] + k * d for o, s, p, k, d in zip(out, op.stride, op.padding, place, dilation, strict=True))
        if all(0 <= i < n for i, n in zip(index, x.shape[2:], strict=True)):
            yield place, index


def convolved(op, x):
    y = np.zeros(output_shape(op, [x.shape]))
    per_group_in, per_group_out = op.weight.shape[1], len(op.weight) // op.groups
    for channel, *out in np.ndindex(y.shape[1:]):
        first = channel // per_group_out * per_group_in
        total = op.bias[channel]
        for place, index in taps(op, x, op.dilation, out):
            for k in range(per_group_in):
                total += op.weight[(channel, k, *place)] * x[(0, first + k, *index)]
        y[(0, channel, *out)] = total
    return y


def pooled(op, x):
    y = np.zeros(output_shape(op, [x.shape]))
    dilation = op.dilation if isinstance(op, MaxPool) else (1,) * len(op.kernel)
    for channel, *out in np.ndindex(y.shape[1:]):
        entries = [x[(0, channel, *index)] for _, index in taps(op, x, dilation, out)]
        y[(0, channel, *out)] = max(entries) if isinstance(op, MaxPool) else sum(entries) / op.divisor[tuple(out)]
    return y


pairs = st.tuples(st.integers(0, 1), st.integers(0, 1))


@st.composite
def windows(draw):
    """Settings for one or two space axes in which every window meets a real entry."""
    axes = draw(st.integers(1, 2))

    def some(strategy):
        return tuple(draw(strategy) for _ in range(axes))

    return some(st.integers(5, 7)), some(st.integers(2, 3)), some(st.integers(1, 3)), some(pairs), some(st.integers(1, 2))


def integers(seed, *shape):
    return np.random.default_rng(seed).integers(-5, 6, size=shape).astype(np.float64)


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(0, 99))
def test_convolution(window, groups, inner, outer, seed):
    space, kernel, stride, padding, dilation = window
    weight = frozen_array(integers(seed, groups * outer, inner, *kernel))
    op = Conv(weight, frozen_array(integers(seed, groups * outer)), stride, padding, dilation, groups)
    x = integers(seed + 1, 1, groups * inner, *space)
    np.testing.assert_array_equal(run(op, x), convolved(op, x))


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(0, 99))
def test_pooling(window, seed):
    space, kernel, stride, padding, dilation = window
    x = integers(seed, 1, 3, *space)
    largest = MaxPool(kernel, stride, padding, dilation)
    np.testing.assert_array_equal(run(largest, x), pooled(largest, x))
    shape = output_shape(AveragePool(kernel, stride, padding, frozen_array(1.0)), [x.shape])[2:]
    mean = AveragePool(kernel, stride, padding, frozen_array(np.abs(integers(seed, *shape)) + 1))
    np.testing.assert_array_equal(run(mean, x), pooled(mean, x))


X = np.array([[-2.0, 0.0, 3.0]])

BY_HAND = [
    (Linear(frozen_array([[1, 2, 3], [0, 0, 1]]), frozen_array([10, 20])), X, [[17.0, 23.0]]),
    (Linear(frozen_array([[1, 1]]), frozen_array([1])), np.arange(6.0).reshape(1, 3, 2), [[[2.0], [6.0], [10.0]]]),
    (Scale(frozen_array([[2.0]]), frozen_array([[1.0, 0.0, -1.0]])), X, [[-3.0, 0.0, 5.0]]),
    (Reshape((3, 1)), X, [[-2.0], [0.0], [3.0]]),
    (Reshape(()), np.array([4.0]), 4.0),
    (Transpose((1, 0)), X, [[-2.0], [0.0], [3.0]]),
    (Relu(), X, [[0.0, 0.0, 3.0]]),
    (LeakyRelu(0.5), X, [[-1.0, 0.0, 3.0]]),
    (Select(np.array([2, 0, -1, 2]), (2, 2)), X, [[3.0, -2.0], [0.0, 3.0]]),
    (Select(np.array([0]), ()), X, -2.0),
    (Select(np.array([0, 0]), (2,)), np.array(5.0), [5.0, 5.0]),
    (Select(np.array([-1, 1]), (2,)), np.array([np.inf, 5.0]), [0.0, 5.0]),
    (Reciprocal(), X, [[-0.5, np.inf, 1 / 3]]),
    (Power(2), X, [[4.0, 0.0, 9.0]]),
    (Power(3), X, [[-8.0, 0.0, 27.0]]),
    (Sign(), X / 8, [[-1.0, 0.0, 1.0]]),
    (Floor(), X / 8, [[-1.0, 0.0, 0.0]]),
]

CURVES = [
    (Sigmoid(), lambda x: 1 / (1 + math.exp(-x))),
    (Tanh(), math.tanh),
    (Erf(), math.erf),
    (Sqrt(), lambda x: math.sqrt(x) if x >= 0 else math.nan),
    (Sin(), math.sin),
    (Cos(), math.cos),
    (Exp(), math.exp),
]


@pytest.mark.parametrize("op, function", CURVES, ids=[type(op).__name__ for op, _ in CURVES])
def test_curves(op, function):
    np.testing.assert_allclose(run(op, X / 3), [[function(x) for x in (X / 3)[0]]], rtol=1e-15)


@pytest.mark.parametrize("op, x, expected", BY_HAND)
def test_operators_by_hand(op, x, expected):
    np.testing.assert_array_equal(run(op, x), expected)


@pytest.mark.parametrize("entries", [1, 7, 30])
def test_large_batches_are_evaluated_in_chunks(entries, monkeypatch):
    x = np.random.default_rng(0).normal(size=(10, 3))
    whole = evaluate(chain(), x, keep=["y", "a"])
    monkeypatch.setattr("verifier.evaluate.CHUNK_ENTRIES", entries)
    parts = evaluate(chain(), x, keep=["y", "a"])
    assert {name: value.tolist() for name, value in parts.items()} == {name: value.tolist() for name, value in whole.items()}


def test_operators_of_several_inputs_by_hand():
    np.testing.assert_array_equal(run(Sum((1.0, -3.0, 0.5)), X, arity=3), -1.5 * X)
    np.testing.assert_array_equal(run(Product(), X, arity=2), X * X)
    np.testing.assert_array_equal(run(Concat(0), X, arity=2), np.concatenate([X, X]))
    np.testing.assert_array_equal(run(Concat(1), X, arity=2), np.concatenate([X, X], axis=1))


def chain():
    """x -> a -> b -> y, and a side branch c."""
    half = LeakyRelu(0.5)
    nodes = (
        Node("a", half, ("x",)),
        Node("b", Relu(), ("a",)),
        Node("c", half, ("a",)),
        Node("y", Sum((1.0, 1.0)), ("b", "a")),
    )
    return Network("x", (1, 3), nodes, "y")


def test_kept_values_only():
    assert list(evaluate(chain(), X)) == ["x", "a", "b", "c", "y"]
    for keep in (["y"], ["a", "c"], ["x"], []):
        found = evaluate(chain(), X, keep=keep)
        assert set(found) == set(keep)
        assert all(torch.equal(value, evaluate(chain(), X)[name]) for name, value in found.items())


def test_samples_of_any_shape_dtype_and_kind():
    flat, shaped = np.ones((5, 3)), np.ones((5, 1, 3), dtype=np.float32)
    assert output(chain(), flat).shape == (5, 3)
    assert evaluate(chain(), shaped)["y"].dtype == torch.float32
    assert evaluate(chain(), np.ones((5, 3), dtype=np.int32))["y"].dtype == torch.float64
    assert output(chain(), np.ones((0, 3))).shape == (0, 3)


def test_read_only_samples_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(chain(), frozen_array(X))


@pytest.mark.parametrize("shape", [(5, 4), (3,), (), (2, 3, 3)])
def test_samples_that_do_not_fit_are_named(shape):
    with pytest.raises(VerifierError, match=r"do not fit input 'x' of shape \(1, 3\); give shape \(batch, 3\)"):
        evaluate(chain(), np.zeros(shape))


def test_unknown_values_are_named():
    with pytest.raises(VerifierError, match="no value 'z' in the network; it has x, a, b, c, y"):
        evaluate(chain(), X, keep=["z"])


def test_forward_is_differentiable_even_after_inference_mode():
    op = Linear(frozen_array([[2.0, 3.0]]), frozen_array([0.0]))
    network = single(op, (1, 2))
    with torch.inference_mode():
        evaluate(network, np.ones((1, 2)))
    x = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    forward(network, x)["y"].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[2.0, 3.0]]


def test_select_passes_gradients_to_what_it_reads():
    x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    forward(single(Select(np.array([1, -1, 1]), (3,)), (1, 3)), x)["y"].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0, 2.0, 0.0]]


def test_constants_live_as_long_as_their_operator():
    op = Linear(frozen_array([[2.0]]), frozen_array([0.0]))
    first = constant(op, "weight", torch.float64, torch.device("cpu"))
    assert constant(op, "weight", torch.float64, torch.device("cpu")) is first
    assert constant(op, "weight", torch.float32, torch.device("cpu")).dtype == torch.float32
    gc.collect()
    count = len(_CONSTANTS)
    del op
    gc.collect()
    assert len(_CONSTANTS) == count - 1
