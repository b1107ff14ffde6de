"""Bounds of single neurons by climbing on passes over the reduced network: many more steps in the time of one over the whole.

The climb runs in float32 and only chooses slopes and multipliers; the bounds that count are those of a float64 pass over the
network itself with these choices, as a replay will see them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.device import array_of, tensor_of
from verifier.domains.choices import Choices, unit_rows
from verifier.domains.linear import lower_bounds
from verifier.domains.optimise import Optimised
from verifier.domains.relaxations import relaxed_nodes
from verifier.engines.climbing import climb_point
from verifier.engines.problem import Batch
from verifier.engines.reduced import Block, Forms, Point, Reduced, limits, passed
from verifier.engines.warm import known_rows
from verifier.network import Network

SLOPE_STEP = 15.0  # a multiplier's step in units of the mean coefficient, against a slope's


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows to be bounded, flat: the batch entry of each, its place among the entries kept of its value, and its sign."""

    tree: Tensor
    place: Tensor
    sign: Tensor


@torch.no_grad()
def bound_entries(
    reduced: Reduced,
    batch: Batch,
    value: str,
    columns: Tensor,
    *,
    steps: int,
    out_of_time: Callable[[], bool],
    trees: Tensor,
    cut: Tensor | None = None,
) -> Optimised:
    """Lower bounds of value at columns (groups, count), then of -value, (groups, 2 * count); -inf for entries not kept.

    trees: (groups,), the tree of the reduced network that each group of the batch is of. cut: (groups, watched), where a split
    cuts, so that a multiplier on the bound can help. Rows that the batch's steps have bounded before go on from there.
    """
    block = next((block for block in reduced.blocks if block.value == value), None)
    kept = _places(batch.network, block, value)[columns]
    rows = _rows(kept)
    point, start = _point(reduced, batch, rows, trees), _start(reduced, block, rows)
    _warm(reduced, batch, value, columns, point)
    own = None if cut is None else cut[rows.tree] if len(cut) > 1 else cut
    units = torch.ones(1, 1) if cut is None else _units(reduced, point, start)
    point = climb_point(
        reduced,
        _within(reduced, point),
        start,
        cut=own,
        units=units,
        steps=steps,
        target=torch.inf,
        out_of_time=out_of_time,
    )[1]
    choices = _choices(reduced, batch, point, cut, shape=(len(columns), 2 * columns.shape[1]))
    ones = torch.ones(columns.shape, dtype=torch.float64)
    units_of = unit_rows(value, torch.cat([columns, columns], 1), torch.cat([ones, -ones], 1))
    bounds = lower_bounds(batch.network, batch.bounds, units_of, choices, atoms=batch.atoms)
    unknown = torch.cat([kept, kept], 1) < 0
    return Optimised(bounds.masked_fill(unknown | bounds.isnan(), -torch.inf), _halved(choices))


def _halved(choices: Choices) -> Choices:
    """The same choices in the half precision that they were rounded to: they wait in memory for all rows of a value."""
    slopes, lower, upper = (
        {name: tensor.half() for name, tensor in side.items()} for side in (choices.slopes, choices.lower, choices.upper)
    )
    return replace(choices, slopes=slopes, lower=lower, upper=upper)


def _places(network: Network, block: Block | None, value: str) -> Tensor:
    """Where each entry of a value is among those kept; -1 where it is not."""
    places = torch.full((network.size(value),), -1)
    if block is not None:
        places[block.entries] = torch.arange(len(block.entries))
    return places


def _rows(kept: Tensor) -> _Rows:
    count = kept.shape[1]
    tree = torch.arange(len(kept))[:, None].expand(-1, 2 * count)
    sign = torch.cat([torch.ones(count), -torch.ones(count)]).expand(len(kept), -1)
    return _Rows(tree.reshape(-1), torch.cat([kept, kept], 1).clamp(min=0).reshape(-1), sign.reshape(-1))


def _flat_bounds(reduced: Reduced, batch: Batch, side: int) -> Tensor:
    """(groups, watched) in float32, at the entries kept."""
    parts = [batch.bounds[block.value][side][:, block.entries].float() for block in reduced.blocks]
    return torch.cat([torch.zeros(len(batch.groups), 0), *parts], 1)


