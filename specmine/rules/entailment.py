"""Which clauses the others say already: entailment between bodies by linear reasoning over what literals denote (METHODS 4).

The background theory is arithmetic itself (above 2 implies above 1, less is transitive, between implies two comparisons) and
what a ReLU is: h >= 0, and h is z or 0. Z3 decides it in exact rationals.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import z3
from numpy.typing import NDArray

from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.tracing.sites import Sites
from verifier.formula import And, Atom, Formula, atoms_of, negate
from verifier.ops import Relu

QUESTION_S = 0.5
Masks = Sequence[NDArray[np.bool_]]


class Premise:
    """Literals that are taken to hold, and what follows from them; grows by `add`."""

    def __init__(self, literals: Iterable[Predicate], sites: Sites, *, question_s: float = QUESTION_S) -> None:
        self.sites = sites
        self._solver = z3.SolverFor("QF_LRA")
        self._solver.set("timeout", max(1, int(1000 * question_s)))
        self._known: set[tuple[str, int]] = set()
        self.literals: set[Predicate] = set()
        for literal in literals:
            self.add(literal)

    def add(self, literal: Predicate) -> None:
        """From now on this literal holds too."""
        formula = denote(literal, self.sites)
        self._introduce(formula)
        self._solver.add(_term(formula))
        self.literals.add(literal)

    def entails(self, literal: Predicate) -> bool:
        """Whether the literal follows; False also where Z3 cannot tell in time.

        sound: the solver says `unsat` to the premise, true facts about ReLUs and the literal's negation.
        """
        if literal in self.literals:
            return True
        formula = denote(literal, self.sites)
        self._introduce(formula)
        return bool(self._solver.check(_term(negate(formula))) == z3.unsat)

    @property
    def contradictory(self) -> bool:
        """Whether the premise cannot hold at all; False also where Z3 cannot tell in time."""
        return bool(self._solver.check() == z3.unsat)

    def _introduce(self, formula: Formula) -> None:
        """Says what is known of the entries that a formula is the first to name."""
        for entry in {(term.value, term.index) for atom in atoms_of(formula) for term in atom.terms} - self._known:
            self._known.add(entry)
            value, index = entry
            producer = self.sites.network.producers.get(value)
            if producer is not None and isinstance(producer.op, Relu):
                h, z = _variable(entry), _variable((producer.inputs[0], index))
                self._solver.add(h >= 0, h >= z, z3.Or(h == z, h == 0))


def without_implied(
    clauses: Sequence[HornClause], sites: Sites, *, held: Masks | None = None, question_s: float = QUESTION_S
) -> list[HornClause]:
    """The clauses, in their order, without those that the rest and the background theory imply; longer ones go first.

    A clause goes where its head follows from its body by the clauses that stay, or its body cannot hold. held: for each
    clause the samples (samples,) where its body holds, which spares most questions: a body implies no other one that fails
    where it holds.
    """
    kept = list(range(len(clauses)))
    for place in sorted(kept, key=lambda place: (-len(clauses[place].body), -place)):
        clause, others = clauses[place], [other for other in kept if other != place]
        possible = [o for o in others if held is None or not (held[place] & ~held[o]).any()]
        if implied(clause, [clauses[other] for other in possible], sites, question_s=question_s):
            kept.remove(place)
    return [clauses[place] for place in kept]


def implied(clause: HornClause, others: Iterable[HornClause], sites: Sites, *, question_s: float = QUESTION_S) -> bool:
    """Whether a clause follows from others: its head from its body, by chaining and linear arithmetic.

    >>> from specmine.rules.syntax import parse_clause
    >>> from verifier.network import Network, Node
    >>> from verifier.ops import Relu
    >>> sites = Sites(Network("in", (1, 3), (Node("h", Relu(), ("in",)),), "h"))
    >>> weak, strong = parse_clause("class(0) :- less(x,0,x,2)."), parse_clause("class(0) :- less(x,0,x,1), less(x,1,x,2).")
    >>> implied(strong, [weak], sites), implied(weak, [strong], sites)
    (True, False)
    """
    known = Premise(clause.body, sites, question_s=question_s)
    waiting = [other for other in others if other != clause]
    while True:
        if _says(known, clause.head) or known.contradictory:
            return True
        fired = next((other for other in waiting if all(map(known.entails, other.body))), None)
        if fired is None:
            return False
        if fired.head is None:
            return True
        waiting.remove(fired)
        known.add(fired.head)


def _says(known: Premise, head: Predicate | None) -> bool:
    return head is not None and known.entails(head)


def _term(formula: Formula) -> z3.BoolRef:
    match formula:
        case Atom():
            total = z3.Sum(
                _number(formula.bias), *(_number(t.coefficient) * _variable((t.value, t.index)) for t in formula.terms)
            )
            return total < 0 if formula.strict else total <= 0
        case _:
            parts = list(_parts(formula.parts))
            return z3.And(*parts) if isinstance(formula, And) else z3.Or(*parts)


def _parts(parts: Iterable[Formula]) -> Iterator[z3.BoolRef]:
    return (_term(part) for part in parts)


def _number(value: Fraction) -> z3.RatNumRef:
    return z3.Q(value.numerator, value.denominator)


def _variable(entry: tuple[str, int]) -> z3.ArithRef:
    return z3.Real(f"{entry[0]}[{entry[1]}]")
