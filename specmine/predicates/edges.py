"""The strongest weights between two values that only affine maps and max pools lie between, for many neurons at once.

A map is followed from its result backwards in sparse rows: for each neuron the entries of an earlier value that it reads,
with their weights. Between operators a row keeps its WIDTH largest weights, so that the work stays linear in the neurons.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from specmine.predicates.form import Rows
from specmine.predicates.windows import window_members
from verifier.network import Network, Node
from verifier.ops import (
    ACTIVATION_OPS,
    Array,
    AveragePool,
    Concat,
    Conv,
    Linear,
    MaxPool,
    Reshape,
    Scale,
    Select,
    Shape,
    Sum,
    Transpose,
)

WIDTH = 64
_ENTRIES = 1 << 21
_BLOCK = 1 << 14


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Row r reads entries index[r] (rows, width) of a value with weights weight[r]; -1 and 0 where it reads fewer."""

    index: Rows
    weight: Array


def edges(
    network: Network, value: str, wanted: Collection[str], neurons: Rows, *, width: int | None = WIDTH, pools: bool = True
) -> Iterator[tuple[Rows, Mapping[str, SparseRows]]]:
    """For blocks of neurons of a value: what they read of each wanted earlier value, the largest |weight| first.

    An activation that makes the value counts as its own input. An input of a max pool has weight 1; without `pools` a path
    ends there, as at any other operator that is not affine. width: how many entries a row keeps between operators, None for
    all.
    """
    for start in range(0, len(neurons), _BLOCK):
        block = neurons[start : start + _BLOCK]
        yield block, _read(network, value, wanted, block, width, pools)


def _read(
    network: Network, value: str, wanted: Collection[str], neurons: Rows, width: int | None, pools: bool
) -> Mapping[str, SparseRows]:
    node = network.producers.get(value)
    start = node.inputs[0] if node is not None and isinstance(node.op, ACTIVATION_OPS) else value
    pending = {start: SparseRows(neurons[:, None], np.ones((len(neurons), 1)))}
    found: dict[str, SparseRows] = {}
    for node in reversed(network.nodes):
        rows = pending.pop(node.output, None)
        if rows is None:
            continue
        if node.output in wanted and node.output != start:
            found[node.output] = rows
        if isinstance(node.op, MaxPool) and not pools:
            continue
        for name, part in zip(node.inputs, _back(network, node, rows, width), strict=False):
            pending[name] = _joined(pending[name], part, width) if name in pending else part
    return found | {name: rows for name, rows in pending.items() if name in wanted and name != start}


