"""Search for counterexamples: given points, corners, random points, then projected gradient descent from many starts.

The descent lowers the sum of the violated atoms of one disjunct, weights rising on atoms that stay violated (so that a premise
on hidden values is kept while the goal is sought), and ends with a line search between each start and where it led. Every
candidate is replayed in exact arithmetic; what fails is never reported as a counterexample.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from verifier.check import confirms
from verifier.engines.targets import Batch, Target, batch_of, features, left_sides, target_of, worst
from verifier.errors import BadQuery
from verifier.network import Network
from verifier.ops import Array
from verifier.query import Query
from verifier.verdict import Refuted, Unknown

Starts: TypeAlias = Array | Sequence[Array | None] | None

MAX_CORNER_INPUTS = 12
NEAR = 1e-9
MARGIN = 1e-6
POINTS = 256
POOL_POINTS = 8192
POOL_CHUNK = 1024
PROJECTED_STARTS = 16
LEFT_SIDES = 2**23
ROUNDS = 5
FIRST_DISJUNCTS = 2
STEPS = 50
BLOCK = 10
REPLAYS_AT_ONCE, REPLAYS = 3, 24


@dataclass(frozen=True, eq=False)
class Begun:
    """A target with the points its descent begins from: the pool's best first, random ones last; loss: of the very best."""

    target: Target
    points: Tensor
    loss: float


@dataclass(eq=False)
class Search:
    """What one call has found so far; candidates come in through `offer`."""

    queries: Sequence[Query]
    deadline: float
    found: dict[int, Array] = field(default_factory=dict)
    near: set[int] = field(default_factory=set)
    tried: dict[int, set[bytes]] = field(default_factory=dict)
    late: bool = False

    def over(self) -> bool:
        """Whether time is up; remembered, since then the search was cut short."""
        self.late = self.late or time.monotonic() >= self.deadline
        return self.late

    def offer(self, target: Target, points: Tensor, values: Tensor) -> None:
        """Replay the best candidates among points of shape (count, inputs), given the worst left side of each."""
        tried = self.tried.setdefault(target.query, set())
        replays = 0
        for k in torch.argsort(values, stable=True).tolist():
            if values[k] > NEAR or replays == REPLAYS_AT_ONCE or len(tried) >= REPLAYS or target.query in self.found:
                return
            x = points[k].numpy().copy()
            if x.tobytes() in tried:
                continue
            tried.add(x.tobytes())
            replays += 1
            if confirms(self.queries[target.query], x):
                self.found[target.query] = x
            else:
                self.near.add(target.query)
            if self.over():
                return


def falsify(
    query: Query, *, seed: int = 0, timeout_s: float = 1.0, starts: Array | None = None, samples: int = 256
) -> Refuted | Unknown:
    """A counterexample to the query, confirmed in exact arithmetic, or Unknown.

    starts: flat inputs of shape (count, inputs) to begin with, such as data samples; those outside the region are projected.
    samples: random points of the region, besides. The same for the same arguments unless timeout_s cuts the search short.
    Unknown("unconfirmed") where only points on the boundary, within float rounding, were found; Unknown("timeout");
    Unknown("incomplete") where the whole search found nothing.
    """
    return falsify_many([query], seed=seed, timeout_s=timeout_s, starts=[starts], samples=samples)[0]


def falsify_many(
    queries: Sequence[Query], *, seed: int = 0, timeout_s: float = 1.0, starts: Starts = None, samples: int = 256
) -> list[Refuted | Unknown]:
    """`falsify` for each query, those over one network searched in common batches; timeout_s is for all together.

    starts: one array for all queries, or an array or None for each.
    """
    given = _starts(queries, starts)
    search = Search(queries, time.monotonic() + timeout_s)
    by_network: dict[int, list[int]] = {}
    for place, query in enumerate(queries):
        by_network.setdefault(id(query.network), []).append(place)
    for places in by_network.values():
        _search_network(search, places, given, samples, torch.Generator().manual_seed(seed))
    return [_verdict(search, place) for place in range(len(queries))]


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


