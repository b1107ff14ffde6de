"""How much of a box a clause is proved over: the box is bisected where no proof is likely or it fails, as far as time goes.

Where a clause is no law of the whole domain, the sub-boxes on which it is proved say where it can be relied on.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specmine.errors import BadConfig, BadData
from specmine.pipeline.scouting import Scout, scout_of
from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.tracing import Sites
from verifier.engines.points import point_test
from verifier.ops import Array
from verifier.region import Box
from verifier.solve import verify_many
from verifier.verdict import Decision, Proved, Refuted

AT_ONCE, ASKED_AT_ONCE = 64, 32
"""Parts to look at, and questions to the verifier."""


@dataclass(frozen=True, eq=False)
class Part:
    """A sub-box, its share of the whole box's volume, and a counterexample (size,) within it, where one is known."""

    box: Box
    share: float
    failing: Array | None = None

    def holds(self, inputs: Array) -> NDArray[np.bool_]:
        """Which of the inputs (inputs, size) lie in it."""
        return np.asarray(((inputs >= self.box.lower) & (inputs <= self.box.upper)).all(axis=1))


@dataclass(frozen=True, eq=False)
class Volume:
    """Parts that fill the box. proved: the clause holds in all of each; refuted: it fails somewhere in each; open: the rest.

    Each kind stands in the order of its shares, the largest first; asked: questions to the verifier.
    """

    proved: tuple[Part, ...]
    refuted: tuple[Part, ...]
    open: tuple[Part, ...]
    asked: int

    def covers(self, inputs: Array) -> NDArray[np.bool_]:
        """Which of the inputs (inputs, size) lie where the clause is proved."""
        return np.any([np.zeros(len(inputs), dtype=bool), *(part.holds(inputs) for part in self.proved)], axis=0)


def share_of(parts: Sequence[Part]) -> float:
    """The share of the volume that parts have together, up to float rounding."""
    return float(sum(part.share for part in parts))


def proved_volume(
    clause: HornClause,
    region: Box,
    sites: Sites,
    *,
    timeout_s: float,
    question_s: float = 1.0,
    engine: str = "auto",
    starts: Array | None = None,
    most: int = 100_000,
) -> Volume:
    """Where the clause is proved, after bisecting what is not for timeout_s seconds, the largest parts first.

    The whole is asked about first. Then parts are scouted by plain bounds: where a proof is likely the verifier is asked, the
    others are cut in the middle of the side that costs the bounds most; two halves that are both proved are one proved part.
    Where the network has too many inputs for that, the verifier is asked about every part, and a part is cut on the side that
    is widest beside the region's. question_s: seconds to decide one part; starts: inputs (count, size) from which
    counterexamples are searched; most: parts looked at, at most.

    Raises BadConfig for times that are not above 0, BadData for a region that is no wider than a point on some side.
    """
    if not (timeout_s > 0 and question_s > 0):
        raise BadConfig(f"timeout_s and question_s must be above 0 seconds, got {timeout_s} and {question_s}")
    if not (region.upper > region.lower).all():
        raise BadData("the region must be wider than a point on every side, or parts of it have no share of its volume")
    search, whole, ready = _Search(region), clause_query(clause, region, sites), list[Part]()
    end = time.monotonic() + timeout_s

    def ask(parts: Sequence[Part]) -> None:
        seconds = max(min(question_s, (end - time.monotonic()) / len(parts)), 1e-3)
        queries = [clause_query(clause, part.box, sites) for part in parts]
        search.learn(parts, verify_many(queries, timeout_s=seconds, engine=engine, starts=starts))

    ask(search.next(1))
    scout = scout_of(whole) if search.waiting else None
    fails = point_test(whole)
    while search.waiting and time.monotonic() < end and search.looked_at < most:
        some = search.next(min(AT_ONCE, most - search.looked_at))
        ready += some if scout is None else search.scouted(some, scout, fails)
        is_last = not search.waiting or search.looked_at >= most or time.monotonic() + question_s * len(ready) > end
        if len(ready) >= ASKED_AT_ONCE or (ready and is_last):
            ask(ready)
            ready = []
    for part in ready:
        search.wait(part)
    return search.result()


