"""Refinement: the smallest body whose clause is proved over a region, counterexamples being constraints (METHODS 5).

1. clingo proposes a smallest body for the samples and the counterexamples so far, and the oracle decides its clause. A
   counterexample becomes a constraint (some literal of the body is false there), so the next proposal excludes it; a proof
   ends the loop, and the body is cardinality-minimal among the candidates at that recall.
2. Where that takes too long, or the oracle cannot tell, literals are added in the order of their worth as long as the recall
   stands, and the shortest valid prefix of that chain is looked for by bisection.
3. What is valid is shrunk, literal by literal, until nothing can go.

The bound of the first step stays true of whatever comes out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.form import Bits
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, conjunction, count
from specmine.progress import SILENT, Progress
from specmine.rules.chain import chain_of, shortest_prefix, shrink
from specmine.rules.clause import HornClause
from specmine.rules.oracle import Answer, Oracle
from specmine.rules.smallest import Ruling, Synthesis, smallest_body
from specmine.rules.threshold import sample_mask
from verifier.ops import Array

Phase: TypeAlias = Literal["propose", "extend", "shrink"]
Truth: TypeAlias = Callable[[Array], Bits]
"""Truth (predicates,) of every row of the table at an input (size,)."""

PROPOSING = 0.4
"""The share of the time for step 1 where it does not end by itself."""


@dataclass(frozen=True)
class Iteration:
    """One question to the oracle. size: literals of the body asked of; recall: share of the positives that satisfy it;
    lower_bound: no valid body that keeps the recall is smaller, as far as was known; excluded: how many candidates are false
    at the counterexample."""

    phase: Phase
    size: int
    recall: float
    lower_bound: int
    valid: bool | None
    oracle: str
    reason: str
    bound: float | None
    excluded: int | None
    seconds: float


@dataclass(frozen=True)
class Refined:
    """What refinement came to. body: rows of the table, a valid body where `valid`, else the best proposal, which is not known
    to be valid. lower_bound: no valid body that keeps the recall is smaller; optimal: none is smaller than this one, proved."""

    body: tuple[int, ...]
    valid: bool
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
    truth: Truth,
    worth: NDArray[np.float64],
    recall: float,
    max_body: int | None = None,
    timeout_s: float = 60.0,
    question_s: float = 2.0,
    seed: int = 0,
    known: Sequence[Array] = (),
    progress: Progress = SILENT,
) -> Refined:
    """A body, as small as the time allows, that keeps the recall and whose clause the oracle proves.

    positives, negatives: Boolean masks (samples,). worth: (predicates,) how much each literal is expected to help a proof.
    known: counterexamples of an earlier start, which are not looked for again. question_s: seconds for one question.

    Raises BadConfig for shares and times out of range, BadData for masks that do not fit or without positives.
    """
    asking = _Asking(table, positives, head, oracle, truth, time.monotonic() + timeout_s, question_s, progress)
    start = time.monotonic()
    judged = _Known(table, [truth(point) for point in known])
    proposed = smallest_body(
        table,
        positives,
        negatives,
        recall=recall,
        max_body=max_body,
        timeout_s=max(PROPOSING * timeout_s, 1e-3),
        seed=seed,
        judge=lambda body, lower_bound: judged.ruling(body) or asking.ruling(body, lower_bound),
    )
    if proposed.optimal or asking.over():
        return asking.result(proposed.body, proposed, proposed.found, proposed.reason)
    longer = _by_chain(asking, negatives, worth, recall, max_body, proposed, judged)
    best = min(
        (body for body in (longer, proposed.body if proposed.found else None) if body is not None), key=len, default=None
    )
    if best is None:
        why = f"{proposed.reason}; and no body that keeps the recall was proved in {time.monotonic() - start:.1f} s"
        return asking.result(proposed.body, proposed, False, why)
    best = shrink(best, lambda bodies: asking.validities(bodies, "shrink"), lambda: not asking.over(), keep=worth)
    gap = f"valid; a smallest valid body has {min(proposed.lower_bound, len(best))} to {len(best)} literals"
    return asking.result(best, proposed, True, gap)


def _by_chain(
    asking: "_Asking",
    negatives: NDArray[np.bool_],
    worth: NDArray[np.float64],
    recall: float,
    max_body: int | None,
    proposed: Synthesis,
    judged: "_Known",
) -> tuple[int, ...] | None:
    """The shortest valid body that adding literals to the proposal, or to nothing, leads to."""
    table, positive = asking.table, sample_mask(asking.table, asking.positives, name="positives")
    required = int(np.ceil(recall * asking.total * (1 - 1e-12)))
    order = [int(row) for row in np.argsort(-worth, kind="stable")]
    best: tuple[int, ...] | None = None
    for start in dict.fromkeys((proposed.body, ())):
        chain = chain_of(table, positive, order, required=required, start=start)[:max_body]
        found = shortest_prefix(
            chain, lambda bodies: asking.validities(bodies, "extend"), lambda: not asking.over(), at_least=len(start)
        )
        if found is not None and (best is None or len(found) < len(best)):
            best = found
    return best


@dataclass(frozen=True, eq=False)
class _Known:
    """Counterexamples of an earlier start."""

    table: PredicateTable
    truths: list[Bits]

    def ruling(self, body: tuple[int, ...]) -> Ruling | None:
        against = tuple(truth for truth in self.truths if truth[list(body)].all())
        return Ruling(False, against[:1]) if against else None


@dataclass(eq=False)
class _Asking:
    """One head's questions within its time, each remembered."""

    table: PredicateTable
    positives: NDArray[np.bool_]
    head: Predicate | None
    oracle: Oracle
    truth: Truth
    end: float
    question_s: float
    progress: Progress
    iterations: list[Iteration] = field(default_factory=list)
    points: list[tuple[float, ...]] = field(default_factory=list)
    answers: dict[tuple[int, ...], bool | None] = field(default_factory=dict)
    lower_bound: int = 0

    @property
    def total(self) -> int:
        return int(self.positives.sum())

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def ruling(self, body: tuple[int, ...], lower_bound: int) -> Ruling:
        """What the oracle says of one body, in the terms of the search for the smallest."""
        self.lower_bound = max(self.lower_bound, lower_bound)
        (answer,) = self.ask([body], "propose")
        if answer.point is not None:
            return Ruling(False, (self.truth(answer.point),))
        return Ruling(answer.valid)

    def validities(self, bodies: Sequence[tuple[int, ...]], phase: Phase) -> list[bool | None]:
        """Whether each body is valid; what was asked before is not asked again."""
        new = [body for body in dict.fromkeys(bodies) if tuple(sorted(body)) not in self.answers]
        if new:
            self.ask(new, phase)
        return [self.answers[tuple(sorted(body))] for body in bodies]

    def ask(self, bodies: Sequence[tuple[int, ...]], phase: Phase) -> list[Answer]:
        clauses = [HornClause(self.head, tuple(self.table.predicates[row] for row in body)) for body in bodies]
        seconds = max(0.05, min(self.question_s, (self.end - time.monotonic()) / len(bodies)))
        answers = self.oracle.ask(clauses, timeout_s=seconds)
        for body, answer in zip(bodies, answers, strict=True):
            self.answers[tuple(sorted(body))] = answer.valid
            self._note(body, answer, phase)
        return answers

    def _note(self, body: tuple[int, ...], answer: Answer, phase: Phase) -> None:
        excluded = None
        if answer.point is not None:
            self.points.append(tuple(float(v) for v in answer.point))
            excluded = int((~self.truth(answer.point)).sum())
        verdict = {True: "valid", False: "refuted", None: "open"}[answer.valid]
        iteration = Iteration(
            phase=phase,
            size=len(body),
            recall=self.recall(body),
            lower_bound=self.lower_bound,
            valid=answer.valid,
            oracle=answer.oracle,
            reason=answer.reason,
            bound=answer.bound,
            excluded=excluded,
            seconds=round(answer.seconds, 3),
        )
        self.iterations.append(iteration)
        self.progress.advance(1, f"{phase}: {iteration.size} literals, recall {iteration.recall:.3f}: {verdict}")

    def recall(self, body: Sequence[int]) -> float:
        held = conjunction(self.table, list(body)) & sample_mask(self.table, self.positives, name="positives")
        return count(held) / self.total

    def result(self, body: tuple[int, ...], proposed: Synthesis, valid: bool, reason: str) -> Refined:
        lower_bound = min(proposed.lower_bound, len(body)) if valid else proposed.lower_bound
        return Refined(
            body=tuple(sorted(body)),
            valid=valid,
            lower_bound=lower_bound,
            optimal=valid and proposed.lower_bound >= len(body),
            recall=self.recall(body),
            reason=reason,
            iterations=tuple(self.iterations),
            counterexamples=tuple(self.points),
        )
