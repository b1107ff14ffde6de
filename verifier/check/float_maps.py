"""Linear operators applied to many rows at once in float64: forward to values, backward to coefficients.

What each product errs by is bounded by `verifier.check.rounding`; here are the products alone. A `Part` is the matrix W of one
input of a node: `forward(x)` is x @ W.T, `back(a)` is a @ W, `spread(m)` is m @ |W|.T, for arrays (rows, entries).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.check.linear_map import LinearMap, assert_numbers, linear_map
from verifier.network import Node, output_shape
from verifier.ops import Array, Conv, Linear, Shape

Slices = tuple[slice, ...]


class Part(Protocol):
    def forward(self, x: Array) -> Array: ...
    def back(self, a: Array) -> Array: ...
    def spread(self, m: Array) -> Array: ...


@dataclass(frozen=True, eq=False)
class FloatMap:
    """y = sum_k parts[k] @ x_k + bias; no entry of a product, forward or backward, has more than `terms` summands."""

    parts: tuple[Part, ...]
    bias: Array
    terms: int


@dataclass(frozen=True, eq=False)
class Dense:
    """weight (out, in) over the last axis, for `copies` positions."""

    weight: Array
    copies: int = 1

    @cached_property
    def _absolute(self) -> Array:
        return np.abs(self.weight)

    def forward(self, x: Array) -> Array:
        return self._over_positions(x, self.weight.T)

    def back(self, a: Array) -> Array:
        return self._over_positions(a, self.weight)

    def spread(self, m: Array) -> Array:
        return self._over_positions(m, self._absolute.T)

    def rows(self, indices: NDArray[np.int64]) -> Array:
        """Rows of W, exactly; for one position alone."""
        assert self.copies == 1
        return self.weight[indices]

    def _over_positions(self, rows: Array, matrix: Array) -> Array:
        return (rows.reshape(len(rows) * self.copies, -1) @ matrix).reshape(len(rows), -1)


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse matrix; transposed copies make both directions products with a tall dense matrix."""

    matrix: csr_array

    @cached_property
    def _transposed(self) -> csr_array:
        return csr_array(self.matrix.T)

    @cached_property
    def _absolute(self) -> csr_array:
        return csr_array(abs(self.matrix))

    def forward(self, x: Array) -> Array:
        return np.ascontiguousarray((self.matrix @ x.T).T)

    def back(self, a: Array) -> Array:
        return np.ascontiguousarray((self._transposed @ a.T).T)

    def spread(self, m: Array) -> Array:
        return np.ascontiguousarray((self._absolute @ m.T).T)


@dataclass(frozen=True, eq=False)
class Picked:
    """y[rows[k]] = factors[k] * x[columns[k]], no row or column twice, the rest zero (Reshape, Transpose, Scale ...)."""

    shape: tuple[int, int]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    factors: Array

    @cached_property
    def is_identity(self) -> bool:
        places = np.arange(self.shape[0])
        same = self.shape[0] == self.shape[1] == len(self.rows)
        return same and bool((self.rows == places).all() and (self.columns == places).all() and (self.factors == 1).all())

    def forward(self, x: Array) -> Array:
        return self._moved(x, self.columns, self.rows, self.shape[0], self.factors)

    def back(self, a: Array) -> Array:
        return self._moved(a, self.rows, self.columns, self.shape[1], self.factors)

    def spread(self, m: Array) -> Array:
        return self._moved(m, self.columns, self.rows, self.shape[0], np.abs(self.factors))

    def _moved(self, rows: Array, origin: NDArray, target: NDArray, size: int, factors: Array) -> Array:
        if self.is_identity:
            return rows
        moved = np.zeros((len(rows), size))
        moved[:, target] = rows[:, origin] * factors
        return moved


@dataclass(frozen=True, eq=False)
class Windows:
    """A convolution as one matrix product for each kernel entry.

    weights[k]: (groups, outputs, inputs), both counted within a group; sources[k], targets[k]: the input places that entry k
    meets and the output positions where it does; entries that meet padding only are left out.
    """

    weights: tuple[Array, ...]
    sources: tuple[Slices, ...]
    targets: tuple[Slices, ...]
    input_space: Shape
    output_space: Shape

    def forward(self, x: Array) -> Array:
        return _slide(x, self.weights, self.sources, self.targets, self.input_space, self.output_space)

    def back(self, a: Array) -> Array:
        turned = tuple(w.transpose(0, 2, 1) for w in self.weights)
        return _slide(a, turned, self.targets, self.sources, self.output_space, self.input_space)

    def spread(self, m: Array) -> Array:
        absolute = tuple(np.abs(w) for w in self.weights)
        return _slide(m, absolute, self.sources, self.targets, self.input_space, self.output_space)


