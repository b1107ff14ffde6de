"""Rearrangements with repetition and omission: every such operator is computed on a grid of indices, and becomes a Select.

Where nothing is repeated, left out or moved, it becomes a Reshape instead.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import MAX_SELECTED, NetworkBuilder, check_entries
from verifier.formats.masks import levels_of, unmasked
from verifier.ops import Array, Concat, Op, Reshape, Scale, Select, Shape, Sum, frozen_array

Indices = NDArray[np.int64]


def grid(builder: NetworkBuilder, value: str) -> Indices:
    """The flat index of each entry, in the value's shape. Raises BadNetwork where it would not fit in memory."""
    shape = builder.shapes[value]
    check_selected(shape, f"value {value!r}")
    return np.arange(prod(shape), dtype=np.int64).reshape(shape)


def check_selected(shape: Shape, owner: str) -> None:
    """Raises BadNetwork where a grid of this shape is larger than a single Select may be."""
    if prod(shape) > MAX_SELECTED // 4:
        raise BadNetwork(f"{owner} has shape {shape}; at most {MAX_SELECTED // 4} entries can be selected from or to")


def selection(builder: NetworkBuilder, value: str, indices: Indices) -> Op:
    """The operator with result.flat[k] = value.flat[indices.flat[k]], or 0 where the index is -1, in the shape of `indices`."""
    size = prod(builder.shapes[value])
    if indices.size == size and np.array_equal(indices.reshape(-1), np.arange(size)):
        return Reshape(indices.shape)
    flat = np.array(indices, dtype=np.int64).reshape(-1)
    flat.setflags(write=False)
    return Select(flat, tuple(int(n) for n in indices.shape))


def select(builder: NetworkBuilder, output: str, value: str, indices: Indices, *, op: str, node: str) -> None:
    """output = the selection of these entries; raises UnsupportedOp where there are none."""
    if not indices.size:
        raise UnsupportedOp(op, node, f"an empty result of shape {indices.shape}")
    builder.add(output, selection(builder, value, indices), value)


def common_shape(shapes: Sequence[Shape], *, op: str, node: str) -> Shape:
    """The shape that numpy broadcasts to. Raises BadNetwork where there is none, or where it is too large."""
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        given = ", ".join(map(str, shapes))
        raise BadNetwork(f"{op} at {node!r}: shapes {given} do not broadcast to one ({error})") from error
    check_entries(shape, f"the result of {op} at {node!r}")
    return shape


def broadcast(builder: NetworkBuilder, output: str, suffix: str, value: str, shape: Shape) -> str:
    """The value in this shape, which it must broadcast to: itself, or an intermediate value on the way to `output`."""
    if builder.shapes[value] == shape:
        return value
    check_selected(shape, f"the widened value {value!r}")
    return builder.step(output, suffix, selection(builder, value, np.broadcast_to(grid(builder, value), shape)), value)


def sliced(indices: Indices, axis: int, start: int, end: int, step: int) -> Indices:
    """Entries start, start + step, ... before `end` along an axis; negative places count from the end, others are clamped."""
    places = range(*slice(start, end, step).indices(indices.shape[axis]))
    return indices.take(np.arange(places.start, places.stop, places.step, dtype=np.int64), axis=axis)


def gathered(indices: Indices, axis: int, chosen: Indices, *, op: str, node: str) -> Indices:
    """The entries at the chosen places of an axis, which is replaced by the axes of `chosen`; negative ones count back."""
    length = indices.shape[axis]
    if chosen.size and (chosen.min() < -length or chosen.max() >= length):
        raise BadNetwork(f"{op} at {node!r}: indices must lie in {-length}..{length - 1} along axis {axis}")
    check_selected((*indices.shape[:axis], *chosen.shape, *indices.shape[axis + 1 :]), f"the result of {op} at {node!r}")
    return indices.take(chosen, axis=axis)


