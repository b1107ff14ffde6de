"""What refinement asks: does a clause hold over the whole region, and if not, where does it fail?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from verifier.ops import Array


@dataclass(frozen=True, eq=False)
class Answer:
    """What an oracle says of a clause.

    valid: proved, True; refuted, False; None where it stays open. point: an input (size,) of the region where the body holds
    and the head does not, exactly; bound: the best proven lower bound; oracle: who decided; reason: why it stays open; idle:
    literals of the body that the proof seems not to have used.
    """

    valid: bool | None
    point: Array | None = None
    bound: float | None = None
    oracle: str = ""
    reason: str = ""
    seconds: float = 0.0
    idle: frozenset[Predicate] = frozenset()


class Oracle(Protocol):
    """Decides clauses over one region. Validity is monotone: a clause with more literals is valid where one with fewer is."""

    def ask(self, clauses: Sequence[HornClause], *, timeout_s: float, likely: bool = False) -> list[Answer]:
        """One answer a clause, in order, within about timeout_s seconds for each; likely: that they are valid, so that no
        counterexample need be looked for."""
