"""Horn clauses over predicates: head :- body."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from specmine.predicates.predicate import Predicate


@dataclass(frozen=True)
class HornClause:
    """For every input: where all predicates of the body hold, the head holds; a head of None stands for `false`.

    The body is kept sorted and without repeats, so two clauses are equal exactly when they are the same clause.
    """

    head: Predicate | None
    body: tuple[Predicate, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", tuple(sorted(set(self.body))))

    def __str__(self) -> str:
        head = "false" if self.head is None else str(self.head)
        return f"{head} :- {', '.join(map(str, self.body)) or 'true'}."

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the clause in files and reports."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]
