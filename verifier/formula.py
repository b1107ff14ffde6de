"""Linear formulas over named network values, with exact coefficients.

Convention: an atom says `sum of terms + bias <= 0`, or `< 0` where it is strict. There is no negation node: `negate` pushes
it inward, where it flips the sign and the strictness of each atom.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import TypeAlias, assert_never

from verifier.errors import BadQuery


@dataclass(frozen=True, order=True)
class Term:
    """coefficient * value[index]; index counts the value's entries in C order."""

    value: str
    index: int
    coefficient: Fraction


@dataclass(frozen=True, order=True)
class Atom:
    """sum(terms) + bias <= 0, or < 0 if strict. At most one term for each entry, none with coefficient 0."""

    terms: tuple[Term, ...]
    bias: Fraction
    strict: bool = False

    @cached_property
    def _hash(self) -> int:
        return hash((self.terms, self.bias, self.strict))

    def __hash__(self) -> int:  # hashing fractions is slow, and premises of a thousand atoms are shared by many disjuncts
        return self._hash


@dataclass(frozen=True)
class And:
    """Every part holds; true without parts."""

    parts: tuple["Formula", ...]


@dataclass(frozen=True)
class Or:
    """Some part holds; false without parts."""

    parts: tuple["Formula", ...]


Formula: TypeAlias = Atom | And | Or
TRUE = And(())
FALSE = Or(())

MAX_DISJUNCTS = 100_000


def atom(
    terms: Mapping[tuple[str, int], Fraction | int | float], bias: Fraction | int | float, *, strict: bool = False
) -> Atom:
    """The atom sum(c * value[index]) + bias <= 0 (< 0 if strict); floats count as the exact rationals they are.

    >>> atom({("y", 0): 1, ("y", 1): -1}, 0) == Atom((Term("y", 0, Fraction(1)), Term("y", 1, Fraction(-1))), Fraction(0))
    True
    """
    exact = {key: Fraction(c) for key, c in terms.items()}
    kept = sorted(Term(value, index, c) for (value, index), c in exact.items() if c)
    return Atom(tuple(kept), Fraction(bias), strict)


def at_least(value: str, index: int, threshold: Fraction | int | float, *, strict: bool = False) -> Atom:
    """value[index] >= threshold (> if strict)."""
    return atom({(value, index): -1}, Fraction(threshold), strict=strict)


def at_most(value: str, index: int, threshold: Fraction | int | float, *, strict: bool = False) -> Atom:
    """value[index] <= threshold (< if strict)."""
    return atom({(value, index): 1}, -Fraction(threshold), strict=strict)


def negate(formula: Formula) -> Formula:
    """The formula that holds exactly where this one does not."""
    match formula:
        case Atom():
            flipped = tuple(Term(t.value, t.index, -t.coefficient) for t in formula.terms)
            return Atom(flipped, -formula.bias, not formula.strict)
        case And(parts=parts):
            return Or(tuple(negate(part) for part in parts))
        case Or(parts=parts):
            return And(tuple(negate(part) for part in parts))
        case _:
            assert_never(formula)


def conjoin(*formulas: Formula) -> Formula:
    """The conjunction, with nested conjunctions flattened."""
    parts: list[Formula] = []
    for formula in formulas:
        parts.extend(formula.parts if isinstance(formula, And) else [formula])
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def disjuncts(formula: Formula) -> tuple[tuple[Atom, ...], ...]:
    """Disjunctive normal form: one tuple of atoms for each way to satisfy the formula, repeats dropped.

    Raises BadQuery past MAX_DISJUNCTS.
    """
    match formula:
        case Atom():
            return ((formula,),)
        case Or(parts=parts):
            merged = tuple(dict.fromkeys(conjunct for part in parts for conjunct in disjuncts(part)))
            _check_size(len(merged))
            return merged
        case And(parts=parts):
            factors = [disjuncts(part) for part in parts]
            size = 1
            for factor in factors:
                size *= len(factor)
                _check_size(size)
            joined = (tuple(dict.fromkeys(a for conjunct in choice for a in conjunct)) for choice in product(*factors))
            return tuple(dict.fromkeys(joined))
        case _:
            assert_never(formula)


def _check_size(count: int) -> None:
    if count > MAX_DISJUNCTS:
        raise BadQuery(f"the assertion has over {MAX_DISJUNCTS} disjuncts in normal form; split it into several queries")


def atoms_of(formula: Formula) -> Iterator[Atom]:
    """Every atom of the formula, left to right."""
    if isinstance(formula, Atom):
        yield formula
    else:
        for part in formula.parts:
            yield from atoms_of(part)


def holds(formula: Formula, values: Mapping[str, Sequence[Fraction]]) -> bool:
    """Whether the formula holds, in exact arithmetic; `values` maps each value name to its flat exact entries."""
    match formula:
        case Atom():
            total = left_side(formula, values)
            return total < 0 or (total == 0 and not formula.strict)
        case And(parts=parts):
            return all(holds(part, values) for part in parts)
        case Or(parts=parts):
            return any(holds(part, values) for part in parts)
        case _:
            assert_never(formula)


def left_side(atom: Atom, values: Mapping[str, Sequence[Fraction]]) -> Fraction:
    """sum(terms) + bias, exactly."""
    return sum((t.coefficient * Fraction(values[t.value][t.index]) for t in atom.terms), atom.bias)
