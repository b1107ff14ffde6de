"""Small model files and queries for the tests of command lines."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_distance(path: Path) -> Path:
    """y = |x0 - x1| with the hidden value h of shape [1, 2], as an ONNX file; returns the path."""
    weights = {"w": np.array([[1, -1], [-1, 1]], dtype=np.float32), "v": np.array([[1], [1]], dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "distance",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def query1(at_least: float) -> str:
    """VNN-LIB 1.0: some x in [0, 1]^2 with y >= at_least."""
    declared = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0"))
    box = "".join(f"(assert (>= X_{i} 0.0))\n(assert (<= X_{i} 1.0))\n" for i in range(2))
    return f"{declared}{box}(assert (>= Y_0 {at_least}))\n"


def query2(at_least: float, hidden_at_most: float, kind: str = "real") -> str:
    """VNN-LIB 2.0 with a hidden value: some x in [0, 1]^2 with y >= at_least and h[0,0] <= hidden_at_most."""
    box = "".join(f"(assert (>= X[0,{i}] 0.0))\n(assert (<= X[0,{i}] 1.0))\n" for i in range(2))
    return (
        f"(vnnlib-version <2.0>)\n(declare-network f\n  (declare-input X {kind} [1,2])\n"
        f'  (declare-hidden H {kind} [1,2] "h")\n  (declare-output Y {kind} [1,1])\n)\n'
        f"{box}(assert (<= H[0,0] {hidden_at_most}))\n(assert (>= Y[0,0] {at_least}))\n"
    )
