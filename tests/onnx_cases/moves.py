"""Operators that move, choose, repeat and join entries."""

import numpy as np

from onnx_cases.building import case, drawn, whole

ints, _ = drawn(7)

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

MOVES = SHAPES + SLICES + GATHERS + FILLED + REPEATED
