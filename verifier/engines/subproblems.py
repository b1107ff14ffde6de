"""Many subproblems of a search by cases as one set of tensors, and how their bounds are computed and climbed.

A subproblem is one goal under the bounds of its root, cut by splits. All watched values of a network stand side by side on one
axis, and so do all slopes, so that choosing, joining and stepping are single operations whatever the depth of the network.
The search runs in float32; what it closes is confirmed in float64 with the slopes as they will be stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close, Relaxation
from verifier.domains.choices import Atoms, Choices, Rows, select
from verifier.domains.linear import Fixed, lower_bounds
from verifier.domains.relaxations import (
    Interval,
    has_slopes,
    has_upper_slopes,
    pool_choice,
    relaxed_nodes,
    slope_limits,
    values_read,
)
from verifier.engines.bound import Clock, push
from verifier.engines.branching import split_points, split_scores
from verifier.engines.problem import Batch, Goals, Group, goal_rows
from verifier.engines.reduced import Point, Reduced, gradients, loosened, passed, reduce
from verifier.network import Network, Node
from verifier.ops import STEP_OPS, LeakyRelu, MaxPool

SLOPE_RATE = 0.1
MULTIPLIER_RATE = 1.5  # in units of the coefficients that reach a value
DECAY = 0.97


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
    passes in float32; None where it has other nonlinear nodes than Relu.
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
    reduced: Reduced | None

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
        )


@dataclass(frozen=True, eq=False)
class Subproblems:
    """Open subproblems, (count, ...): the tree and the node in it, bounds of the watched values, and the choices of a pass.

    multipliers: on the watched values' bounds, > 0 on the lower and < 0 on the upper one; relations: on the root's relations;
    cut: where a split or the premise cuts, so that a multiplier can help; bound: the best lower bound of the goal;
    branches: (count, candidates) positions on the watched axis where a split promises most, best first, -1 for none; at: the
    numbers to split there.
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
    branches: Tensor
    at: Tensor

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


FLOATS = ("low", "high", "slopes", "multipliers", "relations", "bound", "at")


def joined(parts: Sequence[Subproblems]) -> Subproblems:
    """Several sets as one."""
    return Subproblems(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Subproblems)})


def children(roots: Roots, subs: Subproblems, which: Tensor) -> Subproblems:
    """All of them with v <= at, then all with v >= at; which: (count,) number of the candidate to split.

    Children keep the parent's choices and its bound, which holds for them too.
    """
    count = torch.arange(len(subs))
    position, at = (t.gather(1, which[:, None])[:, 0] for t in (subs.branches, subs.at))
    pair = joined([subs, subs])
    pair.high[count, position] = at
    pair.low[count + len(subs), position] = at
    pair.cut[count, position] = True
    pair.cut[count + len(subs), position] = True
    return exact_where_linear(roots, pair)


def pushed(roots: Roots, subs: Subproblems) -> Subproblems:
    """With what interval propagation says of them, as the replay of a certificate does; bound inf where it finds nothing left.

    A replay must not know more than this: where it sees that an activation is linear it takes no line, and a bound over the
    box may then be worse although every line is better.
    """
    wide = {v: (low.double(), high.double()) for v, (low, high) in _bounds(roots, subs).items()}
    known, empty = push(roots.network, wide)
    low, high = (torch.cat([known[v][side] for v in roots.watched.names], 1) for side in (0, 1))
    bound = torch.where(empty, torch.inf, subs.bound)
    subs = replace(subs, low=_below(low, subs.low.dtype), high=_above(high, subs.high.dtype), bound=bound)
    return exact_where_linear(roots, subs)


def roots_of(batch: Batch) -> Roots:
    """The roots of a batch whose groups have one goal each; float64."""
    network, nodes = batch.network, relaxed_nodes(batch.network)
    steps = {node.output for node in nodes if isinstance(node.op, STEP_OPS)}
    wanted = {*values_read(network), *batch.multiplied, *steps}
    watched = _layout(network, [v for v in network.shapes if v in wanted])
    free = torch.cat([torch.full((n,), v in batch.multiplied) for v, n in zip(watched.names, watched.sizes, strict=True)])
    goals = [group.goals[0].atom for group in batch.groups]
    rows = goal_rows(network, goals)
    parts = dict(zip(watched.names, free.split(watched.sizes), strict=True))
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
        reduce(network, batch.bounds, parts, rows, batch.atoms),
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


