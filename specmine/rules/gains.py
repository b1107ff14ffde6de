"""What each family of predicates adds: the best short clauses from some families beside the best from unary ones alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.families import FAMILIES
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, select_predicates
from specmine.progress import SILENT, Progress
from specmine.rules.beam import best_body
from specmine.rules.clause import HornClause

BASE = "unary"


@dataclass(frozen=True)
class Selection:
    """The best short clause for each head from the candidates of some families; None where no literal helps."""

    families: tuple[str, ...]
    candidates: int
    clauses: tuple[HornClause | None, ...]


def compare_families(
    table: PredicateTable,
    positives: Mapping[Predicate, NDArray[np.bool_]],
    *,
    max_body: int = 8,
    progress: Progress = SILENT,
) -> list[Selection]:
    """The best clauses of at most max_body literals from unary predicates, from these and one other family, and from all.

    table: the candidates on the mining samples; positives: by head, a mask (samples,) of those where it holds. A family
    without candidates in the table is left out; so is everything where the table has unary candidates alone.
    """
    family_of = {form: family.name for family in FAMILIES.values() for form in family.forms}
    found = np.array([family_of[predicate.form] for predicate in table.predicates], dtype=object)
    others = [name for name in FAMILIES if name != BASE and (found == name).any()]
    wanted = [(BASE,), *((BASE, name) for name in others), *([(BASE, *others)] if len(others) > 1 else [])]
    if not others or not (found == BASE).any():
        return []
    progress.start("families", len(wanted) * len(positives))
    selections = []
    for families in wanted:
        part = select_predicates(table, np.isin(found, families))
        clauses = []
        for head, mask in positives.items():
            clauses.append(_best_clause(part, head, mask, max_body))
            progress.advance(1, f"{'+'.join(families)}: {clauses[-1]}")
        selections.append(Selection(families, len(part.predicates), tuple(clauses)))
    progress.finish(f"{len(selections)} selections of families")
    return selections


def _best_clause(table: PredicateTable, head: Predicate, mask: NDArray[np.bool_], max_body: int) -> HornClause | None:
    rows: Sequence[int] = best_body(table, mask, max_body=max_body).rows if mask.any() else ()
    return HornClause(head, tuple(table.predicates[row] for row in rows)) if rows else None
