"""The smallest bodies that keep enough positives and exclude the negatives, by an implicit hitting set (METHODS 4).

clingo proposes the shortest body for the samples it knows of; the packed table finds the samples that the proposal gets
wrong; those few are added as constraints to the same solver, and it proposes again. What the solver knows is always implied
by the task, so the size of an optimal proposal bounds every body from below, and a proposal that gets nothing wrong is
smallest. The program that clingo runs is `encodings/smallest.lp`.

A judge may have the last word on a body: it refuses it by naming samples on which it must not hold, which become constraints
like any other. With a verifier as the judge this is the refinement of METHODS 5, and what comes out is a smallest valid body.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadConfig
from specmine.predicates.form import Bits
from specmine.predicates.table import PredicateTable
from specmine.rules.proposals import Proposal, Proposals
from specmine.rules.task import Task, greedy_body, make_task

_BATCH = 16


@dataclass(frozen=True)
class Ruling:
    """What a judge says of a body. accepted: None where it cannot tell. against: where it is refused, samples on which no
    admissible body holds, though this one holds on the first: the truth (predicates, samples) of every row of the table."""

    accepted: bool | None
    against: Bits | None = None


Judge: TypeAlias = Callable[[tuple[int, ...], int], Ruling]
"""Called with the rows of a body that the samples allow, and the proven lower bound on the length of any. Whatever contains an
accepted body must be acceptable too."""


@dataclass(frozen=True)
class Synthesis:
    """What the search for the smallest body came to.

    body: rows of the table, ascending, empty where nothing is worth choosing; found: whether it keeps the recall and the
    precision asked for, else it is the best that greedy choice reached. lower_bound: no body that does is shorter; optimal:
    none that does is shorter than this one, proved; exhausted: no other body is left to look at, so where none was found, none
    exists. recall: share of the positives that satisfy the body; errors: negatives that do. reason: how the search ended, in
    words.
    """

    body: tuple[int, ...]
    found: bool
    lower_bound: int
    optimal: bool
    exhausted: bool
    recall: float
    errors: int
    rounds: int
    seconds: float
    reason: str

    @property
    def size(self) -> int:
        return len(self.body)


def smallest_body(
    table: PredicateTable,
    positives: NDArray[np.bool_],
    negatives: NDArray[np.bool_],
    *,
    recall: float,
    precision: float = 1.0,
    max_body: int | None = None,
    timeout_s: float = 60.0,
    seed: int = 0,
    avoid: Sequence[Sequence[int]] = (),
    without: Sequence[int] = (),
    judge: Judge | None = None,
) -> Synthesis:
    """The fewest predicates that together hold on a share >= recall of the positives and on no negative.

    positives, negatives: Boolean masks (samples,). precision: below 1, negatives may stay as long as positives make up this
    share of the samples that satisfy the body. avoid: bodies (rows) that must not be part of the answer; without: rows that
    must not be in it. judge: accepts or refuses every body that the samples allow; one of which it cannot tell is no answer,
    and the bound then says no more than its length. Deterministic unless the time runs out, and then the best body so far
    comes back with its gap.

    Raises BadConfig for a share outside (0, 1], BadData for masks that do not fit or without positives.
    """
    start = time.monotonic()
    _check(recall, precision, max_body, timeout_s)
    avoided = [row for body in avoid for row in body]
    task = make_task(
        table, positives, negatives, recall=recall, precision=precision, without=without, avoided=avoided, final=judge is None
    )
    return _Search(task, max_body, start, timeout_s, seed, avoid, judge).run()


def smallest_bodies(
    table: PredicateTable,
    positives: NDArray[np.bool_],
    negatives: NDArray[np.bool_],
    *,
    count: int,
    recalls: Sequence[float],
    precision: float = 1.0,
    max_body: int | None = None,
    timeout_s: float = 60.0,
    seed: int = 0,
    disjoint: bool = False,
) -> list[Synthesis]:
    """Up to `count` different bodies, none containing another that came before; each recall floor is used in turn.

    disjoint: no predicate is used by two of them. Ends early where no further body exists; timeout_s is for all of them.
    """
    if count < 1 or not recalls:
        raise BadConfig(f"count must be at least 1 and recalls not empty, got {count} and {list(recalls)}")
    end = time.monotonic() + timeout_s
    found: list[Synthesis] = []
    for floor in recalls:
        while len(found) < count and end > time.monotonic():
            bodies = [result.body for result in found]
            result = smallest_body(
                table,
                positives,
                negatives,
                recall=floor,
                precision=precision,
                max_body=max_body,
                timeout_s=max(end - time.monotonic(), 1e-3),
                seed=seed,
                avoid=bodies,
                without=[row for body in bodies for row in body] if disjoint else (),
            )
            if not result.found:
                break
            found.append(result)
            if len(recalls) > 1 and len(found) < len(recalls):
                break
    return found


class _Search:
    """One run, by proposals of two kinds: `cautious` ones, which always keep the recall, and any."""

    def __init__(
        self,
        task: Task,
        max_body: int | None,
        start: float,
        timeout_s: float,
        seed: int,
        avoid: Sequence[Sequence[int]],
        judge: Judge | None,
    ) -> None:
        self.task, self.max_body, self.judge = task, max_body, judge
        self.undecided: int | None = None
        self.start, self.end = start, start + timeout_s
        self.rounds = 0
        self.lower_bound = 0
        self.best: tuple[int, ...] | None = None
        self.proposals = Proposals(task.misses, task.budget, max_body, seed)
        for body in avoid:
            self.proposals.forbid([task.place(row) for row in body])

    def run(self) -> Synthesis:
        stuck = self.task.inseparable
        if stuck > self.task.allowed(self.task.total):
            why = f"{stuck} negatives satisfy every predicate that alone keeps the recall"
            return self._give_up(why, exhausted=True)
        self._start_from(greedy_body(self.task, self.max_body))
        complete = self._in_phases()
        if self.best is None:
            limit = "" if self.max_body is None else f" of at most {self.max_body} predicates"
            accepted = "" if self.judge is None else " and was accepted"
            why = (
                f"no body{limit} keeps the recall and the precision{accepted}"
                if complete
                else "the time ran out before any body"
            )
            return self._give_up(why, exhausted=complete and self.undecided is None)
        if complete and (self.undecided is None or self.undecided >= len(self.best)):
            return self._result(self.best, found=True, reason="proved smallest")
        if complete:
            open_ = f"smallest but for bodies of {self.undecided} predicates or more that could not be decided"
            return self._result(self.best, found=True, reason=open_)
        gap = f"the time ran out; a smallest body has {self.lower_bound} to {len(self.best)} predicates"
        return self._result(self.best, found=True, reason=gap)

    def _in_phases(self) -> bool:
        """Any bodies for a moment, for a bound; then `cautious` ones, for a body; then any, to close the gap."""
        if self.task.budget == 0:
            return self._improve(self.end, exact=True)
        now = time.monotonic()
        for cautious, share in ((False, 0.1), (True, 0.4), (False, 1.0)):
            self.proposals.cautious(cautious)
            complete = self._improve(now + share * (self.end - now), exact=not cautious)
            if complete and not cautious:
                return True
        return False

    def _start_from(self, body: tuple[int, ...]) -> None:
        hits, errors = self.task.measure(body)
        if errors <= self.task.allowed(hits) and not self.proposals.forbidden(body) and self._judged(body):
            self._keep(body)

    def _keep(self, body: tuple[int, ...]) -> None:
        self.best = body
        self.proposals.at_most(len(body) - 1)

    def _improve(self, end: float, *, exact: bool) -> bool:
        """Ever shorter bodies until none is left; False where the time ran out first.

        exact: the solver's constraints are all implied by the task and by looking for shorter bodies only, so its bound
        holds for every admissible body.
        """
        while self.best is None or self.lower_bound < len(self.best):
            known = None if self.best is None else len(self.best)
            proposal = self.proposals.next(end - time.monotonic(), enough=known)
            if exact:
                self._raise_bound(proposal, known)
            if proposal.body is None:
                if proposal.complete:
                    return True
            else:
                self.rounds += 1
                if self._accept(proposal.body):
                    self._keep(proposal.body)
            if time.monotonic() >= end:
                break
        return self.best is not None and self.lower_bound >= len(self.best)

    def _raise_bound(self, proposal: Proposal, known: int | None) -> None:
        """Only bodies shorter than `known` were looked for, so a bound past it, or no body at all, says no more than that."""
        bound = proposal.lower_bound
        if known is not None:
            bound = known if proposal.complete and proposal.body is None else min(bound, known)
        self.lower_bound = max(self.lower_bound, bound)

    def _accept(self, body: tuple[int, ...]) -> bool:
        """Whether a body is admissible; where it is not, the solver learns why."""
        task = self.task
        hits, errors = task.measure(body)
        if hits < task.required:
            lost = task.lost_by(body)[: task.budget + _BATCH]
            self.proposals.keep_enough(lost, [task.false_on(sample) for sample in lost], task.budget)
            return False
        if errors <= task.allowed(hits):
            return self._judged(body)
        most = task.allowed(task.total)
        if errors > most:
            kept = task.kept_by(body)[: most + _BATCH]
            self.proposals.drop_enough(kept, [task.false_on(sample) for sample in kept], most)
        else:
            kept = task.kept_by(body)
            self.proposals.drop_enough(kept, [task.false_on(sample) for sample in kept], task.allowed(hits), under=body)
        return False

    def _judged(self, body: tuple[int, ...]) -> bool:
        """Whether the judge accepts the body; where it does not, the solver learns why."""
        if self.judge is None:
            return True
        ruling = self.judge(tuple(sorted(int(self.task.rows[place]) for place in body)), self.lower_bound)
        if ruling.against is not None:
            false_on = telling(~ruling.against[self.task.rows])
            # Numbers below 0 are no samples of the table.
            self.proposals.drop_enough([-1] * len(false_on), false_on, 0)
        if ruling.accepted is None:
            self.undecided = len(body) if self.undecided is None else min(self.undecided, len(body))
            self.proposals.pass_over(body)
        return ruling.accepted is True

    def _give_up(self, why: str, *, exhausted: bool) -> Synthesis:
        body = greedy_body(self.task, self.max_body)
        result = replace(self._result(body, found=False, reason=why), exhausted=exhausted)
        near = f"the best by greedy choice has recall {result.recall:.4f} and {result.errors} errors"
        return replace(result, reason=f"{why}; {near}")

    def _result(self, places: tuple[int, ...], *, found: bool, reason: str) -> Synthesis:
        hits, errors = self.task.measure(places)
        rows = tuple(sorted(int(self.task.rows[place]) for place in places))
        lower_bound = self.lower_bound if self.undecided is None else min(self.lower_bound, self.undecided)
        return Synthesis(
            body=rows,
            found=found,
            lower_bound=lower_bound,
            optimal=found and lower_bound == len(rows),
            exhausted=found and lower_bound == len(rows),
            recall=hits / self.task.total,
            errors=errors,
            rounds=self.rounds,
            seconds=time.monotonic() - self.start,
            reason=reason,
        )


def telling(false_on: Bits, *, most: int = _BATCH) -> list[list[int]]:
    """The places that are false on the samples (places, samples) that say most about bodies, the first sample among them.

    A body must have a literal that is false on each, so the fewer there are, the more a sample says; one where the same and
    more are false than on another says nothing.

    >>> telling(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=bool))
    [[2], [0, 1]]
    """
    columns = np.unique(false_on.T, axis=0)
    kept = list[Bits]()
    for column in columns[np.argsort(columns.sum(axis=1), kind="stable")]:
        if len(kept) < most and not any((other <= column).all() for other in kept):
            kept.append(column)
    if not any((other <= false_on[:, 0]).all() for other in kept):
        kept.append(false_on[:, 0])
    return [np.flatnonzero(column).tolist() for column in kept]


def _check(recall: float, precision: float, max_body: int | None, timeout_s: float) -> None:
    for name, share in (("recall", recall), ("precision", precision)):
        if not 0 < share <= 1:
            raise BadConfig(f"{name} must be above 0 and at most 1, got {share}")
    if max_body is not None and max_body < 0:
        raise BadConfig(f"max_body must be at least 0, or None for no limit, got {max_body}")
    if not timeout_s > 0:
        raise BadConfig(f"timeout_s must be above 0 seconds, got {timeout_s}")
