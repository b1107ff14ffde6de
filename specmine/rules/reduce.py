"""Drop the literals that others of the same neuron imply."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause


@dataclass(frozen=True)
class Limits:
    """What literals say of one neuron: lower <= z <= upper, or lower < z where strict; infinite sides say nothing."""

    lower: float = -math.inf
    strict: bool = False
    upper: float = math.inf


def reduce_body(clause: HornClause) -> HornClause:
    """A clause of the same meaning with at most one literal for each neuron, two where one form cannot say both sides.

    active, inactive, above, below and within on one neuron are joined to their intersection; other forms stay.

    >>> from specmine.rules.syntax import parse_clause
    >>> str(reduce_body(parse_clause("false :- active(h1,0), above(h1,0,1), above(h1,0,2), below(h1,0,3).")))
    'false :- within(h1,0,2.0,3.0).'
    """
    return HornClause(clause.head, tuple(reduce_literals(clause.body)))


def reduce_literals(literals: Iterable[Predicate]) -> list[Predicate]:
    """The same for a conjunction of literals."""
    limits: dict[tuple[str, int], Limits] = {}
    others: list[Predicate] = []
    for literal in literals:
        own = limits_of(literal)
        if own is None:
            others.append(literal)
        else:
            neuron = (str(literal.arguments[0]), int(literal.arguments[1]))
            limits[neuron] = _intersection(limits.get(neuron, Limits()), own)
    return others + [literal for (site, neuron), own in limits.items() for literal in _literals(site, neuron, own)]


def limits_of(literal: Predicate) -> Limits | None:
    """The limits that a literal puts on its neuron, None for a form that is not about one neuron."""
    match literal:
        case Predicate("active"):
            return Limits(lower=0.0, strict=True)
        case Predicate("inactive"):
            return Limits(upper=0.0)
        case Predicate("above", (_, _, threshold)):
            return Limits(lower=float(threshold))
        case Predicate("below", (_, _, threshold)):
            return Limits(upper=float(threshold))
        case Predicate("within", (_, _, low, high)):
            return Limits(lower=float(low), upper=float(high))
    return None


def implies(stronger: Limits, weaker: Limits) -> bool:
    """Whether every value within the first lies within the second."""
    return _intersection(stronger, weaker) == stronger


def _intersection(first: Limits, second: Limits) -> Limits:
    lower, strict = max((first.lower, first.strict), (second.lower, second.strict))
    return Limits(lower, strict, min(first.upper, second.upper))


def _literals(site: str, neuron: int, limits: Limits) -> list[Predicate]:
    low, high = limits.lower, limits.upper
    if not limits.strict and -math.inf < low <= high < math.inf:
        return [Predicate("within", (site, neuron, low, high))]
    below = Predicate("inactive", (site, neuron)) if high == 0 else Predicate("below", (site, neuron, high))
    above = Predicate("active", (site, neuron)) if limits.strict else Predicate("above", (site, neuron, low))
    return ([above] if low > -math.inf else []) + ([below] if high < math.inf else [])