def _verdict(search: Search, place: int) -> Refuted | Unknown:
    if place in search.found:
        return Refuted(search.found[place])
    if place in search.near:
        return Unknown("unconfirmed", "candidates satisfy the assertion within float rounding, none of them exactly")
    return Unknown("timeout" if search.late else "incomplete", "no counterexample found")


def _search_network(
    search: Search, places: list[int], given: list[Array | None], samples: int, generator: torch.Generator
) -> None:
    network = search.queries[places[0]].network
    groups: dict[tuple[bytes, bytes, int], list[Target]] = {}
    for place in places:
        for atoms in search.queries[place].disjuncts:
            if search.over():
                return
            target = target_of(place, search.queries[place], atoms)
            if target is not None:
                key = (target.lower.tobytes(), target.upper.tobytes(), id(given[place]))
                groups.setdefault(key, []).append(target)
    begun: list[Begun] = []
    count = max(PROJECTED_STARTS, min(samples, POOL_POINTS // max(1, len(groups))))
    for targets in groups.values():
        pool = _pool(targets[0], given[targets[0].query], count, generator)
        begun += _search_pool(search, network, targets, pool, generator)
    for part in (_most_promising(begun), begun):
        _search_round(search, network, part, generator, fresh=False)
    for _ in range(ROUNDS):
        _search_round(search, network, begun, generator, fresh=True)


def _most_promising(begun: list[Begun]) -> list[Begun]:
    """The few disjuncts of each query that the pool came nearest to."""
    chosen: dict[int, list[Begun]] = {}
    for one in sorted(begun, key=lambda one: one.loss):
        of_query = chosen.setdefault(one.target.query, [])
        if len(of_query) < FIRST_DISJUNCTS:
            of_query.append(one)
    return [one for place in sorted(chosen) for one in chosen[place]]


def _pool(target: Target, starts: Array | None, samples: int, generator: torch.Generator) -> Tensor:
    """Points of the target's box: given ones (inside, then some projected), its center, corners and random points."""
    lower, upper = torch.from_numpy(target.lower), torch.from_numpy(target.upper)
    parts = [(lower / 2 + upper / 2).unsqueeze(0)]
    if starts is not None and len(starts):
        points = torch.from_numpy(np.array(starts, dtype=np.float64))
        inside = ((points >= lower) & (points <= upper)).all(1)
        parts = [points[inside], points[~inside][:PROJECTED_STARTS], *parts]
    if len(lower) <= MAX_CORNER_INPUTS:
        sides = torch.tensor(list(product((False, True), repeat=len(lower))))
        parts.append(torch.where(sides, upper, lower))
    parts.append(_uniform(lower, upper, (samples, len(lower)), generator))
    return torch.cat(parts).clamp(lower, upper)


def _uniform(lower: Tensor, upper: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    share = torch.rand(shape, generator=generator, dtype=torch.float64)
    return lower * (1 - share) + upper * share


@torch.no_grad()
def _search_pool(
    search: Search, network: Network, targets: list[Target], pool: Tensor, generator: torch.Generator
) -> Iterator[Begun]:
    """Try the pool's points for targets over one box; yields where the descent for each open target begins."""
    count = len(pool)
    size = max(1, LEFT_SIDES // max(1, count * max(len(target.entries) + len(target.biases) for target in targets)))
    for chunk in (batch_of(targets[k : k + size]) for k in range(0, len(targets), size)):
        if search.over():
            return
        rows = torch.cat([features(network, chunk, part) for part in pool.split(POOL_CHUNK)])
        left = left_sides(chunk, rows.unsqueeze(0))
        values = worst(chunk, left)
        violated = torch.zeros_like(values).index_add(0, chunk.atom_target, left.clamp(min=0))
        for target, value, loss in zip(chunk.targets, values, violated, strict=True):
            search.offer(target, pool, value)
            if target.query not in search.found:
                best = torch.argsort(loss, stable=True)[: POINTS // 16]
                spread = torch.randint(count, (POINTS // 16,), generator=generator)
                yield Begun(target, pool[torch.cat([best, spread])], float(loss[best[0]]))


def _search_round(search: Search, network: Network, begun: list[Begun], generator: torch.Generator, *, fresh: bool) -> None:
    """One descent for every open target, from its pool points, or from fresh random points."""
    still = [one for one in begun if one.target.query not in search.found]
    each = min(POINTS // 8, max(4, POINTS // max(1, len(still))))
    size = max(1, POINTS // each)
    for part in (still[k : k + size] for k in range(0, len(still), size)):
        chosen = [one for one in part if one.target.query not in search.found]
        if search.over() or not chosen:
            continue
        batch = batch_of([one.target for one in chosen])
        if fresh:
            begin = _uniform(batch.lower, batch.upper, (len(chosen), each, batch.lower.shape[2]), generator)
        else:
            begin = torch.stack([torch.cat([one.points[: each // 2], one.points[-(each - each // 2) :]]) for one in chosen])
        _descend(search, network, batch, begin.clamp(batch.lower, batch.upper))


def _evaluated(network: Network, batch: Batch, points: Tensor) -> Tensor:
    """Left sides at points of shape (targets, points, inputs): (atoms, points)."""
    return left_sides(batch, features(network, batch, points.flatten(0, 1)).unflatten(0, points.shape[:2]))


def _descend(search: Search, network: Network, batch: Batch, begin: Tensor) -> None:
    """Projected descent on the weighted sum of violated atoms; even starts take sign steps, odd ones Adam's."""
    if not batch.columns:
        return
    x, best = begin, begin
    lowest = torch.full(begin.shape[:2], torch.inf, dtype=begin.dtype)
    first, second = torch.zeros_like(begin), torch.zeros_like(begin)
    weights: Tensor | None = None
    width = batch.upper - batch.lower
    signed = (torch.arange(begin.shape[1]) % 2 == 0).reshape(1, -1, 1)
    for step in range(STEPS):
        x = x.detach().requires_grad_()
        left = _evaluated(network, batch, x)
        weights = torch.ones_like(left) if weights is None else (weights * torch.where(left > 0, 1.3, 0.95)).clamp(0.05, 50.0)
        (gradient,) = torch.autograd.grad((weights * (left + MARGIN).clamp(min=0)).sum(), x)
        x, values = x.detach(), worst(batch, left.detach())
        best = torch.where((values < lowest).unsqueeze(2), x, best)
        lowest = torch.minimum(values, lowest)
        if step % BLOCK == BLOCK - 1 and _settled(search, batch, best, lowest):
            return
        first, second = 0.8 * first + 0.2 * gradient, 0.95 * second + 0.05 * gradient**2
        move = torch.where(signed, gradient.sign(), first / (second.sqrt() + 1e-12))
        x = (x - 0.2 * 0.9**step * width * move).clamp(batch.lower, batch.upper)
    _search_line(search, network, batch, begin, best)


def _settled(search: Search, batch: Batch, points: Tensor, values: Tensor) -> bool:
    """Offer the candidates; whether nothing is left to do for this batch."""
    for k, target in enumerate(batch.targets):
        if (values[k] <= NEAR).any():
            search.offer(target, points[k], values[k])
    return search.over() or all(target.query in search.found for target in batch.targets)


@torch.no_grad()
def _search_line(search: Search, network: Network, batch: Batch, begin: Tensor, end: Tensor) -> None:
    """Where, between each start and its end, the worst atom is lowest: a coarse grid, then a fine one around its best."""
    middle, reach = torch.full_like(begin[..., :1], 0.5), 0.5
    for _ in range(3):
        places = [(middle + reach * at).clamp(0.0, 1.0) for at in torch.linspace(-1, 1, 9).tolist()]
        grid = [(begin + t * (end - begin)).clamp(batch.lower, batch.upper) for t in places]
        values = torch.stack([worst(batch, _evaluated(network, batch, points)) for points in grid])
        lowest, place = values.min(0)
        middle = torch.stack(places).gather(0, place[None, ..., None]).squeeze(0)
        best = torch.stack(grid).gather(0, place[None, ..., None].expand(1, *begin.shape)).squeeze(0)
        if _settled(search, batch, best, lowest):
            return
        reach /= 4
