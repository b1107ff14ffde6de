"""Many subproblems of a search by cases as one set of tensors.

A subproblem is one goal under the bounds of its root, cut by splits. All watched values of a network stand side by side on one
axis, and so do all slopes, so that choosing, joining and stepping are single operations whatever the depth of the network.
Where a network could be reduced the axes hold only the entries that its root leaves undecided; `whole` brings the others back.
The search runs in float32; what it closes is confirmed in float64 with the slopes as they will be stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from verifier.domains.choices import Atoms, Choices, Rows, select
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import (
    Interval,
    chord,
    has_slopes,
    has_upper_slopes,
    relaxed_nodes,
    slope_limits,
    values_read,
)
from verifier.engines.bound import push
from verifier.engines.planes import Fan, shares_at
from verifier.engines.problem import Batch, Goals, goal_rows
from verifier.engines.reduced import Reduced, limits
from verifier.engines.reduction import reduce
from verifier.network import Network
from verifier.ops import STEP_OPS, Relu


@dataclass(frozen=True)
class Layout:
    """Values side by side on one axis."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.sizes)

    def parts(self, flat: Tensor) -> dict[str, Tensor]:
        """The axis taken apart again, by name."""
        return dict(zip(self.names, flat.split(self.sizes, dim=-1), strict=True)) if self.names else {}

    def place(self, position: int) -> tuple[str, int]:
        """The value and the index in it of a position on the axis."""
        for name, size in zip(self.names, self.sizes, strict=True):
            if position < size:
                return name, position
            position -= size
        raise IndexError(position)


@dataclass(frozen=True, eq=False)
class Roots:
    """What the subproblems of each tree (the leading axis) share: the goal, the input box, the relations of the premise.

    watched: the values whose bounds matter to a pass; sloped, upper_sloped: the nodes with a choice of what stands below and
    above them. units: (trees, watched),
    typical size of the coefficients that reach a value, the unit of its multipliers. free: (watched,), where multipliers may
    always act. strict: (trees,), whether the goal is refuted by 0 itself. reduced: the network without its decided neurons, for
    passes in float32; None where it has other nonlinear nodes than Relu. fans: the planes that stand above its activations.
    """

    network: Network
    watched: Layout
    sloped: Layout
    upper_sloped: Layout
    box: Interval
    rows: Rows
    atoms: Atoms | None
    units: Tensor
    free: Tensor
    strict: Tensor
    known: Interval
    reduced: Reduced | None
    relations_are_goals: bool
    fans: tuple[Fan, ...]

    @cached_property
    def for_goals(self) -> Reduced | None:
        """The reduced network for passes from the goals."""
        return replace(self.reduced, atoms=None) if self.reduced is not None and self.relations_are_goals else self.reduced

    def without_planes(self) -> "Roots":
        """The same with chords alone above the activations."""
        reduced = None if self.reduced is None else replace(self.reduced, fans=())
        return replace(self, reduced=reduced, fans=())

    def to(self, dtype: torch.dtype) -> "Roots":
        """The same in another precision; the box is rounded outward."""
        low, high = self.box
        atoms = self.atoms
        return replace(
            self,
            box=(_below(low, dtype), _above(high, dtype)),
            rows=Rows({v: c.to(dtype) for v, c in self.rows.coefficients.items()}, self.rows.constant.to(dtype)),
            atoms=None
            if atoms is None
            else Atoms({v: c.to(dtype) for v, c in atoms.coefficients.items()}, atoms.bias.to(dtype)),
            units=self.units.to(dtype),
            known=(_below(self.known[0], dtype), _above(self.known[1], dtype)),
        )

    def place(self, position: int) -> tuple[str, int]:
        """The value and the index in it of a position on the axis of its subproblems."""
        return self.watched.place(position if self.reduced is None else int(self.reduced.watched[position]))


