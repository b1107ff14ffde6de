"""From the assertions of a VNN-LIB file to a query: the input box, and what is left to say."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from verifier.errors import BadQuery
from verifier.formats.vnnlib_tokens import LARGEST
from verifier.formula import TRUE, And, Atom, Formula, Or, conjoin
from verifier.network import Network
from verifier.query import Query
from verifier.region import Box, ExactBox

Side: TypeAlias = Fraction | None
Sides: TypeAlias = dict[int, tuple[Side, Side]]
"""Lower and upper bound of input entries; None, or no entry, where nothing is known."""

MAX_ATOMS = 20_000_000
TOO_MANY = MAX_ATOMS + 1


def build_query(network: Network, asserted: Sequence[Formula], spelled: Callable[[int], str], name: str) -> Query:
    """The query whose solutions are the inputs that satisfy every asserted formula, exactly.

    The region is the smallest box around the inputs that the bounds allow, over all ways to choose from each `or`; a bound
    that the box already says is dropped from the assertion, all others stay. Where bounds contradict each other the box
    spans from one to the other and both bounds stay in the assertion.

    spelled: the file's name of an input entry. Raises BadQuery for an entry without a lower or an upper bound.
    """
    whole = conjoin(*asserted)
    sides: Sides = {}
    for part in whole.parts if isinstance(whole, And) else (whole,):
        _meet(sides, _hull(part, network.input) or {})
    lower, upper = _box_sides(network, sides, spelled, name)
    rest = _without(whole, network.input, lower, upper)
    _check_size(rest, name)
    return Query(network, _region(lower, upper), rest)


def _hull(formula: Formula, value: str) -> Sides | None:
    """Bounds on the entries of a value that follow from the formula; None where they contradict each other."""
    match formula:
        case Atom():
            return _half_line(formula, value)
        case And(parts=parts):
            met: Sides = {}
            for part in parts:
                sides = _hull(part, value)
                if sides is None or not _meet(met, sides):
                    return None
            return met
        case Or(parts=parts):
            return _join([sides for part in parts if (sides := _hull(part, value)) is not None])


def _half_line(atom: Atom, value: str) -> Sides:
    if len(atom.terms) != 1 or atom.terms[0].value != value:
        return {}
    (term,) = atom.terms
    threshold = _threshold(term.coefficient, atom.bias)
    if abs(threshold) > LARGEST:  # no float64 holds it, so the box does without and the atom stays in the assertion
        return {}
    return {term.index: (None, threshold) if term.coefficient > 0 else (threshold, None)}


def _threshold(coefficient: Fraction, bias: Fraction) -> Fraction:
    """-bias / coefficient, without a division in the common cases."""
    return -bias if coefficient == 1 else bias if coefficient == -1 else -bias / coefficient


def _meet(kept: Sides, sides: Sides) -> bool:
    """Add bounds to those kept; whether they leave a point for every entry."""
    consistent = True
    for index, (low, high) in sides.items():
        if index in kept:
            a, b = kept[index]
            low, high = _tighter(a, low, max), _tighter(b, high, min)
        kept[index] = low, high
        consistent &= low is None or high is None or low <= high
    return consistent


def _tighter(a: Side, b: Side, choose: Callable[[Fraction, Fraction], Fraction]) -> Side:
    return b if a is None else a if b is None else choose(a, b)


def _join(alternatives: Sequence[Sides]) -> Sides | None:
    if not alternatives:
        return None
    first, *rest = alternatives
    joined = dict(first)
    for sides in rest:
        for index in [index for index in joined if index not in sides]:
            del joined[index]
        for index, (a, b) in joined.items():
            low, high = sides[index]
            joined[index] = (
                None if a is None or low is None else min(a, low),
                None if b is None or high is None else max(b, high),
            )
    return joined


def _box_sides(
    network: Network, sides: Sides, spelled: Callable[[int], str], name: str
) -> tuple[list[Fraction], list[Fraction]]:
    lower, upper = [], []
    for index in range(network.size(network.input)):
        low, high = sides.get(index, (None, None))
        if low is None or high is None:
            side, relation = ("lower", ">=") if low is None else ("upper", "<=")
            raise BadQuery(
                f"{name}: input {spelled(index)} has no {side} bound; every input needs both, "
                f"say (assert ({relation} {spelled(index)} NUMBER))"
            )
        lower.append(min(low, high))
        upper.append(max(low, high))
    return lower, upper


def _region(lower: Sequence[Fraction], upper: Sequence[Fraction]) -> Box | ExactBox:
    """A box of float64 where that is exact, else one of rationals."""
    low, high = (np.array([float(v) for v in side]) for side in (lower, upper))
    if list(map(Fraction, low.tolist())) == list(lower) and list(map(Fraction, high.tolist())) == list(upper):
        return Box(low, high)
    return ExactBox(tuple(lower), tuple(upper))


def _without(formula: Formula, value: str, lower: Sequence[Fraction], upper: Sequence[Fraction]) -> Formula:
    """What the formula says beyond the box: the two agree on every point of it."""
    match formula:
        case Atom():
            return TRUE if _implied(formula, value, lower, upper) else formula
        case And(parts=parts):
            kept = [piece for part in parts for piece in _pieces(_without(part, value, lower, upper), And)]
            return kept[0] if len(kept) == 1 else And(tuple(kept))
        case Or(parts=parts):
            left = [piece for part in parts for piece in _pieces(_without(part, value, lower, upper), Or)]
            if TRUE in left:
                return TRUE
            return left[0] if len(left) == 1 else Or(tuple(left))


def _pieces(formula: Formula, kind: type[And] | type[Or]) -> tuple[Formula, ...]:
    """The parts of a connective of this kind, else the formula itself: nested ones are flattened."""
    return formula.parts if isinstance(formula, And | Or) and isinstance(formula, kind) else (formula,)


def _implied(atom: Atom, value: str, lower: Sequence[Fraction], upper: Sequence[Fraction]) -> bool:
    if len(atom.terms) != 1 or atom.terms[0].value != value:
        return False
    (term,) = atom.terms
    threshold = _threshold(term.coefficient, atom.bias)
    # sound: v <= t holds on all of [l, u] exactly if u <= t, and v < t if u < t; so for the other side
    if term.coefficient > 0:
        return upper[term.index] < threshold or (upper[term.index] == threshold and not atom.strict)
    return lower[term.index] > threshold or (lower[term.index] == threshold and not atom.strict)


def _check_size(formula: Formula, name: str) -> None:
    if _normal_form(formula)[1] > MAX_ATOMS:
        raise BadQuery(
            f"{name}: the assertion has over {MAX_ATOMS} atoms in disjunctive normal form; split it into several queries"
        )


def _normal_form(formula: Formula) -> tuple[int, int]:
    """How many conjunctions the disjunctive normal form has at most, and how many atoms all together; capped past MAX_ATOMS."""
    match formula:
        case Atom():
            return 1, 1
        case Or(parts=parts):
            counted = [_normal_form(part) for part in parts]
            return min(sum(ways for ways, _ in counted), TOO_MANY), min(sum(atoms for _, atoms in counted), TOO_MANY)
        case And(parts=parts):
            ways, atoms = 1, 0
            for more_ways, more_atoms in map(_normal_form, parts):
                atoms = min(atoms * more_ways + ways * more_atoms, TOO_MANY)
                ways = min(ways * more_ways, TOO_MANY)
            return ways, atoms
