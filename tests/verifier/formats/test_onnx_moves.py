"""Splits, moves that select nothing, and sizes that are computed from constants."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node
from onnx_cases.building import whole

from verifier.ops import Reshape


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
