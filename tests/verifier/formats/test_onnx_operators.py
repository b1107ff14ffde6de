"""Every ONNX operator, over its attributes, against onnxruntime; and what is refused."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node
from onnx_cases.building import case, drawn, whole
from onnx_cases.elementwise import ARITHMETIC
from onnx_cases.layers import LAYERS
from onnx_cases.moves import MOVES

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.onnx_operators import OPERATORS

ints, _ = drawn(9)

ALL = LAYERS + ARITHMETIC + MOVES


@pytest.mark.parametrize("given", ALL, ids=[f"{node.op_type}-{k}" for k, (node, *_) in enumerate(ALL)])
def test_operator_agrees_with_onnxruntime(given, model, agrees):
    node, shape, weights, opset = given
    network = agrees(model([node], shape, weights, opset=opset))
    assert network.output == "y"


def test_every_operator_is_tested():
    elsewhere = {"Cast", "LogSoftmax", "Reciprocal", "Split", "Sqrt", "Where"}
    assert {node.op_type for node, *_ in ALL} | elsewhere == set(OPERATORS)


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
    (case("MaxPool", (1, 1, 6), kernel_shape=[2], dilations=[2], auto_pad="SAME_UPPER"), r"padding with dilations \(2,\)"),
    (case("AveragePool", (1, 1, 6), kernel_shape=[2], dilations=[2], opset=19), "dilation"),
]


@pytest.mark.parametrize("given, message", REFUSED, ids=[message for _, message in REFUSED])
def test_what_has_no_rule_is_refused_by_name(given, message, model, read):
    node, shape, weights, opset = given
    with pytest.raises(UnsupportedOp, match=message) as caught:
        read(model([node], shape, weights, opset=opset))
    assert caught.value.op == node.op_type and caught.value.node == "node"


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