def start(batch: Batch, roots: Roots, goals: Goals, chosen: Sequence[int]) -> Subproblems:
    """The whole problem of every root as one subproblem each, with the choices of its goal row; float32, rounded outward."""
    count, single, rows = len(batch.groups), torch.float32, torch.tensor(chosen)
    low, high = (torch.cat([batch.bounds[v][side] for v in roots.watched.names], 1) for side in (0, 1))
    choices = select(goals.choices, rows)
    zero = {v: torch.zeros(count, n) for v, n in zip(roots.watched.names, roots.watched.sizes, strict=True)}
    lower, upper = ({v: m[:, 0] for v, m in side.items()} for side in (choices.lower, choices.upper))
    multipliers = torch.cat([lower.get(v, zero[v]) - upper.get(v, zero[v]) for v in roots.watched.names], 1)
    relations = torch.zeros(count, 1, 0) if choices.atoms is None else choices.atoms
    whole = Subproblems(
        torch.arange(count),
        torch.arange(count),
        _below(low, single),
        _above(high, single),
        _flat(roots, choices).to(single),
        multipliers.to(single),
        relations[:, 0].to(single),
        roots.free.expand(count, -1).clone(),
        goals.bounds[rows].to(single),
        torch.full((count, 1), -1),
        torch.zeros(count, 1, dtype=single),
    )
    return exact_where_linear(roots, whole)


def _flat(roots: Roots, choices: Choices) -> Tensor:
    parts = [choices.slopes[a] for a in roots.sloped.names] + [choices.upper_slopes[a] for a in roots.upper_sloped.names]
    none = torch.zeros(len(roots.units), 1, 0)  # of a network whose nodes take no slopes
    return torch.cat([none, *parts], 2)[:, 0]


def _below(x: Tensor, dtype: torch.dtype) -> Tensor:
    y = x.to(dtype)
    return torch.where(y.to(x.dtype) > x, torch.nextafter(y, torch.full_like(y, -torch.inf)), y)


