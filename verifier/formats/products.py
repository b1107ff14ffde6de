"""Matrix products: of a value and a constant matrix, with a stack of matrices, and of two values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.errors import BadNetwork
from verifier.formats.build import NetworkBuilder, affine, check_entries, swapped_axes
from verifier.formats.selections import check_selected, common_shape, grid, selection
from verifier.ops import Array, Product, Reshape, Scale, Shape, frozen_array


def multiplied(builder: NetworkBuilder, output: str, left: str | Array, right: str | Array, *, op: str, node: str) -> None:
    """output = left @ right, as numpy's matmul with leading axes that broadcast; at least one factor is a value, by name.

    Raises BadNetwork where the shapes do not fit or the product is too large.
    """
    left = left if isinstance(left, str) else _unstacked(left, builder, right)
    right = right if isinstance(right, str) else _unstacked(right, builder, left)
    if isinstance(left, str) and not isinstance(right, str) and 1 <= right.ndim <= 2:
        _multiply_left(builder, output, left, right)
    elif isinstance(right, str) and not isinstance(left, str) and 1 <= left.ndim <= 2:
        _multiply_right(builder, output, left, right)
    else:
        _multiply_wide(builder, output, left, right, op=op, node=node)


def _unstacked(weight: Array, builder: NetworkBuilder, other: str | Array) -> Array:
    """A constant factor without the leading axes of length 1 that the other factor has as well."""
    rank = len(builder.shapes[other]) if isinstance(other, str) else other.ndim
    while weight.ndim > 2 and weight.shape[0] == 1 and weight.ndim <= rank:
        weight = weight[0]
    return weight


def _multiply_left(builder: NetworkBuilder, output: str, value: str, weight: Array) -> None:
    """output = value @ weight: value may have any rank >= 1, weight rank 1 or 2."""
    if weight.ndim == 1:
        column = builder.step(output, "column", affine(weight.reshape(1, -1)), value)
        builder.add(output, Reshape(builder.shapes[column][:-1]), column)
    else:
        builder.add(output, affine(weight.T), value)


def _multiply_right(builder: NetworkBuilder, output: str, weight: Array, value: str) -> None:
    """output = weight @ value: value may have any rank >= 1, weight rank 1 or 2."""
    rank = len(builder.shapes[value])
    rows = weight.reshape(-1, weight.shape[-1])
    if rank == 1:
        product = builder.step(output, "product", affine(rows), value)
        builder.add(output, Reshape(builder.shapes[product] if weight.ndim == 2 else ()), product)
        return
    turned = builder.step(output, "transposed", swapped_axes(rank), value)
    product = builder.step(output, "product", affine(rows), turned)
    if weight.ndim == 1:
        builder.add(output, Reshape(builder.shapes[product][:-1]), product)
    else:
        builder.add(output, swapped_axes(rank), product)


def _multiply_wide(builder: NetworkBuilder, output: str, left: str | Array, right: str | Array, *, op: str, node: str) -> None:
    """output = left @ right: each row of left beside each column of right, (..., rows, columns, terms); products summed."""
    shapes = [builder.shapes[factor] if isinstance(factor, str) else factor.shape for factor in (left, right)]
    wide = _wide_shape(*shapes, op=op, node=node)
    check_selected(wide, f"the products of {op} at {node!r}")
    names: list[str] = []
    constant: Array | None = None
    for factor, suffix in ((left, "rows"), (right, "columns")):
        if isinstance(factor, str):
            entries = _laid_out(grid(builder, factor), wide, is_left=suffix == "rows")
            names.append(builder.step(output, suffix, selection(builder, factor, entries), factor))
        else:
            constant = frozen_array(_laid_out(factor, wide, is_left=suffix == "rows"))
    entrywise = Product() if constant is None else Scale(constant, frozen_array(np.zeros((1,) * len(wide))))
    products = builder.step(output, "products", entrywise, *names)
    sums = builder.step(output, "sums", affine(np.ones((1, wide[-1]))), products)
    ends = [n for n, shape in ((wide[-3], shapes[0]), (wide[-2], shapes[1])) if len(shape) > 1]
    builder.add(output, Reshape((*wide[:-3], *ends)), sums)


def _wide_shape(left: Shape, right: Shape, *, op: str, node: str) -> Shape:
    """Leading axes, rows, columns and terms of a product."""
    rows, columns = left if len(left) != 1 else (1, *left), right if len(right) != 1 else (*right, 1)
    if min(len(rows), len(columns)) < 2 or rows[-1] != columns[-2]:
        raise BadNetwork(f"{op} at {node!r}: shapes {left} and {right} have no matrix product")
    batch = common_shape([rows[:-2], columns[:-2]], op=op, node=node)
    shape = (*batch, rows[-2], columns[-1], rows[-1])
    check_entries(shape, f"the products of {op} at {node!r}")
    return shape


def _laid_out(entries: NDArray[Any], wide: Shape, *, is_left: bool) -> NDArray[Any]:
    """The entries of one factor, (..., rows, terms) or (..., terms, columns), repeated to (..., rows, columns, terms)."""
    if entries.ndim > 1:
        entries = entries[..., :, None, :] if is_left else np.swapaxes(entries, -1, -2)[..., None, :, :]
    return np.broadcast_to(entries, wide)
