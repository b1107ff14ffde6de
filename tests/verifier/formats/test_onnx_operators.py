"""Every ONNX operator, over its attributes, against onnxruntime."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.onnx_operators import OPERATORS
from verifier.ops import AveragePool, LeakyRelu, Linear, MaxPool, Power, Reshape, Scale

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
        ((1, 1, 3, 2), (4, 5, 3)),
    ]
]
MATMUL += [
    case("MatMul", shape, [ints(*weight)])
    for shape, weight in [((1, 4, 3), (5, 3, 2)), ((1, 5, 4, 3), (5, 3, 2)), ((5, 4, 3), (1, 5, 3, 2)), ((3,), (2, 3, 4))]
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


def whole(*numbers):
    return np.array(numbers, dtype=np.int64)


ELEMENTWISE += [
    case(op, shape, [positive(*weight)], order)
    for op in ("Add", "Sub", "Mul")
    for shape, weight in [((1, 3), (2, 3)), ((1, 1), (2, 3)), ((3,), (2, 1)), ((2, 1, 2), (3, 1))]
    for order in (["x", "w0"], ["w0", "x"])
]
POWERS = [case("Pow", (1, 5), [np.float32(n)]) for n in (1, 2, 3, 4)]
POWERS += [case("Pow", (1, 5), [np.full((2, 1), 2, dtype=np.float32)]), case("Pow", (1, 5), [np.int64(3)])]
CURVES = [case(op, (2, 5)) for op in ("Abs", "Exp", "Floor", "Sigmoid", "Sign", "Sin", "Cos", "Tanh")]
CLIPS = [case("Clip", (1, 9), [np.float32(n) for n in bounds]) for bounds in ((), (-2,), (-2, 3), (0, 6), (1.5, 1.5))]
CLIPS += [case("Clip", (1, 9), [np.float32(3)], ["x", "", "w0"]), case("Clip", (1, 9), opset=6, min=-2.0, max=3.0)]
CLIPS += [case("Clip", (1, 9), opset=6, max=3.0), case("Clip", (1, 9), [-np.finfo(np.float32).max, np.float32(2)])]
EXTREMES = [
    case(op, (2, 3), [ints(*shape) for shape in shapes], order)
    for op in ("Max", "Min", "Sum")
    for shapes, order in [
        ([], ["x"]),
        ([], ["x", "x"]),
        ([(3,)], ["w0", "x"]),
        ([(2, 3), (1,)], ["x", "w0", "x", "w1"]),
        ([(2, 2, 1)], ["x", "w0"]),
    ]
]
SLICES = [
    case("Slice", (1, 7, 4), [whole(s), whole(e), whole(a), whole(k)])
    for s, e, a, k in [
        (0, 3, 1, 1),
        (2, 2**63 - 1, 1, 2),
        (-1, -(2**63), 1, -1),
        (-2, -7, -2, -2),
        (6, 0, 1, -3),
        (1, -1, 2, 1),
        (-100, 100, 1, 3),
        (100, -100, 1, -3),
    ]
]
SLICES += [
    case("Slice", (3, 7), [whole(1, 0), whole(3, 5)]),
    case("Slice", (3, 7), [whole(2, 1), whole(7, 3), whole(1, 0)]),
    case("Slice", (3, 7), opset=9, starts=[1, 0], ends=[3, -1], axes=[1, 0]),
]
GATHERS = [
    case("Gather", (2, 5), [indices], axis=axis)
    for axis, indices in [(1, whole(0, -1, 4, 4)), (-1, np.int64(2)), (0, whole(1, 0)), (1, np.array([[0, 1], [-5, 2]]))]
] + [case("Gather", (5,), [whole(3, 1)])]
FILLED = [
    case("Pad", (1, 2, 3), [whole(*pads), np.float32(1.5)])
    for pads in ([0, 1, 1, 0, 0, 2], [1, 0, 0, 0, 0, 0], [0, 0, -1, 0, 0, 2], [0, -1, 0, 0, 0, -2])
]
FILLED += [case("Pad", (1, 2, 3), [whole(0, 1, 2, 0, 0, 1)], mode=mode) for mode in ("edge", "reflect")]
FILLED += [
    case("Concat", (1, 3), [ints(1, 2), ints(1, 1)], order, axis=1)
    for order in (["w0", "x"], ["x", "w0", "x", "w1"], ["x", "w0"])
]
FILLED += [case("Concat", (2, 3), [np.zeros((1, 3), dtype=np.float32)], axis=-2)]
REPEATED = [case("Expand", (2, 1, 3), [whole(*shape)]) for shape in ([2, 4, 3], [1], [5, 1, 1, 3], [3])]
REPEATED += [case("Tile", (2, 3), [whole(*repeats)]) for repeats in ([1, 1], [2, 3])]
REDUCED = [
    case("ReduceSum", (2, 3, 4), [whole(*axes)], keepdims=keep) for axes in ([0], [1], [-1, 0], [0, 1, 2]) for keep in (0, 1)
]
REDUCED += [case("ReduceMean", (2, 3, 4), axes=axes, keepdims=keep) for axes in ([0], [1], [2, 0]) for keep in (0, 1)]
REDUCED += [
    case("ReduceSum", (2, 3)),
    case("ReduceSum", (2, 3), noop_with_empty_axes=1),
    case("ReduceMean", (2, 3)),
    case("ReduceMean", (2, 3), [whole(1)], opset=18),
    case("ReduceMean", (3, 1, 2), axes=[1], keepdims=0),
]
SOFTMAX = [case("Softmax", (1, 2, 3, 2), axis=axis) for axis in (0, 1, 2, -1)] + [case("Softmax", (2, 3))]
SOFTMAX += [case("Softmax", (2, 3, 2), opset=11, axis=axis) for axis in (1, 2, -1)] + [case("Softmax", (2, 3), opset=9)]

GATES = [case("Erf", (1, 9)), case("Gelu", (1, 9), opset=20), case("Gelu", (1, 9), opset=20, approximate="tanh")]
LAYERNORM = [
    case("LayerNormalization", (2, 3, 4), [ints(*shape), *more], opset=17, axis=axis, epsilon=epsilon)
    for axis, shape in [(-1, (4,)), (1, (3, 4)), (2, (4,))]
    for more in ([], [ints(*shape)])
    for epsilon in (1e-5, 0.5)
]

ALL = GEMM + MATMUL + ELEMENTWISE + CONV + MAXPOOL + AVGPOOL + NORM + SHAPES + OTHERS
ALL += POWERS + CURVES + CLIPS + EXTREMES + SLICES + GATHERS + FILLED + REPEATED + REDUCED + SOFTMAX
ALL += GATES + LAYERNORM
ALL += [case("Mul", (1, 5), inputs=["x", "x"])]


@pytest.mark.parametrize("given", ALL, ids=[f"{node.op_type}-{k}" for k, (node, *_) in enumerate(ALL)])
def test_operator_agrees_with_onnxruntime(given, model, agrees):
    node, shape, weights, opset = given
    network = agrees(model([node], shape, weights, opset=opset))
    assert network.output == "y"


def test_every_operator_is_tested():
    elsewhere = {"Cast", "LogSoftmax", "Reciprocal", "Split", "Sqrt", "Where"}
    assert {node.op_type for node, *_ in ALL} | elsewhere == set(OPERATORS)


def two_values(op, left, right, **attributes):
    """`op` of slices of x, of the given lengths, as columns or rows."""
    shapes = {"a": left, "b": right}
    nodes, weights, begin = [], {"axis": whole(0)}, 0
    for name, shape in shapes.items():
        end = begin + int(np.prod(shape))
        weights |= {f"{name}_begin": whole(begin), f"{name}_end": whole(end), f"{name}_shape": whole(*shape)}
        nodes.append(make_node("Slice", ["x", f"{name}_begin", f"{name}_end", "axis"], [f"{name}_flat"]))
        nodes.append(make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]))
        begin = end
    return [*nodes, make_node(op, ["a", "b"], ["y"], **attributes)], (begin,), weights


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min", "Sum"])
@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((2, 1), (1, 3)), ((3,), (2, 3)), ((1,), (2, 2)), ((2, 1, 2), (3, 1))])
def test_two_values_broadcast(op, shapes, model, agrees):
    nodes, shape, weights = two_values(op, *shapes)
    agrees(model(nodes, shape, weights))


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


@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((2, 1), (1, 3)), ((2, 3), (1,))])
def test_a_value_is_divided_by_another(shapes, model, agrees):
    """The divisor is 3 + |b|."""
    nodes, shape, weights = two_values("Div", *shapes)
    nodes[-1:] = [
        make_node("Abs", ["b"], ["size"]),
        make_node("Add", ["size", "three"], ["divisor"]),
        make_node("Div", ["a", "divisor"], ["y"]),
    ]
    agrees(model(nodes, shape, weights | {"three": np.float32(3)}))


@pytest.mark.parametrize("op, weights", [("Reciprocal", {}), ("Div", {"w": ints(2, 3)}), ("Pow", {"w": np.float32(-1)})])
def test_inverses(op, weights, model, agrees):
    inputs = {"Reciprocal": ["h"], "Div": ["w", "h"], "Pow": ["h", "w"]}[op]
    nodes = [make_node("Exp", ["x"], ["h"]), make_node(op, inputs, ["y"])]
    agrees(model(nodes, (1, 3), weights))


@pytest.mark.parametrize("op, exponent", [("Sqrt", None), ("Pow", 0.5), ("Pow", -0.5)])
def test_roots(op, exponent, model, agrees):
    weights = {} if exponent is None else {"w": np.float32(exponent)}
    agrees(model([make_node("Exp", ["x"], ["h"]), make_node(op, ["h", *weights], ["y"])], (1, 3), weights))


def test_negative_powers(model, agrees):
    nodes = [make_node("Exp", ["x"], ["h"]), make_node("Pow", ["h", "w"], ["y"])]
    agrees(model(nodes, (1, 3), {"w": np.float32(-2)}), rtol=1e-4)


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_split(opset, model, agrees):
    lengths = {"split": [1, 4]} if opset < 13 else {}
    names = ["x"] if opset < 13 else ["x", "parts"]
    nodes = [make_node("Split", names, ["a", "b"], axis=-1, **lengths), make_node("Mul", ["a", "b"], ["y"])]
    agrees(model(nodes, (2, 5), {"parts": whole(1, 4)} if opset >= 13 else {}, opset=opset))


@pytest.mark.parametrize("length, attributes, opset", [(6, {}, 13), (7, {"num_outputs": 3}, 18)])
def test_split_in_equal_parts(length, attributes, opset, model, agrees):
    nodes = [make_node("Split", ["x"], ["a", "b", "c"], axis=1, **attributes), make_node("Concat", ["c", "a"], ["y"], axis=1)]
    agrees(model(nodes, (1, length), opset=opset))


@pytest.mark.parametrize("op", ["Floor", "Sign"])
def test_steps_between_whole_numbers(op, model, agrees):
    agrees(model([make_node("Mul", ["x", "w"], ["h"]), make_node(op, ["h"], ["y"])], (1, 9), {"w": np.float32(0.375)}))


def test_a_square_is_a_power(model, read):
    """The square has tighter bounds than a product of two values that do not know of each other."""
    op = read(model([make_node("Mul", ["x", "x"], ["y"])], (1, 3))).nodes[0].op
    assert isinstance(op, Power) and op.exponent == 2


def test_softmax_keeps_its_inner_names_apart(model, agrees):
    """The model itself uses a name that the rewriting would take."""
    nodes = [
        make_node("Softmax", ["x"], ["y/own"]),
        make_node("Softmax", ["y/own"], ["y/own/own"]),
        make_node("Softmax", ["y/own/own"], ["y"]),
    ]
    network = agrees(model(nodes, (1, 3)))
    assert {"y/own", "y/own/own", "y", "y/own'"} <= set(network.shapes)


def test_large_differences_do_not_overflow_a_softmax(model, agrees):
    nodes = [make_node("Mul", ["x", "w"], ["h"]), make_node("Softmax", ["h"], ["y"])]
    agrees(model(nodes, (1, 4), {"w": np.float32(200)}))


def test_unneeded_moves_are_reshapes(model, read):
    """Slices of everything, and gathers in order, select nothing."""
    nodes = [make_node("Slice", ["x", "s", "e"], ["h"]), make_node("Gather", ["h", "g"], ["y"], axis=1)]
    network = read(model(nodes, (1, 3), {"s": whole(0), "e": whole(9), "g": whole(0, 1, 2)}))
    assert [type(node.op) for node in network.nodes] == [Reshape, Reshape]


def test_constant_sizes_of_other_operators_are_folded(model, agrees):
    """Range, Tile, Where, Equal, Split, Pad and ReduceProd on constants."""
    weights = {
        "zero": np.int64(0),
        "three": np.int64(3),
        "one": np.int64(1),
        "two": whole(2),
        "pads": whole(0, 1),
        "parts": whole(2, 1),
    }
    nodes = [
        make_node("Range", ["zero", "three", "one"], ["r"]),
        make_node("Tile", ["r", "two"], ["t"]),
        make_node("Equal", ["t", "one"], ["q"]),
        make_node("Where", ["q", "three", "t"], ["v"]),
        make_node("Split", ["r", "parts"], ["r0", "r1"], axis=0),
        make_node("Concat", ["v", "r1"], ["c"], axis=0),
        make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        make_node("Pad", ["f", "pads"], ["p"]),
        make_node("Mul", ["x", "p"], ["y"]),
    ]
    agrees(model(nodes, (1, 8), weights))


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
    (case("Tan", (1, 3)), "operator Tan at node 'node'"),
    (case("LogSoftmax", (1, 3)), "a logarithm; Softmax is"),
    (case("Pow", (1, 3), [np.float32(1.5)]), "exponent 1.5"),
    (case("Pow", (1, 3), [np.float32(0)]), "exponent 0.0"),
    (case("Pow", (1, 3), [np.float32([2, 3, 2])]), "exponent 2.0, 3.0"),
    (case("Pow", (1, 3), [np.float32(10**6)]), "exponent 1000000.0"),
    (case("Pow", (1, 3), inputs=["x", "x"]), "exponent that is computed"),
    (case("Clip", (1, 3), [np.float32(2), np.float32(1)]), "lower bound 2.0 above the upper bound 1.0"),
    (case("LeakyRelu", (1, 3), alpha=-0.5), "slope -0.5"),
    (case("LeakyRelu", (1, 3), alpha=2.0), "slope 2.0"),
    (case("Cast", (1, 3), to=TensorProto.INT64), "to INT64"),
    (case("Conv", (1, 1, 3, 3, 3), [ints(1, 1, 2, 2, 2)]), "3 space axes"),
    (case("MaxPool", (1, 1, 4), kernel_shape=[1], pads=[1, 0]), "wholly in the padding"),
    (case("Pad", (1, 3), [np.array([0, 1, 0, 1])], opset=19, mode="wrap"), "mode wrap"),
    (case("Slice", (1, 3), [whole(2), whole(1)]), "an empty result of shape"),
    (case("Softmax", (1, 2049)), "4198401 differences"),
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


MISFITS = [
    (case("Add", (1, 3), [ints(1, 2)]), r"shapes \(1, 3\), \(\), \(1, 2\) do not broadcast to one"),
    (case("Gather", (1, 3), [whole(3)], axis=1), r"indices must lie in -3\.\.2 along axis 1"),
    (case("Gather", (1, 3), [whole(0)], axis=2), "axis 2 is out of range for rank 2"),
    (case("Slice", (1, 3), [whole(0), whole(1), whole(0), whole(0)]), r"steps \[0\] do not fit"),
    (case("Slice", (1, 3), [whole(0), whole(1), whole(5)]), r"axes \[5\]"),
    (case("Split", (1, 3), [whole(1)], axis=1), r"parts \[1\] do not make up the length 3"),
    (case("Concat", (1, 3), [ints(2, 2)], axis=1), r"shapes \(1, 3\), \(2, 2\) cannot be joined along axis 1"),
    (case("Tile", (1, 3), [whole(0, 1)]), r"repeats \[0, 1\]"),
    (case("Expand", (1, 3), [whole(0, 3)]), r"\(0, 3\) is not a shape"),
    (case("Pad", (1, 3), [whole(0, -3, 0, 0)]), "does not fit shape"),
    (case("ReduceSum", (1, 3), [whole(2)]), "repeated or out of range"),
    (case("Div", (1, 3), [np.float32([1, 0, 2])]), "divides by zero"),
]


@pytest.mark.parametrize("given, message", MISFITS, ids=[message for _, message in MISFITS])
def test_what_does_not_fit_is_named(given, message, model, read):
    node, shape, weights, opset = given
    content = model([make_node("Relu", ["x"], ["y"])], shape, weights, opset=opset)
    del content.graph.node[:]
    content.graph.node.append(node)
    with pytest.raises(BadNetwork, match=message):
        read(content)


def test_pooling_with_dilation_keeps_it(model, read):
    op = read(model([make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], dilations=[3])], (1, 1, 8))).nodes[0].op
    assert isinstance(op, MaxPool) and op.dilation == (3,)