@dataclass(frozen=True, eq=False)
class Subproblems:
    """Open subproblems, (count, ...): the tree and the node in it, bounds of the watched values, and the choices of a pass.

    Their axes are those of the roots' layouts, or of the entries kept where the roots are reduced.
    multipliers: on the watched values' bounds, > 0 on the lower and < 0 on the upper one; relations: on the root's relations;
    cut: where a split or the premise cuts, so that a multiplier can help; bound: the best lower bound of the goal, be it
    inherited; own: what the choices gave when they were climbed to;
    shares (in 255ths), weights: those of the planes, on the axes of the fans; pace: (count, 1), how long the steps of its next
    climb are, up to 1;
    branches: (count, candidates) positions on the watched axis where a split promises most, best first, -1 for none; at: the
    numbers to split there; seeds: (count, candidates, 2), what the multiplier there begins from in either child.
    """

    tree: Tensor
    node: Tensor
    low: Tensor
    high: Tensor
    slopes: Tensor
    multipliers: Tensor
    relations: Tensor
    cut: Tensor
    bound: Tensor
    own: Tensor
    shares: Tensor
    weights: Tensor
    pace: Tensor
    branches: Tensor
    at: Tensor
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.tree)

    def take(self, index: Tensor) -> "Subproblems":
        """Some of them, by position or by mask."""
        return Subproblems(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, dtype: torch.dtype) -> "Subproblems":
        """The same numbers in a precision that holds them."""
        return replace(self, **{n: getattr(self, n).to(dtype) for n in FLOATS})

    def interval(self, position: Tensor) -> Interval:
        """The bounds at one watched position each."""
        return self.low.gather(1, position[:, None])[:, 0], self.high.gather(1, position[:, None])[:, 0]


FLOATS = ("low", "high", "slopes", "multipliers", "relations", "bound", "own", "weights", "pace", "at", "seeds")


def joined(parts: Sequence[Subproblems]) -> Subproblems:
    """Several sets as one."""
    return Subproblems(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Subproblems)})


def without_planes(subs: Subproblems) -> Subproblems:
    """The same subproblems for roots without planes."""
    return replace(subs, shares=subs.shares[:, :0], weights=subs.weights[:, :0])


def children(roots: Roots, subs: Subproblems, which: Tensor) -> Subproblems:
    """All of them with v <= at, then all with v >= at; which: (count,) number of the candidate to split.

    Children keep the parent's bound, which holds for them too, and its choices, with the multipliers that `seeds` adds.
    """
    count = torch.arange(len(subs))
    position, at = (t.gather(1, which[:, None])[:, 0] for t in (subs.branches, subs.at))
    pair = joined([subs, subs])
    pair.high[count, position] = at
    pair.low[count + len(subs), position] = at
    pair.cut[count, position] = True
    pair.cut[count + len(subs), position] = True
    pair.multipliers[count, position] += subs.seeds[count, which, 0]
    pair.multipliers[count + len(subs), position] += subs.seeds[count, which, 1]
    return exact_where_linear(roots, pair)


def pushed(roots: Roots, subs: Subproblems) -> Subproblems:
    """With what interval propagation says of them, as the replay of a certificate does; bound inf where it finds nothing left.

    A replay must not know more than this: where it sees that an activation is linear it takes no line, and a bound over the
    box may then be worse although every line is better. Where roots are reduced this waits until a subproblem is made `whole`.
    """
    if roots.reduced is not None:
        return subs
    wide = {v: (low.double(), high.double()) for v, (low, high) in bounds_of(roots, subs).items()}
    known, empty = push(roots.network, wide)
    low, high = (torch.cat([known[v][side] for v in roots.watched.names], 1) for side in (0, 1))
    bound = torch.where(empty, torch.inf, subs.bound)
    subs = replace(subs, low=_below(low, subs.low.dtype), high=_above(high, subs.high.dtype), bound=bound)
    return exact_where_linear(roots, subs)


