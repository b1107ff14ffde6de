"""What the cases are built of."""

from collections.abc import Callable

import numpy as np
from onnx.helper import make_node

Draw = Callable[..., np.ndarray]


def drawn(seed: int) -> tuple[Draw, Draw]:
    """Two functions of a shape, which draw whole numbers as float32: of -4 to 4, and of 1 to 4."""
    rng = np.random.default_rng(seed)

    def ints(*shape):
        return rng.integers(-4, 5, size=shape).astype(np.float32)

    def positive(*shape):
        return rng.integers(1, 5, size=shape).astype(np.float32)

    return ints, positive


def whole(*numbers):
    return np.array(numbers, dtype=np.int64)


def case(op, shape, weights=(), inputs=None, opset=13, **attributes):
    """A one-node model; the value is `x`, the weights are `w0`, `w1`, ..."""
    named = {f"w{k}": w for k, w in enumerate(weights)}
    return make_node(op, inputs or ["x", *named], ["y"], name="node", **attributes), shape, named, opset


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
