"""Every ONNX operator, over its attributes, against onnxruntime."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from verifier.errors import UnsupportedOp
from verifier.formats.onnx_operators import OPERATORS
from verifier.ops import AveragePool, LeakyRelu, Linear, MaxPool, Scale

RNG = np.random.default_rng(7)


def ints(*shape):
    return RNG.integers(-4, 5, size=shape).astype(np.float32)


def positive(*shape):
    return RNG.integers(1, 5, size=shape).astype(np.float32)


def case(op, shape, weights=(), inputs=None, opset=13, **attributes):
    """A one-node model; the value is `x`, the weights are `w0`, `w1`, ..."""
    named = {f"w{k}": w for k, w in enumerate(weights)}
    return make_node(op, inputs or ["x", *named], ["y"], name="node", **attributes), shape, named, opset


GEMM = [
    case("Gemm", (m, 3), [ints(*((2, 3) if trans else (3, 2))), *bias], transB=trans, alpha=alpha, beta=beta)
    for m in (1, 4)
    for trans in (0, 1)
    for alpha, beta in ((1.0, 1.0), (0.5, -0.3))
    for bias in ([], [ints(2)], [ints(1, 2)], [ints(1)], [ints()], [ints(m, 1)], [ints(m, 2)])
]
GEMM += [
    case("Gemm", (3, 4), [ints(3, 2), ints(2)], transA=1),
    case("Gemm", (3, 4), [ints(2, 3), ints(4, 2)], transA=1, transB=1),
]
GEMM += [
    case(
        "Gemm",
        (3, 4) if not trans else (4, 3),
        [ints(*((2, 3) if not a else (3, 2))), c],
        ["w0", "x", "w1"],
        transA=a,
        transB=trans,
    )
    for trans in (0, 1)
    for a in (0, 1)
    for c in (ints(4), ints(2, 1), ints(2, 4))
]

MATMUL = [
    case("MatMul", shape, [ints(*weight)])
    for shape, weight in [
        ((1, 3), (3, 2)),
        ((3,), (3, 2)),
        ((3,), (3,)),
        ((1, 3), (3,)),
        ((1, 4, 3), (3, 2)),
        ((1, 2, 4, 3), (3, 2)),
        ((1, 4, 3), (1, 3, 2)),
        ((1, 4, 3), (3,)),
    ]
]
MATMUL += [
    case("MatMul", shape, [ints(*weight)], ["w0", "x"])
    for shape, weight in [
        ((3, 2), (4, 3)),
        ((3,), (4, 3)),
        ((3,), (3,)),
        ((3, 2), (3,)),
        ((1, 3, 2), (4, 3)),
        ((1, 3, 2), (1, 4, 3)),
        ((1, 3, 2), (3,)),
    ]
]

ELEMENTWISE = [
    case(op, shape, [positive(*weight)], order)
    for op in ("Add", "Sub", "Mul", "Div")
    for shape, weight in [
        ((1, 3), (3,)),
        ((1, 3), ()),
        ((1, 2, 3), (2, 1)),
        ((3,), (1, 1)),
        ((1, 2, 2, 3), (1, 2, 1, 1)),
        ((1, 2, 3), (1, 2, 3)),
    ]
    for order in (["x", "w0"], ["w0", "x"])
    if op != "Div" or order[0] == "x"
]

WINDOWS = [
    dict(kernel_shape=[3], strides=[s], pads=[a, b], dilations=[d])
    for s, a, b, d in [(1, 0, 0, 1), (2, 1, 0, 1), (1, 0, 2, 2), (3, 1, 2, 1), (2, 2, 2, 2)]
]
WINDOWS2 = [
    dict(kernel_shape=[3, 2], strides=[1, 2], pads=[0, 1, 2, 0], dilations=[1, 1]),
    dict(kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 1, 2], dilations=[2, 1]),
    dict(kernel_shape=[1, 1], strides=[3, 3], pads=[0, 0, 0, 0], dilations=[1, 1]),
]
AUTO = [
    dict(auto_pad=auto, kernel_shape=[k, 3], strides=[s, 2])
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    for k in (2, 3)
    for s in (1, 3)
]

POOL_AUTO = [w for w in AUTO if w["strides"][0] == 1 or w["kernel_shape"][0] == 3 or w["auto_pad"] == "VALID"]

CONV = [
    case("Conv", (1, 4, 7), [ints(6, 4 // g, 3), *b], group=g, **w) for w in WINDOWS for g in (1, 2) for b in ([], [ints(6)])
]
CONV += [
    case("Conv", (1, 4, 6, 7), [ints(4, 4 // g, *w["kernel_shape"]), ints(4)], group=g, **w) for w in WINDOWS2 for g in (1, 4)
]
CONV += [case("Conv", (1, 2, 6, 7), [ints(3, 2, *w["kernel_shape"])], **w) for w in AUTO]
CONV += [case("Conv", (1, 2, 6, 7), [ints(3, 2, 2, 2)])]

POOLED = [(n, k, s, a, b) for n in (5, 6, 7) for k in (2, 3) for s in (1, 2, 3, 4) for a, b in ((0, 0), (1, 1), (0, 1), (1, 0))]
MAXPOOL = [
    case("MaxPool", (1, 2, n), kernel_shape=[k], strides=[s], pads=[a, b], ceil_mode=c, opset=12)
    for n, k, s, a, b in POOLED
    for c in (0, 1)
]
MAXPOOL += [case("MaxPool", (1, 2, 6, 7), ceil_mode=c, **w) for w in WINDOWS2 for c in (0, 1) if w["dilations"] == [1, 1]]
MAXPOOL += [case("MaxPool", (1, 2, 9), kernel_shape=[3], dilations=[2], pads=[1, 1], ceil_mode=c) for c in (0, 1)]
MAXPOOL += [case("MaxPool", (1, 2, 6, 7), **w) for w in POOL_AUTO]
AVGPOOL = [
    case("AveragePool", (1, 2, n), kernel_shape=[k], strides=[s], pads=[a, b], ceil_mode=c, count_include_pad=i, opset=11)
    for n, k, s, a, b in POOLED
    for c, i in itertools.product((0, 1), (0, 1))
]
AVGPOOL += [case("AveragePool", (1, 2, 6, 7), count_include_pad=i, **w) for w in POOL_AUTO for i in (0, 1)]
AVGPOOL += [
    case("AveragePool", (1, 2, 6, 7), kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 2, 1], ceil_mode=c, count_include_pad=i)
    for c, i in itertools.product((0, 1), (0, 1))
]

NORM = [
    case("BatchNormalization", shape, [ints(2), ints(2), ints(2), positive(2)], opset=opset, **eps)
    for shape in ((1, 2), (1, 2, 3), (1, 2, 3, 2))
    for opset in (7, 9, 15)
    for eps in ({}, {"epsilon": 0.25})
]

SHAPES = [case("Flatten", (1, 2, 3, 2), axis=axis) for axis in (-2, 0, 1, 2, 4)] + [case("Flatten", (1, 2, 3))]
SHAPES += [
    case("Reshape", (1, 2, 6), [np.array(shape, dtype=np.int64)])
    for shape in ([-1], [1, 12], [0, 0, 2, 3], [1, -1, 4], [0, -1], [2, 0, 3])
]
SHAPES += [case("Squeeze", (1, 2, 1, 3), [np.array(axes, dtype=np.int64)]) for axes in ([0], [2], [0, 2], [-2])]
SHAPES += [case("Squeeze", (1, 2, 1, 3)), case("Squeeze", (1, 2, 1), opset=11, axes=[2])]
SHAPES += [case("Unsqueeze", (1, 2), [np.array(axes, dtype=np.int64)]) for axes in ([0], [1, 3], [-1], [2, 0])]
SHAPES += [case("Unsqueeze", (1, 2), opset=11, axes=[1])]
SHAPES += [case("Transpose", (1, 2, 3, 4), perm=perm) for perm in ([0, 2, 3, 1], [3, 1, 0, 2])] + [case("Transpose", (1, 2, 3))]
SHAPES += [case("Identity", (1, 3)), case("Dropout", (1, 3), opset=12), case("Dropout", (1, 3), opset=7, ratio=0.3)]
SHAPES += [case("Concat", (1, 2, 3), inputs=["x", "x"], axis=axis) for axis in (0, 1, -1)]
SHAPES += [case("Pad", (1, 2, 3, 3), [np.array(pads, dtype=np.int64)]) for pads in ([0] * 8, [0, 0, 1, 2, 0, 0, 0, 1])] + [
    case("Pad", (1, 2, 3), opset=9, pads=[0, 0, 1, 0, 0, 2]),
    case("Pad", (1, 2, 3), [np.array([1, 2], dtype=np.int64), np.float32(0), np.array([2])], opset=18),
]

OTHERS = [
    case("Relu", (1, 5)),
    case("LeakyRelu", (1, 5)),
    case("LeakyRelu", (1, 5), alpha=0.3),
    case("LeakyRelu", (1, 5), alpha=1.0),
]
OTHERS += [
    case("LeakyRelu", (1, 5), alpha=0.0),
    case("Neg", (1, 5)),
    case("Add", (1, 5), inputs=["x", "x"]),
    case("Sub", (1, 5), inputs=["x", "x"]),
]
OTHERS += [
    case("Sum", (1, 5), inputs=["x", "x", "x"]),
    case("GlobalAveragePool", (1, 3, 4)),
    case("GlobalAveragePool", (1, 3, 4, 5)),
]

ALL = GEMM + MATMUL + ELEMENTWISE + CONV + MAXPOOL + AVGPOOL + NORM + SHAPES + OTHERS


@pytest.mark.parametrize("given", ALL, ids=[f"{node.op_type}-{k}" for k, (node, *_) in enumerate(ALL)])
def test_operator_agrees_with_onnxruntime(given, model, agrees):
    node, shape, weights, opset = given
    network = agrees(model([node], shape, weights, opset=opset))
    assert network.output == "y"


def test_every_operator_is_tested():
    assert {node.op_type for node, *_ in ALL} | {"Cast"} == set(OPERATORS)


def test_cast_to_double_and_back_is_a_copy(model, agrees):
    nodes = [make_node("Cast", ["x"], ["h"], to=TensorProto.DOUBLE), make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
    agrees(model(nodes, (1, 3)))


def test_a_cast_that_rounds_is_refused(model, read):
    nodes = [make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
    with pytest.raises(UnsupportedOp, match="to FLOAT16, which rounds values"):
        read(model(nodes, (1, 3)))


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


def test_leaky_slope_is_the_stored_float32(model, read):
    op = read(model([make_node("LeakyRelu", ["x"], ["y"], alpha=0.1)], (1, 1))).nodes[0].op
    assert isinstance(op, LeakyRelu) and op.slope == float(np.float32(0.1))


def test_ceil_mode_becomes_end_padding(model, read):
    """Length 5, kernel 2, stride 2: a third window holds the last entry alone, so its mean divides by 1."""
    node = make_node("AveragePool", ["x"], ["y"], kernel_shape=[2], strides=[2], ceil_mode=1)
    op = read(model([node], (1, 1, 5))).nodes[0].op
    assert isinstance(op, AveragePool) and op.padding == ((0, 1),) and op.divisor.tolist() == [2, 2, 1]


REFUSED = [
    (case("Sigmoid", (1, 3)), "operator Sigmoid at node 'node'"),
    (case("Mul", (1, 3), inputs=["x", "x"]), "product of two values"),
    (case("MatMul", (2, 2), inputs=["x", "x"]), "product of two values"),
    (case("Div", (1, 3), [positive(3)], ["w0", "x"]), "division by a value"),
    (case("LeakyRelu", (1, 3), alpha=-0.5), "slope -0.5"),
    (case("LeakyRelu", (1, 3), alpha=2.0), "slope 2.0"),
    (case("Add", (1, 3), [ints(2, 3)]), "to a larger shape"),
    (case("Cast", (1, 3), to=TensorProto.INT64), "to INT64"),
    (case("Conv", (1, 1, 3, 3, 3), [ints(1, 1, 2, 2, 2)]), "3 space axes"),
    (case("MaxPool", (1, 1, 4), kernel_shape=[1], pads=[1, 0]), "wholly in the padding"),
    (case("Pad", (1, 1, 3), [np.array([0, 0, 1, 0, 0, 1]), np.float32(2)]), "with value 2.0"),
    (case("Pad", (1, 3), [np.array([0, 1, 0, 1])]), "zeros around the space axes are"),
    (case("Concat", (1, 3), [ints(1, 3)], axis=1), "joins a value and a constant"),
    (case("MatMul", (2, 1, 3), [ints(2, 3, 2)]), "single matrix"),
    (case("Dropout", (1, 3), [np.float32(0.5), np.array(True)], opset=13), "training mode"),
    (case("MaxPool", (1, 1, 6), kernel_shape=[2], strides=[3], auto_pad="SAME_UPPER"), "padding that would be negative"),
    (case("AveragePool", (1, 1, 6), kernel_shape=[2], dilations=[2], opset=19), "dilation"),
]


@pytest.mark.parametrize("given, message", REFUSED, ids=[message for _, message in REFUSED])
def test_what_has_no_rule_is_refused_by_name(given, message, model, read):
    node, shape, weights, opset = given
    with pytest.raises(UnsupportedOp, match=message) as caught:
        read(model([node], shape, weights, opset=opset))
    assert caught.value.op == node.op_type and caught.value.node == "node"


def test_indices_of_a_maximum_are_refused(model, read):
    nodes = [make_node("MaxPool", ["x"], ["h", "i"], kernel_shape=[2]), make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]
    with pytest.raises(UnsupportedOp, match="MaxPool"):
        read(model(nodes, (1, 1, 4)))


def test_values_of_different_shapes_are_not_added(model, read):
    nodes = [make_node("Transpose", ["x"], ["h"]), make_node("Add", ["h", "x"], ["y"])]
    with pytest.raises(UnsupportedOp, match=r"different shapes: 'h' \(3, 1\), 'x' \(1, 3\)"):
        read(model(nodes, (1, 3)))


def test_pooling_with_dilation_keeps_it(model, read):
    op = read(model([make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], dilations=[3])], (1, 1, 8))).nodes[0].op
    assert isinstance(op, MaxPool) and op.dilation == (3,)