def narrowed(roots: Roots, subs: Subproblems, low: Tensor, high: Tensor, empty: Tensor) -> Subproblems:
    """With other bounds (count, entries) in float64, rounded outward; bound inf where these leave nothing."""
    low, high = (torch.maximum(subs.low, _below(low, subs.low.dtype)), torch.minimum(subs.high, _above(high, subs.high.dtype)))
    return exact_where_linear(roots, replace(subs, low=low, high=high, bound=torch.where(empty, torch.inf, subs.bound)))


def whole(exact: Roots, reduced: Reduced | None, subs: Subproblems) -> Subproblems:
    """Subproblems in float64 with every watched value and every slope again, pushed; exact: the roots, not reduced."""
    wide = subs.to(torch.float64)
    if reduced is None:
        return wide
    low, high = (side[subs.tree] for side in exact.known)
    multipliers, cut = torch.zeros_like(low), torch.zeros_like(low, dtype=torch.bool)
    low[:, reduced.watched] = torch.maximum(low[:, reduced.watched], wide.low)
    high[:, reduced.watched] = torch.minimum(high[:, reduced.watched], wide.high)
    multipliers[:, reduced.watched], cut[:, reduced.watched] = wide.multipliers, subs.cut
    slopes = torch.zeros(len(subs), exact.sloped.width + exact.upper_sloped.width, dtype=low.dtype)
    slopes[:, reduced.sloped] = wide.slopes
    wide = replace(wide, low=low, high=high, multipliers=multipliers, cut=cut, slopes=slopes)
    return pushed(exact, wide)


def roots_of(batch: Batch, *, merged: bool = False) -> Roots:
    """The roots of a batch whose groups have one goal each; float64. merged: as for `reduce`."""
    network, nodes = batch.network, relaxed_nodes(batch.network)
    steps = {node.output for node in nodes if isinstance(node.op, STEP_OPS)}
    wanted = {*values_read(network), *batch.multiplied, *steps} or {network.input}  # of a linear network, to have an axis
    watched = _layout(network, [v for v in network.shapes if v in wanted])
    free = torch.cat([torch.full((n,), v in batch.multiplied) for v, n in zip(watched.names, watched.sizes, strict=True)])
    goals = [group.goals[0].atom for group in batch.groups]
    rows = goal_rows(network, goals)
    parts = dict(zip(watched.names, free.split(watched.sizes), strict=True))
    known = [torch.cat([batch.bounds[v][side] for v in watched.names], 1) for side in (0, 1)]
    reduced = reduce(network, batch.bounds, parts, rows, batch.atoms, merged=merged)
    return Roots(
        network,
        watched,
        _layout(network, [node.output for node in nodes if has_slopes(node)]),
        _layout(network, [node.output for node in nodes if has_upper_slopes(node)]),
        batch.bounds[network.input],
        rows,
        batch.atoms,
        _units(batch, rows, watched),
        free,
        torch.tensor([atom.strict for atom in goals]),
        (known[0], known[1]),
        reduced,
        all(set(group.relations) <= {goal} for group, goal in zip(batch.groups, goals, strict=True)),
        () if reduced is None else reduced.fans,
    )


def _layout(network: Network, names: Sequence[str]) -> Layout:
    return Layout(tuple(names), tuple(network.size(v) for v in names))


@torch.no_grad()
def _units(batch: Batch, rows: Rows, watched: Layout) -> Tensor:
    """The mean size of the coefficients that reach each watched value from the goal."""
    seen: dict[str, Tensor] = {}
    lower_bounds(batch.network, batch.bounds, rows, Choices({}), seen=seen)
    count = len(batch.groups)
    sizes = zip(watched.names, watched.sizes, strict=True)
    return (
        torch.cat([(seen[v].abs().mean(-1) if v in seen else torch.ones(count, 1)).expand(-1, n) for v, n in sizes], 1) + 1e-9
    )


