"""Sets of clauses: many bodies for each head, none that the others imply, and the cheapest cover of these (METHODS 4)."""

import json
from collections.abc import Sequence
from pathlib import Path

from specmine.config import Config
from specmine.folder import write_text
from specmine.pipeline.target import Target
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable
from specmine.progress import SILENT, Progress
from specmine.rules.clause import HornClause
from specmine.rules.cover import Cover, smallest_cover
from specmine.rules.entailment import without_implied
from specmine.rules.smallest import smallest_bodies
from specmine.rules.threshold import compose
from specmine.stats import body_bits
from specmine.tracing import Source

LOG = "cover.jsonl"
LOWER = (0.9, 0.7, 0.5)
"""Shares of the wanted recall that bodies are also looked for at."""


def many_bodies(table: PredicateTable, target: Target, config: Config) -> list[HornClause]:
    """Different bodies for one head: several smallest ones at the wanted recall, at lower ones some that share no literal, and
    threshold compositions."""
    found: dict[HornClause, None] = {}
    recalls = (config.recall, *(config.recall * share for share in LOWER))
    seconds = config.timeout_s / (2 * len(recalls) + 2)
    for place, recall in enumerate(recalls):
        made = smallest_bodies(
            table,
            target.positives,
            target.negatives,
            count=config.max_clauses,
            recalls=(recall,),
            precision=config.precision,
            max_body=config.max_body,
            timeout_s=seconds,
            seed=config.seed,
            disjoint=place > 0,
        )
        found |= {HornClause(target.head, tuple(table.predicates[row] for row in one.body)): None for one in made if one.body}
    composed = (compose(table, target.positives, head=target.head, delta=delta) for delta in config.deltas)
    return [*found, *(clause for clause in composed if clause is not None)]


def cover(clauses: Sequence[HornClause], source: Source, target: Target, config: Config) -> tuple[list[HornClause], Cover]:
    """The cheapest of the clauses of one head that cover all positives that any of them covers, as few as configured first.

    A clause that the others imply is not looked at.
    """
    distinct = list(dict.fromkeys(clauses))
    held = dict(zip(distinct, body_bits(distinct, source), strict=True))
    kept = without_implied(distinct, source.sites, held=[held[clause] for clause in distinct])
    covered = [held[clause] & target.positives for clause in kept]
    chosen = smallest_cover(covered, [len(clause.body) for clause in kept], timeout_s=config.timeout_s)
    best = sorted(chosen.chosen, key=lambda place: (-int(covered[place].sum()), place))
    return [kept[place] for place in best[: config.max_clauses]], chosen


class CoverLog:
    """The choices of a run: a JSON line for each head, with the cost, the proven bound on it, and both in words."""

    def __init__(self, folder: Path, progress: Progress = SILENT) -> None:
        self.path, self.progress = folder / LOG, progress
        self._lines: list[str] = []

    def note(self, head: Predicate, candidates: int, clauses: Sequence[HornClause], chosen: Cover) -> None:
        """One head is done: from so many candidates, these clauses."""
        line = {
            "head": str(head),
            "candidates": candidates,
            "clauses": [str(clause) for clause in clauses],
            "cost": chosen.cost,
            "lower_bound": chosen.lower_bound,
            "optimal": chosen.optimal,
            "reason": chosen.reason,
        }
        self._lines.append(json.dumps(line, allow_nan=False) + "\n")
        write_text(self.path, "".join(self._lines))
        self.progress.advance(1, f"cover {head}: {chosen.reason}")
