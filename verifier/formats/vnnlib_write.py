"""Queries as VNN-LIB text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import assert_never

from verifier.errors import BadQuery
from verifier.formats.vnnlib2 import entry_text
from verifier.formats.vnnlib_declarations import quoted
from verifier.formats.vnnlib_tokens import LARGEST, MAX_DIGITS
from verifier.formula import And, Atom, Formula, Or, Term, atoms_of
from verifier.query import Query
from verifier.region import constraints, exact_bounds

VERSIONS = ("2.0", "1.0")
NETWORK_NAME = "f"


def write_vnnlib(query: Query, *, version: str = "2.0", header: Sequence[str] = ()) -> str:
    """The query as VNN-LIB text, satisfiable exactly if some input of the region meets the assertion.

    Version 2.0 declares one network `f` with input X, output Y and each other value that the query speaks of as a hidden
    value H0, H1, ... by its name in the model; all of type real. Version 1.0 knows inputs X_i and outputs Y_i alone. Numbers
    are exact decimals; an inequality with other fractions is multiplied out.

    header: comment lines at the top. Raises BadQuery for another version, and for hidden values in version 1.0.
    """
    if version not in VERSIONS:
        raise BadQuery(f"VNN-LIB version {version!r} is not written; allowed are {', '.join(VERSIONS)}")
    lines = [f"; {line}".rstrip() for text in header for line in (text.splitlines() or [""])]
    names = _names2(query) if version == "2.0" else _names1(query)
    lines += names.declarations
    lines += [f"(assert {text})" for text in _asserted(query, names.entry)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Names:
    """How a version declares the values of a query, and how it spells an entry."""

    declarations: Sequence[str]
    entry: Callable[[str, int], str]


def _hidden(query: Query) -> list[str]:
    """The values between input and output that the query speaks of, in the network's order."""
    parts = [*constraints(query.region), *atoms_of(query.assertion)]
    spoken = {term.value for part in parts for term in part.terms}
    return [name for name in query.network.shapes if name in spoken - {query.network.input, query.network.output}]


def _names1(query: Query) -> _Names:
    network, hidden = query.network, _hidden(query)
    if hidden:
        raise BadQuery(f"VNN-LIB 1.0 has no hidden values, and the query speaks of {', '.join(hidden[:5])}; write version 2.0")
    letters = {network.output: "Y", network.input: "X"}
    declarations = [f"(declare-const X_{i} Real)" for i in range(network.size(network.input))]
    declarations += [f"(declare-const Y_{i} Real)" for i in range(network.size(network.output))]
    return _Names(declarations, lambda value, index: f"{letters[value]}_{index}")


def _names2(query: Query) -> _Names:
    network = query.network
    hidden = {value: f"H{number}" for number, value in enumerate(_hidden(query))}
    names = {**hidden, network.output: "Y", network.input: "X"}

    def declared(kind: str, name: str, value: str) -> str:
        shape = ",".join(map(str, network.shapes[value]))
        return f"(declare-{kind} {name} real [{shape}]" + (f" {quoted(value)})" if kind == "hidden" else ")")

    declarations = ["(vnnlib-version <2.0>)", f"(declare-network {NETWORK_NAME}"]
    declarations.append(f"  {declared('input', 'X', network.input)}")
    declarations += [f"  {declared('hidden', name, value)}" for value, name in hidden.items()]
    declarations += [f"  {declared('output', 'Y', network.output)}", ")"]
    return _Names(declarations, lambda value, index: entry_text(names[value], network.shapes[value], index))


def _asserted(query: Query, entry: Callable[[str, int], str]) -> Iterator[str]:
    x = query.network.input
    for index, (low, high) in enumerate(zip(*exact_bounds(query.region), strict=True)):
        yield _atom_text(Atom((Term(x, index, Fraction(-1)),), low), entry)
        yield _atom_text(Atom((Term(x, index, Fraction(1)),), -high), entry)
    for part in (*constraints(query.region), *_conjuncts(query.assertion)):
        yield _text(part, entry)


def _conjuncts(formula: Formula) -> Sequence[Formula]:
    return formula.parts if isinstance(formula, And) else (formula,)


def _text(formula: Formula, entry: Callable[[str, int], str]) -> str:
    match formula:
        case Atom():
            return _atom_text(formula, entry)
        case And(parts=parts) | Or(parts=parts):
            if not parts:  # the language has no words for true and false
                return "(<= 0.0 0.0)" if isinstance(formula, And) else "(< 0.0 0.0)"
            connective = "and" if isinstance(formula, And) else "or"
            return f"({connective} {' '.join(_text(part, entry) for part in parts)})"
        case _:
            assert_never(formula)


def _atom_text(atom: Atom, entry: Callable[[str, int], str]) -> str:
    """The atom as a comparison of a sum with a number; v <= t or v >= t where it has one entry."""
    coefficients = [term.coefficient for term in atom.terms]
    factor = _factor([*coefficients, atom.bias])
    relation = "<" if atom.strict else "<="
    if len(coefficients) == 1:
        (c,) = coefficients
        if _is_decimal(atom.bias / c) and abs(atom.bias / c) <= LARGEST:
            factor = 1 / abs(c)
        if c < 0:
            relation, factor = relation.replace("<", ">"), -factor
    terms = [_term_text(term.coefficient * factor, entry(term.value, term.index)) for term in atom.terms]
    left = f"(+ {' '.join(terms)})" if len(terms) > 1 else terms[0] if terms else "0.0"
    return f"({relation} {left} {decimal(-atom.bias * factor)})"


def _term_text(coefficient: Fraction, entry: str) -> str:
    if abs(coefficient) == 1:
        return entry if coefficient > 0 else f"(- {entry})"
    return f"(* {decimal(coefficient)} {entry})"


def _factor(numbers: Sequence[Fraction]) -> Fraction:
    """A positive number that makes decimals of all of these."""
    odd = lcm(*(_without_tens(number.denominator) for number in numbers))
    return Fraction(odd, 10 ** max(len(str(odd)) - 1, 0))


def _without_tens(denominator: int) -> int:
    """The denominator without its factors 2 and 5."""
    rest = denominator >> ((denominator & -denominator).bit_length() - 1)
    while rest % 5 == 0:
        rest //= 5
    return rest


def _is_decimal(number: Fraction) -> bool:
    return _without_tens(number.denominator) == 1


def decimal(number: Fraction) -> str:
    """The exact decimal of a number whose denominator has no factors but 2 and 5, with a point in it.

    >>> decimal(Fraction(-3, 8))
    '-0.375'
    """
    assert _is_decimal(number), f"{number} has no finite decimal"
    twos = (number.denominator & -number.denominator).bit_length() - 1
    places = max(1, twos, _fives(number.denominator >> twos))
    if places + number.numerator.bit_length() // 3 > MAX_DIGITS:
        raise BadQuery(f"a number of about {places} decimal places in the query; at most {MAX_DIGITS} digits are written")
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    return ("-" if number < 0 else "") + digits[:-places] + "." + digits[-places:]


def _fives(power_of_five: int) -> int:
    count = 0
    while power_of_five > 1:
        power_of_five //= 5
        count += 1
    return count
