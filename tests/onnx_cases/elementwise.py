"""Arithmetic, activations and softmax."""

import numpy as np

from onnx_cases.building import case, drawn

ints, positive = drawn(7)

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
]
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

SOFTMAX = [case("Softmax", (1, 2, 3, 2), axis=axis) for axis in (0, 1, 2, -1)] + [case("Softmax", (2, 3))]
SOFTMAX += [case("Softmax", (2, 3, 2), opset=11, axis=axis) for axis in (1, 2, -1)] + [case("Softmax", (2, 3), opset=9)]

GATES = [case("Erf", (1, 9)), case("Gelu", (1, 9), opset=20), case("Gelu", (1, 9), opset=20, approximate="tanh")]

ARITHMETIC = ELEMENTWISE + OTHERS + POWERS + CURVES + CLIPS + EXTREMES + SOFTMAX + GATES
ARITHMETIC += [case("Mul", (1, 5), inputs=["x", "x"])]
