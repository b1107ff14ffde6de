"""Core ATen operators that move, repeat, leave out or join entries, and change no number."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

import numpy as np
import torch

from verifier.formats.selections import (
    Indices,
    check_selected,
    chosen,
    filled,
    gathered,
    grid,
    joined,
    padded,
    select,
    sliced,
    tiled,
)
from verifier.formats.torch_call import Call
from verifier.ops import Array, Reshape, Transpose

aten = torch.ops.aten


def _reshape(call: Call) -> None:
    """Any operator that keeps the entries in C order; the exporter knows its result's shape."""
    shape = tuple(call.node.meta["val"].shape)
    if not all(isinstance(n, int) for n in shape):
        raise call.refuse(f"a shape {shape} that depends on the input")
    call.builder.add(call.output, Reshape(tuple(int(n) for n in shape)), call.value(call.argument(0, "self")))


def _pad(call: Call) -> None:
    source, pads = call.value(call.argument(0, "self")), call.integers(1, "pad", ())
    filling = call.weights(call.argument(2, "value", 0.0))
    # torch counts the axes from the last one
    last = len(call.builder.shapes[source]) - 1
    pairs = {last - k: (pads[2 * k], pads[2 * k + 1]) for k in range(len(pads) // 2)}
    indices = padded(grid(call.builder, source), pairs, mode="constant", op=call.op, node=call.label)
    filled(call.builder, call.output, source, indices, filling, op=call.op, node=call.label)


def _permute(call: Call) -> None:
    source = call.value(call.argument(0, "self"))
    rank = len(call.builder.shapes[source])
    permutation = tuple(axis % rank for axis in call.integers(1, "dims", ()))
    call.builder.add(call.output, Transpose(permutation), source)


def _grid(call: Call) -> Indices:
    return grid(call.builder, call.value(call.argument(0, "self")))


def _select_entries(call: Call, indices: Indices) -> None:
    select(call.builder, call.output, call.value(call.argument(0, "self")), indices, op=call.op, node=call.label)


def _places(call: Call, argument: Any) -> Indices:
    """A constant tensor of whole numbers."""
    found = call.constants.get(argument)
    if found is None or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise call.refuse(f"indices {argument}; a constant tensor of whole numbers is")
    return found.detach().cpu().numpy().astype(np.int64)


def _slice(call: Call) -> None:
    indices = _grid(call)
    axis = int(call.argument(1, "dim", 0)) % indices.ndim
    start, end, step = (call.argument(k, name, d) for k, name, d in ((2, "start", 0), (3, "end", 2**63 - 1), (4, "step", 1)))
    if not all(isinstance(n, int) for n in (start, end, step)):
        raise call.refuse("places that depend on the input")
    _select_entries(call, sliced(indices, axis, start, end, step))


def _select(call: Call) -> None:
    indices = _grid(call)
    axis, place = int(call.argument(1, "dim")) % indices.ndim, np.array(int(call.argument(2, "index")))
    _select_entries(call, gathered(indices, axis, place, op=call.op, node=call.label))


def _index_select(call: Call) -> None:
    indices = _grid(call)
    axis, places = int(call.argument(1, "dim")) % indices.ndim, _places(call, call.argument(2, "index"))
    _select_entries(call, gathered(indices, axis, places.reshape(-1), op=call.op, node=call.label))


def _index(call: Call) -> None:
    given = cast(Sequence[Any], call.argument(1, "indices"))
    axes = [axis for axis, places in enumerate(given) if places is not None]
    if len(axes) != 1:
        raise call.refuse(f"indices along {len(axes)} axes at once; along one is")
    _select_entries(call, gathered(_grid(call), axes[0], _places(call, given[axes[0]]), op=call.op, node=call.label))


def _gather(call: Call) -> None:
    indices, places = _grid(call), _places(call, call.argument(2, "index"))
    axis = int(call.argument(1, "dim")) % indices.ndim
    shape = [n if k == axis else min(n, m) for k, (n, m) in enumerate(zip(indices.shape, places.shape, strict=True))]
    check_selected(places.shape, f"the result of {call.op} at {call.label!r}")
    _select_entries(call, np.take_along_axis(indices[tuple(map(slice, shape))], places, axis))


def _split(call: Call) -> None:
    """Each part is a value of its own, named `<output>/<number>`; the exported graph picks them by number."""
    indices = _grid(call)
    axis = int(call.argument(2, "dim", 0)) % indices.ndim
    for place, (begin, end) in enumerate(pairwise(accumulate(call.integers(1, "split_sizes", ()), initial=0))):
        part, source = sliced(indices, axis, begin, end, 1), call.value(call.argument(0, "self"))
        select(call.builder, f"{call.output}/{place}", source, part, op=call.op, node=call.label)


def _flip(call: Call) -> None:
    _select_entries(call, np.flip(_grid(call), call.integers(1, "dims", ())))


def _repeat(call: Call) -> None:
    indices, repeats = _grid(call), call.integers(1, "repeats", ())
    indices = indices.reshape((1,) * (len(repeats) - indices.ndim) + indices.shape)
    _select_entries(call, tiled(indices, repeats, op=call.op, node=call.label))


def _expand(call: Call) -> None:
    shape = tuple(call.node.meta["val"].shape)
    check_selected(shape, f"the result of {call.op} at {call.label!r}")
    _select_entries(call, np.broadcast_to(_grid(call), shape))


def _cat(call: Call) -> None:
    given = cast(Sequence[Any], call.argument(0, "tensors"))
    parts: list[str | Array] = [call.value(part) if call.is_value(part) else call.weights(part) for part in given]
    joined(call.builder, call.output, parts, int(call.argument(1, "dim", 0)), op=call.op, node=call.label)


def _where(call: Call) -> None:
    condition = call.constants.get(call.argument(0, "condition"))
    if condition is None or condition.dtype != torch.bool:
        raise call.refuse("a condition that is not a constant of truth values")
    given = [call.argument(k, name) for k, name in ((1, "self"), (2, "other"))]
    first, second = (call.value(part) if call.is_value(part) else call.addend(part) for part in given)
    chosen(call.builder, call.output, condition.cpu().numpy(), (first, second), op=call.op, node=call.label)


REARRANGEMENTS: Mapping[Any, Callable[[Call], None]] = {
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
    aten.expand.default: _expand,
    aten.flip.default: _flip,
    aten.gather.default: _gather,
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.permute.default: _permute,
    aten.repeat.default: _repeat,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    aten.split_with_sizes.default: _split,
    aten.squeeze.dim: _reshape,
    aten.squeeze.dims: _reshape,
    aten.unsqueeze.default: _reshape,
    aten.view.default: _reshape,
    aten.where.self: _where,
}
