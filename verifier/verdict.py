"""What is known about a query: proved, refuted, or not decided, with the evidence."""

from dataclasses import dataclass
from typing import TypeAlias

from verifier.certificate import Certificate
from verifier.ops import Array


@dataclass(frozen=True, eq=False)
class Proved:
    """No input of the region satisfies the assertion (the query is unsat), in real arithmetic over the stored weights.

    certificate: replayed by `verifier.check`; None where the engine is a solver that decides exactly without one (Z3).
    """

    certificate: Certificate | None


@dataclass(frozen=True, eq=False)
class Refuted:
    """This input of the region satisfies the assertion (the query is sat); replayed in exact arithmetic.

    counterexample: flat float64 input, C order.
    """

    counterexample: Array


@dataclass(frozen=True)
class Unknown:
    """Not decided. reason: timeout, unsupported, unconfirmed, rounding, incomplete, memory.

    bound: the best proven lower bound on the assertion's left side (positive would be a proof), where one is known.
    """

    reason: str
    detail: str = ""
    bound: float | None = None


Verdict: TypeAlias = Proved | Refuted | Unknown


@dataclass(frozen=True, eq=False)
class Decision:
    """A verdict with how it was reached.

    bound: the smallest lower bound over the disjuncts, in the scale of their atoms; None where a proof went by cases.
    """

    verdict: Verdict
    engine: str
    seconds: float
    bound: float | None = None
    splits: int = 0
