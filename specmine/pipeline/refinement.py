"""Refinement of a run's clauses: for each head, bodies that the verifier proves over the whole domain, as short as time allows.

Every question is a line of the run's log, and every verdict with its counterexample is in the run's store. A run that was
stopped reads finished heads from the log, and walks the way of the others again without asking for what the store knows.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmine.config import Config
from specmine.folder import cannot_write, write_text
from specmine.pipeline.failures import Failures, spread
from specmine.pipeline.target import Target
from specmine.predicates.families import FORMS
from specmine.predicates.form import Bits
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import (
    PredicateTable,
    build_table,
    conjunction,
    counts,
    merge,
    pack,
    select_predicates,
    unpack,
)
from specmine.progress import SILENT, Progress
from specmine.rules.clause import HornClause
from specmine.rules.cover import smallest_cover
from specmine.rules.refine import Iteration, Refined, refine
from specmine.rules.syntax import parse_clause
from specmine.tracing import Sites, Source, trace, traced
from specmine.verification import Store
from specmine.verification.oracle import VerifierOracle
from verifier.ops import Array
from verifier.region import Box

LOG = "refinement.jsonl"
_MOST_ROWS = 3000
_STARTS = 256
_KEPT = 32  # counterexamples of a head that other heads begin with


@dataclass(frozen=True, eq=False)
class Refinery:
    """What refinement works with. source, table: the mining rows; inputs: (rows, size); store: verdicts of the run."""

    source: Source
    table: PredicateTable
    inputs: Array
    region: Box
    store: Store
    config: Config
    progress: Progress = SILENT

    @cached_property
    def journal(self) -> "Journal":
        return Journal(self.store.folder / LOG)

    @property
    def sites(self) -> Sites:
        return self.source.sites

    @cached_property
    def points(self) -> Array:
        """Inputs (points, size) of the region, most of which are no samples."""
        return spread(self.region, self.inputs, seed=self.config.seed)

    def tabulated(self, predicates: Sequence[Predicate], inputs: Array) -> PredicateTable:
        """The truth of predicates at inputs (inputs, size)."""
        return build_table(predicates, trace(self.sites, inputs, keep=sites_of(predicates, self.sites)))


def refine_clauses(refinery: Refinery, target: Target, made: Sequence[HornClause]) -> list[HornClause]:
    """Clauses of one head proved over the region: at most as many as configured, and none that the others make idle.

    made: clauses of the same head that are likely valid; each is asked for first. The first answer keeps as much of the
    wanted recall as can be proved; each one after it is for the positives that are not covered yet.
    """
    done = refinery.journal.clauses(target.head, refinery.sites)
    if done is not None:
        return done
    config = refinery.config
    proved = _proved(refinery, made)
    bench = _bench(refinery, target, proved)
    left, bodies, points = bench.positives.copy(), list[tuple[int, ...]](), list[tuple[float, ...]]()
    end = time.monotonic() + config.refine_s
    while len(bodies) < config.max_clauses and left.any():
        rest = end - time.monotonic()
        last = len(bodies) == config.max_clauses - 1
        refined = _refined(refinery, bench, target, left, max(rest if last else rest / 2, 0.05), bodies)
        points += refined.counterexamples
        if not refined.valid or not bench.holds(refined.body)[left].any():
            break
        bodies.append(refined.body)
        left &= ~bench.holds(refined.body)
        bench = _learned(refinery, bench, refined.counterexamples)
        left = np.concatenate([left, np.zeros(len(bench.positives) - len(left), dtype=bool)])
    kept = smallest_cover([bench.holds(body) & bench.positives for body in bodies], [len(body) for body in bodies])
    clauses = [HornClause(target.head, bench.literals(bodies[place])) for place in kept.chosen]
    recalls = [bench.recall(bodies[place]) for place in kept.chosen]
    refinery.journal.finish(target.head, clauses, recalls, kept.reason, points)
    return clauses


def _proved(refinery: Refinery, made: Sequence[HornClause]) -> list[HornClause]:
    """The clauses that are proved, each within the time for one claim."""
    answers = _oracle(refinery).ask(made, timeout_s=refinery.config.timeout_s, likely=True) if made else []
    for clause, answer in zip(made, answers, strict=True):
        said = {True: "valid", False: "refuted", None: "open"}[answer.valid]
        refinery.progress.advance(1, f"start {clause.head}: {len(clause.body)} literals: {said}")
    return [clause for clause, answer in zip(made, answers, strict=True) if answer.valid]


def _oracle(refinery: Refinery) -> VerifierOracle:
    engine, starts = refinery.config.engine, refinery.inputs[:_STARTS]
    return VerifierOracle(refinery.sites, refinery.region, refinery.store, engine=engine, starts=starts)


@dataclass(frozen=True, eq=False)
class _Bench:
    """The table that one head's refinement works on: mining rows, then inputs where the head fails; starts: rows of bodies."""

    table: PredicateTable
    positives: NDArray[np.bool_]
    negatives: NDArray[np.bool_]
    starts: tuple[tuple[int, ...], ...]
    failures: Failures

    def holds(self, body: Sequence[int]) -> NDArray[np.bool_]:
        return np.asarray(unpack(conjunction(self.table, list(body))[None], self.table.samples)[0])

    def recall(self, body: Sequence[int]) -> float:
        return float(self.holds(body)[self.positives].mean())

    def starts_for(self, left: NDArray[np.bool_], *, besides: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The starts that cover some of the positives that are left, first those that cover the most."""
        covered = {body: int(self.holds(body)[left].sum()) for body in self.starts if body not in besides}
        return [body for body in sorted(covered, key=lambda body: -covered[body]) if covered[body]]

    def literals(self, body: Sequence[int]) -> tuple[Predicate, ...]:
        return tuple(self.table.predicates[row] for row in body)

    @cached_property
    def worth(self) -> NDArray[np.float64]:
        """(predicates,) the share of the negatives that a literal excludes, less three times the positives that it loses."""
        positive, negative = pack(self.positives), pack(self.negatives)
        excluded = 1 - counts(self.table, negative) / max(1, int(self.negatives.sum()))
        lost = 1 - counts(self.table, positive) / max(1, int(self.positives.sum()))
        return np.asarray(excluded - 3 * lost, dtype=np.float64)


def _bench(refinery: Refinery, target: Target, made: Sequence[HornClause]) -> _Bench:
    known = {predicate: row for row, predicate in enumerate(refinery.table.predicates)}
    rows = _some(refinery.table, target)
    extra = [literal for literal in dict.fromkeys(p for clause in made for p in clause.body)]
    chosen = tuple(dict.fromkeys([*(refinery.table.predicates[row] for row in rows.tolist()), *extra]))
    old = [known[predicate] for predicate in chosen if predicate in known]
    new = [predicate for predicate in chosen if predicate not in known]
    table = select_predicates(refinery.table, old)
    if new:
        fresh = build_table(new, traced(refinery.source, sites_of(new, refinery.sites)))
        table = PredicateTable(table.predicates + fresh.predicates, np.vstack([table.bits, fresh.bits]), table.samples)
    failures = Failures(refinery.sites, refinery.region, target.head, refinery.inputs[target.positives])
    before = np.array(refinery.journal.refuting).reshape(-1, refinery.inputs.shape[1])
    failing = failures.among(np.concatenate([before, refinery.points]), seed=refinery.config.seed)
    place = {predicate: row for row, predicate in enumerate(table.predicates)}
    starts = tuple(tuple(place[p] for p in clause.body) for clause in made)
    return _with_failing(refinery, _Bench(table, target.positives, target.negatives, starts, failures), failing)


def _learned(refinery: Refinery, bench: _Bench, points: Sequence[Sequence[float]]) -> _Bench:
    """The bench with counterexamples, and inputs like them, as further negatives."""
    if not points:
        return bench
    return _with_failing(refinery, bench, np.concatenate([bench.failures.like(np.array(point)) for point in points]))


def _with_failing(refinery: Refinery, bench: _Bench, failing: Array) -> _Bench:
    if not len(failing):
        return bench
    table = merge(bench.table, refinery.tabulated(bench.table.predicates, failing))
    positives, negatives = (
        np.concatenate([old, np.full(len(failing), new)]) for old, new in ((bench.positives, False), (bench.negatives, True))
    )
    return replace(bench, table=table, positives=positives, negatives=negatives)


def _some(table: PredicateTable, target: Target) -> NDArray[np.int64]:
    """All rows of a table, or those that are best at telling the positives from the negatives."""
    if len(table.predicates) <= _MOST_ROWS:
        return np.arange(len(table.predicates))
    held = counts(table, pack(target.positives)) / max(1, int(target.positives.sum()))
    kept = counts(table, pack(target.negatives)) / max(1, int(target.negatives.sum()))
    return np.sort(np.argsort(kept - held, kind="stable")[:_MOST_ROWS])


def _refined(
    refinery: Refinery,
    bench: _Bench,
    target: Target,
    left: NDArray[np.bool_],
    seconds: float,
    before: Sequence[tuple[int, ...]],
) -> Refined:
    config, predicates = refinery.config, bench.table.predicates

    def truths(point: Array) -> Bits:
        failing = bench.failures.like(point)
        return np.asarray(unpack(refinery.tabulated(predicates, failing).bits, len(failing)))

    def note(iteration: Iteration) -> None:
        refinery.journal.note(target.head, len(before), iteration, bench.literals(iteration.body))
        verdict = {True: "valid", False: "refuted", None: "open"}[iteration.valid]
        text = f"{iteration.phase} {target.head}: {iteration.size} literals, recall {iteration.recall:.3f}: {verdict}"
        refinery.progress.advance(1, text)

    return refine(
        bench.table,
        left,
        bench.negatives,
        head=target.head,
        oracle=_oracle(refinery),
        truths=truths,
        worth=bench.worth,
        recall=config.recall,
        precision=config.precision,
        max_body=config.max_body,
        timeout_s=seconds,
        question_s=min(config.timeout_s, seconds),
        seed=config.seed,
        starts=bench.starts_for(left, besides=before),
        on_iteration=note,
    )


def sites_of(predicates: Sequence[Predicate], sites: Sites) -> tuple[str, ...]:
    """The sites that predicates read, and the output."""
    read = {site for p in predicates for site in FORMS[p.form].sites(p.arguments, sites)}
    return tuple(sorted({*read, "y"}))


class Journal:
    """The log of a run's refinement: JSON lines, one for each question and one for each finished head.

    Lines of heads that an earlier start did not finish are dropped at once, since they are going to be written again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = list(_lines(path))
        self.done = {line["head"]: line["clauses"] for line in lines if "clauses" in line}
        self.refuting: list[list[float]] = [point for line in lines if "clauses" in line for point in line["refuting"]]
        if path.exists():
            write_text(path, "".join(json.dumps(line) + "\n" for line in lines if line["head"] in self.done))

    def clauses(self, head: Predicate, sites: Sites) -> list[HornClause] | None:
        """The clauses of a head that an earlier start finished, None where none did."""
        found = self.done.get(str(head))
        return None if found is None else [parse_clause(text, sites=sites) for text in found]

    def note(self, head: Predicate, turn: int, iteration: Iteration, body: Sequence[Predicate]) -> None:
        """One question; turn: how many clauses of the head were found before."""
        self._write(
            {
                "head": str(head),
                "turn": turn,
                "phase": iteration.phase,
                "size": iteration.size,
                "recall": round(iteration.recall, 6),
                "lower_bound": iteration.lower_bound,
                "verdict": {True: "valid", False: "refuted", None: "open"}[iteration.valid],
                "oracle": iteration.oracle,
                "reason": iteration.reason,
                "bound": iteration.bound,
                "excluded": iteration.excluded,
                "learned": iteration.learned,
                "seconds": iteration.seconds,
                "body": [str(literal) for literal in body],
            }
        )

    def finish(
        self,
        head: Predicate,
        clauses: Sequence[HornClause],
        recalls: Sequence[float],
        reason: str,
        refuting: Sequence[Sequence[float]] = (),
    ) -> None:
        """A head is done: its clauses, the share of its positives that each covers, how good the choice among them is, and
        counterexamples for the heads to come."""
        points = [list(point) for point in refuting[-_KEPT:]]
        self.refuting += points
        texts = [str(clause) for clause in clauses]
        self._write({"head": str(head), "clauses": texts, "recalls": list(recalls), "cover": reason, "refuting": points})

    def _write(self, line: dict[str, Any]) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error


def refined_recalls(folder: Path) -> dict[str, float]:
    """By the text of each refined clause of a run, the share that it covers of its head's positives among the mining rows."""
    ends = [line for line in _lines(folder / LOG) if "recalls" in line]
    return {text: recall for line in ends for text, recall in zip(line["clauses"], line["recalls"], strict=True)}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; one that a killed process left unfinished is passed over."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            continue
