"""A search for counterexamples that can be stopped and continued: pools of points, then rounds of descent from them.

Effort grows from round to round, so that easy counterexamples are found in a few steps. A round is deterministic for a seed;
only the clock, looked at between steps, cuts it short. Every candidate is replayed in exact arithmetic, and what fails is
never reported as a counterexample.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from verifier.check import confirms
from verifier.device import PROCESSOR, array_of, tensor_of
from verifier.engines.descent import KINDS, LEAK, Descended, Watch, descend, multiplications, wander, zoom
from verifier.engines.program import run
from verifier.engines.repair import MAX_ATOMS, repair
from verifier.engines.starts import apart, center, corners, varied
from verifier.engines.targets import Batch, Target, at_own_points, batch_of, cast, left_sides, rescaled, targets_of, worst
from verifier.errors import BadQuery
from verifier.network import Network
from verifier.ops import Array
from verifier.query import Query
from verifier.verdict import Refuted, Unknown

Starts: TypeAlias = Array | Sequence[Array | None] | None

MAX_CORNER_INPUTS = 12
NEAR = 1e-9  # a left side this close to 0 is a candidate
PROMISING = 1e-4  # worth a look in float64
PROJECTED_STARTS = 16
POOL_WORK, STEP_WORK = 3e8, 1e8  # multiplications of a pool, of a step
MOST_POINTS = 1024
COARSE_WORK = 2e5  # networks dearer than this are searched in float32
LEFT_SIDES = 2**22
KEPT = 12
FIRST_DISJUNCTS, FIRST_STEPS = 2, 12
STEPS, MOST_STEPS = 30, 150
REPLAYS_AT_ONCE, REPLAYS = 2, 24
PATIENCE = 3
GAIN = 0.97
MOST_STARTS = 192
SIFTED = 32
POLISH_STEPS, POLISH_STEP = 20, 0.01
ZOOMS = 12
REPAIRABLE, REPAIRED, REPAIR_STEPS = 0.2, 4, 10


@dataclass(eq=False)
class Front:
    """What is known about a target: the best points so far (count, inputs), best first, and their worst left sides."""

    target: Target
    points: Tensor
    values: Tensor

    def merge(self, points: Tensor, values: Tensor) -> None:
        """Add points, and keep the best of those that lie apart."""
        joined, values = torch.cat([self.points, points]), torch.cat([self.values, values])
        width = tensor_of(self.target.upper - self.target.lower).clamp(min=1e-300)
        chosen = apart(joined / width, values, KEPT)
        self.points, self.values = joined[chosen], values[chosen]


class Attack:
    """A search for counterexamples to queries, continued by each call of `run`.

    starts: flat inputs (count, inputs) to begin with, one array for all queries or an array or None for each; those outside
    the region are projected. samples: random points of the region, besides. Raises BadQuery where starts do not fit.
    """

    def __init__(self, queries: Sequence[Query], *, seed: int = 0, starts: Starts = None, samples: int = 256) -> None:
        self.queries = tuple(queries)
        self.found: dict[int, Array] = {}
        self._given = _starts(queries, starts)
        self._near: set[int] = set()
        self._closed: set[int] = set()
        self._tried: dict[int, set[bytes]] = {}
        self._deadline = 0.0
        self._late = False
        by_network: dict[int, list[int]] = {}
        for place, query in enumerate(queries):
            by_network.setdefault(id(query.network), []).append(place)
        self._hunts = [_Hunt(self, places, samples, seed) for places in by_network.values()]

    def run(
        self, seconds: float, *, patience: int = PATIENCE, rounds: int | None = None, skip: Collection[int] = ()
    ) -> list[Refuted | Unknown]:
        """Go on for about `seconds`: what is known by then of each query, in their order.

        Ends early where every query is settled, where `patience` rounds in a row came no nearer for any, or after `rounds`
        of them, which makes the outcome independent of the clock; the next call begins with another round. skip: places of
        queries that need no answer any more.

        Unknown("unconfirmed") where only points on the boundary, within float rounding, were found; Unknown("timeout") where
        time ran out first; Unknown("incomplete") where the search came no nearer.
        """
        self._deadline, self._late = time.monotonic() + seconds, False
        self._closed.update(skip)
        for hunt in self._hunts:
            hunt.run(patience, rounds)
        return [self._verdict(place) for place in range(len(self.queries))]

    def over(self) -> bool:
        """Whether time is up; remembered, since then the search was cut short."""
        self._late = self._late or time.monotonic() >= self._deadline
        return self._late

    def is_open(self, place: int) -> bool:
        """Whether a query still needs a counterexample."""
        return place not in self.found and place not in self._closed

    def offer(self, target: Target, points: Tensor, values: Tensor) -> None:
        """Replay the best candidates among float64 points (count, inputs), given the worst left side of each."""
        tried, replays = self._tried.setdefault(target.query, set()), 0
        for k in torch.argsort(values, stable=True).tolist():
            if values[k] > NEAR or replays == REPLAYS_AT_ONCE or len(tried) >= REPLAYS or not self.is_open(target.query):
                return
            x = array_of(points[k]).copy()
            if x.tobytes() in tried:
                continue
            tried.add(x.tobytes())
            replays += 1
            if confirms(self.queries[target.query], x):
                self.found[target.query] = x
            else:
                self._near.add(target.query)

    def starts(self, place: int) -> Array | None:
        """The given starts of a query."""
        return self._given[place]

    def _verdict(self, place: int) -> Refuted | Unknown:
        if place in self.found:
            return Refuted(self.found[place])
        if place in self._near:
            return Unknown("unconfirmed", "candidates satisfy the assertion within float rounding, none of them exactly")
        return Unknown("timeout" if self._late else "incomplete", "no counterexample found")


def _starts(queries: Sequence[Query], starts: Starts) -> list[Array | None]:
    shared = starts is None or isinstance(starts, np.ndarray)
    given: list[Array | None] = [starts] * len(queries) if shared else list(starts)  # type: ignore[arg-type, list-item]
    if len(given) != len(queries):
        raise BadQuery(
            f"got starts for {len(given)} of {len(queries)} queries; give one array for all, or one or None for each"
        )
    for query, points in zip(queries, given, strict=True):
        if points is not None and (points.ndim != 2 or points.shape[1] != query.region.size):
            raise BadQuery(f"starts must have shape (count, {query.region.size}), got {points.shape}; flatten each input")
    return given


class _Hunt:
    """The search over the queries of one network."""

    def __init__(self, attack: Attack, places: Sequence[int], samples: int, seed: int) -> None:
        self.attack, self.places, self.samples = attack, places, samples
        self.network: Network = attack.queries[places[0]].network
        self.generator = torch.Generator(PROCESSOR).manual_seed(seed)
        self.work = multiplications(self.network)
        self.dtype = torch.float32 if self.work >= COARSE_WORK else torch.float64
        self.fronts: list[Front] = []
        self.milestone: dict[int, float] = {}
        self.rounds = self._rounds()

    def run(self, patience: int, rounds: int | None) -> None:
        """Rounds until time is up, nothing is open, so many are done, or `patience` of them brought nothing."""
        idle = done = 0
        while idle < patience and done != rounds and not self.attack.over() and any(map(self.attack.is_open, self.places)):
            if next(self.rounds):
                done += 1
                idle = 0 if self._gained() else idle + 1

    def _gained(self) -> bool:
        """Whether some open query came clearly nearer to a counterexample since this was last asked."""
        best: dict[int, float] = {}
        for front in self._open():
            best[front.target.query] = min(float(front.values[0]), best.get(front.target.query, np.inf))
        gained = {place for place, value in best.items() if value < self.milestone.get(place, np.inf) * GAIN}
        self.milestone.update({place: best[place] for place in gained})
        return bool(gained)

    def _open(self) -> list[Front]:
        return [front for front in self.fronts if self.attack.is_open(front.target.query)]

    def _rounds(self) -> Iterator[bool]:
        """The whole search, stopping now and then; True at the end of a round."""
        for targets in self._boxes():
            yield from self._search_pool(targets)
        yield from self._round(self._most_promising(), FIRST_STEPS, fresh=0.25)
        yield True
        steps = float(STEPS)
        for number in count():
            everything = sorted(self._open(), key=lambda front: float(front.values[0]))
            yield from self._round(everything, int(steps), fresh=0.9 if number % 2 else 0.5, style=number)
            yield True
            steps = min(MOST_STEPS, 1.25 * steps)

    def _boxes(self) -> list[list[Target]]:
        """Targets by the box and the starts that they share."""
        groups: dict[tuple[bytes, bytes, int], list[Target]] = {}
        for place in self.places:
            for target in targets_of(place, self.attack.queries[place]):
                key = (target.lower.tobytes(), target.upper.tobytes(), id(self.attack.starts(place)))
                groups.setdefault(key, []).append(target)
        return list(groups.values())

    def _most_promising(self) -> list[Front]:
        """The few disjuncts of each query that the pool came nearest to."""
        chosen: dict[int, list[Front]] = {}
        for front in sorted(self._open(), key=lambda front: float(front.values[0])):
            of_query = chosen.setdefault(front.target.query, [])
            if len(of_query) < FIRST_DISJUNCTS:
                of_query.append(front)
        return [front for place in sorted(chosen) for front in chosen[place]]

    def _pool(self, target: Target) -> Tensor:
        """Points of the target's box: given ones (inside, then some projected), its center, corners and random points."""
        lower, upper = tensor_of(target.lower), tensor_of(target.upper)
        parts = [center(lower, upper)]
        starts = self.attack.starts(target.query)
        if starts is not None and len(starts):
            points = tensor_of(np.array(starts, dtype=np.float64))
            inside = ((points >= lower) & (points <= upper)).all(1)
            parts = [points[inside], points[~inside][:PROJECTED_STARTS], *parts]
        if 2 ** len(lower) <= min(2**MAX_CORNER_INPUTS, POOL_WORK // self.work):
            parts.append(corners(lower, upper))
        parts.append(varied(lower, upper, max(16, min(self.samples, int(POOL_WORK // self.work))), self.generator))
        return torch.cat(parts).clamp(lower, upper)

    def _search_pool(self, targets: Sequence[Target]) -> Iterator[bool]:
        """Try the pool's points for targets over one box, and begin a front for each that stays open."""
        pool = self._pool(targets[0])
        atoms = max(len(target.entries) + len(target.biases) for target in targets)
        size = max(1, LEFT_SIDES // max(1, len(pool) * atoms))
        for chunk in (batch_of(self.network, targets[k : k + size]) for k in range(0, len(targets), size)):
            with torch.no_grad():
                rows = torch.cat([run(chunk.program, part) for part in pool.split(MOST_POINTS)])
                left = left_sides(chunk, rows.unsqueeze(0))
                values = worst(chunk, left)
            for k, target in enumerate(chunk.targets):
                # replays of many queries take long; what is put off here is offered in the first round
                if not target.entries or not self.attack.over():
                    self.attack.offer(target, pool, values[k])
                if self.attack.is_open(target.query):
                    self.fronts.append(_begun(target, pool, left[chunk.atom_target == k]))
            yield False

    def _round(self, fronts: Sequence[Front], steps: int, *, fresh: float, style: int = 0) -> Iterator[bool]:
        """One descent for each open target, a share `fresh` of its starts being new random points."""
        points = max(KINDS, min(MOST_POINTS, int(STEP_WORK // self.work)))
        each = max(KINDS, min(MOST_STARTS, points // max(1, len(fronts))) // KINDS * KINDS)
        size = max(1, points // each)
        for k in range(0, len(fronts), size):
            chosen = [front for front in fronts[k : k + size] if self.attack.is_open(front.target.query)]
            if chosen and chosen[0].target.entries:
                self._search(chosen, each, steps, fresh, style)
                yield False

    def _search(self, fronts: Sequence[Front], each: int, steps: int, fresh: float, style: int) -> None:
        exact = batch_of(self.network, [front.target for front in fronts])
        batch, watch = cast(exact, self.dtype), self._watch(exact)
        begin = self._begin(batch, fronts, each, fresh)
        if style % 4 == 3:
            begin = wander(batch, begin, steps=5, generator=self.generator)
        self._keep(fronts, exact, descend(batch, begin, steps=steps, watch=watch, leak=LEAK if style % 2 else 0.0))
        if style % 3 == 1 and not self.attack.over():
            best = torch.stack([front.points[:KINDS] for front in fronts])
            self._keep(fronts, exact, zoom(exact, best, rounds=ZOOMS, generator=self.generator, watch=watch))

    def _begin(self, batch: Batch, fronts: Sequence[Front], each: int, fresh: float) -> Tensor:
        """Starts (targets, each, inputs): the front's best, then the best of many random points, then any."""
        old = torch.stack([front.points[: max(1, round(each * (1 - fresh)))] for front in fronts]).to(self.dtype)
        often = min(SIFTED, int(POOL_WORK / (self.work * len(fronts) * each))) if fresh >= 0.5 else 1
        number = each * max(1, often)
        new = varied(batch.lower.squeeze(1), batch.upper.squeeze(1), number, self.generator)
        if number > each:
            with torch.no_grad():
                values = worst(batch, at_own_points(batch, new))
            best = values[:, : number - each].argsort(dim=1, stable=True)[:, : (each - old.shape[1]) // 2]
            sifted = new.gather(1, best.unsqueeze(2).expand(-1, -1, new.shape[2]))
            new = torch.cat([sifted, new[:, number - each :]], 1)
        return torch.cat([old, new], 1)[:, :each].clamp(batch.lower, batch.upper)

    def _keep(self, fronts: Sequence[Front], batch: Batch, end: Descended) -> None:
        """Remember the best points of each target and offer them."""
        end = _exact(batch, end.points, end.values)
        if ((end.values > NEAR) & (end.values < PROMISING)).any() and not self.attack.over():
            end = descend(batch, end.points, steps=POLISH_STEPS, watch=self._watch(batch), first_step=POLISH_STEP)
        for k, front in enumerate(fronts):
            if self.attack.is_open(front.target.query):
                if not self.attack.over():
                    self.attack.offer(front.target, end.points[k], end.values[k])
                front.merge(end.points[k], end.values[k])
        for front in sorted(fronts, key=lambda front: float(front.values[0]))[:REPAIRED]:
            self._repair(front)

    def _repair(self, front: Front) -> None:
        """Newton steps from the best points of a target, where several atoms are nearly satisfied."""
        thin = 2 <= len(front.target.biases) <= MAX_ATOMS and NEAR < float(front.values[0]) < REPAIRABLE
        if thin and self.attack.is_open(front.target.query) and not self.attack.over():
            batch = batch_of(self.network, [front.target])
            begin = front.points[:REPAIRED].unsqueeze(0)
            end = repair(batch, begin, steps=REPAIR_STEPS, watch=self._watch(batch))
            front.merge(end.points[0], end.values[0])

    def _watch(self, batch: Batch) -> Watch:
        """Offers what looks like a counterexample; true when nothing is left to do for this batch."""

        def watch(points: Tensor, values: Tensor) -> bool:
            if (values <= 0).any():
                end = _exact(batch, points, values)
                for k in (end.values <= 0).any(1).nonzero().flatten().tolist():
                    if self.attack.is_open(batch.targets[k].query):
                        self.attack.offer(batch.targets[k], end.points[k], end.values[k])
                    if self.attack.over():  # but for one, replays wait for the next call
                        return True
            return self.attack.over() or not any(self.attack.is_open(target.query) for target in batch.targets)

        return watch


@torch.no_grad()
def _exact(batch: Batch, points: Tensor, values: Tensor) -> Descended:
    """The best few points of each target inside its float64 box, and their left sides as float64 sees them."""
    order = torch.argsort(values, dim=1, stable=True)[:, :KEPT]
    points = points.gather(1, order.unsqueeze(2).expand(-1, -1, points.shape[2]))
    if values.dtype == torch.float64:
        return Descended(points, values.gather(1, order))
    points = points.to(torch.float64).clamp(batch.lower, batch.upper)
    return Descended(points, worst(batch, at_own_points(batch, points)))


def _begun(target: Target, pool: Tensor, left: Tensor) -> Front:
    """The front at the pool's points nearest to satisfying the target, its atoms scaled by how much they vary there."""
    if not len(left):
        return Front(target, pool[:KEPT], torch.full((len(pool[:KEPT]),), -torch.inf, dtype=pool.dtype))
    spread = left.std(1)
    spread = torch.where(torch.isfinite(spread) & (spread > 0), spread, 1.0)
    values = (left / spread.unsqueeze(1)).amax(0)
    order = torch.argsort(values, stable=True)[:KEPT]
    return Front(rescaled(target, array_of(spread)), pool[order], values[order])
