"""Sliding windows: where padding falls and how many entries each window counts.

Ceil mode and automatic padding are turned into explicit begin and end padding, so that operators know one rule only.
"""

from dataclasses import dataclass, replace

import numpy as np

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import MAX_ENTRIES, check_entries
from verifier.network import pooled_length
from verifier.ops import Array, AveragePool, MaxPool, Shape, frozen_array


@dataclass(frozen=True)
class Windows:
    """Sliding windows over the space axes of one value; every tuple has one entry an axis.

    `padding` is what the windows may reach into; `counted` is the part of it that an average with padded places counted
    divides by (ceil mode reaches further than it counts).
    """

    space: Shape
    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: tuple[tuple[int, int], ...]
    counted: tuple[tuple[int, int], ...]


def windows(
    space: Shape, kernel: Shape, *, stride: Shape, dilation: Shape, padding: tuple[tuple[int, int], ...], ceil_mode: bool
) -> Windows:
    """Windows with explicit padding; in ceil mode the end padding grows until the last, partial window fits.

    A window that would start in the end padding is left out, as in ONNX (opset 22 wording), onnxruntime and torch.
    Raises BadNetwork where the settings contradict each other.
    """
    lengths = {len(space), len(kernel), len(stride), len(dilation), len(padding)}
    if len(lengths) != 1 or min((*kernel, *stride, *dilation), default=1) < 1 or min((0, *sum(padding, ()))) < 0:
        raise BadNetwork(
            f"window settings do not fit {len(space)} space axes {space}: kernel {kernel}, stride {stride}, "
            f"dilation {dilation}, padding {padding}; lengths must be positive and padding not negative"
        )
    if max((*kernel, *stride, *dilation, *sum(padding, ())), default=0) > MAX_ENTRIES:
        raise BadNetwork(f"window settings are too large: kernel {kernel}, stride {stride}, padding {padding}")
    plain = Windows(space, kernel, stride, dilation, padding, padding)
    if not ceil_mode:
        return plain
    axes = zip(space, kernel, stride, dilation, padding, strict=True)
    return replace(plain, padding=tuple(_ceil_padding(n, d * (k - 1) + 1, s, pair) for n, k, s, d, pair in axes))


def same_padding(space: Shape, kernel: Shape, *, stride: Shape, dilation: Shape, lower: bool) -> tuple[tuple[int, int], ...]:
    """ONNX's SAME_UPPER padding (the odd place at the end), or SAME_LOWER (at the beginning)."""
    pairs = []
    for n, k, s, d in zip(space, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        pairs.append((large, small) if lower else (small, large))
    return tuple(pairs)


def max_pool(shape: Windows, op: str, node: str) -> MaxPool:
    """The operator; raises UnsupportedOp where a window holds padding only, whose maximum no standard defines."""
    for hits in (_real_places(shape, axis) for axis in range(len(shape.space))):
        if (hits == 0).any():
            raise UnsupportedOp(op, node, "a window lies wholly in the padding")
    return MaxPool(shape.kernel, shape.stride, shape.padding, shape.dilation)


def average_pool(shape: Windows, *, count_padding: bool, op: str, node: str) -> AveragePool:
    """The operator, with the number of counted places of each window as divisor."""
    if any(d != 1 for d in shape.dilation):
        raise UnsupportedOp(op, node, f"dilation {shape.dilation}; only 1 is")
    check_entries(tuple(len(_starts(shape, axis)) for axis in range(len(shape.space))), f"{op} at {node!r}")
    counts: Array = np.ones(())
    for axis in range(len(shape.space)):
        real = _real_places(shape, axis)
        if (real == 0).any():
            raise UnsupportedOp(op, node, "a window lies wholly in the padding")
        along = _counted_places(shape, axis) if count_padding else real
        counts = np.multiply.outer(counts, along)
    return AveragePool(shape.kernel, shape.stride, shape.padding, frozen_array(counts))


def _ceil_padding(n: int, span: int, stride: int, padding: tuple[int, int]) -> tuple[int, int]:
    begin, end = padding
    out = -(-(n + begin + end - span) // stride) + 1
    if (out - 1) * stride >= n + begin:
        out -= 1
    return begin, max((out - 1) * stride + span - n - begin, 0)


def _starts(shape: Windows, axis: int) -> np.ndarray:
    """First place of each window along an axis, counted from the first real entry."""
    n, k, s, d = shape.space[axis], shape.kernel[axis], shape.stride[axis], shape.dilation[axis]
    padding = shape.padding[axis]
    if n + sum(padding) < d * (k - 1) + 1:
        raise BadNetwork(f"a window of {d * (k - 1) + 1} places does not fit length {n} with padding {padding}")
    return np.arange(pooled_length(n, k, s, padding, d)) * s - padding[0]


def _real_places(shape: Windows, axis: int) -> np.ndarray:
    """How many entries of each window are real, along an axis."""
    n, k, d = shape.space[axis], shape.kernel[axis], shape.dilation[axis]
    starts = _starts(shape, axis)
    first = np.maximum(-(starts // d), 0)
    last = np.minimum((n - 1 - starts) // d, k - 1)
    return np.maximum(last - first + 1, 0)


def _counted_places(shape: Windows, axis: int) -> np.ndarray:
    """How many entries of each window are real or counted padding, along an axis (dilation 1)."""
    starts = _starts(shape, axis)
    return np.minimum(starts + shape.kernel[axis], shape.space[axis] + shape.counted[axis][1]) - starts
