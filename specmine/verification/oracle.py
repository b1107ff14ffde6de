"""The verifier as the oracle of refinement; what it said is in the store, so a run that was stopped need not ask again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.rules.oracle import Answer
from specmine.tracing import Sites
from specmine.verification.proving import decide
from specmine.verification.store import Record, Store
from verifier.ops import Array
from verifier.region import Region


@dataclass(frozen=True, eq=False)
class VerifierOracle:
    """Decides clauses over one region with one engine; falsification comes before any proof in every engine that proves.

    starts: inputs (count, size) from which counterexamples are searched.
    """

    sites: Sites
    region: Region
    store: Store
    engine: str = "auto"
    starts: Array | None = None

    def ask(self, clauses: Sequence[HornClause], *, timeout_s: float) -> list[Answer]:
        """One answer a clause, in order, within about timeout_s seconds for each."""
        queries = [clause_query(clause, self.region, self.sites) for clause in clauses]
        known = [self.store.answers(query.sha256, self.engine, timeout_s) for query in queries]
        new = [query for query, there in zip(queries, known, strict=True) if not there]
        if new:
            decide(new, self.store, engine=self.engine, timeout_s=timeout_s, starts=self.starts)
        return [_answer(self.store.records[query.sha256]) for query in queries]


def _answer(record: Record) -> Answer:
    valid = {"proved": True, "refuted": False, "unknown": None}[record.verdict]
    point = None if record.counterexample is None else np.array(record.counterexample, dtype=np.float64)
    return Answer(valid, point, record.bound, record.engine, record.reason, record.seconds)