def _point(reduced: Reduced, batch: Batch, rows: _Rows, trees: Tensor) -> Point:
    low, high = (_flat_bounds(reduced, batch, side) for side in (0, 1))
    if len(low) > 1:
        low, high = low[rows.tree], high[rows.tree]
    count = len(rows.tree)
    slopes = ((high > -low) | (low >= 0))[:, reduced.read].float().expand(count, -1).clone()
    relations = 0 if reduced.atoms is None else reduced.atoms.constant.shape[1]
    return Point(trees[rows.tree], low, high, slopes, torch.zeros(count, len(reduced.watched)), torch.zeros(count, relations))


def _warm(reduced: Reduced, batch: Batch, value: str, columns: Tensor, point: Point) -> None:
    """Write the choices of the last step that bounded each row into a point."""
    nodes = {node.inputs[0]: node.output for node in relaxed_nodes(batch.network)}
    count = columns.shape[1]
    for b, group, step, there, source in known_rows(batch, value, columns):
        rows = there + 2 * count * b
        given = step.relaxation
        for block in reduced.blocks:
            slopes = given.slopes.get(nodes.get(block.value, ""))
            if block.active is not None and slopes is not None and len(slopes) == len(step.indices):
                chosen = tensor_of(slopes[source][:, array_of(block.entries)]).float()
                point.slopes[rows[:, None], torch.arange(block.active.start, block.active.stop)] = chosen
        if given.atoms.size and len(given.atoms) == len(step.indices) and group.relations:
            places = [group.common.index(atom) for atom in group.relations]
            chosen = tensor_of(given.atoms[source][:, places]).float()
            point.relations[rows[:, None], torch.arange(len(places))] = chosen


def _start(reduced: Reduced, block: Block | None, rows: _Rows) -> Forms:
    if block is None:
        return Forms(torch.zeros(len(rows.tree), reduced.width), None, torch.zeros(len(rows.tree)))
    forms, sign = block.rows(rows.place, reduced.width), rows.sign[:, None]
    return Forms(forms.carried * sign, None if forms.inputs is None else forms.inputs * sign, forms.constant * rows.sign)


def _within(reduced: Reduced, point: Point) -> Point:
    least, greatest = limits(reduced, point.low, point.high)
    point.slopes = torch.maximum(torch.minimum(point.slopes, greatest), least)
    return point


def _units(reduced: Reduced, point: Point, start: Forms) -> Tensor:
    """The mean size of the coefficients that reach each block, (rows, watched)."""
    found = passed(reduced, point, start)
    units = torch.ones_like(point.multipliers)
    for block in reduced.blocks:
        if block.active is not None and len(block.entries):
            units[:, block.watched] = found.arrived[:, block.active].abs().mean(1, keepdim=True)
    return (units + 1e-9) * SLOPE_STEP


def _choices(reduced: Reduced, batch: Batch, point: Point, cut: Tensor | None, *, shape: tuple[int, int]) -> Choices:
    """The choices of a point for the whole network, (groups, rows, ...) in float64."""
    slopes: dict[str, Tensor] = {}
    lower: dict[str, Tensor] = {}
    upper: dict[str, Tensor] = {}
    nodes = {node.inputs[0]: node for node in relaxed_nodes(batch.network)}
    every = {v: batch.bounds[v] for v in nodes}
    for value, node in nodes.items():
        on = (every[value][0] >= 0).double()[:, None]
        slopes[node.output] = on.expand(-1, shape[1], -1).clone()
    for block in reduced.blocks:
        chosen = point.multipliers[:, block.watched].half().double().view(*shape, -1)
        for side, sign in ((lower, 1.0), (upper, -1.0)):
            if cut is not None and bool(cut[:, block.watched].any()):
                side[block.value] = torch.zeros(*shape, batch.network.size(block.value), dtype=torch.float64)
                side[block.value][..., block.entries] = (sign * chosen).clamp(min=0)
        if block.active is not None:
            # slopes are stored in half precision: any prove something, these need less room
            half = point.slopes[:, block.active].half().double().view(*shape, -1)
            low, high = (side[:, block.entries][:, None] for side in every[block.value])
            half = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, half))
            slopes[nodes[block.value].output][..., block.entries] = half
    relations = point.relations.double().view(*shape, -1)
    return Choices(slopes, lower, upper, None if batch.atoms is None else relations)
