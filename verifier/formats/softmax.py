"""Softmax as an exact composition of the graph's own operators, for every reader."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from verifier.errors import UnsupportedOp
from verifier.formats.build import NetworkBuilder, affine
from verifier.formats.selections import Indices, grid, selection
from verifier.ops import Exp, Reciprocal, Reshape, Scale, Select, Sum, Transpose, frozen_array

MAX_DIFFERENCES = 2**22
"""Most entries that a Softmax may become: the differences of all pairs along its axis."""


def softmax(builder: NetworkBuilder, output: str, value: str, axis: int, *, op: str, node: str) -> None:
    """output[i] = 1 / (1 + sum over j other than i of exp(value[j] - value[i])), along one axis.

    The differences make it exact and free of overflow in its middle. Masked entries get 0 and are left out of the sums. Raises
    UnsupportedOp past MAX_DIFFERENCES, and where all entries of a row are masked.
    """
    shape = builder.shapes[value]
    n = shape[axis]
    if prod(shape) * n > MAX_DIFFERENCES:
        raise UnsupportedOp(
            op, node, f"axis {axis} of shape {shape}, {prod(shape) * n} differences; at most {MAX_DIFFERENCES} are"
        )
    rows = np.moveaxis(grid(builder, value), axis, -1)
    kept = ~builder.masked(value).reshape(-1)[rows]
    if not kept.any(axis=-1).all():
        raise UnsupportedOp(op, node, "a row whose entries are all minus infinity")
    if (kept.sum(axis=-1) == 1).all():
        _certain(builder, output, value, ~builder.masked(value))
    elif kept.all():
        _full(builder, output, value, rows, axis)
    else:
        _partial(builder, output, value, rows, kept)


def _certain(builder: NetworkBuilder, output: str, value: str, kept: NDArray[np.bool_]) -> None:
    """One entry of each row is left, with the whole share; what is masked is left out before it is multiplied by 0."""
    places = np.where(kept, grid(builder, value), -1)
    chosen = builder.step(output, "kept", selection(builder, value, places), value)
    builder.add(output, Scale(frozen_array(np.zeros((1,) * kept.ndim)), frozen_array(kept)), chosen)


def _full(builder: NetworkBuilder, output: str, value: str, rows: Indices, axis: int) -> None:
    """Every entry of a row against every other."""
    n, rank = rows.shape[-1], rows.ndim
    other = np.array([[j for j in range(n) if j != i] for i in range(n)])
    powers = _powers(builder, output, value, np.broadcast_to(rows[..., None], (*rows.shape, n - 1)), rows[..., other])
    sums = builder.step(output, "sums", affine(np.ones((1, n - 1)), np.ones(1)), powers)
    flat = builder.step(output, "flat", Reshape(rows.shape), sums)
    if axis == rank - 1:
        builder.add(output, Reciprocal(), flat)
        return
    order = list(range(rank - 1))
    shares = builder.step(output, "shares", Reciprocal(), flat)
    builder.add(output, Transpose((*order[:axis], rank - 1, *order[axis:])), shares)


def _partial(builder: NetworkBuilder, output: str, value: str, rows: Indices, kept: NDArray[np.bool_]) -> None:
    """Every kept entry of a row against the other kept ones: as many sums as entries are kept, each with its own terms."""
    row, own = np.nonzero(kept.reshape(-1, rows.shape[-1]))
    flat_rows, flat_kept = rows.reshape(-1, rows.shape[-1]), kept.reshape(-1, rows.shape[-1])
    pairs = flat_kept[row]
    pairs[np.arange(len(own)), own] = False
    entry, other = np.nonzero(pairs)
    powers = _powers(builder, output, value, flat_rows[row[entry], own[entry]][None], flat_rows[row[entry], other][None])
    # what is absent from a shorter sum is a 0 behind the exponentials
    places = np.full((len(own), int(pairs.sum(axis=1).max())), -1)
    counts = np.concatenate([np.arange(n) for n in pairs.sum(axis=1)])
    places[entry, counts] = np.arange(len(entry))
    terms = builder.step(output, "terms", selection(builder, powers, places[None]), powers)
    sums = builder.step(output, "sums", affine(np.ones((1, places.shape[1])), np.ones(1)), terms)
    shares = builder.step(output, "shares", Reciprocal(), sums)
    result = np.full(rows.size, -1)
    result[flat_rows[row, own]] = np.arange(len(own))
    result.setflags(write=False)
    builder.add(output, Select(result, builder.shapes[value]), shares)


def _powers(builder: NetworkBuilder, output: str, value: str, own: Indices, others: Indices) -> str:
    """exp(value[other] - value[own]), in the shape of the indices."""
    left = builder.step(output, "others", selection(builder, value, others), value)
    right = builder.step(output, "own", selection(builder, value, own), value)
    return builder.step(output, "powers", Exp(), builder.step(output, "differences", Sum((1.0, -1.0)), left, right))
