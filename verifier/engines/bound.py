"""Bound propagation on batches of groups: bounds under the premise, then each goal with optimised choices.

Nothing is called proved here on the word of floating point: what is found is recorded as certificate steps and closes, and
`verifier.check` decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Close
from verifier.device import tensor_of
from verifier.domains.bounds import Bounds, Cuts, before_activation, cuts_of, pushed_back
from verifier.domains.choices import (
    Atoms,
    Choices,
    Rows,
    choose,
    join,
    merged,
    select,
    unit_rows,
)
from verifier.domains.interval import INTERVAL, intersected, interval_bounds
from verifier.domains.linear import lower_bounds
from verifier.domains.optimise import Optimised, optimise, pinned
from verifier.domains.relaxations import (
    Interval,
    adaptive_slopes,
    adaptive_upper_slopes,
    relaxed_nodes,
    undecided,
    values_read,
)
from verifier.engines.premise import stopped_at
from verifier.engines.problem import Batch, GoalRow, Goals, Group, gather, goal_rows, relation_atoms
from verifier.engines.record import close_of, steps_of
from verifier.engines.warm import warm_choices
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, AveragePool, Conv, Linear, Sum
from verifier.region import outer_bounds

MAX_CLIMBED = 1_000_000  # of one, while it is optimised: the clock is looked at between steps
MAX_ENTRIES = 8_000_000  # of one coefficient tensor: 64 MB
LEAST_GAIN = 1e-3  # of a neuron's width

Clock = Callable[[], bool]
Bounder = Callable[[Batch, str, Tensor, int, Clock], Optimised]


def never() -> bool:
    """A clock that does not run out."""
    return False


def start_batch(groups: Sequence[Group]) -> Batch:
    """Interval bounds of every value under each group's region and single-term atoms."""
    network = groups[0].query.network
    boxes = [outer_bounds(g.query.region) for g in groups]
    low, high = (tensor_of(np.stack(side)) for side in zip(*boxes, strict=True))
    known = interval_bounds(network, low, high, cuts=cuts_of(network, [g.common for g in groups]))
    cuts = {a for g in groups for a in g.common if len(a.terms) == 1}
    named = {a.terms[0].value for cut in cuts for a in (cut, before_activation(network, cut))} - {network.input}
    multiplied = tuple(name for name in network.shapes if name in named)
    relations = relation_atoms(network, groups)
    return Batch(network, tuple(groups), intervals(known), known.empty, relations, multiplied, ((),) * len(groups))


def resumed(known: Sequence[Batch]) -> Batch:
    """One batch of batches over the same network, each entry with the bounds and the steps that it has; where engines compute
    now, wherever these are."""
    batch = start_batch([group for part in known for group in part.groups])
    bounds = {
        v: (
            torch.cat([part.bounds[v][0] for part in known]).to(low.device),
            torch.cat([part.bounds[v][1] for part in known]).to(high.device),
        )
        for v, (low, high) in batch.bounds.items()
    }
    empty = torch.cat([part.empty for part in known]).to(batch.empty.device)
    return replace(batch, bounds=bounds, empty=empty, steps=tuple(steps for part in known for steps in part.steps))


def narrowed(batch: Batch, known: Batch) -> Batch:
    """The batch within the bounds of another one of a single group, whose premise all of its groups hold."""
    bounds = {
        v: (torch.maximum(low, known.bounds[v][0]), torch.minimum(high, known.bounds[v][1]))
        for v, (low, high) in batch.bounds.items()
    }
    pushed, empty = push(batch.network, bounds)
    return replace(batch, bounds=pushed, empty=batch.empty | known.empty | empty)