def _back(network: Network, node: Node, rows: SparseRows, width: int | None) -> list[SparseRows]:
    """What the rows read of each input of the node; nothing where it is neither affine nor a max pool."""
    if type(node.op) not in _BACK:
        return []
    shapes = [network.shapes[name] for name in node.inputs]
    fan = _fan(node.op)
    step = max(1, _ENTRIES // (rows.index.shape[1] * fan))
    parts = []
    for start in range(0, len(rows.index), step):
        piece = SparseRows(rows.index[start : start + step], rows.weight[start : start + step])
        reads = _BACK[type(node.op)](node, shapes, network.shapes[node.output], piece)
        merge = rows.index.shape[1] > 1 and (fan > 1 or isinstance(node.op, Select))
        parts.append([_strongest(_merged(read) if merge else read, width) for read in reads])
    return [_stacked([part[place] for part in parts]) for place in range(len(parts[0]))]


def _fan(op: Any) -> int:
    """How many entries an entry of the result reads at most."""
    match op:
        case Linear(weight=weight):
            return weight.shape[1]
        case Conv(weight=weight):
            return math.prod(weight.shape[1:])
        case AveragePool(kernel=kernel) | MaxPool(kernel=kernel):
            return math.prod(kernel)
    return 1


def _linear(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    outputs, inputs = node.op.weight.shape  # type: ignore[union-attr]
    lead, output = np.divmod(rows.index, outputs)
    index = (lead * inputs)[..., None] + np.arange(inputs)
    weight = rows.weight[..., None] * node.op.weight[output]  # type: ignore[union-attr]
    return [_flat(index, weight, rows.index)]


def _conv(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    op = node.op
    assert isinstance(op, Conv)
    members = window_members(node, shapes[0], shape)
    places, area = len(members), math.prod(shapes[0][2:])
    channel, place = np.divmod(rows.index, places)
    of_group = op.weight.shape[1]
    first = channel // (op.weight.shape[0] // op.groups) * of_group
    inputs = first[..., None] + np.arange(of_group)
    taps = members[place]
    index = np.where(taps[..., None, :] >= 0, inputs[..., None] * area + taps[..., None, :], -1)
    weight = rows.weight[..., None, None] * op.weight.reshape(*op.weight.shape[:2], -1)[channel]
    return [_flat(index, weight, rows.index)]


def _pool(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    members = window_members(node, shapes[0], shape)
    channel, place = np.divmod(rows.index, len(members))
    taps = members[place]
    index = np.where(taps >= 0, channel[..., None] * math.prod(shapes[0][2:]) + taps, -1)
    weight = rows.weight
    if isinstance(node.op, AveragePool):
        weight = weight / node.op.divisor.reshape(-1)[place]
    return [_flat(index, np.broadcast_to(weight[..., None], index.shape), rows.index)]


def _scale(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    factor = np.broadcast_to(node.op.factor, shape).reshape(-1)  # type: ignore[union-attr]
    return [SparseRows(rows.index, rows.weight * factor[rows.index])]


def _sum(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    return [SparseRows(rows.index, rows.weight * c) for c in node.op.coefficients]  # type: ignore[union-attr]


def _reshape(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    return [rows]


def _transpose(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    table = np.arange(math.prod(shape)).reshape(shapes[0]).transpose(node.op.permutation)  # type: ignore[union-attr]
    return [_mapped(rows, table)]


def _select(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    return [_mapped(rows, node.op.indices)]  # type: ignore[union-attr]


def _concat(node: Node, shapes: list[Shape], shape: Shape, rows: SparseRows) -> list[SparseRows]:
    tables = [np.arange(math.prod(part)).reshape(part) for part in shapes]
    axis = node.op.axis  # type: ignore[union-attr]
    joined = []
    for place in range(len(tables)):
        parts = [table if k == place else np.full_like(table, -1) for k, table in enumerate(tables)]
        joined.append(_mapped(rows, np.concatenate(parts, axis=axis)))
    return joined


_BACK: Mapping[type, Callable[[Node, list[Shape], Shape, SparseRows], list[SparseRows]]] = {
    Linear: _linear,
    Conv: _conv,
    AveragePool: _pool,
    MaxPool: _pool,
    Scale: _scale,
    Sum: _sum,
    Reshape: _reshape,
    Transpose: _transpose,
    Select: _select,
    Concat: _concat,
}


def _flat(index: Rows, weight: Array, read: Rows) -> SparseRows:
    """Rows (rows, entries) of arrays (rows, width, ...); what an entry that is not read would read is not read."""
    index = np.where((read >= 0).reshape(*read.shape, *[1] * (index.ndim - 2)), index, -1)
    return _masked(index.reshape(len(read), -1), np.reshape(weight, (len(read), -1)))


def _mapped(rows: SparseRows, table: Rows) -> SparseRows:
    return _masked(np.where(rows.index >= 0, table.reshape(-1)[rows.index], -1), rows.weight)


def _masked(index: Rows, weight: Array) -> SparseRows:
    return SparseRows(index, np.where(index >= 0, weight, 0.0))


def _merged(rows: SparseRows) -> SparseRows:
    """Each entry once, with the sum of its weights."""
    order = np.argsort(rows.index, axis=1, kind="stable")
    index, weight = np.take_along_axis(rows.index, order, 1), np.take_along_axis(rows.weight, order, 1)
    fresh = np.ones(index.shape, dtype=bool)
    fresh[:, 1:] = index[:, 1:] != index[:, :-1]
    group = np.cumsum(fresh.reshape(-1)) - 1
    totals = np.bincount(group, weights=weight.reshape(-1))[group].reshape(index.shape)
    return _masked(np.where(fresh, index, -1), totals)


def _strongest(rows: SparseRows, width: int | None) -> SparseRows:
    """The largest |weight| first; no entry of weight 0."""
    index, weight = rows.index, rows.weight
    if width is not None and index.shape[1] > 2 * width:
        largest = np.argpartition(-np.abs(weight), width, axis=1)[:, :width]
        index, weight = np.take_along_axis(index, largest, 1), np.take_along_axis(weight, largest, 1)
    order = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :width]
    index, weight = np.take_along_axis(index, order, 1), np.take_along_axis(weight, order, 1)
    return SparseRows(np.where(weight != 0, index, -1), weight)


def _joined(first: SparseRows, second: SparseRows, width: int | None) -> SparseRows:
    both = SparseRows(np.hstack([first.index, second.index]), np.hstack([first.weight, second.weight]))
    return _strongest(_merged(both), width)


def _stacked(parts: list[SparseRows]) -> SparseRows:
    """The rows of all parts, padded to one width."""
    width = max(part.index.shape[1] for part in parts)

    def padded(array: Any, fill: float) -> Any:
        return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)

    return SparseRows(
        np.concatenate([padded(part.index, -1) for part in parts]),
        np.concatenate([padded(part.weight, 0.0) for part in parts]),
    )
