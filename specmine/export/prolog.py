"""A logic program: test samples as facts, clauses as rules, so that a query explains itself.

    ?- class(Sample, Class).              the class that some clause derives
    ?- fired(Sample, Clause, Class).      and the clause that fired
    ?- holds(Sample, Predicate).          a predicate of some body
    ?- claim(Clause, Region, Verdict).    what is proved of the clause, and where

ISO core, quoted atoms where needed, no directives but dynamic and discontiguous. Numbers are the float64 values of the trace
written so that they read back identically; comparisons of one neuron with a threshold, or of two neurons, are therefore the
same as in Python, and longer linear forms are summed in float64, left to right.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from specmine.exhibit import Exhibit
from specmine.export.header import claim_lines, run_lines
from specmine.folder import write_text
from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate, quoted
from specmine.rules.clause import HornClause
from specmine.tracing import column
from verifier.formula import Atom, atoms_of

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
    atoms = {p: tuple(atoms_of(denote(p, exhibit.sites))) for p in predicates}
    yield from (f"% {line}".rstrip() for line in run_lines(exhibit.spec))
    for name in DYNAMIC:
        yield f":- dynamic({name})."
        yield f":- discontiguous({name})."
    yield ""
    yield "class(Sample, Class) :- fired(Sample, _, Class), integer(Class)."
    for predicate in predicates:
        yield _predicate_rule(predicate, atoms[predicate], exhibit)
    for clause in clauses:
        yield from _clause_rules(clause, exhibit)
    yield from _facts(exhibit, [a for parts in atoms.values() for a in parts])


def _predicate_rule(predicate: Predicate, atoms: Sequence[Atom], exhibit: Exhibit) -> str:
    keys = sorted({(t.value, t.index) for atom in atoms for t in atom.terms})
    variables = {key: f"V{position}" for position, key in enumerate(keys)}
    goals = [f"value(Sample, {quoted(exhibit.site_of(v))}, {i}, {variables[v, i]})" for v, i in keys]
    goals += [comparison(atom, variables) for atom in atoms]
    return f"holds(Sample, {term(predicate)}) :- {', '.join(goals) or 'label(Sample, _)'}."


def comparison(atom: Atom, variables: dict[tuple[str, int], str]) -> str:
    """The atom as an arithmetic goal: positive terms on the left, the rest on the right, so that a threshold stands alone."""
    left = [(t.coefficient, variables[t.value, t.index]) for t in atom.terms if t.coefficient > 0]
    right = [(-t.coefficient, variables[t.value, t.index]) for t in atom.terms if t.coefficient < 0]
    scale = abs(atom.terms[0].coefficient) if len(atom.terms) == 1 else Fraction(1)
    bias = -atom.bias / scale
    sides = [[_product(c / scale, v) for c, v in side] for side in (left, right)]
    if bias or not sides[1]:
        at_left = not sides[0] and bool(sides[1])
        sides[0 if at_left else 1].append(number(float(-bias if at_left else bias)))
    texts = [" + ".join(side) or "0.0" for side in sides]
    return f"{texts[0]} {'<' if atom.strict else '=<'} {texts[1]}"


def _product(coefficient: Fraction, variable: str) -> str:
    return variable if coefficient == 1 else f"{number(float(coefficient))} * {variable}"


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
    yield from (f"predicted({row}, {int(exhibit.trace.predictions[row])})." for row in rows)
    for value, index in keys:
        site = exhibit.site_of(value)
        values = column(exhibit.trace, site)[:, index]
        yield from (f"value({row}, {quoted(site)}, {index}, {number(values[row])})." for row in rows)