def push(
    network: Network, bounds: Mapping[str, Interval], *, changed: str | None = None
) -> tuple[Mapping[str, Interval], Tensor]:
    """Interval propagation through the whole graph, intersected with the bounds already known; which entries have none left.

    changed: the one value whose bounds were narrowed since the last push, so that what does not depend on it stays.
    """
    if changed is None:
        low, high = bounds[network.input]
        known = interval_bounds(network, low, high, cuts=_cuts(bounds))
        return intervals(known), known.empty
    first = changed
    while first in network.producers and isinstance(network.producers[first].op, ACTIVATION_OPS):
        (first,) = network.producers[first].inputs  # narrower, too
    cuts, narrower, empty = _cuts(bounds), dict(bounds), torch.zeros(len(bounds[first][0]), dtype=torch.bool)
    if first != changed:
        cuts = pushed_back(network, cuts)
    affected: set[str] = set()
    for name in network.shapes:
        node = network.producers.get(name)
        if name != first and (node is None or affected.isdisjoint(node.inputs)):
            continue
        state = _shaped(network, narrower, name)
        if node is not None and name != first:
            state = INTERVAL[type(node.op)](node.op, [_shaped(network, narrower, source) for source in node.inputs])
        (low, high), crossed = intersected(state, cuts, name)
        narrower[name], empty = (low.reshape(len(low), -1), high.reshape(len(low), -1)), empty | crossed
        affected.add(name)
    return narrower, empty


def _shaped(network: Network, bounds: Mapping[str, Interval], name: str) -> Interval:
    low, high = bounds[name]
    shape = (len(low), *network.shapes[name])
    return low.reshape(shape), high.reshape(shape)


def _cuts(bounds: Mapping[str, Interval]) -> Cuts:
    lower, upper = ({name: interval[side] for name, interval in bounds.items()} for side in (0, 1))
    return Cuts(lower, upper, torch.zeros(1, dtype=torch.bool))


def intervals(known: Bounds) -> dict[str, Interval]:
    return {name: (low, known.upper[name]) for name, low in known.lower.items()}


def tighten(
    batch: Batch,
    *,
    steps: int = 0,
    out_of_time: Clock = never,
    bound: Bounder | None = None,
    values: Sequence[str] | None = None,
    wanted: Mapping[str, Tensor] | None = None,
) -> Batch:
    """Bound the undecided entries that relaxed nodes read again by backward passes, value by value in network order.

    With steps > 0 the slopes and the multipliers on the premise are optimised for each entry. bound: in place of passes over
    the network: (batch, value, columns, steps, out_of_time) to bounds of the value at columns, then of its negative. values:
    only these. wanted: of each value, (groups, size), only the entries at which it is true.
    """
    own = bound or _bound_neurons
    for value in values_read(batch.network) if values is None else values:
        if out_of_time() or bool(batch.empty.all()):
            break
        if steps or not interval_is_exact(batch.network, value):
            batch = _tighten_value(batch, value, open_entries(batch, value, wanted), steps, out_of_time, own)
    return batch


def interval_is_exact(network: Network, value: str) -> bool:
    """Whether interval propagation loses nothing up to this value: one mixing linear map of the input at most."""
    mixing, relaxed = 0, relaxed_nodes(network)
    while value != network.input:
        node = network.producers[value]
        if isinstance(node.op, Sum) or len(node.inputs) > 1 or node in relaxed:
            return False
        mixing += isinstance(node.op, (Linear, Conv, AveragePool))
        value = node.inputs[0]
    return mixing <= 1


def open_entries(batch: Batch, value: str, wanted: Mapping[str, Tensor] | None = None) -> Tensor:
    """The entries of a value (groups, size) at which some relaxation of a group that is not empty is not exact; wanted: as for
    `tighten`."""
    open_ = undecided(batch.network, batch.bounds, value) & ~batch.empty[:, None]
    return open_ if wanted is None else open_ & wanted[value]