def start(roots: Roots, goals: Goals, chosen: Sequence[int]) -> Subproblems:
    """The whole problem of every root as one subproblem each, with the choices of its goal row; float32, rounded outward."""
    count, single, rows = len(roots.units), torch.float32, torch.tensor(chosen)
    choices = select(goals.choices, rows)
    zero = {v: torch.zeros(count, n) for v, n in zip(roots.watched.names, roots.watched.sizes, strict=True)}
    lower, upper = ({v: m[:, 0] for v, m in side.items()} for side in (choices.lower, choices.upper))
    multipliers = torch.cat([lower.get(v, zero[v]) - upper.get(v, zero[v]) for v in roots.watched.names], 1)
    relations = torch.zeros(count, 1, 0) if choices.atoms is None else choices.atoms
    first = Subproblems(
        torch.arange(count),
        torch.arange(count),
        _below(roots.known[0], single),
        _above(roots.known[1], single),
        _flat(roots, choices).to(single),
        multipliers.to(single),
        relations[:, 0].to(single) * (not roots.relations_are_goals),
        roots.free.expand(count, -1).clone(),
        goals.bounds[rows].to(single),
        goals.bounds[rows].to(single),
        torch.zeros(count, 0, dtype=torch.uint8),
        torch.zeros(count, 0, dtype=single),
        torch.ones(count, 1, dtype=single),
        torch.full((count, 1), -1),
        torch.zeros(count, 1, dtype=single),
        torch.zeros(count, 1, 2, dtype=single),
    )
    if roots.reduced is not None:
        kept = {n: getattr(first, n)[:, roots.reduced.watched] for n in ("low", "high", "multipliers", "cut")}
        first = replace(first, slopes=first.slopes[:, roots.reduced.sloped], **kept)
        if roots.fans:
            slope = chord(Relu(), roots.reduced.of_read(first.low), roots.reduced.of_read(first.high))[0]
            shares, weights = shares_at(roots.fans, slope)
            first = replace(first, shares=shares, weights=weights)
    return exact_where_linear(roots, first)


def _flat(roots: Roots, choices: Choices) -> Tensor:
    parts = [choices.slopes[a] for a in roots.sloped.names] + [choices.upper_slopes[a] for a in roots.upper_sloped.names]
    none = torch.zeros(len(roots.units), 1, 0)  # of a network whose nodes take no slopes
    return torch.cat([none, *parts], 2)[:, 0]


def _below(x: Tensor, dtype: torch.dtype) -> Tensor:
    y = x.to(dtype)
    return torch.where(y.to(x.dtype) > x, torch.nextafter(y, torch.full_like(y, -torch.inf)), y)


def _above(x: Tensor, dtype: torch.dtype) -> Tensor:
    return -_below(-x, dtype)


def bounds_of(roots: Roots, subs: Subproblems) -> dict[str, Interval]:
    """The bounds of the watched values and the box, by name; not for subproblems of reduced roots."""
    lows, highs = roots.watched.parts(subs.low), roots.watched.parts(subs.high)
    bounds: dict[str, Interval] = {roots.network.input: (roots.box[0][subs.tree], roots.box[1][subs.tree])}
    bounds.update({v: (lows[v], highs[v]) for v in roots.watched.names})
    return bounds


def exact_where_linear(roots: Roots, subs: Subproblems) -> Subproblems:
    """With slopes within their limits: where an activation is linear a replay takes that line, whatever was chosen."""
    least, greatest = limits_of(roots, subs)
    return replace(subs, slopes=torch.maximum(torch.minimum(subs.slopes, greatest), least))


def limits_of(roots: Roots, subs: Subproblems) -> Interval:
    """The least and the greatest slopes worth choosing, (count, slopes)."""
    if roots.reduced is not None:
        return limits(roots.reduced, subs.low, subs.high)
    nodes = [roots.network.producers[name] for name in (*roots.sloped.names, *roots.upper_sloped.names)]
    bounds = bounds_of(roots, subs)
    sides: tuple[list[Tensor], list[Tensor]] = ([subs.low[:, :0]], [subs.low[:, :0]])
    for node in nodes:
        for side, limit in zip(sides, slope_limits(node, bounds), strict=True):
            side.append(limit[:, 0].to(subs.low.dtype))
    return torch.cat(sides[0], 1), torch.cat(sides[1], 1)
