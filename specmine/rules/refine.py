"""Refinement: the smallest body whose clause is proved over a region, counterexamples being constraints (METHODS 5).

1. clingo proposes a smallest body for the samples and the counterexamples so far, and the oracle decides its clause. A
   counterexample becomes a constraint (some literal of the body is false there), and inputs like it become others, so the next
   proposal excludes them; a proof ends the loop, and the body is cardinality-minimal among the candidates at that recall. Where
   no body that keeps the recall is left, which is proved then, lower recalls are tried.
2. Where that takes too long, or the oracle cannot tell, a body that was known to be likely valid, and is, takes its place;
   without one, literals are added in the order of their worth as long as the recall stands, and the shortest valid prefix of
   that chain is looked for by bisection.
3. What is valid is shrunk: first what its proof did not use, then literal by literal, until nothing can go.

The bound of the first step stays true of whatever comes out.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.form import Bits
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, conjunction, count
from specmine.rules.chain import chain_of, shortest_prefix, shrink
from specmine.rules.clause import HornClause
from specmine.rules.dominance import strongest_of
from specmine.rules.oracle import Answer, Oracle
from specmine.rules.smallest import Ruling, Synthesis, smallest_body
from specmine.rules.threshold import sample_mask
from verifier.ops import Array

Phase: TypeAlias = Literal["propose", "start", "extend", "shrink"]
Truths: TypeAlias = Callable[[Array], Bits]
"""Truth (predicates, inputs) of every row of the table at a counterexample (size,), first, and at other inputs of the region
where the head fails."""

PROPOSING = 0.4
"""The share of the time for step 1 where it does not end by itself."""

LOWER = (0.8, 0.6, 0.4, 0.2)
"""Shares of the recall that are tried in turn where no body that keeps all of it is left."""


@dataclass(frozen=True)
class Iteration:
    """One question to the oracle. body: rows of the table; recall: share of the positives that satisfy it; lower_bound: no
    valid body that keeps the recall is smaller, as far as was known; excluded: how many candidates are false at the
    counterexample; learned: at how many inputs every body is false from now on."""

    phase: Phase
    body: tuple[int, ...]
    recall: float
    lower_bound: int
    valid: bool | None
    oracle: str
    reason: str
    bound: float | None
    excluded: int | None
    learned: int | None
    seconds: float

    @property
    def size(self) -> int:
        return len(self.body)


@dataclass(frozen=True)
class Refined:
    """What refinement came to.

    body: rows of the table, a valid body where `valid`, else the best proposal, which is not known to be valid. found: whether
    it is valid, keeps the recall, and is no longer than allowed. lower_bound: no valid body that keeps the recall is smaller;
    optimal: it is found, and none is smaller, proved. reason: how it ended, in words.
    """

    body: tuple[int, ...]
    valid: bool
    found: bool
    lower_bound: int
    optimal: bool
    recall: float
    reason: str
    iterations: tuple[Iteration, ...]
    counterexamples: tuple[tuple[float, ...], ...] = ()

    @property
    def size(self) -> int:
        return len(self.body)


def refine(
    table: PredicateTable,
    positives: NDArray[np.bool_],
    negatives: NDArray[np.bool_],
    *,
    head: Predicate | None,
    oracle: Oracle,
    truths: Truths,
    worth: NDArray[np.float64],
    recall: float,
    precision: float = 1.0,
    max_body: int | None = None,
    timeout_s: float = 60.0,
    question_s: float = 2.0,
    seed: int = 0,
    starts: Sequence[Sequence[int]] = (),
    on_iteration: Callable[[Iteration], None] = lambda iteration: None,
) -> Refined:
    """A body, as small as the time allows, that keeps the recall and whose clause the oracle proves.

    positives, negatives: Boolean masks (samples,). Columns of the table may be points of the region that are no samples, as
    long as every negative is a point at which the head fails; precision is the share that positives must have of the samples
    in a proposal. worth: (predicates,) how much each literal is expected to help a proof. starts: bodies (rows) that are likely
    valid, best first: the first valid one is shrunk, and where it does not keep the recall, and nothing else does, it
    is the answer, and not `found`. question_s: seconds for one question. on_iteration: told of each question.

    Raises BadConfig for shares and times out of range, BadData for masks that do not fit or without positives.
    """
    asking = _Asking(table, positives, head, oracle, truths, time.monotonic() + timeout_s, question_s, on_iteration)
    wanted = _Wanted(negatives, worth, recall, precision, max_body, seed)
    valid = asking.first_valid([tuple(body) for body in starts if body], "start")
    proposed, accepted = _proposals(asking, wanted, valid, end=time.monotonic() + PROPOSING * timeout_s)
    if proposed.optimal:
        return asking.result(proposed.body, proposed, wanted, proposed.reason)
    valid = [*valid, *accepted] or _by_chain(asking, wanted, proposed)
    if not valid:
        why = f"{proposed.reason}; and no body was proved in {timeout_s:g} s"
        return asking.result(proposed.body, proposed, wanted, why)
    return asking.result(_shrunk(asking, wanted, valid), proposed, wanted, "")


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a body should come to; the fields are the arguments of `refine`."""

    negatives: NDArray[np.bool_]
    worth: NDArray[np.float64]
    recall: float
    precision: float
    max_body: int | None
    seed: int

    def allows(self, body: Sequence[int]) -> bool:
        """Whether the body is no longer than allowed."""
        return self.max_body is None or len(body) <= self.max_body

    def reached(self, kept: float, total: int) -> bool:
        """Whether a share of the positives is all the recall that is wanted."""
        return round(kept * total) >= self.recall * total * (1 - 1e-12)


