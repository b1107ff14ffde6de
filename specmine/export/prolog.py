"""A logic program: test samples as facts, clauses as rules, so that a query explains itself.

    ?- class(Sample, Class).              the class that some clause derives
    ?- fired(Sample, Clause, Class).      and the clause that fired
    ?- holds(Sample, Predicate).          a predicate of some body
    ?- claim(Clause, Region, Verdict).    what is proved of the clause, and where

ISO core, quoted atoms where needed, no directives but dynamic and discontiguous. Numbers are the float64 values of the trace
written so that they read back identically, and every comparison is exact: one neuron with a threshold, or two neurons, as
floats; other sums as rationals, by the functions rational/1 and rdiv/2 of SWI-Prolog's arithmetic, which ISO lacks.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import assert_never

import numpy as np

from specmine.exhibit import Exhibit
from specmine.export.header import claim_lines, run_lines
from specmine.folder import write_text
from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate, quoted
from specmine.rules.clause import HornClause
from specmine.tracing import trace
from verifier.formula import And, Atom, Formula, Or, atoms_of

MAX_FACTS = 400_000
DYNAMIC = ("value/4", "label/2", "predicted/2", "holds/2", "fired/3", "claim/3", "class/2")


def export_prolog(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Writes clauses.pl; its facts are the first test samples, as many as stay below MAX_FACTS."""
    path = folder / "clauses.pl"
    write_text(path, "\n".join(_lines(exhibit)) + "\n")
    return [path]


def number(value: float) -> str:
    """A float64 as ISO Prolog reads it back: the shortest digits, always with a point.

    >>> number(1e-05), number(2.0), number(-0.25)
    ('1.0e-05', '2.0', '-0.25')
    """
    text = repr(float(value))
    mantissa, mark, exponent = text.partition("e")
    return (mantissa if "." in mantissa else mantissa + ".0") + mark + exponent


def term(predicate: Predicate) -> str:
    """The predicate as a ground Prolog term.

    >>> term(Predicate("above", ("h2", 12, 0.75)))
    'above(h2, 12, 0.75)'
    """
    arguments = (
        quoted(a) if isinstance(a, str) else number(a) if isinstance(a, float) else str(a) for a in predicate.arguments
    )
    return f"{quoted(predicate.form)}({', '.join(arguments)})"


def _lines(exhibit: Exhibit) -> Iterator[str]:
    clauses = exhibit.spec.clauses
    predicates = sorted({p for clause in clauses for p in clause.body})
    formulas = {p: denote(p, exhibit.sites) for p in predicates}
    yield from (f"% {line}".rstrip() for line in run_lines(exhibit.spec))
    for name in DYNAMIC:
        yield f":- dynamic({name})."
        yield f":- discontiguous({name})."
    yield ""
    yield "class(Sample, Class) :- fired(Sample, _, Class), integer(Class)."
    for predicate in predicates:
        yield _predicate_rule(predicate, formulas[predicate], exhibit)
    for clause in clauses:
        yield from _clause_rules(clause, exhibit)
    yield from _facts(exhibit, [a for formula in formulas.values() for a in atoms_of(formula)])


def _predicate_rule(predicate: Predicate, formula: Formula, exhibit: Exhibit) -> str:
    keys = sorted({(t.value, t.index) for atom in atoms_of(formula) for t in atom.terms})
    variables = {key: f"V{position}" for position, key in enumerate(keys)}
    goals = [f"value(Sample, {quoted(exhibit.site_of(v))}, {i}, {variables[v, i]})" for v, i in keys] or ["label(Sample, _)"]
    return f"holds(Sample, {term(predicate)}) :- {', '.join([*goals, goal(formula, variables)])}."


def goal(formula: Formula, variables: Mapping[tuple[str, int], str]) -> str:
    """The formula as a goal over variables by value and index; it succeeds once at most."""
    match formula:
        case Atom():
            return comparison(formula, variables)
        case And(parts=parts):
            return ", ".join(goal(part, variables) for part in parts) or "true"
        case Or(parts=parts):
            return f"once(({' ; '.join(goal(part, variables) for part in parts) or 'fail'}))"
        case _:
            assert_never(formula)