def _tighten_value(batch: Batch, value: str, open_: Tensor, steps: int, out_of_time: Clock, bound: Bounder) -> Batch:
    count = int(open_.sum(1).max())
    if not count:
        return batch
    # the open neurons of each group come first; groups with fewer are padded with closed ones
    columns = open_.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :count]
    widest = max(batch.network.size(name) for name in batch.network.shapes)
    chunk = max(1, (MAX_CLIMBED if steps else MAX_ENTRIES) // (2 * len(columns) * widest))
    parts: list[Optimised] = []
    for part in columns.split(chunk, dim=1):
        if parts and out_of_time():
            break
        parts.append(bound(batch, value, part, steps, out_of_time))
    columns = columns[:, : sum(part.bounds.shape[1] // 2 for part in parts)]
    # one step for all chunks: a replay pushes after every step, and the passes here know nothing of such a push
    found = _both_signs(parts)
    from_below, from_above = found.bounds.chunk(2, dim=1)
    low, high = batch.bounds[value]
    # no step of a group proves what its padding found
    gained = open_.gather(1, columns)
    if bound is not _bound_neurons:  # of values bounded again and again
        gained &= _gained(low.gather(1, columns), high.gather(1, columns), from_below, -from_above)
    open_ = open_ & torch.zeros_like(open_).scatter(1, columns, gained)
    low = low.scatter_reduce(1, columns, from_below.masked_fill(~gained, -torch.inf), "amax")
    high = high.scatter_reduce(1, columns, (-from_above).masked_fill(~gained, torch.inf), "amin")
    bounds, empty = push(batch.network, {**batch.bounds, value: (low, high)}, changed=value)
    own = dict(steps_of(batch, value, columns, open_, found))
    proofs = tuple((*earlier, own[b]) if b in own else earlier for b, earlier in enumerate(batch.steps))
    return replace(batch, bounds=bounds, empty=batch.empty | empty, steps=proofs)


def _gained(low: Tensor, high: Tensor, new_low: Tensor, new_high: Tensor) -> Tensor:
    """Where new bounds say enough more than the old ones to be worth their place in a certificate."""
    width = (high - low).nan_to_num(posinf=1.0)
    return (new_low > low + LEAST_GAIN * width) | (new_high < high - LEAST_GAIN * width)


def _both_signs(parts: Sequence[Optimised]) -> Optimised:
    """What was found for several runs of columns, bounds from below and then of the negative in each, as for one run."""
    if len(parts) == 1:
        return parts[0]

    def merge(tensors: Sequence[Tensor]) -> Tensor:
        halves = [t.chunk(2, dim=1) for t in tensors]
        return torch.cat([below for below, _ in halves] + [above for _, above in halves], 1)

    return Optimised(merge([p.bounds for p in parts]), merged([p.choices for p in parts], merge))


def _bound_neurons(batch: Batch, value: str, columns: Tensor, steps: int, out_of_time: Clock) -> Optimised:
    """Lower bounds of value at columns (groups, count), then of -value, (groups, 2 * count)."""
    ones = torch.ones(columns.shape, dtype=torch.float64)
    rows = unit_rows(value, torch.cat([columns, columns], 1), torch.cat([ones, -ones], 1))
    if not steps:
        with torch.no_grad():
            return Optimised(lower_bounds(batch.network, batch.bounds, rows, Choices({})), Choices({}))
    # the premise may speak of values past this one, so the pass may meet any node
    start = adaptive(batch.network, batch.bounds)
    wide = Choices(
        {name: s.expand(-1, rows.constant.shape[1], -1) for name, s in start.slopes.items()},
        upper_slopes={name: s.expand(-1, rows.constant.shape[1], -1) for name, s in start.upper_slopes.items()},
    )
    names = list(batch.network.shapes)
    upstream = [name for name in batch.multiplied if names.index(name) <= names.index(value)]
    return climb(
        batch.network,
        batch.bounds,
        rows,
        wide,
        atoms=batch.atoms,
        multiplied=upstream,
        steps=steps,
        warm=warm_choices(batch, value, columns, wide, upstream),
        out_of_time=out_of_time,
    )


def adaptive(network: Network, bounds: Mapping[str, Interval]) -> Choices:
    """The slopes that a pass takes where nothing is optimised, (batch, 1, size), and no multipliers."""
    return Choices(adaptive_slopes(network, bounds), upper_slopes=adaptive_upper_slopes(network, bounds))


def climb(
    network: Network,
    bounds: Mapping[str, Interval],
    rows: Rows,
    plain: Choices,
    *,
    atoms: Atoms | None,
    multiplied: Sequence[str],
    steps: int,
    target: float = torch.inf,
    warm: Choices | None = None,
    programs: bool = False,
    out_of_time: Clock = never,
) -> Optimised:
    """Optimise rows from the best of several starts: no multipliers, or those that stop the pass at one of `multiplied`.

    plain: slopes (batch, spec, size). Stopping at v means to cancel every coefficient there against the bounds of v, which is
    what proves a clause whose body confines a whole layer; with programs, the relations about v are weighed first.
    """
    seen: dict[str, Tensor] = {}
    zeros = {v: torch.zeros(*rows.constant.shape, network.size(v), dtype=rows.constant.dtype) for v in multiplied}
    no_atoms = None if atoms is None else torch.zeros(*rows.constant.shape, atoms.bias.shape[1], dtype=rows.constant.dtype)
    start = plain_start = replace(plain, lower=zeros, upper=zeros, atoms=no_atoms)
    with torch.no_grad():
        best = lower_bounds(network, bounds, rows, start, atoms=atoms, seen=seen)
        scales = {v: seen[v].abs().mean(-1, keepdim=True) + 1e-9 for v in multiplied if v in seen}
        for v in scales:
            stop = replace(start, lower={**zeros, v: seen[v].clamp(min=0)}, upper={**zeros, v: (-seen[v]).clamp(min=0)})
            best, start = _better(network, bounds, rows, atoms, best, start, stop)
            if programs and atoms is not None and not bool((best > target).all()):
                weighed = stopped_at(v, seen[v], plain_start, atoms, bounds, best <= target)
                best, start = _better(network, bounds, rows, atoms, best, start, weighed or start)
        if programs and atoms is not None and network.input in seen and not bool((best > target).all()):
            # a pass ends there, so that only the relations need multipliers
            weighed = stopped_at(network.input, seen[network.input], plain_start, atoms, bounds, best <= target)
            ended = start if weighed is None else replace(plain_start, atoms=weighed.atoms)
            best, start = _better(network, bounds, rows, atoms, best, start, ended)
        if warm is not None:
            best, start = _better(network, bounds, rows, atoms, best, start, pinned(network, bounds, warm))
    if not steps or bool((best > target).all()):
        return Optimised(best, start)
    return optimise(
        network, bounds, rows, start, atoms=atoms, steps=steps, scales=scales, target=target, out_of_time=out_of_time
    )


def _better(
    network: Network, bounds: Mapping[str, Interval], rows: Rows, atoms: Atoms | None, best: Tensor, kept: Choices, new: Choices
) -> tuple[Tensor, Choices]:
    value = lower_bounds(network, bounds, rows, new, atoms=atoms)
    return torch.maximum(best, value), choose(value > best, new, kept)


def bound_goals(
    batch: Batch,
    rows: Sequence[GoalRow],
    *,
    steps: int,
    target: float,
    warm: Choices | None = None,
    out_of_time: Clock = never,
) -> Goals:
    """Bound the goals' left sides from below; a disjunct is refuted where one of its goals is positive."""
    widest = max(batch.network.size(name) for name in batch.network.shapes)
    chunk = max(1, MAX_ENTRIES // widest)
    parts = []
    for first in range(0, len(rows), chunk):
        piece = rows[first : first + chunk]
        part_warm = None if warm is None else select(warm, torch.arange(first, first + len(piece)))
        parts.append(_bound_goal_rows(batch, piece, steps, target, part_warm, out_of_time))
    return Goals(tuple(rows), torch.cat([p.bounds[:, 0] for p in parts]), join([p.choices for p in parts]))


def _bound_goal_rows(
    batch: Batch, rows: Sequence[GoalRow], steps: int, target: float, warm: Choices | None, out_of_time: Clock
) -> Optimised:
    positions = torch.tensor([row.position for row in rows])
    own = gather(batch.bounds, positions)
    atoms = None if batch.atoms is None else batch.atoms.select(positions)
    return climb(
        batch.network,
        own,
        goal_rows(batch.network, [row.goal.atom for row in rows]),
        adaptive(batch.network, own),
        atoms=atoms,
        multiplied=batch.multiplied,
        steps=steps,
        target=target,
        warm=warm,
        programs=warm is None,
        out_of_time=out_of_time,
    )


def closes(batch: Batch, goals: Goals, target: float) -> dict[tuple[int, int], Close]:
    """The refuted disjuncts, by (group position, disjunct), each by its best goal."""
    found: dict[tuple[int, int], tuple[float, int]] = {}
    for r, (row, bound) in enumerate(zip(goals.rows, goals.bounds.tolist(), strict=True)):
        key = (row.position, row.goal.disjunct)
        # a strict atom is refuted by zero itself, such as `h > 0` where h is a ReLU that stays off
        passes = bound > target or (row.goal.atom.strict and bound >= 0)
        if passes and bound > found.get(key, (-np.inf, -1))[0]:
            found[key] = (bound, r)
    return {key: close_of(batch, goals, r) for key, (_, r) in found.items()}