def _proposals(
    asking: "_Asking", wanted: _Wanted, valid: Sequence[tuple[int, ...]], *, end: float
) -> tuple[Synthesis, list[tuple[int, ...]]]:
    """What the search for a smallest valid body came to at the wanted recall; and the body that it accepted there, or at the
    highest lower recall at which one is left, unless one of the bodies known to be valid keeps more."""
    proposed = latest = _propose(asking, wanted, wanted.recall, end)
    for share in LOWER:
        floor = share * wanted.recall
        known = any(wanted.allows(body) and asking.recall(body) > floor for body in valid)
        if not latest.exhausted or latest.found or known:
            break
        asking.lower_bound = 0
        latest = _propose(asking, wanted, floor, end)
    return proposed, [latest.body] if latest.found else []


def _propose(asking: "_Asking", wanted: _Wanted, recall: float, end: float) -> Synthesis:
    return smallest_body(
        asking.table,
        asking.positives,
        wanted.negatives,
        recall=recall,
        precision=wanted.precision,
        max_body=wanted.max_body,
        timeout_s=max(end - time.monotonic(), 1e-3),
        seed=wanted.seed,
        judge=asking.ruling,
    )


def _by_chain(asking: "_Asking", wanted: _Wanted, proposed: Synthesis) -> list[tuple[int, ...]]:
    """The shortest valid bodies that adding literals to the proposal, and to nothing, leads to, where time is left."""
    if asking.over():
        return []
    table, positive = asking.table, sample_mask(asking.table, asking.positives, name="positives")
    required = int(np.ceil(wanted.recall * asking.total * (1 - 1e-12)))
    order = [int(row) for row in np.argsort(-wanted.worth, kind="stable")]
    found = []
    for start in dict.fromkeys((proposed.body, ())):
        chain = strongest_of(table.predicates, chain_of(table, positive, order, required=required, start=start))
        shorter = shortest_prefix(
            chain[: wanted.max_body],
            lambda bodies: asking.validities([strongest_of(table.predicates, body) for body in bodies], "extend"),
            lambda: not asking.over(),
        )
        if shorter is not None:
            found.append(shorter)
    return found