def _above(x: Tensor, dtype: torch.dtype) -> Tensor:
    return -_below(-x, dtype)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The arguments of a pass that do not change while the choices climb."""

    network: Network
    bounds: Mapping[str, Interval]
    rows: Rows
    atoms: Atoms | None
    fixed: dict[str, Fixed]


def _bounds(roots: Roots, subs: Subproblems) -> dict[str, Interval]:
    lows, highs = roots.watched.parts(subs.low), roots.watched.parts(subs.high)
    bounds: dict[str, Interval] = {roots.network.input: (roots.box[0][subs.tree], roots.box[1][subs.tree])}
    bounds.update({v: (lows[v], highs[v]) for v in roots.watched.names})
    return bounds


def _problem(roots: Roots, subs: Subproblems) -> _Problem:
    bounds = _bounds(roots, subs)
    rows = Rows({v: c[subs.tree] for v, c in roots.rows.coefficients.items()}, roots.rows.constant[subs.tree])
    atoms = None if roots.atoms is None else roots.atoms.select(subs.tree)
    return _Problem(roots.network, bounds, rows, atoms, {})


def _choices(roots: Roots, choices: "_Parameters", sides: Interval, used: Sequence[str]) -> Choices:
    slopes, multipliers, relations = choices
    lower = roots.watched.parts((multipliers * sides[0]).clamp(min=0)[:, None])
    upper = roots.watched.parts((-multipliers * sides[1]).clamp(min=0)[:, None])
    below, above = slopes[:, None].split([roots.sloped.width, roots.upper_sloped.width], dim=-1)
    return Choices(
        roots.sloped.parts(below),
        {v: lower[v] for v in used},
        {v: upper[v] for v in used},
        None if roots.atoms is None else relations[:, None],
        roots.upper_sloped.parts(above),
    )


_Parameters = tuple[Tensor, Tensor, Tensor]


def _sides(subs: Subproblems) -> Interval:
    """Where a lower and where an upper multiplier may act, as 0 and 1; where a split fixed the sign, on that side alone."""
    return (subs.cut & (subs.high > 0)).to(subs.slopes), (subs.cut & (subs.low < 0)).to(subs.slopes)


def _used(roots: Roots, subs: Subproblems) -> tuple[str, ...]:
    """The values on which some multiplier may act."""
    return tuple(v for v, c in roots.watched.parts(subs.cut).items() if bool(c.any()))


@torch.no_grad()
def evaluate(roots: Roots, subs: Subproblems) -> Tensor:
    """The bounds (count,) that the choices give."""
    if roots.reduced is not None and subs.low.dtype == torch.float32:
        return passed(roots.reduced, _point(roots.reduced, subs)).bounds
    return _value(_problem(roots, subs), _choices_of(roots, subs))


def _choices_of(roots: Roots, subs: Subproblems) -> Choices:
    return _choices(roots, (subs.slopes, subs.multipliers, subs.relations), _sides(subs), _used(roots, subs))


def _point(reduced: Reduced, subs: Subproblems) -> Point:
    low, high, multipliers = (side[:, reduced.watched] for side in (subs.low, subs.high, subs.multipliers))
    return Point(subs.tree, low, high, subs.slopes[:, reduced.sloped], multipliers, subs.relations)


@torch.no_grad()
def with_branches(roots: Roots, subs: Subproblems, count: int) -> tuple[Subproblems, Tensor]:
    """The same with `count` candidates each for the next split, and the inputs (subproblems, size) that attain the bounds."""
    if roots.reduced is not None:
        return _with_branches_reduced(roots.reduced, subs, count)
    problem, choices = _problem(roots, subs), _choices_of(roots, subs)
    seen: dict[str, Tensor] = {}
    _value(problem, choices, seen)
    scores, points = split_scores(roots.network, problem.bounds, seen, choices), split_points(roots.network, problem.bounds)
    nothing = {v: torch.zeros(len(subs), n) for v, n in zip(roots.watched.names, roots.watched.sizes, strict=True)}
    flat = torch.cat([scores.get(v, nothing[v]) for v in roots.watched.names], 1)
    at = torch.cat([points.get(v, nothing[v]) for v in roots.watched.names], 1)
    best, branches = flat.topk(min(count, flat.shape[1]), dim=1)
    low, high = problem.bounds[roots.network.input]
    slope = seen[roots.network.input][:, 0] if roots.network.input in seen else torch.zeros_like(low)
    places = torch.where(best > 0, branches, -1)
    return replace(subs, branches=places, at=at.gather(1, branches)), torch.where(slope >= 0, low, high)


def _with_branches_reduced(reduced: Reduced, subs: Subproblems, count: int) -> tuple[Subproblems, Tensor]:
    point = _point(reduced, subs)
    found = passed(reduced, point)
    scores = loosened(reduced, point, found)
    best, places = scores.topk(min(count, scores.shape[1]), dim=1)
    branches = torch.where(best > 0, reduced.watched[places], -1)
    center, radius = (side[subs.tree] for side in reduced.box)
    return replace(subs, branches=branches, at=torch.zeros_like(best)), center - found.at_input.sign() * radius


def stored(roots: Roots, subs: Subproblems) -> Subproblems:
    """With slopes rounded to half precision, as a certificate keeps them: any slopes prove something, these need less room."""
    nodes = [roots.network.producers[name] for name in (*roots.sloped.names, *roots.upper_sloped.names)]
    least = [torch.full((roots.network.size(node.output),), _least_half(node)) for node in nodes]
    slopes = subs.slopes.half().to(subs.slopes)
    return replace(subs, slopes=torch.maximum(slopes, torch.cat([slopes.new_zeros(0), *least]).to(slopes)))


def _least_half(node: Node) -> float:
    """The least slope in half precision that a replay allows; -inf where it allows any."""
    if not isinstance(node.op, LeakyRelu):
        return -torch.inf
    half = np.float16(node.op.slope)
    return float(half if float(half) >= node.op.slope else np.nextafter(half, np.float16(np.inf)))


def closes_of(roots: Roots, groups: Sequence[Group], subs: Subproblems) -> Iterator[Close]:
    """The close that each of some subproblems, as `stored`, proves with its choices."""
    below, above = subs.slopes.half().split([roots.sloped.width, roots.upper_sloped.width], dim=-1)
    slopes = {a: s[:, None].numpy() for a, s in roots.sloped.parts(below).items()}
    slopes.update({name: choice[:, None].numpy() for name, choice in pool_choices(roots, subs).items()})
    upper_slopes = {a: s[:, None].numpy() for a, s in roots.upper_sloped.parts(above).items()}
    sides = [(sign * subs.multipliers * side).clamp(min=0) for side, sign in zip(_sides(subs), (1.0, -1.0), strict=True)]
    bounds = [{v: (m[:, None].numpy(), m.any(1).tolist()) for v, m in roots.watched.parts(side).items()} for side in sides]
    relations = subs.relations.numpy()
    for k, tree in enumerate(subs.tree.tolist()):
        group = groups[tree]
        goal = group.goals[0]
        atoms = group.query.disjuncts[goal.disjunct]
        multipliers = np.zeros((1, len(atoms)))
        multipliers[0, [atoms.index(a) for a in group.relations]] = relations[k, : len(group.relations)]
        multipliers[0, atoms.index(goal.atom)] += 1.0
        lower, upper = ({v: m[k] for v, (m, used) in side.items() if used[k]} for side in bounds)
        own, own_upper = ({a: s[k] for a, s in part.items()} for part in (slopes, upper_slopes))
        yield Close(goal.disjunct, Relaxation(own, lower, upper, multipliers, own_upper))


def pool_choices(roots: Roots, subs: Subproblems) -> dict[str, Tensor]:
    """Which entry stands for each maximum, (count, outputs) by pool."""
    lows, highs = roots.watched.parts(subs.low), roots.watched.parts(subs.high)
    pools = [node for node in roots.network.nodes if isinstance(node.op, MaxPool)]
    return {n.output: pool_choice(n, roots.network, lows[n.inputs[0]], highs[n.inputs[0]]).index for n in pools}


def _value(problem: _Problem, choices: Choices, seen: dict[str, Tensor] | None = None) -> Tensor:
    network, bounds, rows = problem.network, problem.bounds, problem.rows
    return lower_bounds(network, bounds, rows, choices, atoms=problem.atoms, seen=seen, fixed=problem.fixed)[:, 0]


def climb(
    roots: Roots, subs: Subproblems, *, steps: int, target: float, out_of_time: Clock, rate: float = SLOPE_RATE
) -> Subproblems:
    """Adam (Kingma and Ba 2015) on slopes and multipliers together; every subproblem keeps its best."""
    if roots.reduced is not None:
        return _climb_reduced(roots, roots.reduced, subs, steps, target, out_of_time, rate)
    problem, used, sides = _problem(roots, subs), _used(roots, subs), _sides(subs)
    units, limits = roots.units[subs.tree] * (MULTIPLIER_RATE / SLOPE_RATE), _limits(roots, problem.bounds)
    parameters = [p.clone().requires_grad_() for p in (subs.slopes, subs.multipliers, subs.relations)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best, kept = subs.bound, [p.detach().clone() for p in parameters]
    for step in range(steps + 1):
        value = _value(problem, _choices(roots, (parameters[0], parameters[1], parameters[2]), sides, used))
        better = value.detach() > best
        best = torch.where(better, value.detach(), best)
        kept = [torch.where(better[:, None], p.detach(), k) for p, k in zip(parameters, kept, strict=True)]
        if step == steps or bool((best > target).all()) or out_of_time():
            break
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        pace = rate * DECAY**step
        _move(parameters, gradients, moments, (pace, pace * units, pace), step)
        _restrict(parameters, limits, sides)
    return replace(subs, slopes=kept[0], multipliers=kept[1], relations=kept[2], bound=best)


@torch.no_grad()
def _climb_reduced(
    roots: Roots, reduced: Reduced, subs: Subproblems, steps: int, target: float, out_of_time: Clock, rate: float
) -> Subproblems:
    point = _point(reduced, subs)
    units = roots.units[subs.tree][:, reduced.watched] * (MULTIPLIER_RATE / SLOPE_RATE)
    sides = tuple(side[:, reduced.watched] for side in _sides(subs))
    limits = tuple(side[:, reduced.sloped] for side in _limits(roots, _bounds(roots, subs)))
    parameters = [p.clone() for p in (point.slopes, point.multipliers, point.relations)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best, kept = subs.bound, [p.clone() for p in parameters]
    for step in range(steps + 1):
        at = Point(point.tree, point.low, point.high, *parameters)
        found = passed(reduced, at)
        better = found.bounds > best
        best = torch.where(better, found.bounds, best)
        kept = [torch.where(better[:, None], p, k) for p, k in zip(parameters, kept, strict=True)]
        if step == steps or bool((best > target).all()) or out_of_time():
            break
        pace = rate * DECAY**step
        _move(parameters, gradients(reduced, at, found), moments, (pace, pace * units, pace), step)
        _restrict(parameters, (limits[0], limits[1]), (sides[0], sides[1]))
    slopes, multipliers = subs.slopes.clone(), subs.multipliers.clone()
    slopes[:, reduced.sloped], multipliers[:, reduced.watched] = kept[0], kept[1]
    return replace(subs, slopes=slopes, multipliers=multipliers, relations=kept[2], bound=best)


@torch.no_grad()
def _move(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    moments: Sequence[tuple[Tensor, Tensor]],
    paces: Sequence[Tensor | float],
    step: int,
) -> None:
    for parameter, gradient, moment, pace in zip(parameters, gradients, moments, paces, strict=True):
        if gradient is not None:
            parameter.add_(_adam(moment, gradient, step) * pace)


@torch.no_grad()
def _restrict(parameters: Sequence[Tensor], limits: Interval, sides: Interval) -> None:
    """Back into the ranges of slopes and multipliers."""
    slopes, multipliers, relations = parameters
    slopes.copy_(torch.maximum(torch.minimum(slopes, limits[1]), limits[0]))
    # sides are 0 or 1: without a lower side nothing above 0 remains, without an upper side nothing below
    multipliers.copy_(multipliers.clamp(min=0) * sides[0] + multipliers.clamp(max=0) * sides[1])
    relations.clamp_(min=0)


def exact_where_linear(roots: Roots, subs: Subproblems) -> Subproblems:
    """With slopes within their limits: where an activation is linear a replay takes that line, whatever was chosen."""
    least, greatest = _limits(roots, _bounds(roots, subs))
    return replace(subs, slopes=torch.maximum(torch.minimum(subs.slopes, greatest), least))


def _limits(roots: Roots, bounds: Mapping[str, Interval]) -> Interval:
    """The least and the greatest slopes worth choosing, (count, slopes)."""
    nodes = [roots.network.producers[name] for name in (*roots.sloped.names, *roots.upper_sloped.names)]
    low, _ = bounds[roots.network.input]
    sides: tuple[list[Tensor], list[Tensor]] = ([low[:, :0]], [low[:, :0]])
    for node in nodes:
        for side, limit in zip(sides, slope_limits(node, bounds), strict=True):
            side.append(limit[:, 0].to(low.dtype))
    return torch.cat(sides[0], 1), torch.cat(sides[1], 1)


def _adam(moment: tuple[Tensor, Tensor], gradient: Tensor, step: int) -> Tensor:
    first, second = moment
    first.mul_(0.9).add_(gradient, alpha=0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    return (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-12)
