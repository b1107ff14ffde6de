"""Each linear operator as explicit matrices, by index arithmetic straight from its definition in `verifier.ops`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array, kron

from verifier.check.exact import Matrix
from verifier.errors import BadNetwork
from verifier.network import Node, output_shape
from verifier.ops import Array, AveragePool, Concat, Conv, Linear, MaxPool, Reshape, Scale, Select, Shape, Sum, Transpose


@dataclass(frozen=True, eq=False)
class LinearMap:
    """y = (sum_k matrices[k] @ x_k + bias) / divisor over flat values; a float64 entry is the exact number it holds.

    matrices: one for each input of the node, (outputs, entries of input k); divisor: positive, (outputs,), mostly ones.
    """

    matrices: tuple[Matrix, ...]
    bias: Array
    divisor: Array


def linear_map(node: Node, shapes: Sequence[Shape]) -> LinearMap:
    """The map of a node with one of `verifier.ops.LINEAR_OPS` on inputs of these shapes; BadNetwork for bad numbers."""
    assert_numbers(node)
    shape = output_shape(node.op, list(shapes))
    matrices, bias, divisor = _parts(node, shapes, shape)
    size = math.prod(shape)
    return LinearMap(
        matrices, np.zeros(size) if bias is None else bias.reshape(-1), np.ones(size) if divisor is None else divisor
    )


def assert_numbers(node: Node) -> None:
    """Raises BadNetwork where a linear node's weights are no float64 arrays, not finite, or divisors not positive."""
    op = node.op
    floats: list[NDArray] = [np.array(op.coefficients)] if isinstance(op, Sum) else []
    for name, field in vars(op).items():
        if isinstance(field, np.ndarray) and not (isinstance(op, Select) and name == "indices"):
            if field.dtype != np.float64:
                # sound: the kernel's arithmetic is exact on float64 alone
                raise BadNetwork(f"weights at {node.output!r} must be float64 arrays; make them with verifier.ops.frozen_array")
            floats.append(field)
    if isinstance(op, Select) and op.indices.dtype.kind not in "iu":
        raise BadNetwork(f"the indices at {node.output!r} must be whole numbers")
    divides = isinstance(op, AveragePool) and (op.divisor <= 0).any()
    if divides or not all(np.isfinite(array).all() for array in floats):
        raise BadNetwork(f"weights at {node.output!r} must be finite numbers and divisors positive; repair the model")


