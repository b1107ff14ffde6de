"""How the bounds of many subproblems are computed and climbed, and where each would best be split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.domains.choices import Atoms, Choices, Rows
from verifier.domains.linear import Fixed, lower_bounds
from verifier.domains.relaxations import Interval
from verifier.engines.bound import Clock
from verifier.engines.branching import split_points, split_scores
from verifier.engines.planes import WHOLE, planes_of, quantised
from verifier.engines.reduced import (
    Forms,
    Point,
    Reduced,
    gathered,
    gradients,
    limits,
    lines_above,
    loosened,
    lowest_inputs,
    passed,
)
from verifier.engines.subproblems import Roots, Subproblems, bounds_of, children, limits_of
from verifier.network import Network

SLOPE_RATE = 0.1  # the first step of a short climb, and what is left of a step after each
MULTIPLIER_RATE = 6.0  # in units of the coefficients that reach a value
DECAY = 0.97
MOMENTUM = 0.7
GAIN = 0.01  # of a subproblem's gap, below which its children climb in shorter steps
LEAST_PACE = 1 / 64
GROWTH = 4.0  # of a multiplier, in its step


@dataclass(frozen=True, eq=False)
class _Problem:
    """The arguments of a pass that do not change while the choices climb."""

    network: Network
    bounds: Mapping[str, Interval]
    rows: Rows
    atoms: Atoms | None
    fixed: dict[str, Fixed]


def _problem(roots: Roots, subs: Subproblems) -> _Problem:
    bounds = bounds_of(roots, subs)
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


def acting(subs: Subproblems) -> Interval:
    """Where a lower and where an upper multiplier may act, as 0 and 1; where a split fixed the sign, on that side alone."""
    return (subs.cut & (subs.high > 0)).to(subs.slopes), (subs.cut & (subs.low < 0)).to(subs.slopes)


def _used(roots: Roots, subs: Subproblems) -> tuple[str, ...]:
    """The values on which some multiplier may act."""
    return tuple(v for v, c in roots.watched.parts(subs.cut).items() if bool(c.any()))


@torch.no_grad()
def evaluate(roots: Roots, subs: Subproblems) -> Tensor:
    """The bounds (count,) that the choices give."""
    if roots.for_goals is not None:
        point = gathered(_point(roots.for_goals, subs), subs.cut)
        return passed(roots.for_goals, point, roots.for_goals.goal[subs.tree]).bounds
    return _value(_problem(roots, subs), _choices_of(roots, subs))


@torch.no_grad()
def evaluate_children(roots: Roots, subs: Subproblems, first: int, count: int) -> Tensor:
    """The bounds (2, subproblems, count) that the choices give in both children of some candidates, counted from the first."""
    if roots.for_goals is None or not roots.fans:
        pairs = [children(roots, subs, torch.full((len(subs),), first + k)) for k in range(count)]
        return torch.stack([evaluate(roots, pair).view(2, -1) for pair in pairs], -1)
    # the children of one subproblem share its planes, which are the most of a pass
    each = torch.arange(len(subs)).repeat_interleave(count)
    pair = children(roots, replace(subs, shares=subs.shares[:, :0]).take(each), first + torch.arange(count).repeat(len(subs)))
    bounds = []
    for half in torch.arange(len(pair)).chunk(2):
        own = replace(pair.take(half), shares=subs.shares)
        bounds.append(evaluate(roots, own).view(-1, count))
    return torch.stack(bounds)


def _choices_of(roots: Roots, subs: Subproblems) -> Choices:
    choices = _choices(roots, (subs.slopes, subs.multipliers, subs.relations), acting(subs), _used(roots, subs))
    return replace(choices, planes=planes_of(roots.fans, bounds_of(roots, subs), subs.shares, subs.weights))


def _point(reduced: Reduced, subs: Subproblems) -> Point:
    point = Point(subs.tree, subs.low, subs.high, subs.slopes, subs.multipliers, subs.relations)
    return replace(point, shares=subs.shares / WHOLE, weights=subs.weights) if reduced.fans else point


@torch.no_grad()
def with_branches(roots: Roots, subs: Subproblems, count: int) -> tuple[Subproblems, Tensor]:
    """The same with `count` candidates each for the next split, and the inputs (subproblems, size) that attain the bounds."""
    if roots.for_goals is not None:
        return _with_branches_reduced(roots.for_goals, subs, count)
    problem, choices = _problem(roots, subs), _choices_of(roots, subs)
    seen: dict[str, Tensor] = {}
    _value(problem, choices, seen)
    scores, points = split_scores(roots.network, problem.bounds, seen, choices), split_points(roots.network, problem.bounds)
    flat, at = (_side_by_side(roots, len(subs), parts) for parts in (scores, points))
    best, branches = flat.topk(min(count, flat.shape[1]), dim=1)
    low, high = problem.bounds[roots.network.input]
    slope = seen[roots.network.input][:, 0] if roots.network.input in seen else torch.zeros_like(low)
    places = torch.where(best > 0, branches, -1)
    seeds = torch.zeros(*places.shape, 2, dtype=subs.slopes.dtype)
    return replace(subs, branches=places, at=at.gather(1, branches), seeds=seeds), torch.where(slope >= 0, low, high)


@torch.no_grad()
def loosening(roots: Roots, subs: Subproblems) -> Tensor:
    """How much each watched entry loosens the bounds that the choices give, (subproblems, watched)."""
    if roots.for_goals is not None:
        point = gathered(_point(roots.for_goals, subs), subs.cut)
        return loosened(roots.for_goals, point, passed(roots.for_goals, point, roots.for_goals.goal[subs.tree]))
    problem, choices = _problem(roots, subs), _choices_of(roots, subs)
    seen: dict[str, Tensor] = {}
    _value(problem, choices, seen)
    return _side_by_side(roots, len(subs), split_scores(roots.network, problem.bounds, seen, choices))


def _side_by_side(roots: Roots, count: int, parts: Mapping[str, Tensor]) -> Tensor:
    """What is known of some watched values on one axis, 0 for the others."""
    sizes = zip(roots.watched.names, roots.watched.sizes, strict=True)
    return torch.cat([parts[v] if v in parts else torch.zeros(count, n) for v, n in sizes], 1)


def _with_branches_reduced(reduced: Reduced, subs: Subproblems, count: int) -> tuple[Subproblems, Tensor]:
    point = gathered(_point(reduced, subs), subs.cut)
    found = passed(reduced, point, reduced.goal[subs.tree])
    scores = loosened(reduced, point, found)
    best, places = scores.topk(min(count, scores.shape[1]), dim=1)
    seeds = _seeds(reduced, subs, found.arrived).gather(1, places[..., None].expand(-1, -1, 2))
    subs = replace(subs, branches=torch.where(best > 0, places, -1), at=torch.zeros_like(best), seeds=seeds)
    return subs, lowest_inputs(reduced, subs.tree, found)


def _seeds(reduced: Reduced, subs: Subproblems, arrived: Tensor) -> Tensor:
    """What a multiplier on each entry kept begins from once it is split, (count, watched, 2) for z <= 0 and for z >= 0.

    Under a coefficient a > 0 the parent took slope * z below a Relu. Its children take 0 and z, which a multiplier of a * slope
    on z <= 0, and of a * (1 - slope) on z >= 0, turns into that line again: so they begin from the parent's bound, where lines
    alone would lose what the slopes had gained.
    """
    seeds = torch.zeros(len(subs), len(reduced.watched), 2)
    positive = arrived.clamp(min=0)
    seeds[:, reduced.read, 0] = -positive * subs.slopes
    seeds[:, reduced.read, 1] = positive * (1 - subs.slopes)
    return seeds


def _value(problem: _Problem, choices: Choices, seen: dict[str, Tensor] | None = None) -> Tensor:
    network, bounds, rows = problem.network, problem.bounds, problem.rows
    return lower_bounds(network, bounds, rows, choices, atoms=problem.atoms, seen=seen, fixed=problem.fixed)[:, 0]


def climb(
    roots: Roots,
    subs: Subproblems,
    *,
    steps: int,
    target: float,
    out_of_time: Clock,
    rate: float = SLOPE_RATE,
    decay: float = DECAY,
) -> Subproblems:
    """Adam (Kingma and Ba 2015) on slopes and multipliers together; every subproblem keeps its best.

    The best choices are kept even where an inherited bound is above theirs, so that what comes after begins from them: bounds
    of neurons that were proved again may make the choices behind that bound worse, although it holds.
    """
    if roots.for_goals is not None:
        return _climb_reduced(roots, roots.for_goals, subs, steps, target, out_of_time, (rate, decay))
    problem, used, sides = _problem(roots, subs), _used(roots, subs), acting(subs)
    units, between = roots.units[subs.tree] * (MULTIPLIER_RATE / SLOPE_RATE), limits_of(roots, subs)
    parameters = [p.clone().requires_grad_() for p in (subs.slopes, subs.multipliers, subs.relations)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best, kept = torch.full_like(subs.bound, -torch.inf), [p.detach().clone() for p in parameters]
    for step in range(steps + 1):
        value = _value(problem, _choices(roots, (parameters[0], parameters[1], parameters[2]), sides, used))
        better = value.detach() > best
        best = torch.where(better, value.detach(), best)
        kept = [torch.where(better[:, None], p.detach(), k) for p, k in zip(parameters, kept, strict=True)]
        if step == steps or bool((best > target).all()) or out_of_time():
            break
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        pace = rate * decay**step
        _move(parameters, gradients, moments, (pace, pace * units, pace), step)
        _restrict(parameters, between, sides)
    bound = torch.maximum(best, subs.bound)
    return replace(subs, slopes=kept[0], multipliers=kept[1], relations=kept[2], bound=bound, own=best)


def _climb_reduced(
    roots: Roots, reduced: Reduced, subs: Subproblems, steps: int, target: float, out_of_time: Clock, pace: tuple[float, float]
) -> Subproblems:
    units = roots.units[:, reduced.watched][subs.tree] * (MULTIPLIER_RATE / SLOPE_RATE)
    start = reduced.goal[subs.tree]
    best, point, begun = climb_point(
        reduced,
        _point(reduced, subs),
        start,
        cut=subs.cut,
        units=units,
        steps=steps,
        target=target,
        out_of_time=out_of_time,
        rate=pace[0] * subs.pace,
        decay=pace[1],
    )
    bound = torch.maximum(best, subs.bound)
    # full steps from a point that was climbed to lead away from it, and the way back may take all of them
    gained = best - begun > GAIN * (target - best).abs()
    paces = torch.where(gained[:, None], 2 * subs.pace, 0.5 * subs.pace).clamp(LEAST_PACE, 1.0)
    subs = replace(subs, pace=paces)
    found = replace(subs, slopes=point.slopes, multipliers=point.multipliers, relations=point.relations, bound=bound, own=best)
    if point.shares is None or point.weights is None:
        return found
    return replace(found, shares=quantised(point.shares), weights=point.weights)


@torch.no_grad()
def climb_point(
    reduced: Reduced,
    point: Point,
    start: Forms,
    *,
    cut: Tensor | None,
    units: Tensor,
    steps: int,
    target: float,
    out_of_time: Clock,
    rate: Tensor | float = SLOPE_RATE,
    decay: float = DECAY,
) -> tuple[Tensor, Point, Tensor]:
    """The best bounds (count,) of forms over the reduced network, and the choices that give them, by Adam from a point; and the
    bounds at that point.

    cut: (count or 1, watched), where multipliers may act, None for nowhere; units: of their steps, (count or 1, watched).
    """
    between, above = limits(reduced, point.low, point.high), lines_above(reduced, point)
    cut = torch.zeros(1, len(reduced.watched), dtype=torch.bool) if cut is None else cut
    point = gathered(point, cut)
    cuts, low, high = point.at_cuts(cut), point.at_cuts(point.low), point.at_cuts(point.high)
    sides, units = ((cuts & (high > 0)).float(), (cuts & (low < 0)).float()), point.at_cuts(units)
    of_planes = [] if point.shares is None or point.weights is None else [point.shares, point.weights]
    parameters = [p.clone() for p in (point.slopes, point.multipliers, point.relations, *of_planes)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best, kept = torch.full((len(point.tree),), -torch.inf), [p.clone() for p in parameters]
    begun = best
    for step in range(steps + 1):
        at = _with(point, parameters)
        result = passed(reduced, at, start, above)
        begun = result.bounds if step == 0 else begun
        better = result.bounds > best
        best = torch.where(better, result.bounds, best)
        kept = [torch.where(better[:, None], p, k) for p, k in zip(parameters, kept, strict=True)]
        if step == steps or bool((best > target).all()) or out_of_time():
            break
        pace = rate * decay**step
        _move(
            parameters,
            gradients(reduced, at, result).parts,
            moments,
            (pace, pace * (units + GROWTH * parameters[1].abs()), pace, pace, pace)[: len(parameters)],
            step,
        )
        _restrict(parameters, between, sides)
    last = _with(point, kept)
    return best, replace(last, multipliers=last.every_multiplier(), places=None), begun


def _with(point: Point, parameters: Sequence[Tensor]) -> Point:
    slopes, multipliers, relations, *of_planes = parameters
    shares, weights = of_planes or (None, None)
    return replace(point, slopes=slopes, multipliers=multipliers, relations=relations, shares=shares, weights=weights)


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
            _adam(parameter, moment, gradient, pace, step)


@torch.no_grad()
def _restrict(parameters: Sequence[Tensor], between: Interval, sides: Interval) -> None:
    """Back into the ranges of slopes and multipliers."""
    slopes, multipliers, relations, *of_planes = parameters
    for part in of_planes:
        part.clamp_(0, 1)
    slopes.copy_(torch.maximum(torch.minimum(slopes, between[1]), between[0]))
    # sides are 0 or 1: without a lower side nothing above 0 remains, without an upper side nothing below
    multipliers.copy_(multipliers.clamp(min=0) * sides[0] + multipliers.clamp(max=0) * sides[1])
    relations.clamp_(min=0)


def _adam(parameter: Tensor, moment: tuple[Tensor, Tensor], gradient: Tensor, pace: Tensor | float, step: int) -> None:
    first, second = moment
    first.mul_(MOMENTUM).add_(gradient, alpha=1 - MOMENTUM)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    scale = (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - MOMENTUM ** (step + 1))
    size = second.sqrt().add_(1e-12)
    if isinstance(pace, Tensor):
        parameter.addcdiv_(first * pace, size, value=scale)
    else:
        parameter.addcdiv_(first, size, value=pace * scale)
