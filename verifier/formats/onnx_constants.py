"""Constants of an ONNX graph: stored tensors, and what can be computed from them before any input is known."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import MAX_ENTRIES
from verifier.formats.onnx_model import FLOAT_TYPES
from verifier.ops import Array, frozen_array

Constant: TypeAlias = np.ndarray[Any, Any]

INTEGER_TYPES = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def stored(tensor: TensorProto, name: str) -> Constant:
    """The numbers of a stored tensor, -inf among them. Raises BadNetwork, naming it, where they are damaged, NaN or +inf."""
    if tensor.data_type not in FLOAT_TYPES + INTEGER_TYPES:
        kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else "unknown"
        raise BadNetwork(f"initializer {name!r} has type {kind}; only float, double, half, int and bool tensors are allowed")
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        shape = tuple(tensor.dims)
        raise BadNetwork(f"initializer {name!r} does not hold the {shape} entries it declares ({error})") from error
    if tensor.data_type in FLOAT_TYPES:
        array = array if array.dtype.kind == "f" else array.astype(np.float32)
        _check_numbers(array, f"initializer {name!r}")
    return array


def constant_node(node: NodeProto, label: str) -> Constant:
    """The value of a Constant node."""
    attribute = node.attribute[0]
    given = helper.get_attribute_value(attribute)
    match attribute.name:
        case "value":
            return stored(given, node.output[0])
        case "value_float" | "value_floats":
            array = np.array(given, dtype=np.float32)
            _check_numbers(array, f"constant {node.output[0]!r}")
            return array
        case "value_int" | "value_ints":
            return np.array(given, dtype=np.int64)
        case _:
            raise UnsupportedOp("Constant", label, f"attribute {attribute.name}")


def weights(constant: Constant, name: str, *, masks: bool = False) -> Array:
    """A floating-point constant as exact float64; raises BadNetwork where it is of another kind or not finite.

    masks: -inf is allowed, as in what is added to attention scores.
    """
    if constant.dtype.kind != "f":
        raise BadNetwork(f"constant {name!r} has type {constant.dtype}; a floating-point tensor is needed here")
    if masks:
        _check_numbers(constant, f"constant {name!r}")
    elif not np.isfinite(constant).all():
        raise BadNetwork(f"constant {name!r} has NaN or infinite entries; every weight must be a finite number")
    return frozen_array(constant)


def _check_numbers(constant: Constant, owner: str) -> None:
    """Refuses NaN and +inf; -inf is a mask, which only few operators take."""
    if np.isnan(constant).any() or np.isposinf(constant).any():
        raise BadNetwork(f"{owner} has NaN or infinite entries; every weight must be a finite number")


def fold(node: NodeProto, label: str, inputs: Sequence[Constant | None], opsets: Mapping[str, int]) -> list[Constant]:
    """The node's outputs, computed from constants in the types of the file by onnx's reference evaluator.

    Raises UnsupportedOp for an operator outside FOLDED, BadNetwork where it fails or its result would be too large.
    """
    predict = FOLDED.get(node.op_type)
    if predict is None or (len(node.output) != 1 and node.op_type != "Split"):
        raise UnsupportedOp(node.op_type, label, "applied to constants")
    try:
        size = predict(*inputs)
    except (ArithmeticError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise BadNetwork(f"node {label!r} ({node.op_type}) does not fit its constant inputs: {error}") from error
    if not 0 <= size <= MAX_ENTRIES:
        raise BadNetwork(
            f"node {label!r} ({node.op_type}) may make a constant of {size} entries; at most {MAX_ENTRIES} are allowed"
        )
    named = {name: array for name, array in zip(node.input, inputs, strict=True) if array is not None}
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(_single(node, opsets)).run(None, named)
    except Exception as error:  # the evaluator documents no exception types; whatever it raises means a bad node
        raise BadNetwork(f"node {label!r} ({node.op_type}) cannot be computed: {error}") from error
    return [np.asarray(result) for result in results]


def _single(node: NodeProto, opsets: Mapping[str, int]) -> ModelProto:
    """A model of this node alone, so that it is evaluated in the opset of its file."""
    inputs, outputs = ([ValueInfoProto(name=name) for name in names if name] for names in (node.input, node.output))
    graph = helper.make_graph([node], "constant", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*entry) for entry in opsets.items()])


def _input_size(*inputs: Constant | None) -> int:
    return sum(array.size for array in inputs if array is not None)


def _broadcast_size(*inputs: Constant | None) -> int:
    return math.prod(np.broadcast_shapes(*(array.shape for array in inputs if array is not None)))


def _filled_size(*inputs: Constant | None) -> int:
    return math.prod(_ints(inputs[0]))


def _expanded_size(*inputs: Constant | None) -> int:
    first = inputs[0]
    assert first is not None
    lengths = tuple(_ints(inputs[1]))
    rank = max(len(lengths), first.ndim)
    a, b = ((1,) * (rank - len(s)) + tuple(s) for s in (first.shape, lengths))
    return math.prod(max(m, n) for m, n in zip(a, b, strict=True))


def _gathered_size(*inputs: Constant | None) -> int:
    data, indices = inputs
    assert data is not None and indices is not None
    # sound: one axis is replaced by those of the indices, and the shortest leaves the most
    return indices.size * (data.size // max(min(data.shape, default=1), 1))


def _tiled_size(*inputs: Constant | None) -> int:
    return _input_size(inputs[0]) * math.prod(_ints(inputs[1]))


def _padded_size(*inputs: Constant | None) -> int:
    first, pads = inputs[0], _ints(inputs[1])
    assert first is not None
    # sound: at most this much longer along every axis
    return math.prod(n + sum(abs(pad) for pad in pads) for n in first.shape)


def _range_size(*inputs: Constant | None) -> int:
    start, limit, step = (float(array.item()) for array in inputs if array is not None)
    return max(math.ceil((limit - start) / step), 0)


def _product_size(*inputs: Constant | None) -> int:
    a, b = inputs
    assert a is not None and b is not None
    return a.size * b.size // max(a.shape[-1], 1)


def _ints(array: Constant | None) -> list[int]:
    assert array is not None
    return [int(n) for n in array.reshape(-1)]


FOLDED: Mapping[str, Callable[..., int]] = {
    "Abs": _input_size,
    "Add": _broadcast_size,
    "And": _broadcast_size,
    "Cast": _input_size,
    "Ceil": _input_size,
    "Clip": _input_size,
    "Concat": _input_size,
    "ConstantOfShape": _filled_size,
    "Cos": _input_size,
    "Div": _broadcast_size,
    "Equal": _broadcast_size,
    "Exp": _input_size,
    "Expand": _expanded_size,
    "Flatten": _input_size,
    "Floor": _input_size,
    "Gather": _gathered_size,
    "Greater": _broadcast_size,
    "GreaterOrEqual": _broadcast_size,
    "Identity": _input_size,
    "IsNaN": _input_size,
    "Less": _broadcast_size,
    "LessOrEqual": _broadcast_size,
    "MatMul": _product_size,
    "Max": _broadcast_size,
    "Min": _broadcast_size,
    "Mul": _broadcast_size,
    "Neg": _input_size,
    "Not": _input_size,
    "Or": _broadcast_size,
    "Pad": _padded_size,
    "Pow": _broadcast_size,
    "Range": _range_size,
    "Reciprocal": _input_size,
    "ReduceMax": _input_size,
    "ReduceMean": _input_size,
    "ReduceMin": _input_size,
    "ReduceProd": _input_size,
    "ReduceSum": _input_size,
    "Relu": _input_size,
    "Reshape": _input_size,
    "Shape": _input_size,
    "Sigmoid": _input_size,
    "Sign": _input_size,
    "Sin": _input_size,
    "Slice": _input_size,
    "Split": _input_size,
    "Sqrt": _input_size,
    "Squeeze": _input_size,
    "Sub": _broadcast_size,
    "Sum": _broadcast_size,
    "Tanh": _input_size,
    "Tile": _tiled_size,
    "Transpose": _input_size,
    "Trilu": _input_size,
    "Unsqueeze": _input_size,
    "Where": _broadcast_size,
}
"""Operators folded on constants, each with an upper bound on the entries of its result, known before it is computed."""