def comparison(atom: Atom, variables: Mapping[tuple[str, int], str]) -> str:
    """The atom as an arithmetic goal, decided without rounding: positive terms on the left, the rest on the right.

    >>> from verifier.formula import at_least, atom
    >>> comparison(at_least("h", 0, 0.75), {("h", 0): "A"})
    '0.75 =< A'
    >>> comparison(atom({("h", 0): 1, ("h", 1): -1}, 0.5), {("h", 0): "A", ("h", 1): "B"})
    'rational(A) + rational(0.5) =< rational(B)'
    """
    relation = "<" if atom.strict else "=<"
    plain = _plain_sides(atom, variables)
    if plain is not None:
        return f"{plain[0]} {relation} {plain[1]}"
    sides: tuple[list[str], list[str]] = ([], [])
    for t in atom.terms:
        sides[t.coefficient < 0].append(_product(abs(t.coefficient), variables[t.value, t.index]))
    if atom.bias:
        sides[atom.bias < 0].append(_rational(abs(atom.bias)))
    texts = [" + ".join(side) or "0" for side in sides]
    return f"{texts[0]} {relation} {texts[1]}"


def _plain_sides(atom: Atom, variables: Mapping[tuple[str, int], str]) -> tuple[str, str] | None:
    """Two floats whose comparison is the atom's: a neuron and a threshold, or two neurons; None where there are none."""
    scales = [t.coefficient for t in atom.terms]
    names = [variables[t.value, t.index] for t in atom.terms]
    if len(scales) == 1:
        bound = -atom.bias / scales[0]
        if _is_float(bound):
            return (names[0], number(float(bound))) if scales[0] > 0 else (number(float(bound)), names[0])
    if len(scales) == 2 and sum(scales) == 0 and not atom.bias:
        return (names[0], names[1]) if scales[0] > 0 else (names[1], names[0])
    return None


def _is_float(value: Fraction) -> bool:
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False


def _product(coefficient: Fraction, variable: str) -> str:
    return f"rational({variable})" if coefficient == 1 else f"{_rational(coefficient)} * rational({variable})"


def _rational(value: Fraction) -> str:
    if value.denominator == 1 and value < 10**15:
        return str(value)
    if _is_float(value):
        return f"rational({number(float(value))})"
    return f"({value.numerator} rdiv {value.denominator})"


def _clause_rules(clause: HornClause, exhibit: Exhibit) -> Iterator[str]:
    claims = [claim for claim in exhibit.spec.claims if claim.clause == clause]
    name = quoted(clause.id)
    yield ""
    for claim in claims:
        yield from (f"% {line}" for line in claim_lines(claim))
        yield f"claim({name}, {quoted(claim.region.name)}, {claim.outcome.verdict})."
    body = ",\n    ".join(f"holds(Sample, {term(p)})" for p in clause.body) or "label(Sample, _)"
    yield f"fired(Sample, {name}, {head_term(clause)}) :-\n    {body}."


def head_term(clause: HornClause) -> str:
    """The third argument of fired: the class itself, `false`, or the head as a term."""
    if clause.head is None:
        return "false"
    return str(clause.head.arguments[0]) if clause.head.form == "class" else term(clause.head)


def _facts(exhibit: Exhibit, atoms: Iterable[Atom]) -> Iterator[str]:
    keys = sorted({(t.value, t.index) for atom in atoms for t in atom.terms})
    rows = exhibit.test_rows[: max(1, MAX_FACTS // max(1, len(keys)))]
    yield f"\n% {len(rows)} of {len(exhibit.test_rows)} test samples; a sample is named by its row in the data"
    yield from (f"label({row}, {int(exhibit.dataset.y[row])})." for row in rows)
    yield from (f"predicted({row}, {int(exhibit.predictions[row])})." for row in rows)
    sites = sorted({exhibit.site_of(value) for value, _ in keys})
    columns = trace(exhibit.sites, np.asarray(exhibit.dataset.x[rows]), keep=sites).values if rows else {}
    for value, index in keys if rows else ():
        site = exhibit.site_of(value)
        values = zip(rows, columns[site][:, index].tolist(), strict=True)
        yield from (f"value({row}, {quoted(site)}, {index}, {number(v)})." for row, v in values)