def float_map(node: Node, shapes: Sequence[Shape]) -> FloatMap:
    """The map of a linear node on inputs of these shapes; BadNetwork for numbers that are not finite."""
    assert_numbers(node)
    op = node.op
    if isinstance(op, Linear):
        copies = int(np.prod(shapes[0][:-1], dtype=np.int64))
        return FloatMap((Dense(op.weight, copies),), np.tile(op.bias, copies), max(op.weight.shape))
    if isinstance(op, Conv):
        shape = output_shape(op, list(shapes))
        bias = np.repeat(op.bias, int(np.prod(shape[2:], dtype=np.int64)))
        windows = _windows(op, shapes[0][2:], shape[2:])
        terms = len(windows.weights) * max(op.weight.shape[0] // op.groups, op.weight.shape[1])
        return FloatMap((windows,), bias, max(terms, 1))
    return _from_matrices(linear_map(node, shapes))


def _from_matrices(mapped: LinearMap) -> FloatMap:
    matrices = [csr_array(matrix) for matrix in mapped.matrices]
    if (mapped.divisor != 1).any():
        # sound: one quotient errs by u of itself, or by eta: within the room that `gamma` and TINY leave.
        matrices = [_divided(matrix, mapped.divisor) for matrix in matrices]
    widest = max(int(np.diff(m.indptr).max(initial=0)) for m in matrices)
    tallest = max(int(np.bincount(m.indices, minlength=1).max(initial=0)) for m in matrices)
    return FloatMap(tuple(sparse_part(m) for m in matrices), mapped.bias, max(len(matrices) * widest, tallest, 1))


def _divided(matrix: csr_array, divisor: Array) -> csr_array:
    entries = matrix.data / np.repeat(divisor, np.diff(matrix.indptr))
    return csr_array((entries, matrix.indices, matrix.indptr), shape=matrix.shape)


def sparse_part(matrix: csr_array) -> Part:
    """A sparse matrix in the form that is fastest to apply."""
    counts = np.diff(matrix.indptr)
    if counts.max(initial=0) <= 1 and np.bincount(matrix.indices, minlength=1).max(initial=0) <= 1:
        return Picked(matrix.shape, np.flatnonzero(counts), matrix.indices.astype(np.int64), matrix.data)
    return Sparse(matrix)


def _windows(op: Conv, space: Shape, out_space: Shape) -> Windows:
    outputs, channels = op.weight.shape[:2]
    kernel = op.weight.shape[2:]
    weights, sources, targets = [], [], []
    for place in np.ndindex(*kernel):
        axes = [
            _overlap(length, out, s, begin, k * d)
            for length, out, s, (begin, _), k, d in zip(
                space, out_space, op.stride, op.padding, place, op.dilation, strict=True
            )
        ]
        if any(count <= 0 for _, _, count, _ in axes):
            continue
        entry = op.weight[(slice(None), slice(None), *place)].reshape(op.groups, outputs // op.groups, channels)
        weights.append(np.ascontiguousarray(entry))
        targets.append(tuple(slice(first, first + count) for first, _, count, _ in axes))
        sources.append(tuple(slice(start, start + (count - 1) * s + 1, s) for _, start, count, s in axes))
    if not weights:
        nothing = np.zeros((op.groups, outputs // op.groups, channels))
        empty = tuple(slice(0, 0) for _ in space)
        return Windows(
            (nothing,), (empty,), (empty,), (op.groups, channels, *space), (op.groups, outputs // op.groups, *out_space)
        )
    return Windows(
        tuple(weights),
        tuple(sources),
        tuple(targets),
        (op.groups, channels, *space),
        (op.groups, outputs // op.groups, *out_space),
    )


def _overlap(length: int, out: int, stride: int, begin: int, shift: int) -> tuple[int, int, int, int]:
    """First output position, its input place, how many positions meet the input, and the stride, along one axis."""
    first = max(0, -((shift - begin) // stride))
    last = min(out - 1, (length - 1 + begin - shift) // stride)
    return first, first * stride + shift - begin, last - first + 1, stride


def _slide(
    rows: Array, weights: Sequence[Array], origins: Sequence[Slices], goals: Sequence[Slices], start: Shape, end: Shape
) -> Array:
    """Sum over k of weights[k] times the entries at origins[k], added at goals[k]; shapes: (groups, channels, *space)."""
    given = rows.reshape(len(rows), *start)
    result = np.zeros((len(rows), *end))
    for weight, origin, goal in zip(weights, origins, goals, strict=True):
        taken = given[(slice(None), slice(None), slice(None), *origin)]
        product = weight @ taken.reshape(*taken.shape[:3], -1)
        result[(slice(None), slice(None), slice(None), *goal)] += product.reshape(*product.shape[:3], *taken.shape[3:])
    return result.reshape(len(rows), -1)
