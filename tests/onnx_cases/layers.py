"""Matrix products, convolutions, pools, norms and sums over axes."""

import itertools

from onnx_cases.building import case, drawn, whole

ints, positive = drawn(7)

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

LAYERNORM = [
    case("LayerNormalization", (2, 3, 4), [ints(*shape), *more], opset=17, axis=axis, epsilon=epsilon)
    for axis, shape in [(-1, (4,)), (1, (3, 4)), (2, (4,))]
    for more in ([], [ints(*shape)])
    for epsilon in (1e-5, 0.5)
]

GLOBAL = [case("GlobalAveragePool", (1, 3, 4)), case("GlobalAveragePool", (1, 3, 4, 5))]

LAYERS = GEMM + MATMUL + CONV + MAXPOOL + AVGPOOL + GLOBAL + NORM + LAYERNORM + REDUCED
