"""Matrix products, norms and pools beyond single nodes: two values, stored weights, what they become."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node
from onnx_cases.building import two_values

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.ops import AveragePool, Linear, MaxPool, Scale

MULTIPLIED = [((2, 3), (3, 4)), ((3,), (3, 2)), ((2, 3), (3,)), ((3,), (3,)), ((2, 1), (1, 3))]
MULTIPLIED += [((2, 4, 3), (2, 3, 2)), ((1, 2, 2, 3), (2, 1, 3, 2)), ((2, 3), (4, 3, 2)), ((4, 3), (1, 1, 3, 1))]


@pytest.mark.parametrize("shapes", MULTIPLIED)
def test_matrix_product_of_two_values(shapes, model, agrees):
    nodes, shape, weights = two_values("MatMul", *shapes)
    agrees(model(nodes, shape, weights))


def test_matrix_products_that_do_not_fit_are_named(model, read):
    nodes, shape, weights = two_values("MatMul", (2, 3), (4, 3))
    with pytest.raises(BadNetwork, match=r"MatMul at 'y': shapes \(2, 3\) and \(4, 3\) have no matrix product"):
        read(model(nodes, shape, weights))


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_weights_of_other_float_types_are_exact(kind, model, read):
    dtype = {TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}[kind]
    weight = np.array([[0.1], [1 / 3]], dtype=dtype)
    network = read(model([make_node("MatMul", ["x", "w"], ["y"])], (1, 2), {"w": weight}, kind=kind))
    op = network.nodes[0].op
    assert isinstance(op, Linear) and op.weight.tolist() == [[float(v) for v in weight[:, 0]]]


def test_batch_normalisation_is_rounded_once(model, read):
    """scale / sqrt(var + eps) by hand: 3 / sqrt(2 + 0.25) = 2, offset 5 - 7 * 2 = -9."""
    weights = {name: np.array([v], dtype=np.float32) for name, v in zip("abmv", (3, 5, 7, 2), strict=True)}
    network = read(model([make_node("BatchNormalization", ["x", *weights], ["y"], epsilon=0.25)], (1, 1), weights))
    op = network.nodes[0].op
    assert isinstance(op, Scale) and (op.factor.item(), op.offset.item()) == (2.0, -9.0)


def test_ceil_mode_becomes_end_padding(model, read):
    """Length 5, kernel 2, stride 2: a third window holds the last entry alone, so its mean divides by 1."""
    node = make_node("AveragePool", ["x"], ["y"], kernel_shape=[2], strides=[2], ceil_mode=1)
    op = read(model([node], (1, 1, 5))).nodes[0].op
    assert isinstance(op, AveragePool) and op.padding == ((0, 1),) and op.divisor.tolist() == [2, 2, 1]


def test_indices_of_a_maximum_are_refused(model, read):
    nodes = [make_node("MaxPool", ["x"], ["h", "i"], kernel_shape=[2]), make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]
    with pytest.raises(UnsupportedOp, match="MaxPool"):
        read(model(nodes, (1, 1, 4)))


def test_pooling_with_dilation_keeps_it(model, read):
    op = read(model([make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], dilations=[3])], (1, 1, 8))).nodes[0].op
    assert isinstance(op, MaxPool) and op.dilation == (3,)