def padded(indices: Indices, padding: Mapping[int, tuple[int, int]], *, mode: str, op: str, node: str) -> Indices:
    """The grid with (begin, end) places more at both ends of some axes; a negative number leaves places out.

    mode: `constant` marks the new places with -1; `edge` and `reflect` repeat entries as numpy's pad does.
    """
    pairs = [padding.get(axis, (0, 0)) for axis in range(indices.ndim)]
    for length, (begin, end) in zip(indices.shape, pairs, strict=True):
        if length + min(begin, 0) + min(end, 0) < 1 or (mode == "reflect" and max(begin, end) >= length):
            raise BadNetwork(f"{op} at {node!r}: padding {pairs} does not fit shape {indices.shape}")
    if mode != "constant" and min(min(pair) for pair in pairs) < 0:
        raise UnsupportedOp(op, node, f"a negative padding in mode {mode}")
    lengths = tuple(n + begin + end for n, (begin, end) in zip(indices.shape, pairs, strict=True))
    check_selected(lengths, f"the result of {op} at {node!r}")
    for axis, (begin, end) in enumerate(pairs):
        indices = sliced(indices, axis, max(-begin, 0), indices.shape[axis] - max(-end, 0), 1)
    wide = [(max(begin, 0), max(end, 0)) for begin, end in pairs]
    if mode == "constant":
        return np.pad(indices, wide, constant_values=-1)
    return np.pad(indices, wide, mode="edge" if mode == "edge" else "reflect")


def tiled(indices: Indices, repeats: Sequence[int], *, op: str, node: str) -> Indices:
    """The grid repeated along each axis."""
    if len(repeats) != indices.ndim or min(repeats, default=1) < 1:
        raise BadNetwork(f"{op} at {node!r}: repeats {list(repeats)} must be one positive number for each axis")
    check_selected(tuple(n * r for n, r in zip(indices.shape, repeats, strict=True)), f"the result of {op} at {node!r}")
    return np.tile(indices, tuple(repeats))


def filled(builder: NetworkBuilder, output: str, value: str, indices: Indices, filling: Array, *, op: str, node: str) -> None:
    """output = the selected entries, with the filling (of the result's shape) added where the index is -1."""
    offset = np.where(indices < 0, filling, 0.0)
    if not offset.any():
        select(builder, output, value, indices, op=op, node=node)
        return
    chosen = builder.step(output, "placed", selection(builder, value, indices), value)
    builder.add(output, Scale(frozen_array(np.ones((1,) * indices.ndim)), frozen_array(offset)), chosen)


def joined(builder: NetworkBuilder, output: str, parts: Sequence[str | Array], axis: int, *, op: str, node: str) -> None:
    """output = values (by name) and constants, one after the other along an axis."""
    shapes = [builder.shapes[part] if isinstance(part, str) else part.shape for part in parts]
    rank = len(shapes[0])
    if not -rank <= axis < rank or len({s[: axis % rank] + s[axis % rank + 1 :] for s in shapes}) != 1:
        raise BadNetwork(f"{op} at {node!r}: shapes {', '.join(map(str, shapes))} cannot be joined along axis {axis}")
    values, axis = [part for part in parts if isinstance(part, str)], axis % rank
    if len(values) == len(parts):
        builder.add(output, Concat(axis), *values)
        return
    source = values[0] if len(values) == 1 else builder.step(output, "values", Concat(axis), *values)
    check_selected((*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :]), f"the result of {op} at {node!r}")
    indices, fillings, begin = [], [], 0
    whole = grid(builder, source)
    for part, shape in zip(parts, shapes, strict=True):
        constant = not isinstance(part, str)
        indices.append(np.full(shape, -1) if constant else sliced(whole, axis, begin, begin + shape[axis], 1))
        fillings.append(part if constant else np.zeros(shape))
        begin += 0 if constant else shape[axis]
    places, filling = np.concatenate(indices, axis), np.concatenate(fillings, axis)
    filled(builder, output, source, places, filling, op=op, node=node)


def chosen(
    builder: NetworkBuilder,
    output: str,
    condition: NDArray[np.bool_],
    parts: tuple[str | Array, str | Array],
    *,
    op: str,
    node: str,
) -> None:
    """output = the first part where a constant condition holds, else the second; values (by name) or constants, broadcast.

    A chosen constant that stands for minus infinity masks the result (see `masks`).
    """
    shapes = [builder.shapes[part] if isinstance(part, str) else part.shape for part in parts]
    shape = common_shape([condition.shape, *shapes], op=op, node=node)
    check_selected(shape, f"the result of {op} at {node!r}")
    filling, names, places = np.zeros(shape), [], []
    for part, holds in zip(parts, (condition, ~condition), strict=True):
        if isinstance(part, str):
            names.append(part)
            places.append(np.where(holds, np.broadcast_to(grid(builder, part), shape), -1))
        else:
            filling = np.where(holds, part, filling)
    if len(names) == 1:
        filled(builder, output, names[0], places[0], unmasked(filling), op=op, node=node)
        builder.mask(output, levels_of(filling))
        return
    steps = [builder.step(output, f"part_{k}", selection(builder, name, places[k]), name) for k, name in enumerate(names)]
    builder.add(output, Sum((1.0, 1.0)), *steps)