@dataclass(eq=False)
class _Search:
    """Parts that wait for a look at them, or for a cut where a counterexample is known, the largest first.

    proved: as they came; origin: of each half, the part that was cut and the other half; looked_at: parts given out.
    """

    region: Box
    waiting: list[tuple[float, int, Part]] = field(default_factory=list)
    proved: dict[Part, None] = field(default_factory=dict)
    origin: dict[Part, tuple[Part, Part]] = field(default_factory=dict)
    whole: list[Part] = field(default_factory=list)
    asked: int = 0
    looked_at: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        self.wait(Part(self.region, 1.0))

    def next(self, count: int) -> list[Part]:
        """Parts to look at."""
        some: list[Part] = []
        while self.waiting and len(some) < count:
            part = heapq.heappop(self.waiting)[2]
            if part.failing is None:
                some.append(part)
            else:
                self._cut(part)
        self.looked_at += len(some)
        return some

    def scouted(self, parts: Sequence[Part], scout: Scout, fails: Callable[[Tensor], Array | None]) -> list[Part]:
        """The parts where a proof is likely; the others are cut, with the counterexample in their middle where there is one."""
        if not parts:
            return []
        lower, upper = (np.stack([getattr(part.box, side) for part in parts]) for side in ("lower", "upper"))
        likely, sides = scout.look(lower, upper)
        unlikely = np.flatnonzero(~likely)
        known = _counterexamples(unlikely, lower, upper, fails)
        for k in unlikely.tolist():
            # a part that may be proved by its halves stays the half that it is of another
            part = replace(parts[k], failing=known[k]) if k in known else parts[k]
            self._cut(part, side=int(sides[k]))
        return [part for part, is_likely in zip(parts, likely.tolist(), strict=True) if is_likely]

    def learn(self, parts: Sequence[Part], decisions: Sequence[Decision]) -> None:
        """Keeps what is proved; what is refuted is cut when its turn comes, and the rest at once."""
        self.asked += len(parts)
        for part, decision in zip(parts, decisions, strict=True):
            match decision.verdict:
                case Proved():
                    self._keep(part)
                case Refuted(counterexample=point):
                    self.wait(replace(part, failing=np.asarray(point, dtype=np.float64).reshape(-1)))
                case _:
                    self._cut(part)

    def result(self) -> Volume:
        rest = self.whole + [part for _, _, part in self.waiting]
        refuted, left = [p for p in rest if p.failing is not None], [p for p in rest if p.failing is None]
        proved, refuted, left = (sorted(parts, key=lambda p: -p.share) for parts in (self.proved, refuted, left))
        return Volume(tuple(proved), tuple(refuted), tuple(left), self.asked)

    def wait(self, part: Part) -> None:
        """Puts a part in its place."""
        heapq.heappush(self.waiting, (-part.share, self.made, part))
        self.made += 1

    def _keep(self, part: Part) -> None:
        """Keeps a proved part, or in place of it and its other half the part that they fill."""
        # sound: the two halves together hold every input of the part that was cut
        while part in self.origin and self.origin[part][1] in self.proved:
            part, other = self.origin[part]
            del self.proved[other]
        self.proved[part] = None

    def _cut(self, part: Part, *, side: int | None = None) -> None:
        parts = halves(part, self.region, side=side)
        for half in parts:
            self.wait(half)
        if parts:
            low, high = parts
            self.origin |= {low: (part, high), high: (part, low)}
        else:
            self.whole.append(part)


def _counterexamples(
    rows: NDArray[np.int64], lower: Array, upper: Array, fails: Callable[[Tensor], Array | None]
) -> dict[int, Array]:
    """Counterexamples in the middle of some of the boxes, by row, one after another as long as there are any."""
    found: dict[int, Array] = {}
    while len(rows) and (point := fails(torch.from_numpy(lower[rows] / 2 + upper[rows] / 2))) is not None:
        holding = rows[((point >= lower[rows]) & (point <= upper[rows])).all(axis=1)]
        if not len(holding):
            break
        found |= dict.fromkeys(holding.tolist(), point)
        rows = np.setdiff1d(rows, holding)
    return found


def halves(part: Part, region: Box, *, side: int | None = None) -> tuple[Part, ...]:
    """Two parts that fill a part of the region, cut on a side, by default its widest; none where no float is between its ends.

    A side that is too narrow gives way to the widest.
    """
    lower, upper = part.box.lower, part.box.upper
    if side is None or not lower[side] < lower[side] / 2 + upper[side] / 2 < upper[side]:
        side = int(np.argmax((upper - lower) / (region.upper - region.lower)))
    middle = lower[side] / 2 + upper[side] / 2
    if not lower[side] < middle < upper[side]:
        return ()
    below, above = upper.copy(), lower.copy()
    below[side] = above[side] = middle
    share = part.share * float((middle - lower[side]) / (upper[side] - lower[side]))
    low = part.failing if part.failing is not None and part.failing[side] <= middle else None
    high = part.failing if part.failing is not None and part.failing[side] >= middle else None
    # sound: the two share the plane at the middle, so no input of the part lies in neither
    return Part(Box(lower, below), share, low), Part(Box(above, upper), part.share - share, high)
