"""A network of Relus cut down to the neurons that are not decided, for many passes over subproblems of the same trees.

What is linear between the neurons kept is multiplied out once: every watched value that is kept is one linear form of the
input and of the activations kept before it. A pass is then one matrix product for each value, its gradient (the same walk
forward at the minimising input, by the envelope theorem) another one, and nothing is spent on neurons that are decided.
Passes run in float32 and only steer the search: what they close is confirmed by a pass over the network itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from verifier.domains.choices import Atoms, Choices, Rows, unit_rows
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import Interval, relaxed_nodes
from verifier.network import Network
from verifier.ops import Relu

MAX_ENTRIES = 6_000_000  # of the matrices together: beyond, the network's own operators are cheaper
ROWS_AT_ONCE = 256
BARELY = 1e-300  # an upper bound that does not count as off, under a line that is zero in practice
LAST_RESORT = 1e-12


@dataclass(frozen=True, eq=False)
class Block:
    """One watched value: its kept entries are matrix @ (input, earlier activations) + shift.

    watched: their places among all kept entries; active: the places of the activations that read them, None where nothing does;
    value, entries: its name, and which of its entries are kept.
    """

    watched: slice
    active: slice | None
    matrix: Tensor
    shift: Tensor
    value: str
    entries: Tensor


@dataclass(frozen=True, eq=False)
class Reduced:
    """watched, sloped: which entries of the flat axes of watched values and of slopes are kept; forms are over (input, kept).

    goal: (trees, width), goal_shift: (trees,); atoms: (trees, count, width) and atom_shift (trees, count), None without
    relations; box: center and radius, (trees, inputs), or (1, inputs) where all trees have the same; inputs: their number;
    read: (sloped,), which of the watched entries kept each activation reads.
    """

    watched: Tensor
    sloped: Tensor
    blocks: tuple[Block, ...]
    goal: Tensor
    goal_shift: Tensor
    atoms: Tensor | None
    atom_shift: Tensor | None
    box: Interval
    inputs: int
    read: Tensor


@dataclass(eq=False)
class Point:
    """Subproblems with the choices of a pass, on the entries kept.

    low, high, multipliers: (count, watched); slopes: (count, sloped); multipliers > 0 on the lower bound, < 0 on the upper one;
    relations: (count, atoms). Bounds may have one row for all.
    """

    tree: Tensor
    low: Tensor
    high: Tensor
    slopes: Tensor
    multipliers: Tensor
    relations: Tensor


Start = tuple[Tensor, Tensor]
"""Linear forms to be bounded, (count, width), and their constants, (count,)."""


@dataclass(frozen=True, eq=False)
class Passed:
    """bounds (count,); what arrived at each activation (count, sloped) and at the input (count, inputs); the lines above."""

    bounds: Tensor
    arrived: Tensor
    at_input: Tensor
    above: Interval


def reduce(
    network: Network, bounds: Mapping[str, Interval], free: Mapping[str, Tensor], rows: Rows, atoms: Atoms | None
) -> Reduced | None:
    """What is left of some trees over one network; None where it has other nonlinear nodes than Relu, or is too large.

    bounds: those of the roots, (trees, size); free: (size,) entries of watched values on which multipliers may always act, by
    the watched values in network order; rows: the goals, one for each tree, and atoms its relations.
    """
    nodes = relaxed_nodes(network)
    readers = {node.inputs[0]: node for node in nodes}
    if len(readers) < len(nodes) or not all(isinstance(node.op, Relu) for node in nodes):
        return None
    kept = {v: _kept(bounds[v], free[v], v in readers).nonzero()[:, 0] for v in free}
    size = network.size(network.input)
    width = size + sum(len(kept[v]) for v in readers)
    if sum(map(len, kept.values())) * width > 2 * MAX_ENTRIES:
        return None
    if not all(bool(side.isfinite().all()) for v in (*free, network.input) for side in bounds[v]):
        return None
    activations = {v: readers[v].output for v in free if v in readers}
    return _Reduction(network, bounds, kept, list(free), activations).reduced(rows, atoms)


def _kept(bounds: Interval, free: Tensor, read: bool) -> Tensor:
    low, high = bounds
    on, off = (low >= 0).all(0), (high <= 0).all(0)
    return free | ~(on | off) if read else free


class _Reduction:
    """Substitutes the decided neurons of a network; activations[v]: the Relu that reads v."""

    def __init__(
        self,
        network: Network,
        bounds: Mapping[str, Interval],
        kept: Mapping[str, Tensor],
        watched: Sequence[str],
        activations: Mapping[str, str],
    ) -> None:
        self.network, self.bounds, self.kept, self.watched, self.activations = network, bounds, kept, watched, activations
        self.pretended: dict[str, Interval] = {}
        self.slopes: dict[str, Tensor] = {}
        for value, active in activations.items():
            on = (bounds[value][0] >= 0).all(0)
            on[kept[value]] = False
            high = on.double()
            high[kept[value]] = BARELY
            self.pretended[value] = (on.double() - 1.0)[None], high[None]
            self.slopes[active] = on.double()[None, None]

    def reduced(self, rows: Rows, atoms: Atoms | None) -> Reduced:
        blocks, watched, sloped, read = [], [], [], []
        first = position = start = 0
        names = [node.output for node in relaxed_nodes(self.network)]
        offsets = dict(zip(names, accumulate([0, *(self.network.size(name) for name in names)]), strict=False))
        for value in self.watched:
            entries, active = self.kept[value], self.activations.get(value)
            matrix, shift = self._units(value, entries)
            end = start + len(entries)
            columns = self.network.size(self.network.input) + first
            if len(entries):
                spot = None if active is None else slice(first, first + len(entries))
                form = matrix[:, :columns].float().contiguous(), shift.float()
                blocks.append(Block(slice(start, end), spot, *form, value, entries))
                watched.append(entries + position)
            if active is not None:
                sloped.append(entries + offsets[active])
                read.append(torch.arange(start, end))
                first += len(entries)
            position += self.network.size(value)
            start = end
        goal, goal_shift = self._forms(rows)
        both = None if atoms is None else self._forms(Rows(atoms.coefficients, atoms.bias))
        low, high = self.bounds[self.network.input]
        if bool((low == low[0]).all() and (high == high[0]).all()):
            low, high = low[:1], high[:1]
        nothing = torch.zeros(0, dtype=torch.long)
        return Reduced(
            torch.cat([nothing, *watched]),
            torch.cat([nothing, *sloped]),
            tuple(blocks),
            goal[:, 0].float(),
            goal_shift[:, 0].float(),
            None if both is None else both[0].float(),
            None if both is None else both[1].float(),
            ((0.5 * low + 0.5 * high).float(), (0.5 * high - 0.5 * low).float()),
            self.network.size(self.network.input),
            torch.cat([nothing, *read]),
        )

    def _units(self, value: str, entries: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of a value as forms (entries, width), and their constants."""
        ones = torch.ones(1, ROWS_AT_ONCE, dtype=torch.float64)
        pieces = entries.split(ROWS_AT_ONCE) if len(entries) else ()
        parts = [self._forms(unit_rows(value, some[None], ones[:, : len(some)])) for some in pieces]
        forms = [(matrix[0], shift[0]) for matrix, shift in parts]
        width = self.network.size(self.network.input) + sum(len(self.kept[v]) for v in self.activations)
        nothing = torch.zeros(0, width, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        matrices, shifts = zip(nothing, *forms, strict=True)
        return torch.cat(matrices), torch.cat(shifts)

    @torch.no_grad()
    def _forms(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Rows (batch, spec) as forms over the input and the activations kept, with their constants."""
        seen: dict[str, Tensor] = {}
        count = len(rows.constant)
        name = self.network.input
        zero = torch.zeros(1, self.network.size(name), dtype=torch.float64)
        every = {v: (low[:1], high[:1]) for v, (low, high) in self.bounds.items()} | self.pretended | {name: (zero, zero)}
        wide = {v: (low.expand(count, -1), high.expand(count, -1)) for v, (low, high) in every.items()}
        # at the zero input the pass adds up the constants alone
        constants = lower_bounds(self.network, wide, rows, Choices(self.slopes), seen=seen)
        nothing = torch.zeros(*constants.shape, 1, dtype=torch.float64)
        parts = [seen.get(name, nothing.expand(-1, -1, zero.shape[1]))]
        for value, active in self.activations.items():
            arrived = seen.get(active, nothing.expand(-1, -1, self.network.size(active)))
            parts.append(arrived[..., self.kept[value]])
        return torch.cat(parts, -1), constants


def goals_of(reduced: Reduced, tree: Tensor) -> Start:
    """The forms of the goals of some trees; not to be written to."""
    if len(reduced.goal) == 1:
        return reduced.goal.expand(len(tree), -1), reduced.goal_shift.expand(len(tree))
    return reduced.goal[tree], reduced.goal_shift[tree]


def _related(reduced: Reduced, point: Point) -> Start | None:
    """What the relations contribute with their multipliers; None where there are none."""
    if reduced.atoms is None or reduced.atom_shift is None:
        return None
    if len(reduced.atoms) == 1:
        return point.relations @ reduced.atoms[0], point.relations @ reduced.atom_shift[0]
    weighed = torch.bmm(point.relations[:, None], reduced.atoms[point.tree])[:, 0]
    return weighed, (point.relations * reduced.atom_shift[point.tree]).sum(1)


def passed(reduced: Reduced, point: Point, start: Start, above: Interval | None = None) -> Passed:
    """One backward pass from forms (count, width) and constants (count,); above: the chords of the point, if known."""
    m, inputs = point.multipliers, reduced.inputs
    related = _related(reduced, point)
    form, total = (start[0].clone(), start[1]) if related is None else (related[0].add_(start[0]), related[1] + start[1])
    # sound: multipliers >= 0 on low - v <= 0 and v - high <= 0
    total = total + (m.clamp(min=0) * point.low + m.clamp(max=0) * point.high).sum(1)
    slope, shift = chords(point.low, point.high) if above is None else above
    for block in reversed(reduced.blocks):
        weight = -m[:, block.watched]
        if block.active is not None:
            arrived = form[:, inputs:][:, block.active]
            positive, negative = arrived.clamp(min=0), arrived.clamp(max=0)
            # sound: slope * z lies below a Relu for slopes in [0, 1], the chord above it
            weight.addcmul_(positive, point.slopes[:, block.active]).addcmul_(negative, slope[:, block.watched])
            total = total + (negative * shift[:, block.watched]).sum(1)
        total = total + weight @ block.shift
        form[:, : block.matrix.shape[1]].addmm_(weight, block.matrix)
    at_input = form[:, :inputs]
    center, radius = _box(reduced, point.tree)
    if len(center) == 1:
        total = total + at_input @ center[0] - at_input.abs() @ radius[0]
    else:
        total = total + (at_input * center).sum(1) - (at_input.abs() * radius).sum(1)
    return Passed(total, form[:, inputs:], at_input, (slope, shift))


def _box(reduced: Reduced, tree: Tensor) -> Interval:
    """Center and radius of the box of each subproblem; (1, inputs) where all trees have the same."""
    center, radius = reduced.box
    return (center, radius) if len(center) == 1 else (center[tree], radius[tree])


def lowest_inputs(reduced: Reduced, tree: Tensor, found: Passed) -> Tensor:
    """The inputs (count, inputs) at which the bounds of a pass are attained."""
    center, radius = _box(reduced, tree)
    return torch.addcmul(center, found.at_input.sign(), radius, value=-1)


def chords(low: Tensor, high: Tensor) -> Interval:
    """Slope and intercept of the lines above Relus."""
    open_ = (low < 0) & (high > 0)
    slope = torch.where(open_, high / (high - low).masked_fill(~open_, 1.0), (low >= 0).to(low.dtype))
    return slope, torch.where(open_, -low * slope, 0.0)


def gradients(reduced: Reduced, point: Point, found: Passed) -> tuple[Tensor, Tensor, Tensor]:
    """Of the bounds, in slopes, multipliers and relations: what the constraints say at the minimising input."""
    count, inputs = found.at_input.shape
    values = torch.empty(count, inputs + found.arrived.shape[1])
    values[:, :inputs] = lowest_inputs(reduced, point.tree, found)
    reached = torch.empty(count, point.multipliers.shape[1])
    of_slopes = found.arrived.clamp(min=0)
    for block in reduced.blocks:
        z = torch.addmm(block.shift, values[:, : block.matrix.shape[1]], block.matrix.T)
        reached[:, block.watched] = z
        if block.active is not None:
            arrived = found.arrived[:, block.active]
            slope, shift = (side[:, block.watched] for side in found.above)
            line = torch.where(arrived >= 0, point.slopes[:, block.active] * z, torch.addcmul(shift, slope, z))
            values[:, inputs:][:, block.active] = line
            of_slopes[:, block.active] *= z
    m, under, over = point.multipliers, point.low - reached, point.high - reached
    of_multipliers = torch.where(m > 0, under, torch.where(m < 0, over, under.clamp(min=0) + over.clamp(max=0)))
    return of_slopes, of_multipliers, _relations_at(reduced, point, values)


def _relations_at(reduced: Reduced, point: Point, values: Tensor) -> Tensor:
    """The left sides of the relations (count, atoms) at values (count, width) of the inputs and the activations kept."""
    if reduced.atoms is None or reduced.atom_shift is None:
        return torch.zeros_like(point.relations)
    if len(reduced.atoms) == 1:
        return torch.addmm(reduced.atom_shift[0], values, reduced.atoms[0].T)
    return torch.bmm(reduced.atoms[point.tree], values[..., None])[..., 0] + reduced.atom_shift[point.tree]


def limits(reduced: Reduced, low: Tensor, high: Tensor) -> Interval:
    """The least and the greatest slope, (count, sloped), under bounds (count, watched) of the entries kept."""
    low, high = low[:, reduced.read], high[:, reduced.read]
    return (low >= 0).to(low.dtype), 1.0 - ((high <= 0) & (low < 0)).to(low.dtype)


def loosened(reduced: Reduced, point: Point, found: Passed) -> Tensor:
    """How much each entry kept loosens the bound, (count, watched), as `split_scores` measures it."""
    scores = torch.zeros_like(point.low)
    for block in reduced.blocks:
        if block.active is None:
            continue
        low, high = point.low[:, block.watched], point.high[:, block.watched]
        arrived, slope = found.arrived[:, block.active], point.slopes[:, block.active]
        below = arrived.clamp(min=0) * torch.maximum((1 - slope) * high, -slope * low)
        score = below - arrived.clamp(max=0) * found.above[1][:, block.watched]
        scores[:, block.watched] = torch.where((low < 0) & (high > 0), score + LAST_RESORT * (high - low), 0.0)
    return scores
