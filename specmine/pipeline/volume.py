"""How much of a box a clause is proved over: the box is bisected where the proof fails, as far as the time goes.

Where a clause is no law of the whole domain, the sub-boxes on which it is proved say where it can be relied on.
"""

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadConfig, BadData
from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.tracing import Sites
from verifier.ops import Array
from verifier.region import Box
from verifier.solve import verify_many
from verifier.verdict import Decision, Proved, Refuted

AT_ONCE = 32


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

    A part is cut in the middle of the side that is widest beside the region's. question_s: seconds to decide one part; starts:
    inputs (count, size) from which counterexamples are searched; most: questions at most.

    Raises BadConfig for times that are not above 0, BadData for a region that is no wider than a point on some side.
    """
    if not (timeout_s > 0 and question_s > 0):
        raise BadConfig(f"timeout_s and question_s must be above 0 seconds, got {timeout_s} and {question_s}")
    if not (region.upper > region.lower).all():
        raise BadData("the region must be wider than a point on every side, or parts of it have no share of its volume")
    search = _Search(region)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and search.asked < most:
        some = search.next(min(AT_ONCE, most - search.asked))
        if not some:
            break
        seconds = max(min(question_s, (end - time.monotonic()) / len(some)), 1e-3)
        queries = [clause_query(clause, part.box, sites) for part in some]
        search.learn(some, verify_many(queries, timeout_s=seconds, engine=engine, starts=starts))
    return search.result()


@dataclass(eq=False)
class _Search:
    """Parts that wait for a question, or for a cut where a counterexample is known, the largest first."""

    region: Box
    waiting: list[tuple[float, int, Part]] = field(default_factory=list)
    proved: list[Part] = field(default_factory=list)
    whole: list[Part] = field(default_factory=list)
    asked: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        self._wait(Part(self.region, 1.0))

    def next(self, count: int) -> list[Part]:
        """Parts to ask about."""
        some: list[Part] = []
        while self.waiting and len(some) < count:
            part = heapq.heappop(self.waiting)[2]
            if part.failing is None:
                some.append(part)
            else:
                self._cut(part)
        return some

    def learn(self, parts: Sequence[Part], decisions: Sequence[Decision]) -> None:
        """Keeps what is proved; what is refuted is cut when its turn comes, and the rest at once."""
        self.asked += len(parts)
        for part, decision in zip(parts, decisions, strict=True):
            match decision.verdict:
                case Proved():
                    self.proved.append(part)
                case Refuted(counterexample=point):
                    self._wait(Part(part.box, part.share, np.asarray(point, dtype=np.float64).reshape(-1)))
                case _:
                    self._cut(part)

    def result(self) -> Volume:
        rest = self.whole + [part for _, _, part in self.waiting]
        refuted, left = [p for p in rest if p.failing is not None], [p for p in rest if p.failing is None]
        proved, refuted, left = (sorted(parts, key=lambda p: -p.share) for parts in (self.proved, refuted, left))
        return Volume(tuple(proved), tuple(refuted), tuple(left), self.asked)

    def _wait(self, part: Part) -> None:
        heapq.heappush(self.waiting, (-part.share, self.made, part))
        self.made += 1

    def _cut(self, part: Part) -> None:
        parts = halves(part, self.region)
        for half in parts:
            self._wait(half)
        if not parts:
            self.whole.append(part)


def halves(part: Part, region: Box) -> tuple[Part, ...]:
    """Two parts that fill a part of the region; none where its widest side has no float between its ends."""
    lower, upper = part.box.lower, part.box.upper
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
