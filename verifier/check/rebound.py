"""Bounds proved again at many proof nodes at once: one backward pass for each undecided entry and sign, in network order."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from verifier.check.boxes import Boxes, push
from verifier.check.float_backward import Choices, Seen, lower_bounds
from verifier.check.float_maps import Dense, Picked
from verifier.check.float_model import FloatModel
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, LINEAR_OPS, Array

ENTRIES_AT_ONCE = 2**17
"""Coefficients in one pass: few enough to stay in a processor's cache."""
ROW_ENTRIES_AT_ONCE = 2**21

Indices = NDArray[np.int64]


def rebounded(model: FloatModel, boxes: Boxes, chosen: NDArray[np.bool_]) -> Boxes:
    """The boxes with more proven at the chosen nodes; no multipliers, default slopes. See `verifier.certificate`."""
    for name in model.nonlinear:
        if name == model.network.input or _is_direct(model, name):
            # sound: what is left out is only not gained; interval arithmetic is as good for one affine map of the input.
            continue
        low, high = boxes.sides[name]
        needed = undecided(model.network, name, low, high) & (chosen & boxes.alive)[:, None]
        if not needed.any():
            continue
        lower, upper = low.copy(), high.copy()
        for nodes, entries, used in _blocks(model, needed):
            bounds = _both_sides(model, Seen(boxes, nodes), name, entries)
            proven, where = bounds[:, : entries.shape[1]], (nodes[:, None], entries)
            lower[where] = np.where(used, np.maximum(lower[where], proven), lower[where])
            proven = -bounds[:, entries.shape[1] :]
            upper[where] = np.where(used, np.minimum(upper[where], proven), upper[where])
        boxes = push(model, boxes.replaced(name, (lower, upper)), [name])
        if not boxes.alive.any():
            break
    return boxes


def undecided(network: Network, name: str, low: Array, high: Array) -> NDArray[np.bool_]:
    """Which entries leave a node that reads them undecided: 0 within the bounds of an activation, no point for others."""
    readers = [node.op for node in network.nodes if name in node.inputs]
    is_open = np.zeros(low.shape, dtype=bool)
    if any(isinstance(op, ACTIVATION_OPS) for op in readers):
        is_open |= (low < 0) & (high > 0)
    if any(not isinstance(op, (*ACTIVATION_OPS, *LINEAR_OPS)) for op in readers):
        is_open |= low < high
    return is_open


def _is_direct(model: FloatModel, name: str) -> bool:
    """Whether a value is one affine map of the network's input, but for changes of single entries."""
    if name not in model.jumps:
        return False
    source = model.jumps[name].source
    while source in model.jumps and isinstance(model.jumps[source].mapped.parts[0], Picked):
        source = model.jumps[source].source
    return source == model.network.input


def _blocks(model: FloatModel, needed: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices, NDArray[np.bool_]]]:
    """Nodes, their entries (nodes, count), and which of these are meant (the rest pads); sizes fit one pass each.

    A padding entry repeats none that is meant, so that an assignment to all entries is well defined.
    """
    width = max(model.network.size(name) for name in model.network.shapes)
    counts = needed.sum(axis=1)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    at_once = max(1, ROW_ENTRIES_AT_ONCE // (2 * width))
    while order.size:
        # the widest first: all that follow have at most as many entries
        most = int(counts[order[-1]])
        take = max(1, ENTRIES_AT_ONCE // (2 * most * width))
        nodes, order = np.sort(order[-take:]), order[:-take]
        entries = np.argsort(~needed[nodes], axis=1, kind="stable")[:, :most]
        used = np.take_along_axis(needed[nodes], entries, axis=1)
        for first in range(0, most, at_once):
            yield nodes, entries[:, first : first + at_once], used[:, first : first + at_once]


def _both_sides(model: FloatModel, seen: Seen, name: str, entries: Indices) -> Array:
    """Lower bounds of the entries of a value, then of their negatives: (nodes, 2 * count)."""
    shape = (len(entries), 2 * entries.shape[1])
    jump = model.jumps.get(name)
    if jump is not None and isinstance(jump.mapped.parts[0], Dense) and jump.mapped.parts[0].copies == 1:
        # sound: a row of W and an entry of the bias are the form itself, further back, without rounding.
        rows, bias = jump.mapped.parts[0].rows(entries), jump.mapped.bias[entries]
        forms, constant = np.concatenate([rows, -rows], axis=1), np.concatenate([bias, -bias], axis=1)
        return lower_bounds(model, seen, {jump.source: forms}, shape, Choices(), constant=constant)
    forms = np.zeros((*shape, model.network.size(name)))
    places, columns = np.arange(len(entries))[:, None], np.arange(entries.shape[1])
    forms[places, columns, entries] = 1.0
    forms[places, columns + entries.shape[1], entries] = -1.0
    return lower_bounds(model, seen, {name: forms}, shape, Choices())
