"""ONNX operators that move, repeat, leave out or join entries, and change no number."""

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from verifier.errors import BadNetwork
from verifier.formats.onnx_call import Call
from verifier.formats.selections import (
    Indices,
    check_selected,
    chosen,
    common_shape,
    filled,
    gathered,
    grid,
    joined,
    padded,
    select,
    sliced,
    tiled,
)
from verifier.ops import Array, Reshape, Transpose


def _flatten(call: Call) -> None:
    shape = call.shape(0)
    axis = call.axis(1, len(shape))
    call.builder.add(call.output, Reshape((prod(shape[:axis]), prod(shape[axis:]))), call.value(0))


def _reshape(call: Call) -> None:
    shape, wanted = call.shape(0), call.integers(1)
    if call.attributes.get("allowzero", 0) and 0 in wanted:
        raise call.refuse("an empty result")
    if (
        any(n == 0 and axis >= len(shape) for axis, n in enumerate(wanted))
        or wanted.count(-1) > 1
        or min(wanted, default=1) < -1
    ):
        raise BadNetwork(f"Reshape at {call.label!r}: {wanted} is not a shape for a value of shape {shape}")
    lengths = [shape[axis] if n == 0 else n for axis, n in enumerate(wanted)]
    if -1 in lengths:
        known = -prod(lengths)
        lengths[lengths.index(-1)] = prod(shape) // known
    call.builder.add(call.output, Reshape(tuple(lengths)), call.value(0))


def _squeeze(call: Call) -> None:
    shape = call.shape(0)
    axes = call.axes(len(shape))
    if axes is None:
        axes = {axis for axis, length in enumerate(shape) if length == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise BadNetwork(f"Squeeze at {call.label!r}: axes {sorted(axes)} of shape {shape} are not all of length 1")
    call.builder.add(call.output, Reshape(tuple(n for axis, n in enumerate(shape) if axis not in axes)), call.value(0))


def _unsqueeze(call: Call) -> None:
    shape = list(call.shape(0))
    given = call.attributes.get("axes") or call.integers(1)
    axes = call.axes(len(shape) + len(given))
    assert axes is not None, "axes are a required part of Unsqueeze and were read above"
    for axis in sorted(axes):
        shape.insert(axis, 1)
    call.builder.add(call.output, Reshape(tuple(shape)), call.value(0))


def _transpose(call: Call) -> None:
    permutation = call.attributes.get("perm", range(len(call.shape(0)))[::-1])
    call.builder.add(call.output, Transpose(tuple(int(axis) for axis in permutation)), call.value(0))


def _concat(call: Call) -> None:
    parts: list[str | Array] = [call.weights(k) if call.is_constant(k) else call.value(k) for k in range(len(call.inputs))]
    joined(call.builder, call.output, parts, int(call.attributes.get("axis", 1)), op=call.op, node=call.label)


def _select(call: Call, output: str, indices: Indices) -> None:
    select(call.builder, output, call.value(0), indices, op=call.op, node=call.label)


def _slice(call: Call) -> None:
    indices = grid(call.builder, call.value(0))
    given = [_slice_setting(call, k, name) for k, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))]
    starts, ends = given[0] or [], given[1] or []
    axes = list(range(len(starts))) if given[2] is None else given[2]
    steps = [1] * len(starts) if given[3] is None else given[3]
    rank = indices.ndim
    if (
        len({len(starts), len(ends), len(axes), len(steps)}) != 1
        or not all(-rank <= axis < rank for axis in axes)
        or 0 in steps
    ):
        raise BadNetwork(
            f"Slice at {call.label!r}: starts {starts}, ends {ends}, axes {axes} and steps {steps} do not fit rank {rank}"
        )
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        indices = sliced(indices, axis % rank, start, end, step)
    _select(call, call.output, indices)


def _slice_setting(call: Call, position: int, name: str) -> list[int] | None:
    """An input since opset 10, an attribute before; None where it is absent."""
    if call.name(position):
        return call.integers(position)
    given = call.attributes.get(name)
    return None if given is None else [int(n) for n in given]


def _gather(call: Call) -> None:
    indices = grid(call.builder, call.value(0))
    chosen = np.array(call.integers(1), dtype=np.int64).reshape(call.constants[call.name(1)].shape)
    axis = call.axis(0, indices.ndim, end=False)
    _select(call, call.output, gathered(indices, axis, chosen, op=call.op, node=call.label))


def _split(call: Call) -> None:
    indices = grid(call.builder, call.value(0))
    axis = call.axis(0, indices.ndim, end=False)
    length, count = indices.shape[axis], len(call.outputs)
    share = -(-length // count)
    lengths = [min(share, max(length - k * share, 0)) for k in range(count)]
    if call.name(1) or "split" in call.attributes:
        lengths = call.integers(1) if call.name(1) else [int(n) for n in call.attributes["split"]]
    if len(lengths) != count or sum(lengths) != length or min(lengths) < 1:
        raise BadNetwork(f"Split at {call.label!r}: parts {lengths} do not make up the length {length} of axis {axis}")
    for output, (begin, end) in zip(call.outputs, pairwise(accumulate(lengths, initial=0)), strict=True):
        if output:
            _select(call, output, sliced(indices, axis, begin, end, 1))


def _expand(call: Call) -> None:
    indices, wanted = grid(call.builder, call.value(0)), tuple(call.integers(1))
    if min(wanted, default=1) < 1:
        raise BadNetwork(f"Expand at {call.label!r}: {wanted} is not a shape; every length must be positive")
    shape = common_shape([indices.shape, wanted], op=call.op, node=call.label)
    check_selected(shape, f"the result of Expand at {call.label!r}")
    _select(call, call.output, np.broadcast_to(indices, shape))


def _tile(call: Call) -> None:
    indices = grid(call.builder, call.value(0))
    _select(call, call.output, tiled(indices, call.integers(1), op=call.op, node=call.label))


def _pad(call: Call) -> None:
    mode, filling = call.text("mode", "constant"), np.array(call.attributes.get("value", 0.0))
    if mode not in ("constant", "edge", "reflect"):
        raise call.refuse(f"mode {mode}; constant, edge and reflect are")
    if call.name(2):
        filling = call.weights(2)
        if filling.size != 1:
            raise BadNetwork(f"Pad at {call.label!r}: one number fills the new places, got {filling.size}")
    indices = grid(call.builder, call.value(0))
    rank = indices.ndim
    axes = [axis % rank for axis in call.integers(3)] if call.name(3) else list(range(rank))
    pads = [int(n) for n in call.attributes["pads"]] if "pads" in call.attributes else call.integers(1)
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise BadNetwork(f"Pad at {call.label!r}: pads {pads} do not give a beginning and an end for axes {axes}")
    pairs = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    indices = padded(indices, pairs, mode=mode, op=call.op, node=call.label)
    filled(call.builder, call.output, call.value(0), indices, filling.reshape(()), op=call.op, node=call.label)


def _where(call: Call) -> None:
    if not call.is_constant(0):
        raise call.refuse("a condition that is computed from the network's input")
    condition = call.constants[call.name(0)].astype(bool)
    first, second = (call.addend(k) if call.is_constant(k) else call.value(k) for k in (1, 2))
    chosen(call.builder, call.output, condition, (first, second), op=call.op, node=call.label)


REARRANGEMENTS: Mapping[str, Callable[[Call], None]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