def window_indices(
    space: Shape,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> NDArray[np.int64]:
    """Flat index into `space` of each window entry, -1 in the padding: shape (output positions, kernel entries)."""
    axes = []
    for length, k, s, (begin, end), d in zip(space, kernel, stride, padding, dilation, strict=True):
        count = (length + begin + end - d * (k - 1) - 1) // s + 1
        places = np.arange(count)[:, None] * s + np.arange(k)[None, :] * d - begin
        axes.append(np.where((places >= 0) & (places < length), places, -1))
    flat = axes[0]
    for places, length in zip(axes[1:], space[1:], strict=True):
        left, right = flat[:, None, :, None], places[None, :, None, :]
        joined = np.where((left >= 0) & (right >= 0), left * length + right, -1)
        flat = joined.reshape(flat.shape[0] * places.shape[0], -1)
    return flat.astype(np.int64)


def pool_windows(node: Node, shape: Shape) -> NDArray[np.int64]:
    """Flat index into a MaxPool's whole input of each window entry, -1 in the padding: (outputs, kernel entries)."""
    op = node.op
    assert isinstance(op, MaxPool)
    windows = window_indices(shape[2:], op.kernel, op.stride, op.padding, op.dilation)
    if (windows < 0).all(axis=1).any():
        raise BadNetwork(f"MaxPool at {node.output!r} has a window inside its padding, where no maximum exists")
    return _over_channels(windows, shape)


def _over_channels(windows: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    starts = np.arange(shape[1])[:, None, None] * math.prod(shape[2:])
    return np.where(windows >= 0, windows + starts, -1).reshape(-1, windows.shape[1])


def _parts(node: Node, shapes: Sequence[Shape], shape: Shape) -> tuple[tuple[Matrix, ...], Array | None, Array | None]:
    op, x = node.op, shapes[0]
    size = math.prod(x)
    match op:
        case Linear(weight=weight, bias=bias):
            copies = math.prod(x[:-1])
            matrix = weight if copies == 1 else csr_array(kron(eye_array(copies), csr_array(weight)))
            return (matrix,), np.tile(bias, copies), None
        case Conv():
            bias = np.repeat(op.bias, math.prod(shape[2:]))
            return (_conv_matrix(op, x),), bias, None
        case Scale(factor=factor, offset=offset):
            matrix = csr_array(diags_array(np.broadcast_to(factor, x).reshape(-1)))
            return (matrix,), np.broadcast_to(offset, x).reshape(-1), None
        case Sum(coefficients=coefficients):
            return tuple(csr_array(diags_array(np.full(size, float(c)))) for c in coefficients), None, None
        case Reshape():
            return (_selection(np.arange(size), size),), None, None
        case Transpose(permutation=permutation):
            sources = np.arange(size).reshape(x).transpose(permutation).reshape(-1)
            return (_selection(sources, size),), None, None
        case Concat(axis=axis):
            return _concat_matrices(shapes, axis), None, None
        case Select(indices=indices):
            rows = np.flatnonzero(indices >= 0)
            return (csr_array((np.ones(len(rows)), (rows, indices[rows])), shape=(math.prod(shape), size)),), None, None
        case AveragePool():
            windows = _over_channels(window_indices(x[2:], op.kernel, op.stride, op.padding, (1,) * len(op.kernel)), x)
            rows, places = np.nonzero(windows >= 0)
            matrix = csr_array((np.ones(len(rows)), (rows, windows[rows, places])), shape=(math.prod(shape), size))
            return (matrix,), None, np.tile(op.divisor.reshape(-1), x[1])
        case _:
            raise AssertionError(f"{type(op).__name__} is not linear")


def _selection(sources: NDArray[np.int64], size: int) -> csr_array:
    """The matrix whose row i picks entry sources[i]."""
    return csr_array((np.ones(len(sources)), sources, np.arange(len(sources) + 1)), shape=(len(sources), size))


def _concat_matrices(shapes: Sequence[Shape], axis: int) -> tuple[Matrix, ...]:
    sizes = [math.prod(s) for s in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    origin = np.concatenate(
        [np.arange(n).reshape(s) + start for n, s, start in zip(sizes, shapes, starts[:-1], strict=True)], axis=axis
    ).reshape(-1)
    matrices = []
    for size, start in zip(sizes, starts[:-1], strict=True):
        rows = np.flatnonzero((origin >= start) & (origin < start + size))
        matrices.append(csr_array((np.ones(size), (rows, origin[rows] - start)), shape=(len(origin), size)))
    return tuple(matrices)


def _conv_matrix(op: Conv, x: Shape) -> csr_array:
    """Row (o, p), column (c, place): weight[o, c within o's group, k] where entry k of window p is that place."""
    outputs, channels = op.weight.shape[:2]
    windows = window_indices(x[2:], op.weight.shape[2:], op.stride, op.padding, op.dilation)
    positions, space = len(windows), math.prod(x[2:])
    p, k = np.nonzero(windows >= 0)
    places = windows[p, k]
    o, c = np.arange(outputs)[:, None, None], np.arange(channels)[None, :, None]
    first_channel = o // (outputs // op.groups) * channels
    shape = (outputs, channels, len(p))
    rows = np.broadcast_to(o * positions + p, shape)
    columns = (first_channel + c) * space + places
    entries = op.weight.reshape(outputs, channels, -1)[:, :, k]
    matrix = csr_array(
        (entries.reshape(-1), (rows.reshape(-1), columns.reshape(-1))), shape=(outputs * positions, x[1] * space)
    )
    matrix.eliminate_zeros()
    return matrix