def _shrunk(asking: "_Asking", wanted: _Wanted, valid: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The best of the valid bodies, by length allowed, recall up to the wanted one, and length, as short as it stays valid."""

    def rank(body: tuple[int, ...]) -> tuple[bool, float, int]:
        return wanted.allows(body), min(asking.recall(body), wanted.recall), -len(body)

    best = asking.without_idle(max(valid, key=rank))
    return shrink(best, lambda bodies: asking.validities(bodies, "shrink"), lambda: not asking.over(), keep=wanted.worth)


@dataclass(eq=False)
class _Asking:
    """One head's questions within its time, each remembered."""

    table: PredicateTable
    positives: NDArray[np.bool_]
    head: Predicate | None
    oracle: Oracle
    truths: Truths
    end: float
    question_s: float
    on_iteration: Callable[[Iteration], None]
    iterations: list[Iteration] = field(default_factory=list)
    points: list[tuple[float, ...]] = field(default_factory=list)
    answers: dict[tuple[int, ...], Answer] = field(default_factory=dict)
    learned: dict[tuple[int, ...], Bits] = field(default_factory=dict)
    lower_bound: int = 0

    @property
    def total(self) -> int:
        return int(self.positives.sum())

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def ruling(self, body: tuple[int, ...], lower_bound: int) -> Ruling:
        """What the oracle says of one body, in the terms of the search for the smallest."""
        self.lower_bound = max(self.lower_bound, lower_bound)
        for truths in self.learned.values():
            held = truths[list(body)].all(axis=0)
            if held.any():
                return Ruling(False, truths[:, np.argsort(~held, kind="stable")])
        (answer,) = self.ask([body], "propose")
        if answer.point is not None:
            return Ruling(False, self.learned[tuple(sorted(body))])
        return Ruling(answer.valid)

    def validities(self, bodies: Sequence[tuple[int, ...]], phase: Phase) -> list[bool | None]:
        """Whether each body is valid; what was asked before is not asked again, nor what the time does not suffice for, going
        by the proofs so far."""
        new = [body for body in dict.fromkeys(bodies) if tuple(sorted(body)) not in self.answers]
        proofs = [answer.seconds for answer in self.answers.values() if answer.valid]
        left = max(0.0, self.end - time.monotonic())
        affordable = int(left / max(statistics.median(proofs), 1e-3)) if proofs else len(new)
        if new[:affordable]:
            self.ask(new[:affordable], phase)
        known = [self.answers.get(tuple(sorted(body))) for body in bodies]
        return [None if answer is None else answer.valid for answer in known]

    def first_valid(self, bodies: list[tuple[int, ...]], phase: Phase) -> list[tuple[int, ...]]:
        """The first of the bodies that is valid, as far as the time allows to ask."""
        for body in bodies:
            if self.over():
                break
            if self.validities([body], phase) == [True]:
                return [body]
        return []

    def without_idle(self, body: tuple[int, ...]) -> tuple[int, ...]:
        """The body without the literals that its proof did not use, where the oracle finds that valid too."""
        answer = self.answers.get(tuple(sorted(body)))
        while answer is not None and answer.idle and not self.over():
            rows = tuple(sorted(body))
            idle = {self.table.predicates[row] for row in rows} & answer.idle
            smaller = tuple(row for row in rows if self.table.predicates[row] not in idle)
            if len(smaller) == len(rows) or self.validities([smaller], "shrink") != [True]:
                break
            body, answer = smaller, self.answers[smaller]
        return body

    def ask(self, bodies: Sequence[tuple[int, ...]], phase: Phase) -> list[Answer]:
        clauses = [HornClause(self.head, tuple(self.table.predicates[row] for row in body)) for body in bodies]
        seconds = max(0.05, min(self.question_s, (self.end - time.monotonic()) / len(bodies)))
        answers = self.oracle.ask(clauses, timeout_s=seconds, likely=phase != "propose")
        for body, answer in zip(bodies, answers, strict=True):
            self.answers[tuple(sorted(body))] = answer
            self._note(body, answer, phase)
        return answers

    def _note(self, body: tuple[int, ...], answer: Answer, phase: Phase) -> None:
        excluded = learned = None
        if answer.point is not None:
            self.points.append(tuple(float(v) for v in answer.point))
            self.learned[tuple(sorted(body))] = truths = self.truths(answer.point)
            excluded, learned = int((~truths[:, 0]).sum()), truths.shape[1]
        iteration = Iteration(
            phase=phase,
            body=tuple(sorted(body)),
            recall=self.recall(body),
            lower_bound=self.lower_bound,
            valid=answer.valid,
            oracle=answer.oracle,
            reason=answer.reason,
            bound=answer.bound,
            excluded=excluded,
            learned=learned,
            seconds=round(answer.seconds, 3),
        )
        self.iterations.append(iteration)
        self.on_iteration(iteration)

    def recall(self, body: Sequence[int]) -> float:
        held = conjunction(self.table, list(body)) & sample_mask(self.table, self.positives, name="positives")
        return count(held) / self.total

    def result(self, body: Sequence[int], proposed: Synthesis, wanted: _Wanted, reason: str) -> Refined:
        rows = tuple(sorted(body))
        answer = self.answers.get(rows)
        valid = answer is not None and answer.valid is True
        kept = self.recall(rows)
        found = valid and wanted.reached(kept, self.total) and wanted.allows(rows)
        lower_bound = min(proposed.lower_bound, len(rows)) if found else proposed.lower_bound
        return Refined(
            body=rows,
            valid=valid,
            found=found,
            lower_bound=lower_bound,
            optimal=found and lower_bound == len(rows),
            recall=kept,
            reason=self._ending(rows, kept, wanted, lower_bound, reason) if valid else reason,
            iterations=tuple(self.iterations),
            counterexamples=tuple(self.points),
        )

    def _ending(self, rows: tuple[int, ...], kept: float, wanted: _Wanted, lower_bound: int, reason: str) -> str:
        """How refinement ended with a valid body, in words; reason: what is said where it is all that was wanted."""
        if not wanted.reached(kept, self.total):
            return f"no body that keeps the recall {wanted.recall:g} was proved; the best one proved keeps {kept:.4f}"
        if not wanted.allows(rows):
            return f"no body of at most {wanted.max_body} literals was proved; the shortest one proved has {len(rows)}"
        return reason or f"valid; a smallest valid body has {lower_bound} to {len(rows)} literals"
