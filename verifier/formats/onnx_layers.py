"""ONNX operators with weights or windows: matrix products, convolutions, pooling, normalisation."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from verifier.errors import BadNetwork
from verifier.formats.build import affine, swapped_axes
from verifier.formats.normalisation import layer_norm
from verifier.formats.onnx_call import Call
from verifier.formats.products import multiplied
from verifier.formats.rewrites import ONE, total
from verifier.formats.scales import batch_norm, scaled
from verifier.formats.windows import Windows, average_pool, max_pool, same_padding, windows
from verifier.ops import Array, Conv, frozen_array


def _gemm(call: Call) -> None:
    alpha, beta = float(call.attributes.get("alpha", 1.0)), float(call.attributes.get("beta", 1.0))
    turned = [bool(call.attributes.get(key, 0)) for key in ("transA", "transB")]
    third = call.name(2)
    if not call.is_constant(1):
        _gemm_constant_first(call, alpha, beta, turned)
        return
    weight = alpha * (call.weights(1) if turned[1] else call.weights(1).T)
    source = call.value(0)
    if turned[0]:
        source = call.builder.step(call.output, "transposed", swapped_axes(2), source)
    if not third:
        call.builder.add(call.output, affine(weight), source)
    elif call.is_constant(2) and _is_row(bias := beta * call.weights(2)):
        call.builder.add(call.output, affine(weight, bias.reshape(-1)), source)
    else:
        _plus(call, call.builder.step(call.output, "product", affine(weight), source), beta)


def _gemm_constant_first(call: Call, alpha: float, beta: float, turned: list[bool]) -> None:
    weight = alpha * (call.weights(0).T if turned[0] else call.weights(0))
    # alpha A B is the transpose of B^T (alpha A)^T, and a product with a transposed B needs no turning
    source = call.value(1)
    if not turned[1]:
        source = call.builder.step(call.output, "transposed", swapped_axes(2), source)
    product = call.builder.step(call.output, "product", affine(weight), source)
    if not call.name(2):
        call.builder.add(call.output, swapped_axes(2), product)
    else:
        _plus(call, call.builder.step(call.output, "untransposed", swapped_axes(2), product), beta)


def _is_row(constant: Array) -> bool:
    return constant.ndim < 2 or constant.shape[0] == 1


def _plus(call: Call, product: str, beta: float) -> None:
    """output = product + beta * the third input, which may be a constant or a value."""
    if call.is_constant(2):
        scaled(call.builder, call.output, product, ONE, beta * call.weights(2), op=call.op, node=call.label)
    else:
        total(call.builder, call.output, [product, call.value(2)], [1.0, beta], op=call.op, node=call.label)


def _matmul(call: Call) -> None:
    left, right = (call.weights(k) if call.is_constant(k) else call.value(k) for k in (0, 1))
    multiplied(call.builder, call.output, left, right, op=call.op, node=call.label)


def _conv(call: Call) -> None:
    weight = call.weights(1)
    _check_space(call, weight.ndim - 2)
    if tuple(call.attributes.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise BadNetwork(f"Conv at {call.label!r}: kernel_shape contradicts the weight of shape {weight.shape}")
    shape = _windows(call, weight.shape[2:])
    bias = call.weights(2) if call.name(2) else np.zeros(len(weight))
    groups = int(call.attributes.get("group", 1))
    op = Conv(weight, frozen_array(bias), shape.stride, shape.padding, shape.dilation, groups)
    call.builder.add(call.output, op, call.value(0))


def _max_pool(call: Call) -> None:
    call.one_output()
    _check_space(call, len(call.attributes["kernel_shape"]))
    shape = _windows(call, call.attributes["kernel_shape"])
    call.builder.add(call.output, max_pool(shape, call.op, call.label), call.value(0))


def _average_pool(call: Call) -> None:
    _check_space(call, len(call.attributes["kernel_shape"]))
    shape = _windows(call, call.attributes["kernel_shape"])
    count_padding = bool(call.attributes.get("count_include_pad", 0))
    op = average_pool(shape, count_padding=count_padding, op=call.op, node=call.label)
    call.builder.add(call.output, op, call.value(0))


def _global_average_pool(call: Call) -> None:
    space = call.shape(0)[2:]
    _check_space(call, len(space))
    ones, none = (1,) * len(space), ((0, 0),) * len(space)
    shape = windows(space, space, stride=ones, dilation=ones, padding=none, ceil_mode=False)
    call.builder.add(call.output, average_pool(shape, count_padding=False, op=call.op, node=call.label), call.value(0))


def _check_space(call: Call, axes: int) -> None:
    if axes not in (1, 2):
        raise call.refuse(f"{axes} space axes; 1 and 2 are")
    if len(call.shape(0)) != axes + 2 or call.shape(0)[0] != 1:
        raise BadNetwork(f"{call.op} at {call.label!r} needs shape (1, channels, *space), got {call.shape(0)}")


def _windows(call: Call, kernel: Sequence[int]) -> Windows:
    space, size = call.shape(0)[2:], tuple(int(k) for k in kernel)
    stride, dilation = (tuple(int(n) for n in call.attributes.get(key, (1,) * len(space))) for key in ("strides", "dilations"))
    auto = call.text("auto_pad", "NOTSET")
    match auto:
        case "NOTSET":
            flat = [int(n) for n in call.attributes.get("pads", (0,) * (2 * len(space)))]
            padding = tuple(zip(flat[: len(flat) // 2], flat[len(flat) // 2 :], strict=True)) if len(flat) % 2 == 0 else ()
        case "VALID":
            padding = ((0, 0),) * len(space)
        case "SAME_UPPER" | "SAME_LOWER":
            if len({len(space), len(size), len(stride), len(dilation)}) != 1 or min((*size, *stride, *dilation)) < 1:
                raise BadNetwork(f"{call.op} at {call.label!r}: kernel, strides and dilations do not fit {space}")
            axes = zip(space, size, stride, dilation, strict=True)
            if call.op != "Conv" and any((-(-n // s) - 1) * s + d * (k - 1) + 1 < n for n, k, s, d in axes):
                # runtimes clip it to zero for convolutions and disagree for pooling
                raise call.refuse(f"automatic padding that would be negative, as stride {stride} skips entries")
            if call.op != "Conv" and max(dilation) > 1:
                # the standard counts the dilation, onnxruntime does not
                raise call.refuse(f"automatic padding with dilations {dilation}; give the pads")
            padding = same_padding(space, size, stride=stride, dilation=dilation, lower=auto == "SAME_LOWER")
        case _:
            raise BadNetwork(f"{call.op} at {call.label!r}: auto_pad {auto!r} is not known to ONNX")
    ceil_mode = bool(call.attributes.get("ceil_mode", 0)) and not auto.startswith("SAME")
    return windows(space, size, stride=stride, dilation=dilation, padding=padding, ceil_mode=ceil_mode)


def _batch_norm(call: Call) -> None:
    call.one_output()
    if call.attributes.get("training_mode", 0) or not call.attributes.get("spatial", 1):
        raise call.refuse("training mode, or statistics for each place; export the model for inference")
    epsilon = float(call.attributes.get("epsilon", np.float32(1e-5)))
    scale, shift, mean, variance = (call.weights(k) for k in range(1, 5))
    op = batch_norm(scale, shift, mean, variance, epsilon, rank=len(call.shape(0)), node=call.label)
    call.builder.add(call.output, op, call.value(0))


def _layer_norm(call: Call) -> None:
    call.one_output()
    rank = len(call.shape(0))
    axes = range(call.axis(-1, rank, end=False), rank)
    epsilon = float(call.attributes.get("epsilon", np.float32(1e-5)))
    shift = call.weights(2) if call.name(2) else None
    layer_norm(call.builder, call.output, call.value(0), axes, epsilon, call.weights(1), shift, op=call.op, node=call.label)


LAYERS: Mapping[str, Callable[[Call], None]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
}
